"""The witness's TLS key, and the request with which central's authority makes its certificate."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from grid.files import write_new_private
from wire.notes import NoteKey
from wire.witness_link import client_name


def make_request(key: NoteKey, tls_key: Path) -> bytes:
    """A new TLS key in its file, and a certificate request for it in PEM.

    Raises:
        KeyFileError: the file exists or cannot be written.
        BadKey: the witness's key cannot be used.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, client_name(key))])
    made = ec.generate_private_key(ec.SECP256R1())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write_new_private(tls_key, made.private_bytes(*form))
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(made, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)
