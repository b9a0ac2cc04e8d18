"""Orders under way at all sites, as a funnel with real power: sent, delivered, accepted, load falling, met, given back.

A site counts at every stage that its order has passed. Power off is power before, as the site signed it, less power
now; where there is no fresh power it is unknown and in no sum. Drills and trials move nothing and are in no sum either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from nicegui import ui

from central.dispatch import OrderView
from central.pages import parts
from central.pages.call import DRILL, is_drill, missing, order_of
from central.pages.format import DASH, clock, kilowatt, localised
from central.pages.story import notices
from central.pages.texts import Texts
from wire.states import OrderState, ended

S = OrderState
STAGES = ("sent", "delivered", "accepted", "falling", "met", "back")
_STAGE = {
    S.RECEIVED: 1,
    S.VALIDATED: 2,
    S.SCHEDULED: 2,
    S.ARMED: 2,
    S.EXECUTING: 3,
    S.VERIFYING: 3,
    S.FAILED: 3,
    S.HOLDING: 4,
    S.RESTORING: 5,
    S.RESTORE_BLOCKED: 5,
    S.DONE: 5,
}
_ENDED_BADLY = frozenset({S.REJECTED, S.EXPIRED})
_NOT_SHOWN = frozenset({S.SUPERSEDED, S.CANCELLED})
KEPT_MS = 600_000
"""An order that is over stays in sight for so long."""
MAX_ROWS = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where the newest order of one site stands. Powers in W; ``None`` is unknown."""

    site: str
    name: str
    stage: int
    """Index into :data:`STAGES`: the last one that was reached."""
    late: bool
    """Not delivered: somebody has to call."""
    trouble: str
    """``refused``, ``short`` (less than ordered with nothing left to do) or ``blocked`` (the return); empty: none."""
    moves: bool
    """False for drills and trials."""
    before_w: int | None
    target_w: int | None
    power_w: int | None
    until_ms: int | None

    @property
    def ordered_w(self) -> int | None:
        """What was ordered off."""
        return None if self.before_w is None or self.target_w is None else max(0, self.before_w - self.target_w)

    @property
    def off_w(self) -> int | None:
        """What is off now; negative where the site draws more than before."""
        return None if self.before_w is None or self.power_w is None else self.before_w - self.power_w

    @property
    def above_w(self) -> int | None:
        """How far load is above the target while the order holds."""
        if not self.moves or self.stage >= STAGES.index("back") or self.power_w is None or self.target_w is None:
            return None
        return self.power_w - self.target_w


@dataclass(frozen=True, slots=True)
class Funnel:
    """Sums over places."""

    counts: tuple[int, ...]
    """Sites that reached each stage."""
    ordered_w: tuple[int | None, ...]
    """What was ordered off at those of them that told it; ``None`` where none did."""
    off_w: int | None
    """Off now, where it is known."""
    known: int
    moving: int
    """Sites at which something is to move at all; ``known`` of them have fresh power."""


def place(view: OrderView, summary: Mapping[str, Any], name: str, now_ms: int) -> Place | None:
    """Where an order stands; ``None`` where it is not to be shown (any more)."""
    state = view.state
    if state in _NOT_SHOWN:
        return None
    told = [a for a in view.answers if a.verified is not False]
    if state is not None and ended(state):
        over = max((a.at for a in told), default=view.order.posted_at)
        if now_ms - over > KEPT_MS:
            return None
    order = order_of(view)
    reached = 0 if state is None else _STAGE.get(state, 1)
    accepted = next((a for a in told if a.ty == "cmd_ack" and a.state != S.REJECTED), None)
    targets = [a.target_w for a in told if a.target_w is not None]
    trouble = {S.FAILED: "short", S.RESTORE_BLOCKED: "blocked"}.get(state, "") if state else ""
    return Place(
        site=view.order.site,
        name=name,
        stage=max(reached, 0 if view.delivered_at is None else 1),
        late=missing(view),
        trouble="refused" if state in _ENDED_BADLY else trouble,
        moves=not is_drill(view) and notices(view).trial is None,
        before_w=accepted.power_w if accepted is not None else None,
        target_w=targets[-1] if targets else None,
        power_w=summary["power_w"] if summary["freshness"] == "fresh" else None,
        until_ms=order.hold.until if order is not None and order.hold is not None else None,
    )


