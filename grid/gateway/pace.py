"""Whose turn it is, how much and how fast, so that the total follows the plan's ramp. Pure.

The next site is ordered when the planned total has come down to what those ordered so far will reach. Each runs its own
part at the plan's ramp, one after the other; a site that fell out is made up for by the next ones, within the ramp that
its zone still allows beside those that are moving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grid.gateway.checks import Powers
from grid.gateway.members import Member, Standing
from grid.gateway.plan import Plan

CUT_PERMILLE = 980
"""Of the mandate's cut: a site that draws a little more when the order arrives than when seen must not refuse."""
COUNTED = frozenset({Standing.SENT, Standing.ACTING, Standing.HOLDING})
SLOWEST = 4
"""An order runs at no less than this part of the wanted ramp; what is slower waits."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The next order: which site, how many W, at how many W per minute."""

    member: Member
    cut_w: int
    ramp: int


def planned_w(plan: Plan, total_w: int, target_w: int, elapsed_ms: int) -> int:
    """The planned total so long after the start."""
    if plan.ramp_w_per_min is None:
        return target_w
    return max(target_w, total_w - plan.ramp_w_per_min * max(0, elapsed_ms) // 60_000)


def next_turn(
    members: Sequence[Member], plan: Plan, powers: Powers, *, total_w: int, target_w: int, elapsed_ms: int, now_ms: int
) -> Turn | None:
    """The order that is due now; ``None`` where none is, or nobody can give anything."""
    expected = sum(member.expected_w for member in members)
    missing = expected - target_w
    if missing <= powers.mandate.band_w // 2:
        return None
    if plan.ramp_w_per_min is not None and planned_w(plan, total_w, target_w, elapsed_ms) >= expected:
        return None
    free = _free_w(members, plan, powers)
    for standing in (Standing.IDLE, Standing.HOLDING):
        able = [(m, free[m.site]) for m in members if m.standing is standing]
        able = sorted(((m, room) for m, room in able if room > 0), key=lambda pair: (-pair[1], pair[0].site))
        rooms = sum(room for _, room in able)
        for member, room in able:
            ramp = _ramp(member, members, plan, powers, now_ms)
            if ramp is not None:
                return Turn(member, min(room, -(-missing * room // rooms)), ramp)
        if able:
            return None  # only the ramp holds them back
    return None


def _ramp(member: Member, members: Sequence[Member], plan: Plan, powers: Powers, now_ms: int) -> int | None:
    """How fast a site may go now beside those of its zone that are moving."""
    wanted = min(plan.ramp_w_per_min or powers.mandate.max_ramp_w_per_min, powers.mandate.max_ramp_w_per_min)
    if powers.declaration is not None or plan.ramp_w_per_min is None:
        return wanted
    running = sum(m.given.ramp for m in members if m.zone == member.zone and m.moving(now_ms) and m.given is not None)
    left = powers.zone(member.zone).max_ramp_w_per_min - running
    ramp = min(wanted, left)
    # A zone whose own bound is below the plan's ramp goes at its own.
    return ramp if ramp > 0 and ramp * SLOWEST >= min(wanted, powers.zone(member.zone).max_ramp_w_per_min) else None


def _free_w(members: Sequence[Member], plan: Plan, powers: Powers) -> dict[str, int]:
    """Site → what it may still be asked for. In a plan of one step a zone gives no more than its step in all."""
    most = powers.max_cut_w * CUT_PERMILLE // 1000
    free = {m.site: m.room_w(most) for m in members}
    if plan.ramp_w_per_min is None and powers.declaration is None:
        for zone in powers.zones:
            given = sum(m.ordered_w for m in members if m.zone == zone.id and m.standing in COUNTED)
            left = max(0, zone.max_step_w - given)
            free |= {m.site: min(free[m.site], left) for m in members if m.zone == zone.id}
    return free


def exhausted(members: Sequence[Member], plan: Plan, powers: Powers) -> bool:
    """True where nobody can give any more."""
    free = _free_w(members, plan, powers)
    return not any(free[m.site] > 0 for m in members if m.standing in {Standing.IDLE, Standing.HOLDING})


def shares_of(members: Sequence[Member], powers: Powers, cut_w: int) -> dict[str, int]:
    """Site → its share of a cut, in proportion to what it can give within the mandate; rounded up to whole W."""
    most = powers.max_cut_w * CUT_PERMILLE // 1000
    rooms = {member.site: member.room_w(most) for member in members}
    total = sum(rooms.values())
    wanted = min(max(0, cut_w), total)
    return {site: -(-wanted * room // total) if total else 0 for site, room in rooms.items()}
