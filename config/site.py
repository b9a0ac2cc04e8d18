"""The site file: everything the agent knows about a site before it asks a single device."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from config.base import Id, Kilowatt, Model, Seconds, SiteId, Text3
from config.devices import (
    CoolingLoop,
    Credentials,
    Device,
    Equipment,
    Link,
    MeteringPoint,
    MinerGroup,
    Network,
    Tenant,
    VirtualPoint,
)
from config.nodes import Node

AgentModeName = Literal["monitor", "shadow", "armed"]


class Reservation(Model):
    """Reservation (бронь): what a stop may not go below, and the time a process needs to end safely."""

    emergency_kw: Kilowatt
    technological_kw: Kilowatt = 0.0
    technological_min: float = Field(default=0.0, ge=0, le=1440)


class Standing(Model):
    """Standing limits of the connection: they hold without any order, at the net point."""

    permitted_kw: Kilowatt | None = None
    """Permitted power of the technical conditions (ТУ)."""
    ramp_kw_per_min: float | None = Field(default=None, gt=0, le=5_000_000)
    """Load may rise by so much within any minute."""
    hourly_plan_kw: tuple[Kilowatt, ...] | None = Field(default=None, min_length=24, max_length=24)
    """A limit for each hour of the day in Kazakhstan time (UTC+5), from 0 o'clock."""
    enforce: bool = False
    """False: they are only told. True: an armed agent keeps them by sleep and power limits, never by switches."""


class Dispatch(Model):
    """How the dispatcher names and reaches the site."""

    name: str | None = None
    phone: str | None = None
    ack_min: float = Field(default=5.0, gt=0, le=1440)
    """So soon a person on site acknowledges an order; later both sides see an alarm. It delays nothing."""


class SaonDuty(Model):
    """Load that a stage of emergency automatics (САОН) must find behind its feeders."""

    stage: int = Field(ge=1, le=32)
    min_kw: Kilowatt


class SiteHead(Model):
    """Who the site is."""

    id: SiteId
    name: Text3
    zone: Id = "default"
    contracted_kw: Kilowatt
    reservation: Reservation
    standing: Standing = Standing()
    dispatch: Dispatch = Dispatch()
    saon: tuple[SaonDuty, ...] = Field(default=(), max_length=32)
    simulation: bool = False
    """True only for simulated plants: allows 10 s slots and marks every record and page."""


class MeasuredAt(Model):
    """Which metering or virtual point answers an order's ``measured_at``."""

    net_import: Id
    gross_mining: Id | None = None


class Timing(Model):
    """Times of the curtailment engine."""

    cooldown_s: Seconds = 180.0
    """Cooling keeps running this long after machines sleep, before their switch may open."""
    sleep_confirm_s: Seconds = 90.0
    """How long sleep may take to show at the meter before escalation is considered."""
    switch_confirm_s: Seconds = 5.0
    return_s: Seconds = 240.0
    """After lost supply came back: how long machines take to start, and so to be below a live limit again."""
    fresh_samples: int = Field(default=2, ge=2, le=10)
    wake_stagger_per_s: float = Field(default=20.0, gt=0)
    sleep_concurrency: int = Field(default=256, ge=1, le=4096)


class Agent(Model):
    """Settings of the agent process."""

    mode: AgentModeName = "monitor"
    """The highest mode the site asks for. Acting also needs a signed mode act and commissioned outputs."""
    state_dir: str = "/var/lib/tizgin"
    host: Id | None = None
    """Equipment id of the machine it runs on."""
    slot_s: Literal[10, 60, 300, 900, 1800, 3600] = 900
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=9108, ge=0, le=65535)
    bulk_period_s: float = Field(default=5.0, gt=0, le=3600)
    bulk_max_mb: int = Field(default=4096, ge=16)
    live_period_s: float = Field(default=2.0, gt=0, le=60)
    order_meter_period_s: float = Field(default=1.0, gt=0, le=1.0)
    clock_source: Literal["kernel", "host"] = "kernel"
    """``kernel``: the clock counts as synchronised when the kernel says so (chrony, ntpd). ``host``: the operator
    states that the time is kept by other means (hypervisor, GNSS card); records name this source."""
    timing: Timing = Timing()


class Uplink(Model):
    """Where central's broker is, and the site's TLS identity."""

    broker: str
    """``mqtts://host:port``."""
    ca_file: str
    cert_file: str
    key_file: str
    backfill_kbit_s: float = Field(default=2000.0, gt=0)


class Pkcs11(Model):
    """A security token and the key in it."""

    module: str = Field(pattern=r"^/[^\x00]{1,4095}$")
    """Path of the token's PKCS#11 library."""
    token: str = Field(min_length=1, max_length=32)
    """Label of the token."""
    key: str = Field(min_length=1, max_length=64)
    """Label of the key pair; made by ``tizgin agent enroll`` where there is none."""
    pin_file: str = Field(min_length=1)
    """File of mode 0600 that holds the user PIN and nothing else. The PIN itself never stands here."""


class LogKeyPlace(Model):
    """Where the key that signs checkpoints lives: a file of the state folder, or a token."""

    pkcs11: Pkcs11 | None = None


class Keys(Model):
    """Where keys live that need not be files."""

    log: LogKeyPlace = LogKeyPlace()


class Trust(Model):
    """Whom the agent believes."""

    registrar_keys: tuple[str, ...] = Field(min_length=1)
    """Raw Ed25519 public keys of the registrar, base64. More than one while a key is being changed."""


class Site(Model):
    """One whole site file."""

    schema_version: Literal[1] = Field(alias="schema")
    site: SiteHead
    agent: Agent = Agent()
    uplink: Uplink | None = None
    trust: Trust | None = None
    keys: Keys = Keys()
    credentials: dict[str, Credentials] = Field(default_factory=dict)
    networks: tuple[Network, ...] = ()
    equipment: tuple[Equipment, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    cooling_loops: tuple[CoolingLoop, ...] = ()
    nodes: tuple[Node, ...]
    links: tuple[Link, ...] = ()
    devices: tuple[Device, ...] = ()
    metering_points: tuple[MeteringPoint, ...] = ()
    virtual_points: tuple[VirtualPoint, ...] = ()
    measured_at: MeasuredAt
    miners: tuple[MinerGroup, ...] = ()
