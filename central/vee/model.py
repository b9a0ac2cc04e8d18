"""What the rules look at, and what they say. Energies are whole Wh, times epoch s (UTC) unless a name ends in ``_ms``.

What is not known is ``None``; a rule that has nothing to look at says :class:`Unjudged`, never that all is well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from config.devices import Passport
from wire.registry import RegisteredPoint

Severity = Literal["fail", "suspect", "warn"]
SEVERITIES: tuple[Severity, ...] = ("fail", "suspect", "warn")
"""The worst first."""
SITE = "-"
"""Stands for the metering point where a rule is about the site as a whole."""
IMPORT = "energy_import_wh"


@dataclass(frozen=True, slots=True)
class Bind:
    """A ``bind`` record: which meter is in service, and its papers."""

    hash: str
    n: int
    sn: str | None
    role: str
    node: str
    boundary: bool
    inverted: bool
    ct: Fraction
    vt: Fraction
    ct_read: Fraction | None
    vt_read: Fraction | None
    pts: Mapping[str, Mapping[str, Any]]
    passport: Passport | None
    """``None`` where the record has none that can be read."""
    device: str = ""


@dataclass(frozen=True, slots=True)
class Phases:
    """Values by phase of a slot, L1 to L3; ``None`` where one was never read. See :class:`wire.record_types`."""

    n: int
    """Polls."""
    u_mv: tuple[int | None, ...]
    """Least voltage."""
    i_ma: tuple[int | None, ...]
    """Mean current."""
    p_w: tuple[int | None, ...]
    """Mean power."""
    unfed: tuple[int, ...]
    """Polls with current and without voltage."""
    backwards: tuple[int, ...]
    """Polls with negative power while the sum was positive."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An ``interval`` or ``gap`` record whose signature holds."""

    t0: int
    t1: int
    hash: str
    ty: Literal["interval", "gap"]
    wh: int | None = None
    """As the register says; ``None`` in a gap."""
    exp_wh: int | None = None
    flags: frozenset[str] = frozenset()
    why: str | None = None
    """Reason of a gap."""
    cfg: str | None = None
    """Hash of the bind in force."""
    sn: str | None = None
    mto: int | None = None
    """The meter's clock minus UTC, ms."""
    pi_wh: int | None = None
    """Integral of the power, net."""
    reg: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    bridge_wh: int | None = None
    bridge_t0: int | None = None
    phases: Phases | None = None
    events: Mapping[str, int] = field(default_factory=dict)
    """The meter's own event counters, by event."""
    switch: str | None = None
    """Gap: behind which open switch the meter lost its supply."""


@dataclass(frozen=True, slots=True)
class Archived:
    """An ``archive`` record: the slot as the meter's own profile has it."""

    t0: int
    hash: str
    wh: int
    mto: int = 0
    """The meter's clock minus UTC when it was read, ms: so much is its slot away from ours."""


@dataclass(frozen=True, slots=True)
class Point:
    """One metering point over the window, slots by time; two of one time are both there."""

    id: str
    slots: tuple[Slot, ...]
    binds: Mapping[str, Bind] = field(default_factory=dict)
    archived: tuple[Archived, ...] = ()
    registered: RegisteredPoint | None = None

    def bind_of(self, slot: Slot) -> Bind | None:
        """The bind an interval names; of a gap, and where it names none that is here, the newest."""
        found = self.binds.get(slot.cfg) if slot.cfg is not None else None
        return found or self.newest_bind

    def import_of(self, slot: Slot) -> int | None:
        """Energy downwards: of a meter whose transformers are connected the other way round its export register's."""
        bind = self.bind_of(slot)
        return slot.exp_wh if bind is not None and bind.inverted else slot.wh

    @property
    def newest_bind(self) -> Bind | None:
        """The bind with the highest number."""
        return max(self.binds.values(), key=lambda b: b.n, default=None)


@dataclass(frozen=True, slots=True)
class Machines:
    """Miners behind a feeder over a slot: how many answered, of how many, and their own figure of energy."""

    seen: int
    expected: int
    wh: int | None


