"""The agent's own keys: K_rec (records), K_log (checkpoints), the TLS key; and enrolment.

Files in the state folder, readable by the agent's user only. Keys never leave the machine and are never backed up: a
new machine is a new epoch. K_log may be in a security token instead; its file then says where (:mod:`agent.hsm`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent import tls
from agent.errors import AgentError
from agent.files import read_secret, sync_folder, write_secret
from agent.hsm.key import LogSigner, TokenKey, is_reference, make, refer, sign_log_now
from agent.hsm.process import Token
from wire.enrolment import VERSION, statement
from wire.errors import BadKey
from wire.keys import SigningKey, b64

REC, LOG, TLS = "rec.key", "log.key", "tls.key"
NEXT = {"k_rec": "rec.next.key", "k_log": "log.next.key"}
"""Keys that are to take over; which one signs, the ledger says."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Signing keys of one site."""

    rec: SigningKey
    log: LogSigner
    next_rec: SigningKey | None = None
    next_log: LogSigner | None = None


def load_keys(state_dir: Path, token: Token | None = None) -> Keys:
    """Keys made by enrolment, and those that a change of key has made. No token is asked.

    Args:
        state_dir: where they are.
        token: how the token is reached that the site file names, if it names one.

    Raises:
        AgentError: missing, unreadable, open to others, or in a token that the site file does not name.
    """
    rec, log = (state_dir / name for name in NEXT.values())
    return Keys(
        _load(state_dir / REC),
        _load_log(state_dir / LOG, token),
        _load(rec) if rec.exists() else None,
        _load_log(log, token) if log.exists() else None,
    )


def _load(path: Path) -> SigningKey:
    try:
        return SigningKey.from_pem(read_secret(path))
    except BadKey as error:
        raise AgentError(f"{path}: {error}") from None


def _load_log(path: Path, token: Token | None) -> LogSigner:
    data = read_secret(path)
    return refer(data, path, token) if is_reference(data) else _load(path)


def make_next(state_dir: Path, keys: Keys, role: str, token: Token | None = None) -> Keys:
    """The key that is to take over in a role, on disk; made unless there is one. Blocking.

    Args:
        state_dir: where keys are.
        keys: those there are.
        role: ``k_rec`` or ``k_log``.
        token: where a log key is to live; ``None``: in a file. A next key that lives elsewhere is given up.

    Raises:
        AgentError: the token made none, or its key of that label is the one in force.
    """
    path = state_dir / NEXT[role]
    if role == "k_rec":
        if not path.exists():
            _put(path, SigningKey.generate().to_pem())
        return replace(keys, next_rec=_load(path))
    there = keys.next_log
    if there is None or _place(there) != (None if token is None else (token.label, token.key)):
        key: LogSigner = SigningKey.generate() if token is None else make(token)
        if key.public == keys.log.public:
            raise AgentError(
                f"key {token.key if token else ''!r} in the token is the one in force: give keys.log.pkcs11.key "
                "another label in the site file, start the agent anew and ask again; or ask for --to file"
            )
        _put(path, key.to_pem() if isinstance(key, SigningKey) else key.reference())
        there = key
    return replace(keys, next_log=there)


def _place(key: LogSigner) -> tuple[str, str] | None:
    return (key.token.label, key.token.key) if isinstance(key, TokenKey) else None


def _put(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    write_secret(part, data)
    part.replace(path)
    sync_folder(path.parent)


def promote(state_dir: Path, keys: Keys, role: str) -> Keys:
    """The next key of a role is in force: its file takes the place of the old one, which is gone for good."""
    (state_dir / NEXT[role]).replace(state_dir / (REC if role == "k_rec" else LOG))
    sync_folder(state_dir)
    if role == "k_rec":
        return replace(keys, rec=keys.next_rec or keys.rec, next_rec=None)
    return replace(keys, log=keys.next_log or keys.log, next_log=None)


def make_keys(state_dir: Path, token: Token | None = None) -> None:
    """Make the keys that are missing, the log key in the token where there is one; existing ones are kept. Blocking.

    Raises:
        AgentError: the token has and makes no key that can be used.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (REC, LOG):
        if not (state_dir / name).exists():
            held = token if name == LOG else None
            data = SigningKey.generate().to_pem() if held is None else make(held).reference()
            write_secret(state_dir / name, data)
    if not (state_dir / TLS).exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_secret(
            state_dir / TLS,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )


def enrolment(state_dir: Path, site: str, epoch: str, token: Token | None = None) -> bytes:
    """What the registrar and the CA need, as JSON: public keys, proofs of possession, TLS request.

    Raises:
        AgentError: a key cannot be read, or does not sign.
    """
    keys = load_keys(state_dir, token)
    key = tls.private_key(state_dir / TLS)
    said = statement(site, epoch, keys.rec.public, keys.log.public, key.public_key())
    return json.dumps(
        {
            "v": VERSION,
            "site": site,
            "epoch": epoch,
            "k_rec": keys.rec.public.text,
            "k_log": keys.log.public.text,
            "statement": said.decode(),
            "proof_rec": b64(keys.rec.sign(said)),
            "proof_log": b64(sign_log_now(keys.log, said)),
            "proof_tls": b64(key.sign(said, ec.ECDSA(hashes.SHA256()))),
            "csr": tls.make_request(key, site),
            "fingerprint": " ".join(keys.rec.kid[i : i + 4] for i in range(0, 16, 4)),
        },
        indent=1,
    ).encode()
