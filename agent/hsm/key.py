"""A log key that lives in a token: what is known of it here, and how it signs.

In the state folder stands, in place of the key, where it is: JSON ``{"v": 1, "pkcs11": {"token", "key", "id"},
"public"}`` with the token's label, the key's label and CKA_ID (hex) and the public key as text. None of it is secret.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from agent.errors import AgentError
from agent.hsm.process import Token, TokenError
from config.site import Site
from wire.errors import BadKey
from wire.keys import SigningKey
from wire.logkeys import P256_HEAD, P256Key, log_public, read_log_key

TRIAL = b"tizgin: does this key sign?\n"
"""Signed to see that a key works: no checkpoint, no statement of any kind."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key in a token."""

    public: P256Key
    token: Token
    id: str
    """Its CKA_ID, hex."""

    @property
    def kid(self) -> str:
        """Key identifier."""
        return self.public.kid

    async def sign(self, message: bytes) -> bytes:
        """Signature in DER, within the token's limit.

        Raises:
            TokenError: none was made, or not by this key.
        """
        return self._good(message, await self.token.ask("sign", id=self.id, digest=_digest(message)))

    def sign_now(self, message: bytes) -> bytes:
        """As :meth:`sign`, blocking."""
        return self._good(message, self.token.ask_now("sign", id=self.id, digest=_digest(message)))

    def _good(self, message: bytes, answer: dict[str, Any]) -> bytes:
        where = f"token {self.token.label!r}: key {self.token.key!r}"
        try:
            raw = bytes.fromhex(answer["signature"])
        except (KeyError, TypeError, ValueError):
            raise TokenError("failed", f"{where}: the answer holds no signature") from None
        if len(raw) != 64:
            raise TokenError("failed", f"{where}: a signature of {len(raw)} bytes, expected 64")
        signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        if not self.public.verifies(message, signature):
            text = f"{where} does not sign as {self.kid}: another key has taken its place in the token"
            raise TokenError("key", text)
        return signature

    def reference(self) -> bytes:
        """What stands in the state folder."""
        place = {"token": self.token.label, "key": self.token.key, "id": self.id}
        return (json.dumps({"v": 1, "pkcs11": place, "public": self.public.text}, indent=1) + "\n").encode()


LogSigner = SigningKey | TokenKey
"""What signs checkpoints."""


async def sign_log(key: LogSigner, message: bytes) -> bytes:
    """A log key's signature; off the loop where the key is in a token.

    Raises:
        TokenError: the token made none.
    """
    return key.sign(message) if isinstance(key, SigningKey) else await key.sign(message)


def sign_log_now(key: LogSigner, message: bytes) -> bytes:
    """As :func:`sign_log`, blocking."""
    return key.sign(message) if isinstance(key, SigningKey) else key.sign_now(message)


def token_of(site: Site, base: Path) -> Token | None:
    """The token that the site file names for the log key; ``None`` where the key is a file.

    Args:
        site: the site file.
        base: folder that it is in.
    """
    found = site.keys.log.pkcs11
    return None if found is None else Token(found.module, found.token, found.key, base.resolve() / found.pin_file)


def look(token: Token) -> TokenKey | None:
    """The key of the label in the token, blocking; ``None`` where there is none.

    Raises:
        TokenError: the token cannot be asked, or the key is none for a log.
    """
    return _found(token, token.ask_now("look"))


def make(token: Token) -> TokenKey:
    """The key of the label in the token, blocking; made where there is none. It has signed.

    Raises:
        TokenError: see :func:`look`.
    """
    key = _found(token, token.ask_now("make"))
    if key is None:
        raise TokenError("key", f"token {token.label!r}: made no key {token.key!r}")
    key.sign_now(TRIAL)
    return key


def _found(token: Token, answer: dict[str, Any]) -> TokenKey | None:
    if answer.get("public") is None:
        return None
    try:
        public = log_public(P256_HEAD + bytes.fromhex(answer["public"]))
    except (BadKey, ValueError, TypeError) as error:
        raise TokenError("key", f"token {token.label!r}: key {token.key!r}: {error}") from None
    if not isinstance(public, P256Key):
        raise TokenError("key", f"token {token.label!r}: key {token.key!r} is not of P-256")
    return TokenKey(public, token, str(answer["id"]))


def _digest(message: bytes) -> str:
    return hashlib.sha256(message).hexdigest()


def is_reference(data: bytes) -> bool:
    """True for the words about a key in a token, false for a key."""
    return data.lstrip().startswith(b"{")


def refer(data: bytes, path: Path, token: Token | None) -> TokenKey:
    """The key that a file of the state folder speaks of; the token is not asked.

    Raises:
        AgentError: the file is not such, or the site file does not say how the token is reached.
    """
    try:
        doc = json.loads(data)
        place, public = doc["pkcs11"], read_log_key(doc["public"])
        label, key, key_id = (str(place[name]) for name in ("token", "key", "id"))
        bytes.fromhex(key_id)
    except (ValueError, KeyError, TypeError, BadKey, RecursionError) as error:
        raise AgentError(f"{path}: does not say where the key is: {type(error).__name__}: {error}") from None
    if not isinstance(public, P256Key):
        raise AgentError(f"{path}: the public key is not of P-256")
    if token is None:
        raise AgentError(
            f"{path}: the log key {public.kid} is in token {label!r}, and the site file has no keys.log.pkcs11; say "
            "there how the token is reached, until 'tizgin agent rotate --role log --to file' has changed the key"
        )
    return TokenKey(public, replace(token, label=label, key=key), key_id)
