"""Devices and equipment: what is read or driven, over which link, and what feeds it."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from config.base import Id, Kilowatt, Model, Seconds
from config.nodes import Input


class Network(Model):
    """One subnet. Control I/O shares none with miners or PDUs."""

    id: Id
    kind: Literal["control", "metering", "miners", "pdu", "office"]
    cidr: str | None = None


class Equipment(Model):
    """Host, network switch, gateway or supply that the order path passes through."""

    id: Id
    kind: Literal["host", "network", "gateway", "dc_supply"]
    fed_from: Id | None = None
    ups_min: float = Field(default=0, ge=0)
    network: Id | None = None


class LinkTls(Model):
    """Modbus/TCP Security: certificates by file, relative to the site file. Its port is 802, written in the URL."""

    ca_file: str | None = None
    """Who may sign the device's certificate; without it the machine's own list."""
    cert_file: str | None = None
    key_file: str | None = None
    """Our own certificate and key, for devices that ask for them."""
    server_name: str | None = None
    """Name in the device's certificate, where it is not the host of the URL."""
    verify: bool = True

    @model_validator(mode="after")
    def _pair(self) -> LinkTls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("give both cert_file and key_file, or neither")
        if not self.verify and (self.ca_file is not None or self.server_name is not None):
            raise ValueError("verify: false looks at no certificate: take it away, or ca_file and server_name")
        return self


class Link(Model):
    """One physical link: a TCP gateway or a serial line. One worker each.

    A serial line and most gateways take one request at a time, over all their units: ``connections: 1``.
    """

    id: Id
    url: str
    """``modbus://host:port``, ``rtu:///dev/ttyUSB0?baud=9600&parity=N``, ``rtutcp://host:port``, ``snmp://host:port``."""
    network: Id | None = None
    via: tuple[Id, ...] = ()
    timeout_s: float = Field(default=0.5, gt=0, le=30)
    """How long an answer is waited for; a profile may say another for its device."""
    connections: int = Field(default=1, ge=1, le=16)
    """Connections that are asked at the same time, where the device or gateway serves several (``modbus://`` alone)."""
    guard_ms: float | None = Field(default=None, ge=0, le=1000)
    """Silence between frames on a serial line; without it 3.5 characters at its speed. 0 on ``rtutcp://``."""
    turnaround_ms: float = Field(default=0, ge=0, le=5000)
    """Pause after each answer before the next request, for slow gateways and adapters."""
    silent_share: float = Field(default=0.05, ge=0.01, le=0.5)
    """What units that do not answer may cost of the link's time."""
    tls: LinkTls | None = None
    other_master: str | None = None
    """Another master on the same bus, if there is one: refused on RS-485."""

    @model_validator(mode="after")
    def _fits(self) -> Link:
        scheme = self.url.partition(":")[0]
        if self.connections > 1 and scheme != "modbus":
            raise ValueError(
                f"connections: seen {self.connections} on {scheme}://, expected 1: its frames carry no number, "
                "so answers could not be told apart"
            )
        if self.tls is not None and scheme not in {"modbus", "rtutcp"}:
            raise ValueError(f"tls: seen on {scheme}://, expected on modbus:// or rtutcp:// alone")
        if self.guard_ms is not None and scheme not in {"rtu", "rtutcp"}:
            raise ValueError(f"guard_ms: seen on {scheme}://, expected on rtu:// or rtutcp:// alone; see turnaround_ms")
        return self


class Device(Model):
    """One device on a link."""

    id: Id
    kind: Literal["meter", "relay", "pdu"]
    profile: str
    link: Id
    unit: int = Field(default=1, ge=0, le=255)
    fed_from: Id | None = None
    """Node that supplies its electronics. A meter fed from behind an output goes silent with it."""
    ups_min: float = Field(default=0, ge=0)
    credentials: Id | None = None
    serial_number: str | None = None
    period_s: float = Field(default=1.0, gt=0, le=3600)
    options: dict[str, str] = Field(default_factory=dict)


class Credentials(Model):
    """Where a secret is found. The secret itself never stands in this file."""

    user: str | None = None
    password_file: str | None = None
    password_env: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Credentials:
        if (self.password_file is None) == (self.password_env is None):
            raise ValueError("give exactly one of password_file, password_env")
        return self


class MinerGroup(Model):
    """Machines of one kind behind one load node.

    ``rpc`` and ``http`` are one address range each: ``10.20.1.1-10.20.1.200:4028`` (hosts) or
    ``127.0.0.1:24000-24099`` (ports). Machine ids are ``<group>/<number from 1>``.
    """

    id: Id
    load: Id
    family: str
    model: str
    rpc: str
    http: str | None = None
    nameplate_w: float = Field(gt=0, le=100_000)
    nominal_ths: float = Field(gt=0)
    sleep_w: float = Field(default=30.0, ge=0)
    credentials: Id | None = None
    writes_allowed: bool = False
    """The owner's word that the agent may put these machines to sleep."""
    lowest_power_w: float | None = Field(default=None, gt=0, le=100_000)
    """The owner's word that the agent may limit their power, and to what at the lowest. Also needs writes_allowed."""
    tenant: Id | None = None
    network: Id | None = None
    period_s: float = Field(default=30.0, gt=0, le=3600)
    via: tuple[Id, ...] = ()


