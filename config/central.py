"""Settings of central (``central.yaml``)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from config.base import Id, Kilowatt, Model, SiteId, Text3


class ChildBroker(Model):
    """Mosquitto as a supervised child: demo, tests and one small site."""

    mode: Literal["child"]
    host: str = "127.0.0.1"
    port: int = Field(default=8883, ge=0, le=65535)
    user: str | None = None
    """Operating-system user Mosquitto drops to when central runs as root; default: the current user."""


class RemoteBroker(Model):
    """A broker that runs as its own service."""

    mode: Literal["url"]
    url: str
    shared_group: str | None = None
    """Secret 128-bit group name in hex when several collectors share the load."""


class Tls(Model):
    """TLS material of central; made by ``tizgin central init`` for the child broker."""

    ca_file: str
    cert_file: str
    key_file: str


class RemoteWitness(Model):
    """A witness that somebody else runs (``tizgin witness run``); central carries checkpoints to it."""

    url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+(/[^\s]*)?$")
    """``None``: it connects to central's broker, with a certificate of ``tizgin central enroll-witness``."""
    key: str = Field(max_length=300)
    """Its key as the register's policy names it: ``name+<8 hex>+<base64>``."""


class RegisteredSite(Model):
    """A site that may connect. The broker's access list is generated from these."""

    id: SiteId
    name: Text3
    zone: Id = "default"
    phone: str | None = None
    contracted_kw: Kilowatt
    emergency_kw: Kilowatt
    measured_at: Id | None = None


class Central(Model):
    """One whole central file."""

    schema_version: Literal[1] = Field(alias="schema")
    data_dir: str = "/var/lib/tizgin-central"
    host: str = "127.0.0.1"
    """Loopback until there is log-in; anything else is refused."""
    port: int = Field(default=8080, ge=0, le=65535)
    broker: ChildBroker | RemoteBroker = Field(discriminator="mode")
    tls: Tls | None = None
    database_url: str | None = None
    """SQLAlchemy URL; default SQLite in ``data_dir``."""
    registrar_keys: tuple[str, ...] = Field(min_length=1)
    key_file: str | None = None
    """K_col, central's own signing key (parcels and bundles; it can sign no order)."""
    witnesses: tuple[RemoteWitness, ...] = Field(default=(), max_length=16)
    """Witnesses beside central itself; which of them count says the register's policy."""
    site_certificate_days: float = Field(default=120.0, gt=0, le=825)
    """Life of a site's certificate. An agent asks for a new one when a third of it is left: with 120 days ten days
    before the first warning."""
    default_language: Literal["kk", "ru", "en"] = "kk"
    sites: tuple[RegisteredSite, ...] = ()

    @model_validator(mode="after")
    def _loopback(self) -> Central:
        if self.host not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError(f"host {self.host}: only loopback is allowed while central has no log-in")
        return self
