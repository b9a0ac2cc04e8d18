"""Devices and equipment: what is read or driven, over which link, and what feeds it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from config.base import Id, Kilowatt, Model, Seconds


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


class Link(Model):
    """One physical link: a TCP gateway or a serial line. One worker each."""

    id: Id
    url: str
    """``modbus://host:port``, ``rtu:///dev/ttyUSB0?baud=9600&parity=N``, ``rtutcp://host:port``, ``snmp://host:port``."""
    network: Id | None = None
    via: tuple[Id, ...] = ()
    timeout_s: float = Field(default=0.5, gt=0, le=30)
    other_master: str | None = None
    """Another master on the same bus, if there is one: refused on RS-485."""


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
    tenant: Id | None = None
    network: Id | None = None
    period_s: float = Field(default=30.0, gt=0, le=3600)
    via: tuple[Id, ...] = ()


class CoolingLoop(Model):
    """Cooling that outlives and precedes the machines it cools."""

    id: Id
    type: Literal["air", "immersion", "hydro"]
    members: tuple[Id, ...]
    """Load nodes of kind ``cooling``."""
    run_on_s: Seconds = 300.0
    min_temp_c: float | None = None
    max_off_min_below: float | None = None
    flow_ok: Id | None = None
    supply_temp: Id | None = None


class Tenant(Model):
    """A hosting customer (licence sub-type II)."""

    id: Id
    name: str
    licence: str | None = None


class RatioPassport(Model):
    """Instrument transformers of one metering point."""

    num: int = Field(gt=0)
    den: int = Field(gt=0)
    accuracy_class: str | None = None
    serials: tuple[str, ...] = ()
    certificate: str | None = None
    expires: str | None = None


class Passport(Model):
    """Metrological passport of a metering point."""

    meter_serial: str | None = None
    accuracy_class: str | None = None
    certificate: str | None = None
    expires: str | None = None
    ct: RatioPassport | None = None
    vt: RatioPassport | None = None
    ratio_applied_in: Literal["meter", "agent", "both"] = "meter"
    seals: tuple[str, ...] = ()
    register_digits: int | None = Field(default=None, ge=4, le=20)
    nominal_kw: Kilowatt | None = None


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
    """A sum of metering points with signs, e.g. ``+M1 +M2 -M7``; quality is that of the worst member."""

    id: Id
    formula: Annotated[str, Field(pattern=r"^\s*([+-]\s*[A-Za-z0-9_.-]+\s*)+$")]
    role: Literal["commercial", "control", "technical", "check"] = "control"
    boundary: bool = False

    def terms(self) -> tuple[tuple[int, str], ...]:
        """((+1, "M1"), (-1, "M7"), …)."""
        import re

        found = re.findall(r"([+-])\s*([A-Za-z0-9_.][A-Za-z0-9_.-]*)", self.formula)
        return tuple((1 if sign == "+" else -1, name) for sign, name in found)
