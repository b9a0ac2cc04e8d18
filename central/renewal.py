"""Renewal of sites' TLS certificates: asked for by the agent itself, granted by what can be proven, at a bounded rate.

A request carries the certificate in use. That it is this authority's and not yet over is seen from its own signature
and dates, so that nothing has to be remembered of what was issued; and the request is signed by its key *and* by the
site's record key. Whoever took one of the two keys gets nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from central import pki
from central.collector.sorting import in_time
from central.errors import CentralError
from central.paths import Paths
from wire.errors import BadKey
from wire.keys import unb64
from wire.messages import CertGrant, CertRequest
from wire.registry import KeysDocument

log = structlog.get_logger(__name__)

TRIES_PER_HOUR = 6
"""Requests of one site that are looked at; an agent makes one."""


class _Refused(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class Renewals:
    """Answers requests.

    Args:
        paths: where the authority's key is; read for each certificate, not kept in memory.
        register: the register in force.
        days: life of a certificate.
        now_ms: wall clock.
    """

    paths: Paths
    register: Callable[[], KeysDocument | None]
    days: float
    now_ms: Callable[[], int]
    granted: int = 0
    refused: int = 0
    _tries: dict[str, list[int]] = field(default_factory=dict)

    def answer(self, request: CertRequest) -> CertGrant | None:
        """The new certificate, or why there is none; ``None`` where the site asks too often."""
        now = self.now_ms()
        tries = [at for at in self._tries.get(request.site, []) if 0 <= now - at < 3_600_000]
        self._tries[request.site] = tries
        if len(tries) >= TRIES_PER_HOUR:
            self.refused += 1
            if len(tries) == TRIES_PER_HOUR:
                tries.append(now)  # said once
                log.warning("certificate_asked_too_often", site=request.site)
            return None
        tries.append(now)
        try:
            self._check_record_key(request)
            current = self._check_certificate(request)
            cert = self._sign(request, current)
        except _Refused as error:
            self.refused += 1
            log.warning("certificate_not_renewed", site=request.site, code=error.code, why=str(error))
            doc = {"site": request.site, "epoch": request.epoch, "error": error.code, "text": str(error)[:500]}
            return CertGrant.model_validate(doc)
        self.granted += 1
        return CertGrant(site=request.site, epoch=request.epoch, cert=cert)

    def _check_record_key(self, request: CertRequest) -> None:
        document = self.register()
        if document is None:
            raise _Refused("no_register", "no register is here yet: the record key cannot be checked")
        if not in_time(request.at, self.now_ms()):
            raise _Refused("bad_request", f"the request is of {request.at} ms; check the site's clock")
        key = document.record_keys(request.site).get(request.epoch, {}).get(request.kid)
        if key is None or document.revoked_at(request.kid) is not None:
            raise _Refused("unknown_key", f"{request.kid} is no record key of {request.epoch} in the register")
        try:
            good = key.verifies(request.signed(), unb64(request.sig, max_bytes=64))
        except BadKey:
            good = False
        if not good:
            raise _Refused("bad_signature", f"the signature of record key {request.kid} does not verify")

    def _check_certificate(self, request: CertRequest) -> ec.EllipticCurvePublicKey:
        """The key of the certificate in use, which has to have signed too."""
        now = datetime.fromtimestamp(self.now_ms() / 1000, UTC)
        try:
            current = x509.load_pem_x509_certificate(request.cert.encode("ascii"))
            current.verify_directly_issued_by(x509.load_pem_x509_certificate(self.paths.ca_file.read_bytes()))
            names = [n.value for n in current.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
            key = current.public_key()
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise _Refused("bad_certificate", "the certificate in use is not one of this authority") from None
        except OSError as error:
            raise _Refused("off", f"{self.paths.ca_file}: {error.strerror}") from None
        if names != [request.site] or not isinstance(key, ec.EllipticCurvePublicKey):
            raise _Refused("bad_certificate", f"the certificate in use is not one of {request.site}")
        if not current.not_valid_before_utc - timedelta(minutes=5) <= now < current.not_valid_after_utc:
            raise _Refused("bad_certificate", "the certificate in use is not valid now; enrol the site anew")
        try:
            key.verify(unb64(request.sig_tls, max_bytes=96), request.signed(), ec.ECDSA(hashes.SHA256()))
        except (BadKey, InvalidSignature):
            raise _Refused("bad_signature", "the signature of the certificate in use does not verify") from None
        return key

    def _sign(self, request: CertRequest, current: ec.EllipticCurvePublicKey) -> str:
        now = datetime.fromtimestamp(self.now_ms() / 1000, UTC)
        try:
            csr = x509.load_pem_x509_csr(request.csr.encode("ascii"))
            names = [n.value for n in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
            asked = csr.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _Refused("bad_request", f"certificate request cannot be read: {str(error)[:200]}") from None
        if names != [request.site]:
            raise _Refused("bad_request", f"the request is for {', '.join(map(str, names))[:100] or 'nobody'}")
        if asked == current:
            raise _Refused("bad_request", "the request is for the key that is in use; a renewal makes a new one")
        try:
            authority = pki.Authority.load(self.paths)
        except CentralError as error:
            raise _Refused("off", str(error)) from None
        try:
            cert = pki.sign_csr(authority, request.csr.encode("ascii"), request.site, now, days=self.days)
        except CentralError as error:
            raise _Refused("bad_request", str(error)) from None
        serial = x509.load_pem_x509_certificate(cert).serial_number
        log.info("certificate_renewed", site=request.site, serial=f"{serial:x}", days=self.days)
        return cert.decode()
