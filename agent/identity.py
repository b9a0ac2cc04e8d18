"""The agent's own keys: K_rec (records), K_log (checkpoints), the TLS key; and enrolment.

Files in the state folder, readable by the agent's user only. Keys never leave the machine and are never backed up: a
new machine is a new epoch.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.errors import AgentError
from wire.errors import BadKey
from wire.keys import SigningKey, b64

REC, LOG, TLS = "rec.key", "log.key", "tls.key"


@dataclass(frozen=True, slots=True)
class Keys:
    """Signing keys of one site."""

    rec: SigningKey
    log: SigningKey


def _write_secret(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read_secret(path: Path) -> bytes:
    """The bytes of a key file that nobody else can read.

    Raises:
        AgentError: missing, or open to others.
    """
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise AgentError(f"{path}: readable by others (mode {mode & 0o777:o}); run: chmod 600 {path}")
        return path.read_bytes()
    except FileNotFoundError:
        raise AgentError(f"{path}: no such key; run: tizgin agent enroll --config <site file>") from None
    except PermissionError as error:
        raise AgentError(f"{path}: cannot be read: {error.strerror}; run the agent as the owner of this file") from None


def load_keys(state_dir: Path) -> Keys:
    """Keys made by enrolment.

    Raises:
        AgentError: missing, unreadable or open to others.
    """
    found: list[SigningKey] = []
    for name in (REC, LOG):
        try:
            found.append(SigningKey.from_pem(_read_secret(state_dir / name)))
        except BadKey as error:
            raise AgentError(f"{state_dir / name}: {error}") from None
    return Keys(*found)


def make_keys(state_dir: Path) -> None:
    """Make the keys that are missing; existing ones are kept."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (REC, LOG):
        if not (state_dir / name).exists():
            _write_secret(state_dir / name, SigningKey.generate().to_pem())
    if not (state_dir / TLS).exists():
        key = ec.generate_private_key(ec.SECP256R1())
        _write_secret(
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
    statement = f"tizgin enrolment v1\n{site}\n{epoch}\n{keys.rec.public.text}\n{keys.log.public.text}\n".encode()
    tls = serialization.load_pem_private_key(_read_secret(state_dir / TLS), None)
    if not isinstance(tls, ec.EllipticCurvePrivateKey):
        raise AgentError(f"{state_dir / TLS}: expected an EC P-256 key")
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)]))
        .sign(tls, hashes.SHA256())
    )
    return json.dumps(
        {
            "v": 1,
            "site": site,
            "epoch": epoch,
            "k_rec": keys.rec.public.text,
            "k_log": keys.log.public.text,
            "statement": statement.decode(),
            "proof_rec": b64(keys.rec.sign(statement)),
            "proof_log": b64(keys.log.sign(statement)),
            "csr": csr.public_bytes(serialization.Encoding.PEM).decode(),
            "fingerprint": " ".join(keys.rec.kid[i : i + 4] for i in range(0, 16, 4)),
        },
        indent=1,
    ).encode()
