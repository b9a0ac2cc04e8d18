"""Fields of each record type, beside the common ones of :mod:`wire.records`.

Times ``t0``/``t1`` are UTC epoch seconds on the slot grid; every other time is ms. ``reg`` holds raw register bits as
unsigned integers by point of the vocabulary. ``raw`` holds ``[request hex, answer hex]`` frames as on the wire
(Modbus: unit, function, data).
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Genesis(TypedDict):
    """Stream ``site``, number 0: the first record of a ledger's life."""

    site: str
    slot_s: int
    k_rec: str
    k_log: str
    prev: dict[str, Any] | None
    simulation: bool
    contracted_w: int
    emergency_w: int


class Start(TypedDict):
    """The agent process began."""

    config_sha256: str
    mode: str
    keys_version: int | None


class DecodeMap(TypedDict):
    """How raw bits become a number: ``value = number(bits) · num/den`` in the point's SI unit, primary side."""

    fc: int
    addr: int
    words: int
    order: str
    enc: str
    lsb: dict[str, int]


class Bind(TypedDict):
    """A meter is put in service at a metering point (stream ``mp:<id>``)."""

    device: str
    profile: str
    sn: str | None
    role: str
    owner: str
    boundary: bool
    node: str
    inverted: bool
    ct: dict[str, int]
    vt: dict[str, int]
    ratio_applied_in: str
    seals: list[str]
    pts: dict[str, DecodeMap]


class Interval(TypedDict):
    """One slot read on both sides.

    ``wh`` = floor(E(r1)) − floor(E(r0)) of ``energy_import_wh`` in primary Wh; ``exp_wh`` of the export register, null
    where there is none. ``q`` is a list of flags, empty when nothing is to be said: ``late0 late1 rollover``.
    """

    t0: int
    t1: int
    rt0: int
    rt1: int
    reg: dict[str, list[int]]
    cfg: str
    wh: int
    exp_wh: int | None
    sn: str | None
    mto: int | None
    q: list[str]
    raw: list[list[str]]
    raw0: NotRequired[list[list[str]]]
    """Frames of the opening reading where no interval before this one carries them."""
    late_wh: NotRequired[int]
    """Energy that the lateness of a boundary reading may have moved to the neighbour."""
    bridge_wh: NotRequired[int]
    """After a gap: energy between the last good boundary reading (``bridge_rt``, ``bridge_reg``) and r0."""
    bridge_rt: NotRequired[int]
    bridge_reg: NotRequired[dict[str, int]]


class Gap(TypedDict):
    """One slot without a reading on at least one side."""

    t0: int
    t1: int
    why: str
    tries: int
    sw: NotRequired[str]
    """For ``DE_ENERGISED``: the switch that was open for the whole slot."""


GAP_REASONS = frozenset(
    {
        "TIMEOUT",
        "CRC",
        "EXCEPTION",
        "NO_CONNECTION",
        "NO_VALUE",
        "NO_POWER",
        "DE_ENERGISED",
        "AGENT_DOWN",
        "SERIAL_CHANGED",
        "CLOCK",
        "COUNTER_RESET",
        "DECODE",
    }
)


class Clock(TypedDict):
    """The wall clock moved by more than 2 s against the monotonic clock (stream ``site``). Times in ms.

    ``was`` is what it would have shown without the step (after a start: the trusted time of the run before), ``now``
    what it shows, ``step_ms`` = now − was. The slots it happened in are gaps with reason ``CLOCK``.
    """

    step_ms: int
    was: int
    now: int


class Event(TypedDict):
    """Something happened (stream ``site``): ``switch_position``, ``foreign_write``, ``alarm``, ``mode`` …"""

    ev: str
    obj: str
    was: NotRequired[str | None]
    now: NotRequired[str | None]
    detail: NotRequired[dict[str, Any]]


class ActRecord(TypedDict):
    """A signed act of people, verbatim (base64 of the envelope)."""

    act: str
    doc: str


class CmdRx(TypedDict):
    """An order arrived (stream ``cmd``): verbatim, base64 of the envelope; null when too large or over the rate."""

    id: str | None
    digest: str | None
    raw: str | None
    rx: int


class CmdAck(TypedDict):
    """The agent's decision."""

    id: str | None
    state: str
    code: str | None
    text: str
    order_mode: str | None
    agent_mode: str
    kids: list[str]
    seq: int | None
    dup: NotRequired[bool]
    before_w: NotRequired[int | None]
    target_w: NotRequired[int | None]
    plan: NotRequired[dict[str, Any]]


class CmdEff(TypedDict):
    """What an order did: one record at each signed milestone.

    ``ms`` holds times since the order entered the agent: accepted, first_output, confirmed; and ``readback``, the
    longest time from a switch's write to its position read back (where no switch moved: the shortest from a machine's
    write to its mode read back).
    """

    id: str
    state: str
    flags: list[str]
    power_w: int | None
    target_w: int | None
    proof: dict[str, Any] | None
    positions: list[list[str]]
    """``[switch, position]`` of every switch held."""
    ms: dict[str, int | None]
    escalated: list[str]
    text: str
