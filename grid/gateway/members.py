"""One site of a plan as the gateway knows it, and what its signed answers and its meter say together. Pure.

A site that answers no, that does not answer, that is late, or whose meter contradicts its signed word is named, and
what it owes goes to the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from grid.gateway.view import Seen
from grid.story import DELIVERY_LIMIT_MS, Answer, Story
from wire.orders import SignedOrder
from wire.states import Flag, OrderState

CONTRADICTION_MS = 30_000
CONTRADICTION_SAMPLES = 3
NOISE_PERMILLE = 20
"""What a meter may show above the limit before it contradicts."""
DIFFERENCE_PERMILLE = 100
SMALL_W = 1000
ENDED = frozenset({OrderState.RESTORING, OrderState.RESTORE_BLOCKED, OrderState.DONE, OrderState.CANCELLED})
"""Signed states in which what was shed is no longer the plan's."""


class Standing(StrEnum):
    """Where a site stands in a plan."""

    IDLE = "idle"
    """Not ordered yet."""
    SENT = "sent"
    ACTING = "acting"
    HOLDING = "holding"
    OUT = "out"
    """It gives nothing, or not what it owes; ``code`` says why."""
    RELEASED = "released"


@dataclass(slots=True)
class Given:
    """The newest order of a site."""

    signed: SignedOrder
    signed_ms: int
    before_w: int
    limit_w: int
    ramp: int
    posted: bool = False

    @property
    def cut_w(self) -> int:
        """What it takes away."""
        return self.before_w - self.limit_w

    @property
    def moves_until_ms(self) -> int:
        """When its ramp is over."""
        return self.signed_ms + -(-self.cut_w * 60_000 // self.ramp)


@dataclass(slots=True)
class Member:
    """A site of a plan."""

    site: str
    zone: str
    contracted_w: int
    seen: Seen
    standing: Standing = Standing.IDLE
    code: str = ""
    text: str = ""
    given: Given | None = None
    ordered_w: int = 0
    """What all orders of the plan took from it: never above the mandate's cut."""
    story: Story | None = None
    over_since_ms: int | None = None
    over_samples: int = 0
    last_at: int | None = None
    earlier: list[str] = field(default_factory=list)
    """Orders of the plan before the newest one."""

    @property
    def signed_w(self) -> int | None:
        """Power in its newest signed answer."""
        powers = [a.power_w for a in self.story.answers if a.power_w is not None] if self.story else []
        return powers[-1] if powers else None

    @property
    def power_w(self) -> int:
        """Its load in the total. Of a site that contradicts itself the worse of the two counts."""
        fresh = self.seen.net_w
        if self.code == "contradicts":
            return max(p for p in (fresh, self.signed_w, self.seen.last_w, 0) if p is not None)
        if fresh is not None:
            return fresh
        if self.standing is Standing.HOLDING and self.given is not None:
            return self.given.limit_w
        return self.contracted_w if self.seen.last_w is None else self.seen.last_w

    @property
    def expected_w(self) -> int:
        """Its load when what was ordered is done, as far as its word still counts."""
        if self.given is None or self.standing not in {Standing.SENT, Standing.ACTING, Standing.HOLDING}:
            return self.power_w
        if self.standing is Standing.HOLDING:
            return min(self.power_w, self.given.limit_w)
        return self.given.limit_w

    def room_w(self, max_cut_w: int) -> int:
        """What it can still give: never below its reservation, never more in all than the mandate allows."""
        return max(0, min(self.seen.available_w, max_cut_w - self.ordered_w))

    def over(self, now_ms: int) -> bool:
        """True where no order of the plan keeps load off any more, or can still begin to."""
        if self.given is None or self.standing is Standing.RELEASED:
            return True
        if self.code in {"refused", "trial", "expired", "central_refused", "cannot_order"}:
            return not self.earlier
        return self.code == "not_delivered" and not self.earlier and now_ms > self.given.signed.order.execute_by

    def moving(self, now_ms: int) -> bool:
        """True while its ramp may still run."""
        return (
            self.given is not None
            and self.standing in {Standing.SENT, Standing.ACTING}
            and now_ms < self.given.moves_until_ms
        )


def figures_differ(member: Member) -> str | None:
    """The power that the site signed when it took the order, where it is not the one that central showed for it."""
    signed = member.story.accepted.before_w if member.story and member.story.accepted else None
    if member.given is None or signed is None:
        return None
    shown = member.given.before_w
    if abs(signed - shown) <= max(shown * DIFFERENCE_PERMILLE // 1000, 5 * SMALL_W):
        return None
    return f"it signed that it drew {signed} W when it took the order, its live meter showed {shown} W: ask which holds"


def judge(member: Member, now_ms: int, reach_within_s: int) -> None:
    """Set where a site stands, from its verified answers, its meter and the time. The caller put both in."""
    given, story = member.given, member.story
    if given is None or member.standing is Standing.RELEASED or member.code in {"central_refused", "cannot_order"}:
        return
    if story is None or story.received is None:
        if now_ms - given.signed_ms >= DELIVERY_LIMIT_MS:
            call = f" {member.seen.phone}" if member.seen.phone else ": its number is not known to central"
            _out(member, "not_delivered", f"NOT DELIVERED — CALL{call}")
        return
    # A refusal of a copy does not undo what the first one began.
    counted = [a for a in story.answers if story.accepted is None or a.state != OrderState.REJECTED]
    last = counted[-1]
    state = last.state
    if story.trial is not None:
        _out(member, "trial", f"nothing was moved ({story.trial})")
    elif state == OrderState.REJECTED:
        _out(member, "refused", f"answered no: {last.code}: {last.text}")
    elif state == OrderState.EXPIRED:
        _out(member, "expired", "it did not begin in time")
    elif state in ENDED and story.accepted is not None:
        member.standing, member.code, member.text = Standing.RELEASED, "", f"signed: {state}"
    elif story.accepted is not None and (story.accepted.target_w or 0) > given.limit_w + SMALL_W:
        _out(member, "short", f"signed that it goes to {story.accepted.target_w} W, ordered were {given.limit_w} W")
    elif state == OrderState.FAILED or Flag.DEGRADED in last.flags:
        _out(member, "short", f"signed that it cannot: {last.text}")
    elif state == OrderState.HOLDING:
        _holding(member, given, last, now_ms)
    elif now_ms > given.moves_until_ms + reach_within_s * 1000:
        _out(member, "late", f"not held {reach_within_s} s after its ramp, signed state {state}")
    elif member.code != "late":
        _stand(member, Standing.ACTING)


def _holding(member: Member, given: Given, last: Answer, now_ms: int) -> None:
    """It signed that the meter confirmed. Does its meter go on saying so?"""
    if member.code == "contradicts":
        return
    allowed = given.limit_w + max(given.signed.order.tolerance_w, given.limit_w * NOISE_PERMILLE // 1000, SMALL_W)
    if last.power_w is not None and last.power_w > allowed:
        _out(member, "contradicts", f"signed that it holds {given.limit_w} W with {last.power_w} W")
        return
    _stand(member, Standing.HOLDING)
    seen = member.seen
    if seen.net_w is None or seen.at is None or seen.at == member.last_at or seen.at <= last.at:
        return
    member.last_at = seen.at
    if seen.net_w <= allowed:
        member.over_since_ms, member.over_samples = None, 0
        return
    member.over_since_ms = now_ms if member.over_since_ms is None else member.over_since_ms
    member.over_samples += 1
    if member.over_samples >= CONTRADICTION_SAMPLES and now_ms - member.over_since_ms >= CONTRADICTION_MS:
        said = "unknown power" if last.power_w is None else f"{last.power_w} W"
        _out(
            member,
            "contradicts",
            f"CONTRADICTS ITSELF: signed that it holds {given.limit_w} W with {said}, its meter shows {seen.net_w} W; "
            "the larger counts",
        )


def _out(member: Member, code: str, text: str) -> None:
    member.standing, member.code, member.text = Standing.OUT, code, text


def _stand(member: Member, standing: Standing) -> None:
    member.standing, member.code, member.text = standing, "", ""
