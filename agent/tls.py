"""The site's TLS identity on disk: what a person put there, what a renewal brought, and the choice between them.

A renewed key and its certificate are one file, so that one rename makes both valid and no crash can part them. Files of
the state folder, readable by the agent's user only:

* ``tls.pending.key``: the key of a request that is under way;
* ``tls.new.pem``: key and certificate that came and were not yet used;
* ``tls.pem``: key and certificate that a connection was made with.

Whichever of ``tls.pem`` and the pair named in the site file ends later is in force: a person who puts a newer
certificate there is obeyed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.errors import AgentError
from agent.files import read_secret, sync_folder, write_secret

log = structlog.get_logger()

PENDING, NEW, RENEWED = "tls.pending.key", "tls.new.pem", "tls.pem"
AHEAD = timedelta(minutes=5)
"""How far the authority's clock may be ahead of this one."""
WARN_DAYS = (1, 7, 30)
_SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with the files that a TLS library reads it and its key from (one and the same once renewed)."""

    cert_file: Path
    key_file: Path
    certificate: x509.Certificate

    @property
    def ends(self) -> datetime:
        """When it ceases to be valid."""
        return self.certificate.not_valid_after_utc

    def due(self, now: datetime) -> bool:
        """True where less than a third of its life is left."""
        return self.ends - now < (self.ends - self.certificate.not_valid_before_utc) / 3

    def alarm(self, now: datetime) -> str | None:
        """``certificate_expired``, or ``certificate_ends:<n>d`` once 30, 7 or 1 days are left of what is overdue."""
        if self.ends <= now:
            return "certificate_expired"
        if not self.due(now):
            return None
        days = next((days for days in WARN_DAYS if self.ends - now <= timedelta(days=days)), None)
        return None if days is None else f"certificate_ends:{days}d"


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    return key.public_bytes(*_SPKI)


def read_identity(cert_file: Path, key_file: Path, site: str) -> Identity:
    """A certificate of this site and its private key, which belong together.

    Raises:
        AgentError: missing, unreadable, open to others, of another site, or not belonging together; names the file.
    """
    certificate = certificates(cert_file, "this site's certificate, as central's authority issued it")[0]
    if certificate.public_key().public_bytes(*_SPKI) != private_key(key_file).public_key().public_bytes(*_SPKI):
        raise AgentError(
            f"{cert_file}: belongs to another key than {key_file}; put the certificate issued for it there"
        )
    names = common_names(certificate)
    if names != [site]:
        raise AgentError(
            f"{cert_file}: issued to {', '.join(names) or 'nobody'}, expected {site}; ask for one of this site"
        )
    return Identity(cert_file, key_file, certificate)


def private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in a file.

    Raises:
        AgentError: missing, open to others, or no such key.
    """
    try:
        key = serialization.load_pem_private_key(read_secret(path), None)
    except (ValueError, TypeError) as error:
        raise AgentError(f"{path}: not a private key in PEM: {error}; enrol the site anew") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AgentError(f"{path}: expected an EC P-256 key")
    return key


def certificates(path: Path, what: str) -> list[x509.Certificate]:
    """Certificates of a PEM file.

    Raises:
        AgentError: there are none; says what should be there.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise AgentError(f"{path}: cannot be read ({error.strerror}); expected {what}; put it there") from None
    except ValueError:
        raise AgentError(f"{path}: no certificate in PEM; expected {what}; put it there") from None


def common_names(certificate: x509.Certificate) -> list[str]:
    """Common names of the subject."""
    return [str(n.value) for n in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def make_request(key: ec.EllipticCurvePrivateKey, site: str) -> str:
    """PKCS#10 in PEM for a site."""
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)]))
        .sign(key, hashes.SHA256())
    )
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def judge(
    text: str,
    *,
    site: str,
    key: ec.EllipticCurvePublicKey,
    authorities: Sequence[x509.Certificate],
    now: datetime,
    ends: datetime,
) -> x509.Certificate:
    """The certificate of a grant, if it is one that this site may use.

    Args:
        text: PEM; the first certificate counts.
        site: the name it has to carry.
        key: the key it was asked for.
        authorities: who may have issued it.
        now: time of here.
        ends: when the one in use ends; a new one has to end later.

    Raises:
        AgentError: what was seen and what was expected.
    """
    try:
        found = x509.load_pem_x509_certificates(text.encode("ascii"))[0]
        if found.public_key().public_bytes(*_SPKI) != public_bytes(key):
            raise AgentError("it is for another key than the one that was asked for")
        names = common_names(found)
        if names != [site]:
            raise AgentError(f"it is issued to {', '.join(names)[:100] or 'nobody'}, expected {site}")
        if not any(_issued_by(found, authority) for authority in authorities):
            raise AgentError("it is not issued by the authority that this site trusts (ca_file)")
        _check_use(found)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise AgentError(f"no certificate in PEM: {str(error)[:100]}") from None
    begins, until = found.not_valid_before_utc, found.not_valid_after_utc
    if begins > now + AHEAD:
        raise AgentError(f"it begins at {begins.isoformat()}, now is {now.isoformat()}")
    if until <= now or until <= ends:
        raise AgentError(f"it ends at {until.isoformat()}, the one in use at {ends.isoformat()}")
    return found


