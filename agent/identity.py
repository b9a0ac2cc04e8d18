"""The agent's own keys: K_rec (records), K_log (checkpoints), the TLS key; and enrolment.

Files in the state folder, readable by the agent's user only. Keys never leave the machine and are never backed up: a
new machine is a new epoch.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.errors import AgentError
from wire.errors import BadKey
from wire.keys import SigningKey, b64

log = structlog.get_logger()

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


def check_tls(ca_file: Path, cert_file: Path, key_file: Path, site: str) -> None:
    """Can these files be this site's TLS identity? Asked before anything is started.

    Raises:
        AgentError: missing, unreadable, open to others, or not belonging together; the message names the file.
    """
    authorities = _certificates(ca_file, "the certificate of central's authority")
    certificate = _certificates(cert_file, "this site's certificate, as central's authority issued it")[0]
    try:
        key = serialization.load_pem_private_key(_read_secret(key_file), None)
    except (ValueError, TypeError) as error:
        raise AgentError(f"{key_file}: not a private key in PEM: {error}; enrol the site anew") from None
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise AgentError(
            f"{cert_file}: belongs to another key than {key_file}; put the certificate issued for it there"
        )
    names = [str(n.value) for n in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [site]:
        raise AgentError(
            f"{cert_file}: issued to {', '.join(names) or 'nobody'}, expected {site}; ask for one of this site"
        )
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc < now:
        # Metering and the orders that are held go on without a connection.
        log.error("tls_certificate_expired", file=str(cert_file), since=certificate.not_valid_after_utc.isoformat())
    if all(a.not_valid_after_utc < now for a in authorities):
        log.error("tls_authority_expired", file=str(ca_file))


def _certificates(path: Path, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise AgentError(f"{path}: cannot be read ({error.strerror}); expected {what}; put it there") from None
    except ValueError:
        raise AgentError(f"{path}: no certificate in PEM; expected {what}; put it there") from None


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
