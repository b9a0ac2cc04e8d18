"""Modbus/TCP Security: the same frames inside TLS. Source: MODBUS/TCP Security Protocol Specification V3.6 (mbaps)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificates of one link, by file. Read anew at each connection, so that a renewed one needs no restart."""

    ca_file: Path | None = None
    """Who may sign the device's certificate; ``None``: the machine's own list."""
    cert_file: Path | None = None
    """Our certificate, with its key in ``key_file``: devices that follow the standard ask for one."""
    key_file: Path | None = None
    server_name: str | None = None
    """Name the device's certificate must bear; ``None``: the host of the address."""
    verify: bool = True
    """False: any certificate is taken, so that anybody on the way can read and answer."""


def context(files: TlsFiles) -> ssl.SSLContext:
    """TLS as the standard asks for it: 1.2 or newer, both sides with certificates.

    Raises:
        OSError: a file cannot be read or holds no certificate (``ssl.SSLError`` is one).
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not files.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif files.ca_file is not None:
        made.load_verify_locations(files.ca_file)
    else:
        made.load_default_certs()
    if files.cert_file is not None:
        made.load_cert_chain(files.cert_file, files.key_file)
    return made
