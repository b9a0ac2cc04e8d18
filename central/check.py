"""What would keep central from running, found without starting it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from central.broker.acl import render
from central.broker.child import find_mosquitto
from central.errors import CentralError
from central.paths import Paths
from central.registers import registrar_keys
from central.store.database import try_connection
from central.witnesses import broker_clients
from config.central import Central, ChildBroker
from wire.errors import BadKey, WireError
from wire.keys import SigningKey

WARN = timedelta(days=30)


def problems(settings: Central, base: Path, now: datetime) -> list[str]:
    """Every problem in one line each; empty where there is none."""
    paths = Paths.of(settings, base)
    found: list[str] = []
    for attempt in (
        lambda: registrar_keys(settings.registrar_keys),
        lambda: render((s.id for s in settings.sites), broker_clients(settings.witnesses)),
        lambda: None if settings.database_url is None else try_connection(settings.database_url),
    ):
        try:
            attempt()
        except (CentralError, WireError) as error:
            found.append(str(error))
    ids = [s.id for s in settings.sites]
    found += [f"site {site!r} is listed twice: remove one" for site in sorted({s for s in ids if ids.count(s) > 1})]
    found += [f"site {s.id!r} has no phone: add one, it is what a dispatcher falls back to" for s in settings.sites
              if not s.phone]  # fmt: skip
    certificates = [paths.ca_file, paths.cert_file]
    private = [paths.key_file, paths.k_col]
    if isinstance(settings.broker, ChildBroker):
        certificates.append(paths.broker_cert)
        private.append(paths.broker_key)
        try:
            find_mosquitto()
        except CentralError as error:
            found.append(str(error))
    for file in certificates:
        found += _certificate(file, now)
    for file in private:
        found += _private(file)
    try:
        SigningKey.from_pem(paths.k_col.read_bytes())
    except (OSError, BadKey) as error:
        found.append(f"{paths.k_col}: {error}; run 'tizgin central init'")
    return found


def _certificate(file: Path, now: datetime) -> list[str]:
    try:
        cert = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as error:
        return [f"{file}: {error}; run 'tizgin central init'"]
    left = cert.not_valid_after_utc - now
    return [] if left > WARN else [f"{file}: valid until {cert.not_valid_after_utc:%Y-%m-%d}; renew it"]


def _private(file: Path) -> list[str]:
    try:
        mode = file.stat().st_mode & 0o777
    except OSError as error:
        return [f"{file}: {error.strerror}; run 'tizgin central init'"]
    return [] if not mode & 0o077 else [f"{file}: mode {mode:04o}, others can read it; chmod 0600"]