def funnel(places: Iterable[Place]) -> Funnel:
    """The sums; who refused counts as delivered and no further."""
    listed = list(places)
    moving = [p for p in listed if p.moves and p.trouble != "refused"]
    counts: list[int] = []
    ordered: list[int | None] = []
    for stage in range(len(STAGES)):
        there = [p for p in listed if p.stage >= stage]
        counts.append(len(there))
        ordered.append(_sum(p.ordered_w for p in there if p.moves))
    known = [p.off_w for p in moving if p.off_w is not None]
    return Funnel(tuple(counts), tuple(ordered), _sum(known), len(known), len(moving))


def _sum(powers: Iterable[int | None]) -> int | None:
    """Over what is known; ``None`` where nothing is."""
    known = [power_w for power_w in powers if power_w is not None]
    return sum(known) if known else None


def in_order(places: Iterable[Place]) -> list[Place]:
    """Who needs somebody first: not delivered, refused or short, then those furthest from their target."""
    return sorted(places, key=lambda p: (not p.late, not p.trouble, p.stage, -(p.above_w or 0), p.site))


class FunnelCard:
    """The card on the first page; hidden while no order is under way."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._shown: object = None
        self._card = parts.box("tz-card", testid="funnel")
        with self._card:
            parts.text(texts("Orders under way, from sent to given back"), "tz-title")
            self._stages = parts.box("tz-funnel")
            self._sum = parts.text(DASH, "tz-name", testid="funnel-sum")
            with parts.box("tz-scroll"):
                self._table = parts.box("tz-table", tag="table")
        self._card.set_visibility(False)

    def show(self, places: Sequence[Place]) -> None:
        """Refresh."""
        if (listed := in_order(places)[:MAX_ROWS]) == self._shown:
            return
        self._shown = listed
        self._card.set_visibility(bool(listed))
        sums = funnel(places)
        self._show_stages(sums)
        texts = self._texts
        off, ordered = self._kw(sums.off_w), self._kw(sums.ordered_w[0])
        said = [texts("off now {off} of {ordered} ordered", off=off, ordered=ordered)]
        if sums.known < sums.moving:
            said.append(texts("power now unknown at {n} sites", n=sums.moving - sums.known))
        self._sum.set_text(" · ".join(said))
        self._table.clear()
        with self._table:
            self._rows(listed)

    def _kw(self, power_w: int | None) -> str:
        return DASH if power_w is None else f"{localised(kilowatt(power_w), self._texts)} {self._texts('kW')}"

    def _show_stages(self, sums: Funnel) -> None:
        names = self._names()
        self._stages.clear()
        with self._stages:
            for name, count, ordered in zip(STAGES, sums.counts, sums.ordered_w, strict=True):
                with parts.box("tz-stage", "" if count else "none", testid=f"funnel-{name}"):
                    parts.text(str(count), "tz-count")
                    parts.text(names[name])
                    parts.text(self._kw(ordered) if count else "", "tz-soft")

    def _names(self) -> dict[str, str]:
        texts = self._texts
        return {
            "sent": texts("sent"),
            "delivered": texts("delivered"),
            "accepted": texts("accepted"),
            "falling": texts("load falls"),
            "met": texts("target met"),
            "back": texts("given back"),
        }

    def _rows(self, listed: Sequence[Place]) -> None:
        texts = self._texts
        powers = (texts("before the order"), texts("target"), texts("now"), texts("above target"), texts("until"))
        with parts.box(tag="thead"), parts.box(tag="tr"):
            for word, side in [(texts("Site"), ""), (texts("Order"), ""), *((power, "r") for power in powers)]:
                with parts.box(side, tag="th"):
                    parts.text(word)
        with parts.box(tag="tbody"):
            for one in listed:
                self._row(one)

    def _row(self, one: Place) -> None:
        texts = self._texts
        trouble = {
            "refused": texts("refused"),
            "short": texts("less than ordered"),
            "blocked": texts("return blocked"),
        }
        if one.late:
            words, kind = texts("NOT DELIVERED — CALL"), "bad"
        elif one.trouble:
            words, kind = trouble[one.trouble], "bad"
        else:
            words, kind = self._names()[STAGES[one.stage]], "good" if one.stage >= STAGES.index("met") else "info"
        if not one.moves:
            words, kind = f"{DRILL} · {words}", "warn"
        above = None if one.above_w is None else max(0, one.above_w)
        with parts.box("gap" if one.late or one.trouble else "", tag="tr", testid="funnel-row"):
            with parts.box(tag="td"):
                ui.link(one.name, f"/site/{quote(one.site)}")
            with parts.box(tag="td"):
                parts.text(words, "tz-chip", kind)
            for power_w in (one.before_w, one.target_w, one.power_w, above):
                with parts.box("r", tag="td"):
                    parts.text(self._kw(power_w))
            with parts.box("r", tag="td"):
                parts.text(clock(one.until_ms))
