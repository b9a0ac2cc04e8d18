"""The agent's own keys: K_rec (records), K_log (checkpoints), the TLS key; and enrolment.

Files in the state folder, readable by the agent's user only. Keys never leave the machine and are never backed up: a
new machine is a new epoch.
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
    log: SigningKey
    next_rec: SigningKey | None = None
    next_log: SigningKey | None = None


def load_keys(state_dir: Path) -> Keys:
    """Keys made by enrolment, and those that a change of key has made.

    Raises:
        AgentError: missing, unreadable or open to others.
    """
    later = (_load(state_dir / name) if (state_dir / name).exists() else None for name in NEXT.values())
    return Keys(_load(state_dir / REC), _load(state_dir / LOG), *later)


def _load(path: Path) -> SigningKey:
    try:
        return SigningKey.from_pem(read_secret(path))
    except BadKey as error:
        raise AgentError(f"{path}: {error}") from None


def make_next(state_dir: Path, keys: Keys, role: str) -> Keys:
    """The key that is to take over in a role, on disk; made unless there is one."""
    path = state_dir / NEXT[role]
    if not path.exists():
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        write_secret(part, SigningKey.generate().to_pem())
        part.replace(path)
        sync_folder(state_dir)
    key = _load(path)
    return replace(keys, next_rec=key) if role == "k_rec" else replace(keys, next_log=key)


def promote(state_dir: Path, keys: Keys, role: str) -> Keys:
    """The next key of a role is in force: its file takes the place of the old one, which is gone for good."""
    (state_dir / NEXT[role]).replace(state_dir / (REC if role == "k_rec" else LOG))
    sync_folder(state_dir)
    if role == "k_rec":
        return replace(keys, rec=keys.next_rec or keys.rec, next_rec=None)
    return replace(keys, log=keys.next_log or keys.log, next_log=None)


def make_keys(state_dir: Path) -> None:
    """Make the keys that are missing; existing ones are kept."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (REC, LOG):
        if not (state_dir / name).exists():
            write_secret(state_dir / name, SigningKey.generate().to_pem())
    if not (state_dir / TLS).exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_secret(
            state_dir / TLS,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )


def enrolment(state_dir: Path, site: str, epoch: str) -> bytes:
    """What the registrar and the CA need, as JSON: public keys, proofs of possession, TLS request.

    Raises:
        AgentError: a key cannot be read.
    """
    keys = load_keys(state_dir)
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
            "proof_log": b64(keys.log.sign(said)),
            "proof_tls": b64(key.sign(said, ec.ECDSA(hashes.SHA256()))),
            "csr": tls.make_request(key, site),
            "fingerprint": " ".join(keys.rec.kid[i : i + 4] for i in range(0, 16, 4)),
        },
        indent=1,
    ).encode()