class TemperaturePoint(Model):
    """One temperature that a module measures."""

    device: Id
    point: str


class CoolingLoop(Model):
    """Cooling that outlives and precedes the machines it cools."""

    id: Id
    type: Literal["air", "immersion", "hydro"]
    members: tuple[Id, ...]
    """Load nodes of kind ``cooling``."""
    run_on_s: Seconds = 300.0
    settle_s: Seconds = 60.0
    """How long flow and temperature are good before a machine of the loop is woken."""
    min_temp_c: float | None = None
    max_off_min_below: float | None = None
    flow_ok: Input | None = None
    """Contact that is made while the medium flows: flow or differential pressure switch, pump's or fan's relay."""
    supply_temp: TemperaturePoint | None = None
    """What goes to the machines: water or oil after the heat exchanger, air in the cold aisle."""


class Tenant(Model):
    """A hosting customer (licence sub-type II)."""

    id: Id
    name: str
    licence: str | None = None


class Seal(Model):
    """One seal at a metering point. A number alone may be written as text."""

    no: str = Field(min_length=1, max_length=60)
    place: str | None = None
    """What it seals: terminal cover, test block, current transformer of phase B …"""
    by: str | None = None
    date: datetime.date | None = None
    broken: bool = False
    """Found broken or missing: the readings stay, their metrological status does not."""


class TransformerPassport(Model):
    """One instrument transformer, of one phase."""

    phase: Literal["a", "b", "c"]
    serial: str = Field(min_length=1, max_length=60)
    num: int | None = Field(default=None, gt=0)
    """Rated primary, where its plate says otherwise than the set: that is an error the check names."""
    den: int | None = Field(default=None, gt=0)
    accuracy_class: str | None = None
    burden_va: float | None = Field(default=None, ge=0, le=1000)
    certificate: str | None = None
    expires: datetime.date | None = None


class RatioPassport(Model):
    """Instrument transformers of one metering point: the ratio of the set, and each transformer by phase."""

    num: int = Field(gt=0)
    den: int = Field(gt=0)
    accuracy_class: str | None = None
    serials: tuple[str, ...] = ()
    certificate: str | None = None
    expires: datetime.date | None = None
    """Of the whole set; transformers may have dates of their own."""
    phases: tuple[TransformerPassport, ...] = Field(default=(), max_length=3)


class TerminalBlock(Model):
    """Terminal block between transformers and meter, at which circuits can be opened."""

    no: str | None = None
    place: str | None = None
    seal: str | None = None


class RatioCheck(Model):
    """Who saw on site that the ratios in this passport are those of the plant, and where they are applied."""

    date: datetime.date
    by: str = Field(min_length=1, max_length=100)
    act: str | None = None


class Passport(Model):
    """Metrological passport of a metering point. Nothing in it changes a number, except the ratios where they apply."""

    meter_serial: str | None = None
    meter_type: str | None = None
    accuracy_class: str | None = None
    certificate: str | None = None
    expires: datetime.date | None = None
    ct: RatioPassport | None = None
    vt: RatioPassport | None = None
    ratio_applied_in: Literal["meter", "agent", "both"] = "meter"
    """``meter``: registers are primary. ``agent``: the agent multiplies by both ratios. ``both``: the meter applies
    that of the current transformers, the agent that of the voltage transformers."""
    ratio_checked: RatioCheck | None = None
    seals: tuple[Seal, ...] = Field(default=(), max_length=32)
    test_block: TerminalBlock | None = None
    vt_circuit_drop_percent: float | None = Field(default=None, ge=0, le=100)
    """Measured voltage drop of the secondary circuit between voltage transformer and meter."""
    register_digits: int | None = Field(default=None, ge=4, le=20)
    """The register, as it is read, starts again from 0 at 10^digits counts."""
    nominal_kw: Kilowatt | None = None

    @field_validator("seals", mode="before")
    @classmethod
    def _seals(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return tuple({"no": item} if isinstance(item, str) else item for item in value)


class MeteringPoint(Model):
    """Where energy is counted: one device, at one node of the graph."""

    id: Id
    device: Id
    node: Id
    """Energy through this node, seen downwards: import is what flows to what it feeds."""
    role: Literal["commercial", "control", "technical", "check"]
    owner: str
    read_by: Literal["agent", "uspd", "none"] = "agent"
    boundary: bool = False
    inverted: bool = False
    passport: Passport = Passport()


class VirtualPoint(Model):
    """A sum of metering points with signs, e.g. ``+M1 +M2 -M7``; quality is that of the worst member.

    Import and export are summed each for itself; a sub-subscriber that is fed through the site (transit) is taken off
    with a minus.
    """

    id: Id
    formula: Annotated[str, Field(pattern=r"^\s*([+-]\s*[A-Za-z0-9_.-]+\s*)+$")]
    role: Literal["commercial", "control", "technical", "check"] = "control"
    boundary: bool = False

    def terms(self) -> tuple[tuple[int, str], ...]:
        """((+1, "M1"), (-1, "M7"), …)."""
        import re

        found = re.findall(r"([+-])\s*([A-Za-z0-9_.][A-Za-z0-9_.-]*)", self.formula)
        return tuple((1 if sign == "+" else -1, name) for sign, name in found)
