"""The agent's own keys: K_rec (records), K_log (checkpoints), the TLS key; and enrolment.

Files in the state folder, readable by the agent's user only. Keys never leave the machine and are never backed up: a
new machine is a new epoch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent import tls
from agent.errors import AgentError
from agent.files import read_secret, write_secret
from wire.enrolment import VERSION, statement
from wire.errors import BadKey
from wire.keys import SigningKey, b64

REC, LOG, TLS = "rec.key", "log.key", "tls.key"


@dataclass(frozen=True, slots=True)
class Keys:
    """Signing keys of one site."""

    rec: SigningKey
    log: SigningKey


def load_keys(state_dir: Path) -> Keys:
    """Keys made by enrolment.

    Raises:
        AgentError: missing, unreadable or open to others.
    """
    found: list[SigningKey] = []
    for name in (REC, LOG):
        try:
            found.append(SigningKey.from_pem(read_secret(state_dir / name)))
        except BadKey as error:
            raise AgentError(f"{state_dir / name}: {error}") from None
    return Keys(*found)


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
