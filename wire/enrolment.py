"""A site's enrolment as ``tizgin agent enroll`` writes it; checked before anything is signed for the site.

Three proofs are signatures over one statement that names site, epoch and all three keys: whoever made the file held
every key it names, and none of them can be put beside another's. That the keys are the *site's* is settled by
telephone, with the fingerprint of the record key, whose proof binds the other two.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from wire.errors import WireError
from wire.keys import VerifyKey, unb64
from wire.logkeys import LogKey, read_log_key
from wire.names import check_epoch, check_site

MAX_BYTES = 65_536
VERSION = 2
_FIELDS = ("site", "epoch", "k_rec", "k_log", "statement", "proof_rec", "proof_log", "proof_tls", "csr")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An enrolment whose proofs hold."""

    site: str
    epoch: str
    k_rec: VerifyKey
    k_log: LogKey
    csr: bytes

    @property
    def fingerprint(self) -> str:
        """Identifier of K_rec in groups of four, computed from the key itself, to be compared by telephone."""
        return " ".join(self.k_rec.kid[i : i + 4] for i in range(0, 16, 4))


def statement(site: str, epoch: str, k_rec: VerifyKey, k_log: LogKey, tls: ec.EllipticCurvePublicKey) -> bytes:
    """What the three keys sign: one line each, the TLS key as SHA-256 of its SubjectPublicKeyInfo (hex)."""
    spki = tls.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    lines = (f"tizgin enrolment v{VERSION}", site, epoch, k_rec.text, k_log.text, hashlib.sha256(spki).hexdigest())
    return "".join(f"{line}\n" for line in lines).encode()


def is_enrolment(raw: bytes) -> bool:
    """True for JSON, false for what can only be a bare certificate request."""
    return raw.lstrip().startswith(b"{")


def read_enrolment(raw: bytes, site: str | None = None) -> Enrolment:
    """Parse an enrolment and check the proofs of possession of all three keys.

    Args:
        raw: the file's bytes.
        site: the site for which it was handed in, where that is known.

    Raises:
        WireError: not an enrolment, of another site, a key that must not be used, or a proof that does not hold.
    """
    if len(raw) > MAX_BYTES:
        raise WireError(f"enrolment of {len(raw)} bytes, expected at most {MAX_BYTES}")
    try:
        doc = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise WireError(f"enrolment cannot be read: {error}; expected JSON of 'tizgin agent enroll'") from None
    if not isinstance(doc, dict) or doc.get("v") != VERSION:
        raise WireError(f"enrolment: expected version {VERSION} of 'tizgin agent enroll'; make it anew at the site")
    for name in _FIELDS:
        if not isinstance(doc.get(name), str):
            raise WireError(f"enrolment: field {name!r} is missing or no text; make it anew at the site")
    if site is not None and doc["site"] != site:
        raise WireError(f"enrolment is of site {doc['site'][:60]!r}, --site says {site!r}")
    return _proven(doc)


def _proven(doc: dict[str, Any]) -> Enrolment:
    try:
        site, epoch = check_site(doc["site"]), check_epoch(doc["epoch"])
        rec, log = VerifyKey.from_text(doc["k_rec"]), read_log_key(doc["k_log"])
        proofs: dict[str, tuple[LogKey, bytes]] = {
            "proof_rec": (rec, unb64(doc["proof_rec"])),
            "proof_log": (log, unb64(doc["proof_log"])),
        }
        proof_tls = unb64(doc["proof_tls"])
        csr = doc["csr"].encode("ascii")
    except UnicodeEncodeError:
        raise WireError("enrolment: field 'csr' is not PEM") from None
    except WireError as error:
        raise WireError(f"enrolment: {error}") from None
    tls = _requested(csr)
    # Built here from the fields: a proof over any other text proves nothing about them.
    said = statement(site, epoch, rec, log, tls)
    if doc["statement"].encode("utf-8", "replace") != said:
        raise WireError("enrolment: the statement does not name this site, epoch and these keys; make it anew")
    for name, (key, proof) in proofs.items():
        if not key.verifies(said, proof):
            raise WireError(f"enrolment: {name} does not verify: the sender does not hold key {key.kid}")
    try:
        tls.verify(proof_tls, said, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise WireError("enrolment: proof_tls does not verify: the sender does not hold the TLS key") from None
    if rec.raw == log.raw:
        raise WireError("enrolment: k_rec and k_log are one key, expected two; make them anew at the site")
    return Enrolment(site, epoch, rec, log, csr)


def _requested(csr: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a certificate request."""
    try:
        key = x509.load_pem_x509_csr(csr).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise WireError(f"enrolment: certificate request cannot be read: {error}; expected PKCS#10 in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise WireError(f"enrolment: certificate request holds a {type(key).__name__}, expected an EC key on P-256")
    return key
