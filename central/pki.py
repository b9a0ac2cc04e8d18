"""TLS material of the broker and its clients: an authority of central's own, P-256 throughout.

The authority signs who may *connect*. It cannot sign an order or a record: those keys never come near central.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from central.errors import CentralError
from central.paths import COLLECTOR_NAME, Paths, write_private, write_public
from wire.errors import WireError
from wire.keys import SigningKey
from wire.names import check_site

CA_YEARS = 20
LEAF_DAYS = 730
"""Of central's own certificates; those of sites are as ``site_certificate_days`` says."""
MAX_CSR_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate authority with its private key."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, paths: Paths) -> Authority:
        """Read it from central's files.

        Raises:
            CentralError: it is not there or not usable.
        """
        try:
            cert = x509.load_pem_x509_certificate(paths.ca_file.read_bytes())
            key = serialization.load_pem_private_key(paths.ca_key.read_bytes(), None)
        except (OSError, ValueError) as error:
            raise CentralError(
                f"certificate authority in {paths.ca_key.parent}: {error}; run 'tizgin central init' first"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CentralError(f"{paths.ca_key}: expected an elliptic-curve key, found {type(key).__name__}")
        return cls(cert, key)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_authority(now: datetime) -> Authority:
    """A new authority that may sign leaf certificates alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Tizgin central authority")
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(cert, key)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _leaf(
    authority: Authority,
    common_name: str,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    *,
    days: float = LEAF_DAYS,
    server_names: tuple[x509.GeneralName, ...] = (),
) -> bytes:
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if server_names else ExtendedKeyUsageOID.CLIENT_AUTH
    life = timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(authority.cert.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - min(timedelta(hours=1), life / 10))
        .not_valid_after(min(now + life, authority.cert.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if server_names:
        builder = builder.add_extension(x509.SubjectAlternativeName(server_names), critical=False)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def server_names(host: str) -> tuple[x509.GeneralName, ...]:
    """Names under which the broker may be reached: the configured host, ``localhost`` and 127.0.0.1."""
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    try:
        own: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        own = x509.DNSName(host)
    if own not in names:
        names.append(own)
    return tuple(names)


def sign_csr(authority: Authority, csr_pem: bytes, site_id: str, now: datetime, *, days: float = LEAF_DAYS) -> bytes:
    """A client certificate for one site: common name = site id, whatever the request says of itself.

    Raises:
        CentralError: not a request, not signed by its own key, not P-256, or a name no site may have.
    """
    try:
        check_site(site_id)
    except WireError as error:
        raise CentralError(str(error)) from None
    if site_id == COLLECTOR_NAME:
        raise CentralError(f"site id {site_id!r} is the collector's own name; choose another")
    if len(csr_pem) > MAX_CSR_BYTES:
        raise CentralError(f"certificate request of {len(csr_pem)} bytes, expected at most {MAX_CSR_BYTES}")
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        public = csr.public_key()
        honest = csr.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CentralError(f"certificate request cannot be read: {error}; expected PKCS#10 in PEM") from None
    if not honest:
        raise CentralError("certificate request is not signed by its own key; make a new one at the site")
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise CentralError(f"certificate request holds a {type(public).__name__}, expected an EC key on P-256")
    return _leaf(authority, site_id, public, now, days=days)


def make_client(authority: Authority, common_name: str, now: datetime) -> tuple[bytes, bytes]:
    """A key and client certificate in PEM: (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _leaf(authority, common_name, key.public_key(), now), _pem(key)


def initialise(paths: Paths, broker_host: str, now: datetime) -> list[str]:
    """Make whatever of central's material is missing; what exists is never replaced.

    Returns:
        Names of the files that were written.
    """
    written: list[str] = []
    if paths.ca_key.exists():
        authority = Authority.load(paths)
    else:
        if paths.ca_file.exists():
            raise CentralError(
                f"{paths.ca_file} exists without {paths.ca_key}: restore the key, or move the certificate away"
            )
        authority = make_authority(now)
        write_private(paths.ca_key, _pem(authority.key))
        write_public(paths.ca_file, authority.cert.public_bytes(serialization.Encoding.PEM))
        written += [str(paths.ca_key), str(paths.ca_file)]
    if not paths.broker_cert.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(paths.broker_key, _pem(key))
        cert = _leaf(authority, broker_host, key.public_key(), now, server_names=server_names(broker_host))
        write_public(paths.broker_cert, cert)
        written += [str(paths.broker_key), str(paths.broker_cert)]
    if not paths.cert_file.exists():
        client_cert, client_key = make_client(authority, COLLECTOR_NAME, now)
        write_private(paths.key_file, client_key)
        write_public(paths.cert_file, client_cert)
        written += [str(paths.key_file), str(paths.cert_file)]
    if not paths.k_col.exists():
        write_private(paths.k_col, SigningKey.generate().to_pem())
        written.append(str(paths.k_col))
    return written
