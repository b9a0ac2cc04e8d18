"""Modbus over TLS: what is refused by default, and what has to be asked for."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from config.devices import Link
from drivers.modbus import ModbusLink, TlsFiles
from tests.integration.modbus_sides import POINTS, Slow, meter, running
from wire.quality import Quality


@dataclass
class Pki:
    folder: Path
    authority: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, folder: Path, name: str) -> Pki:
        key = ec.generate_private_key(ec.SECP256R1())
        made = cls(folder, cls._sign(name, key.public_key(), name, key, authority=True), key)
        (folder / f"{name}.pem").write_bytes(made.authority.public_bytes(serialization.Encoding.PEM))
        return made

    @staticmethod
    def _sign(name: str, public: Any, issuer: str, key: Any, *, authority: bool = False) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(named(name)).issuer_name(named(issuer)).public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))]),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )  # fmt: skip

    def issue(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = str(self.authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        cert = self._sign(name, key.public_key(), issuer, self.key)
        cert_file, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_file, key_file


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki.make(tmp_path, "plant-ca")


@contextlib.asynccontextmanager
async def tls_device(pki: Pki) -> AsyncIterator[int]:
    """A device as the standard wants it: it asks for our certificate too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pki.issue("meter-7"))
    context.load_verify_locations(pki.folder / "plant-ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = await asyncio.start_server(Slow(0.0).serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


async def test_tls_with_both_certificates_reads(pki: Pki) -> None:
    pki.issue("agent")
    async with tls_device(pki) as port:
        link = ModbusLink.from_config(
            Link.model_validate(
                {
                    "id": "secure",
                    "url": f"modbus://127.0.0.1:{port}",
                    "timeout_s": 2,
                    "tls": {
                        "ca_file": "plant-ca.pem",
                        "cert_file": "agent.crt",
                        "key_file": "agent.key",
                        "server_name": "meter-7",
                    },
                }
            ),
            base=pki.folder,
        )
        async with running(link):
            sample = await link.read(meter(1), POINTS, deadline_s=10)
    assert sample.ok, sample.error


@pytest.mark.parametrize("case", ["unknown authority", "another name", "no certificate of ours", "no file"])
async def test_tls_is_refused_by_default_unless_everything_fits(pki: Pki, tmp_path: Path, case: str) -> None:
    cert, key = pki.issue("agent")
    (tmp_path / "other").mkdir()
    Pki.make(tmp_path / "other", "other-ca")
    good = pki.folder / "plant-ca.pem"
    files = {
        "unknown authority": TlsFiles(tmp_path / "other" / "other-ca.pem", cert, key, "meter-7"),
        "another name": TlsFiles(good, cert, key, "meter-8"),
        "no certificate of ours": TlsFiles(good, server_name="meter-7"),
        "no file": TlsFiles(tmp_path / "missing.pem", cert, key, "meter-7"),
    }[case]
    async with tls_device(pki) as port:
        link = ModbusLink(f"modbus://127.0.0.1:{port}", name="secure", timeout_s=1.0, tls=files)
        async with running(link):
            sample = await link.read(meter(1), POINTS, deadline_s=3)
    assert not sample.ok
    assert {r.quality for r in sample.readings.values()} <= {Quality.NO_CONNECTION, Quality.TIMEOUT}
    if case in {"unknown authority", "another name"}:
        assert "certificate is not trusted" in (sample.error or "")


async def test_tls_without_verification_has_to_be_asked_for(pki: Pki) -> None:
    cert, key = pki.issue("agent")
    async with tls_device(pki) as port:
        files = TlsFiles(cert_file=cert, key_file=key, verify=False)
        link = ModbusLink(f"modbus://127.0.0.1:{port}", name="secure", timeout_s=2.0, tls=files)
        async with running(link):
            assert (await link.read(meter(1), POINTS, deadline_s=10)).ok
    with pytest.raises(ValueError, match="verify: false looks at no certificate"):
        Link.model_validate({"id": "x", "url": "modbus://h", "tls": {"ca_file": "ca.pem", "verify": False}})