@dataclass(frozen=True, slots=True)
class Balance:
    """A ``balance`` record: main meters against feeders and losses."""

    t0: int
    t1: int
    hash: str
    main: tuple[str, ...]
    main_wh: int | None
    feeders_wh: int | None
    loss_wh: int | None
    residual_wh: int | None
    tol_wh: int | None
    missing: tuple[str, ...] = ()
    asic: Mapping[str, Machines] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Held:
    """Time in which an order was held, from the site's signed answers; ``end_s`` is ``None`` while it still is."""

    order: str
    begin_s: int
    end_s: int | None
    hash: str


@dataclass(frozen=True, slots=True)
class Switched:
    """A ``switch_position`` event."""

    at_ms: int
    switch: str
    now: str | None
    hash: str


@dataclass(frozen=True, slots=True)
class Work:
    """People worked on an object, by signed events: maintenance of a switch or device, or a device exchanged."""

    object: str
    from_ms: int
    to_ms: int
    hash: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading of the same meter by somebody else, as a person entered it. ``hash`` is of its row."""

    point: str
    t0: int
    t1: int
    wh: int
    source: str
    act: str
    hash: str


@dataclass(frozen=True, slots=True)
class Spot:
    """A ``spot`` record: what the display showed and what the register said at the same moment."""

    point: str
    at_ms: int
    diff_wh: int
    """Register minus display, primary."""
    step_wh: int
    """One step of the display's last digit, primary; 0 where it is not known."""
    hash: str


@dataclass(frozen=True, slots=True)
class SiteSlots:
    """One site: slots of [``since``, ``end``), of which [``start``, ``end``) is judged and the rest is history."""

    site: str
    slot_s: int
    since: int
    start: int
    end: int
    points: Mapping[str, Point]
    balances: tuple[Balance, ...] = ()
    held: tuple[Held, ...] = ()
    switched: tuple[Switched, ...] = ()
    disturbed_ms: tuple[int, ...] = ()
    """Moments of orders, switches and starts: near them a step of load has its reason."""
    readings: tuple[Reading, ...] = ()
    spots: tuple[Spot, ...] = ()
    contracted_w: int | None = None
    registered: bool = False
    """True where the register has points of this site to compare with."""
    works: tuple[Work, ...] = ()
    base_w: Mapping[str, int] = field(default_factory=dict)
    """Feeder → load that stays while its machines sleep, as declared."""

    def judged(self, point: Point) -> Iterator[Slot]:
        """Slots of a point that begin within the judged time."""
        return (slot for slot in point.slots if self.start <= slot.t0 < self.end)

    def energies(self, point: str) -> dict[int, int]:
        """Import by beginning of the slot, history included, where it is known from an interval."""
        found = self.points.get(point)
        return {s.t0: wh for s in found.slots if (wh := found.import_of(s)) is not None} if found else {}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a rule holds against the slots of a point."""

    rule: str
    severity: Severity
    point: str
    t0: int
    t1: int
    seen: int | None
    expected: int | None
    unit: str
    """Of both numbers: ``wh``, ``w``, ``ms``, ``s``, ``permille``, ``count``; empty where there is none."""
    text: str
    """Key of the explanation, see :mod:`central.pages.findings`."""
    params: Mapping[str, int | str] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
    """Leaf hashes of the records that it rests on, in the order of time."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A rule that had nothing to look at for a point."""

    rule: str
    point: str
    why: str
    """Key: ``no_data``, ``short_history``, ``no_passport``, ``no_register``,
    ``unknown_base``, ``no_threshold``: the version has none; ``tolerance_only``: judged, but
    not against the past."""


Said = Finding | Unjudged


def runs(slots: Iterable[Slot]) -> Iterator[list[Slot]]:
    """Slots that follow each other, as lists."""
    now: list[Slot] = []
    for slot in slots:
        if now and slot.t0 != now[-1].t1:
            yield now
            now = []
        now.append(slot)
    if now:
        yield now


def of_run(
    rule: str,
    severity: Severity,
    point: str,
    run: Sequence[Slot | Balance],
    seen: int | None,
    expected: int | None,
    unit: str,
    text: str,
    **params: int | str,
) -> Finding:
    """One finding for slots that follow each other."""
    hashes = tuple(slot.hash for slot in run)
    return Finding(rule, severity, point, run[0].t0, run[-1].t1, seen, expected, unit, text, params, hashes)
