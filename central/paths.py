"""Where central keeps its files, from its settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from config.central import Central

COLLECTOR_NAME = "collector"
"""Common name of the collector's certificate. No site may be called so."""


@dataclass(frozen=True, slots=True)
class Paths:
    """All files of one central. Relative settings count from the folder of the settings file."""

    data_dir: Path
    ca_file: Path
    ca_key: Path
    broker_cert: Path
    broker_key: Path
    cert_file: Path
    key_file: Path
    k_col: Path

    @classmethod
    def of(cls, settings: Central, base: Path) -> Paths:
        """Files named in the settings, and the default places of the others."""
        data = base / settings.data_dir
        pki = data / "pki"
        tls = settings.tls
        return cls(
            data_dir=data,
            ca_file=base / tls.ca_file if tls else pki / "ca.pem",
            ca_key=pki / "ca.key",
            broker_cert=pki / "broker.pem",
            broker_key=pki / "broker.key",
            cert_file=base / tls.cert_file if tls else pki / "collector.pem",
            key_file=base / tls.key_file if tls else pki / "collector.key",
            k_col=base / settings.key_file if settings.key_file else pki / "k_col.pem",
        )

    @property
    def broker_dir(self) -> Path:
        """Generated configuration, access list and persistence of the child broker."""
        return self.data_dir / "broker"

    @property
    def database(self) -> Path:
        """SQLite file of registry, orders and evidence."""
        return self.data_dir / "central.db"

    @property
    def verdict_copies(self) -> Path:
        """Folder of the logs of verdicts as files, from which a database that was put back takes its lines again."""
        return self.data_dir / "vee"

    @property
    def telemetry(self) -> Path:
        """DuckDB file of telemetry."""
        return self.data_dir / "telemetry.duckdb"


def write_private(path: Path, data: bytes) -> None:
    """Write a secret so that only its owner can read it, from its first moment on, and whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_public(path: Path, data: bytes) -> None:
    """Write a file that others may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.chmod(0o644)
    beside.replace(path)
