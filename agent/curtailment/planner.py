"""Which loads go for a target: least efficient machines first, then the fewest switch operations. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

MARGIN_PERMILLE = 20
"""Chosen beyond the excess, so that noise of the meter does not leave the load a hair above the limit. It is a share of
what goes or of what stays, whichever is less: a deep cut must not take a low limit far below itself."""


def wanted_w(excess_w: int, target_w: int | None) -> int:
    """What to choose for an excess, margin included.

    Args:
        excess_w: how much has to go.
        target_w: what may stay; ``None`` where it is not known.
    """
    base = excess_w if target_w is None else min(excess_w, max(0, target_w))
    return excess_w + base * MARGIN_PERMILLE // 1000


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that can be put to sleep now."""

    id: str
    draw_w: int
    sleep_w: int
    joule_per_th: float
    tenant_shed_wh: int = 0
    """What its tenant gave so far: of equally efficient machines those of the tenant that gave least go first."""

    @property
    def gain_w(self) -> int:
        """What sleeping takes off the meter."""
        return max(0, self.draw_w - self.sleep_w)


@dataclass(frozen=True, slots=True)
class Throttle:
    """A machine whose power can be limited now."""

    id: str
    draw_w: int
    lowest_w: int
    """The lowest limit that its owner allows."""

    @property
    def room_w(self) -> int:
        """What the lowest limit takes off the meter."""
        return max(0, self.draw_w - self.lowest_w)


@dataclass(frozen=True, slots=True)
class Output:
    """A switch that may open now."""

    id: str
    gain_w: int
    """Live power behind it."""
    saon: bool = False
    outlet: bool = False
    """A PDU outlet: a machine or a few, no breaker to wear."""
    tenant_shed_wh: int = 0
    machines: frozenset[str] = frozenset()
    run_on_s: float = 0.0
    """How long cooling behind it has to run after its last machine."""
    battery: bool = False
    """Nothing but batteries hangs behind it: its gain is what they charge with, 0 where they give or nobody knows."""
    keep: str | None = None
    """Why it should stay closed although it may open: it keeps something from freezing."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen and what it should bring."""

    targets: tuple[str, ...]
    expected: Mapping[str, int] = field(default_factory=dict)

    @property
    def expected_w(self) -> int:
        """Sum of the expected reductions, W."""
        return sum(self.expected.values())


def choose_machines(
    machines: Iterable[Machine],
    excess_w: int,
    *,
    target_w: int | None = None,
    everything: bool = False,
    budget_w: int | None = None,
    largest_first: bool = False,
) -> Choice:
    """Machines to put to sleep for an excess.

    Args:
        machines: candidates, each drawing now.
        excess_w: how much has to go.
        target_w: what may stay.
        everything: all of them (a stop).
        budget_w: most that may go in this step (ramp), or ``None``.
        largest_first: speed counts, not efficiency: those that bring most go first.
    """
    wanted = wanted_w(excess_w, target_w)
    expected: dict[str, int] = {}
    total = 0

    def rank(m: Machine) -> tuple[float, float, int, str]:
        return (0, 0, -m.gain_w, m.id) if largest_first else (-m.joule_per_th, m.tenant_shed_wh, -m.gain_w, m.id)

    for machine in sorted(machines, key=rank):
        if machine.gain_w <= 0 or (not everything and total >= wanted):
            continue
        if budget_w is not None and total + machine.gain_w > budget_w:
            break
        expected[machine.id] = machine.gain_w
        total += machine.gain_w
    if not everything:
        _trim(expected, wanted)
    return Choice(tuple(expected), expected)


def _trim(expected: dict[str, int], wanted: int) -> None:
    """Drop machines that the others make superfluous, smallest first."""
    spare = sum(expected.values()) - wanted
    for name in sorted(expected, key=lambda n: (expected[n], n)):
        if expected[name] > spare:
            break
        spare -= expected.pop(name)


def choose_limits(
    machines: Iterable[Throttle],
    excess_w: int,
    *,
    target_w: int | None = None,
    everything: bool = False,
    budget_w: int | None = None,
) -> dict[str, int]:
    """Power limits for an excess: machine → W. All machines give the same share of what they can.

    Spread like that each machine loses least of its work, since the first watts it gives cost it the least hash rate.

    Args:
        machines: candidates, each drawing now.
        excess_w: how much has to go.
        target_w: what may stay.
        everything: the lowest limit for all of them.
        budget_w: most that may go in this step (ramp), or ``None``.
    """
    able = [m for m in machines if m.room_w > 0]
    room = sum(m.room_w for m in able)
    wanted = room if everything else min(room, wanted_w(excess_w, target_w))
    if budget_w is not None:
        wanted = min(wanted, budget_w)
    if wanted <= 0:
        return {}
    # Rounded down for each, so that the sum suffices; the first watt over a budget is less than one a machine.
    share = wanted if budget_w is None else max(0, wanted - len(able))
    return {m.id: max(m.lowest_w, m.draw_w - -(-m.room_w * share // room)) for m in able}


def choose_outputs(
    outputs: Iterable[Output], excess_w: int, *, target_w: int | None = None, budget_w: int | None = None
) -> Choice:
    """Switches to open for an excess: the fewest operations, САОН feeders last.

    One switch that suffices beats several; the smallest that suffices beats a larger one. Of two switches with the same
    machines behind them only one is chosen: the other would bring nothing more. Of equal ones that of the tenant who
    gave least so far opens.

    Args:
        outputs: candidates.
        excess_w: how much has to go.
        target_w: what may stay.
        budget_w: most that may go in this step, or ``None``; what is larger by itself is never chosen.
    """
    wanted = wanted_w(excess_w, target_w)
    if budget_w is not None:
        wanted = min(wanted, budget_w)
    expected: dict[str, int] = {}
    total = 0
    opened: frozenset[str] = frozenset()
    left = [o for o in outputs if o.gain_w > 0 and (budget_w is None or o.gain_w <= budget_w)]
    for group in ([o for o in left if not o.saon], [o for o in left if o.saon]):
        rest = sorted((o for o in group if not o.machines & opened), key=lambda o: (o.gain_w, o.tenant_shed_wh, o.id))
        while rest and total < wanted:
            if budget_w is not None:
                rest = [o for o in rest if total + o.gain_w <= budget_w]
                if not rest:
                    break
            fitting = [o for o in rest if o.gain_w >= wanted - total]
            largest = [o for o in rest if o.gain_w == rest[-1].gain_w]
            pick = fitting[0] if fitting else largest[0]
            rest = [o for o in rest if o is not pick and not o.machines & pick.machines]
            expected[pick.id] = pick.gain_w
            opened |= pick.machines
            total += pick.gain_w
    _trim(expected, wanted)
    return Choice(tuple(expected), expected)


@dataclass(frozen=True, slots=True)
class Return:
    """A held thing that is to come back."""

    id: str
    kind: str
    expected_w: int


RETURN_ORDER = ("switch", "machine", "limit")


def stage(items: Collection[Return], *, stage_w: int, room_w: int | None) -> tuple[Return, ...]:
    """Items of the next stage: switches before machines, in stages of about ``stage_w``, within ``room_w``.

    At least one item comes back per stage where there is room for it; none where there is not.
    """
    chosen: list[Return] = []
    total = 0
    for item in sorted(items, key=lambda i: (RETURN_ORDER.index(i.kind), i.id)):
        if chosen and total + item.expected_w > stage_w:
            break
        if room_w is not None and total + item.expected_w > room_w:
            break
        chosen.append(item)
        total += item.expected_w
    return tuple(chosen)