def _issued_by(found: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        found.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_use(found: x509.Certificate) -> None:
    for extension in found.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise AgentError("it is an authority's, expected a client's")
        if isinstance(value, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.CLIENT_AUTH not in value:
            raise AgentError("it is not for clients")


class TlsStore:
    """Owner of the files. Every method blocks on the disk, shortly.

    Args:
        state_dir: the agent's state folder.
        ca_file: certificate of the authority.
        cert_file: certificate that the site file names; ``key_file`` its key.
        site: id of the site.
    """

    def __init__(self, state_dir: Path, ca_file: Path, cert_file: Path, key_file: Path, site: str) -> None:
        self.ca_file = ca_file
        self._dir = state_dir
        self._configured = cert_file, key_file
        self._site = site

    def in_force(self) -> Identity:
        """The identity to connect with.

        Raises:
            AgentError: the one of the site file cannot be used; the message names the file.
        """
        given = read_identity(*self._configured, self._site)
        renewed = self._read(RENEWED)
        return renewed if renewed is not None and renewed.ends >= given.ends else given

    def candidate(self) -> Identity | None:
        """A certificate that came and waits for its first connection."""
        return self._read(NEW)

    def _read(self, name: str) -> Identity | None:
        path = self._dir / name
        if not path.exists():
            return None
        try:
            return read_identity(path, path, self._site)
        except AgentError as error:
            log.error("tls_file_not_usable", error=str(error))
            return None

    def authorities(self) -> list[x509.Certificate]:
        """Who may issue.

        Raises:
            AgentError: ``ca_file`` cannot be read.
        """
        return certificates(self.ca_file, "the certificate of central's authority")

    def check(self) -> None:
        """Asked before anything is started; an expired certificate is told, metering goes on without a connection.

        Raises:
            AgentError: a file cannot be used; the message names it.
        """
        authorities, now = self.authorities(), datetime.now(UTC)
        identity = self.in_force()
        if identity.ends < now:
            log.error("tls_certificate_expired", file=str(identity.cert_file), since=identity.ends.isoformat())
        if all(a.not_valid_after_utc < now for a in authorities):
            log.error("tls_authority_expired", file=str(self.ca_file))

    def pending(self) -> ec.EllipticCurvePrivateKey | None:
        """The key of the request under way."""
        path = self._dir / PENDING
        return private_key(path) if path.exists() else None

    def make_pending(self) -> ec.EllipticCurvePrivateKey:
        """The key to ask a certificate for: new, and on disk before anybody hears of it; kept until it is granted."""
        found = self.pending()
        if found is not None:
            return found
        key = ec.generate_private_key(ec.SECP256R1())
        self._put(PENDING, _pem(key))
        return key

    def keep(self, certificate: x509.Certificate) -> None:
        """Keep a granted certificate with its key; the identity in force stays what it is."""
        key = self.pending()
        if key is None:
            raise AgentError(f"{self._dir / PENDING}: no such key; ask again")
        self._put(NEW, _pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
        self._remove(PENDING)

    def accept(self) -> None:
        """The new identity made a connection: from now on it is in force."""
        (self._dir / NEW).replace(self._dir / RENEWED)
        self._remove(PENDING)  # there still where a crash came between keeping and removing

    def drop(self) -> None:
        """The new identity was refused: forget it."""
        self._remove(NEW)
        self._remove(PENDING)

    def _put(self, name: str, data: bytes) -> None:
        part = self._dir / f"{name}.part"
        part.unlink(missing_ok=True)
        write_secret(part, data)
        part.replace(self._dir / name)
        sync_folder(self._dir)

    def _remove(self, name: str) -> None:
        (self._dir / name).unlink(missing_ok=True)
        sync_folder(self._dir)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
