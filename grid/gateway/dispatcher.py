"""Carries out one plan: looks, judges, signs what is due, and names who does not do his part.

One call of :meth:`Dispatcher.tick` is one look. Nothing here waits; the loop around it does.
"""

from __future__ import annotations

from typing import Any, Protocol

import structlog

from grid.errors import CentralRefused, CentralUnreachable, GridError, PlanRefused
from grid.gateway.checks import Powers, check_plan, check_step
from grid.gateway.journal import Issued, Journal, Said, StoredPlan
from grid.gateway.members import Given, Member, Standing, figures_differ, judge
from grid.gateway.pace import Turn, exhausted, next_turn, shares_of
from grid.gateway.plan import Plan, parse_plan
from grid.gateway.signing import site_order
from grid.gateway.view import View, read_view, unseen
from grid.heads import Heads
from grid.ordering import current_epoch
from grid.sequence import Sequence
from grid.story import Story, tell
from wire.dsse import ORDER_TYPE, seal
from wire.keys import SigningKey
from wire.orders import Order, parse_order
from wire.registry import KeysDocument, RegisteredSite

log = structlog.get_logger()

HELD_POLL_MS = 5_000
"""A site that holds is asked for its answers this often; its power is seen at every look."""
MAX_STRANGE = 10
RUNNING = "running"
OPEN = frozenset({RUNNING, "held", "short", "below", "powerless", "frozen"})
"""States of a plan in which it is watched."""


class Central(Protocol):
    """What the gateway needs of central: claims and a carrier."""

    def shares(self, zones: tuple[str, ...], **wanted: Any) -> dict[str, Any]:
        """Central's proposal of shares."""
        ...

    def post_order(self, envelope: bytes, /) -> dict[str, Any]:
        """Carry a signed order."""
        ...

    def order(self, order_id: str, /) -> dict[str, Any]:
        """An order with its signed answers."""
        ...

    def checkpoint(self, site: str, epoch: str, size: int | None = None, /) -> str | None:
        """Text of a checkpoint of a site's log."""
        ...


class Dispatcher:
    """One plan of one gateway."""

    def __init__(
        self,
        *,
        key: SigningKey,
        sequence: Sequence,
        register: KeysDocument,
        journal: Journal,
        central: Central,
        heads: Heads | None = None,
    ) -> None:
        self._key, self._sequence, self._heads = key, sequence, heads
        self.register = register
        """May be exchanged for a newer version while a plan runs; who was revoked signs no more."""
        self._journal, self._central = journal, central
        self.members: dict[str, Member] = {}
        self.plan: Plan | None = None
        self.state = ""
        self.total_w = self.target_w = self._started_ms = 0
        self._powers: Powers | None = None
        self._mandate, self._declaration = "", None  # type: str, str | None
        self._polled: dict[str, int] = {}
        self._strange: dict[str, int] = {}

    # beginning -------------------------------------------------------------------------------------------------------

    def start(self, plan: Plan, mandate: str, declaration: str | None, now_ms: int) -> None:
        """Check a plan and begin it.

        Raises:
            PlanRefused: it may not be carried out; nothing was signed.
            CentralUnreachable: nobody knows what the sites draw.
        """
        before = self._journal.plan(plan.id)
        if before is not None:
            same = "the same content" if before.digest == plan.digest else "OTHER content"
            raise PlanRefused(f"plan {plan.id} was taken already ({before.state}) with {same}; make one with a new id")
        powers = check_plan(plan, mandate, declaration, kid=self._key.kid, register=self.register, now_ms=now_ms)
        view = self._look(plan, powers)
        members = self._members(plan, view)
        total = sum(member.power_w for member in members.values())
        target = plan.target.total_w if plan.target.total_w is not None else total * (plan.target.permille or 0) // 1000
        zones: dict[str, int] = {}
        for name, share in shares_of(list(members.values()), powers, total - target).items():
            zones[members[name].zone] = zones.get(members[name].zone, 0) + share
        check_step(plan, powers, zones)
        self._journal.begin(
            StoredPlan(
                plan.id, plan.digest, plan.encode(), mandate, declaration, now_ms, total, target, RUNNING, "started"
            )
        )
        self._take(plan, mandate, declaration, members, now_ms, total, target, powers)
        for member in members.values():
            if member.seen.why_not is not None:
                phone = f"; phone {member.seen.phone}" if member.seen.phone else ""
                self._say(now_ms, member.site, "left_out", f"left out: {member.seen.why_not}{phone}")
        for objection in view.objections if declaration is None else ():
            self._say(now_ms, None, "central_objects", f"central objects: {objection}")

    def resume(self, stored: StoredPlan, now_ms: int) -> None:
        """Go on with a plan after a restart. What was signed keeps its bytes."""
        plan = parse_plan(stored.body)
        sites = self._sites(plan)
        members = self._members(plan, View({name: unseen(entry) for name, entry in sites.items()}))
        self._take(
            plan, stored.mandate, stored.declaration, members, stored.started_ms, stored.total_w or 0,
            stored.target_w or 0, None,
        )  # fmt: skip
        self.state = stored.state
        for issued in self._journal.issued(plan.id):
            if issued.site in members:
                self._give(members[issued.site], issued)
        self._renew_powers(now_ms)

    def _take(
        self, plan: Plan, mandate: str, declaration: str | None, members: dict[str, Member], started_ms: int,
        total_w: int, target_w: int, powers: Powers | None,
    ) -> None:  # fmt: skip
        self.plan, self.members, self.state = plan, members, RUNNING
        self._mandate, self._declaration, self._powers = mandate, declaration, powers
        self._started_ms, self.total_w, self.target_w = started_ms, total_w, target_w

    def _sites(self, plan: Plan) -> dict[str, RegisteredSite]:
        return {site.id: site for site in self.register.sites if site.zone in plan.zones}

    def _members(self, plan: Plan, view: View) -> dict[str, Member]:
        return {
            name: Member(name, entry.zone, entry.contracted_w, view.sites[name])
            for name, entry in sorted(self._sites(plan).items())
        }

    def _look(self, plan: Plan, powers: Powers | None) -> View:
        wanted: dict[str, Any] = plan.target.model_dump(exclude_none=True)
        wanted |= {"ramp_w_per_min": plan.ramp_w_per_min, "method": list(plan.methods)}
        if powers is not None:
            wanted["max_cut_w"] = powers.max_cut_w
        return read_view(self._central.shares(plan.zones, **wanted), self._sites(plan))

    # one look --------------------------------------------------------------------------------------------------------

    @property
    def power_w(self) -> int:
        """The total now: measured where it is, else the last word, else the contract."""
        return sum(member.power_w for member in self.members.values())

    def tick(self, now_ms: int) -> str:
        """One look at all sites, and what follows from it; the state of the plan."""
        plan = self.plan
        if plan is None or self.state not in OPEN:
            return self.state
        try:
            view = self._look(plan, self._powers)
        except GridError as error:
            return self._blind(plan, error, now_ms)
        try:
            for member in self.members.values():
                member.seen = view.sites[member.site]
                self._post(member, now_ms)
                self._answers(member, now_ms)
        except CentralUnreachable as error:
            return self._blind(plan, error, now_ms)
        self._judge_all(now_ms)
        if any(member.standing is Standing.RELEASED for member in self.members.values()):
            self._set("frozen", "a person gave load back: nothing more is ordered", now_ms)
            if all(member.over(now_ms) for member in self.members.values()):
                self._set("released", "all load that was ordered off may return", now_ms)
            return self.state
        if plan.hold.until is not None and now_ms >= plan.hold.until:
            self._set("ended", "its time is over; each order still has to be released by a person", now_ms)
            return self.state
        self._renew_powers(now_ms)
        self._dispatch(plan, now_ms)
        self._conclude(now_ms)
        return self.state

    def leave(self, why: str, now_ms: int) -> None:
        """Watch the plan no longer. What it ordered stands until a person releases it."""
        self._set("left", why, now_ms)

    def _blind(self, plan: Plan, error: GridError, now_ms: int) -> str:
        """What was signed stands; nothing new is decided on what is no longer seen."""
        log.warning("gateway_blind", plan=plan.id, error=str(error))
        for member in self.members.values():
            if member.standing is Standing.SENT:
                self._judge(member, now_ms)
        return self.state

    def _judge_all(self, now_ms: int) -> None:
        for member in self.members.values():
            self._judge(member, now_ms)

    def _judge(self, member: Member, now_ms: int) -> None:
        if self.plan is None or member.given is None:
            return
        before = (member.standing, member.code)
        judge(member, now_ms, self.plan.reach_within_s)
        if (member.standing, member.code) == before:
            return
        if member.code:
            self._say(now_ms, member.site, member.code, member.text)
        elif before[0] is Standing.OUT:
            self._say(now_ms, member.site, "back", f"it answers after all: {member.standing.value}")

    def _answers(self, member: Member, now_ms: int) -> None:
        given = member.given
        if given is None or not given.posted or member.standing is Standing.RELEASED:
            return
        order = given.signed.order
        settled = member.standing is Standing.HOLDING or member.code in {"refused", "trial", "expired", "contradicts"}
        if settled and now_ms - self._polled.get(order.id, 0) < HELD_POLL_MS:
            return
        self._polled[order.id] = now_ms
        try:
            lines = self._central.order(order.id).get("answers")
        except CentralUnreachable:
            raise
        except GridError as error:
            self._say_few(now_ms, member.site, "central_forgot", f"central does not show the order: {error}")
            return
        story = tell(given.signed, lines if isinstance(lines, list) else [], self.register)
        for refused in story.refused:
            self._say_few(now_ms, member.site, "bad_answer", f"an answer that does not count: {refused.why}")
        known = member.story.state if member.story else None
        member.story = story
        self._compare(member, order, story, now_ms)
        differ = figures_differ(member)
        if differ is not None:
            self._say(now_ms, member.site, "figures_differ", differ)
        if story.state is not None and story.state != known:
            self._journal.mark(order.id, state=story.state)
            if story.accepted is not None and order.supersedes is not None:
                self._journal.mark(order.supersedes, replaced=True)

    # signing and sending ---------------------------------------------------------------------------------------------

    def _dispatch(self, plan: Plan, now_ms: int) -> None:
        powers = self._powers
        while powers is not None:
            turn = next_turn(
                list(self.members.values()),
                plan,
                powers,
                total_w=self.total_w,
                target_w=self.target_w,
                elapsed_ms=now_ms - self._started_ms,
                now_ms=now_ms,
            )
            if turn is None:
                return
            self._order(plan, powers, turn, now_ms)

    def _order(self, plan: Plan, powers: Powers, turn: Turn, now_ms: int) -> None:
        member = turn.member
        try:
            seq = self._sequence.next(member.site, now_ms=now_ms)
            order = site_order(plan, powers, turn, self.register, seq=seq, now_ms=now_ms, seen=self._seen(member.site))
        except GridError as error:
            member.standing, member.code, member.text = Standing.OUT, "cannot_order", str(error)
            self._say(now_ms, member.site, member.code, member.text)
            return
        raw = seal(ORDER_TYPE, order.encode(), self._key).encode()
        before = member.seen.net_w or 0
        issued = Issued(order.id, member.site, raw, now_ms, before, order.limit_w or 0, turn.ramp)
        # Durable before it leaves: after a kill these very bytes are sent again, and nothing is signed for it anew.
        self._journal.issue(plan.id, issued)
        log.info("gateway_order", plan=plan.id, site=member.site, order=order.id, limit_w=order.limit_w, ramp=turn.ramp)
        self._give(member, issued)
        try:
            self._post(member, now_ms)
        except CentralUnreachable as error:
            log.warning("gateway_not_posted", site=member.site, error=str(error))

    def _compare(self, member: Member, order: Order, story: Story, now_ms: int) -> None:
        """Say where a site's word about its log is not what was seen of it elsewhere."""
        told = [answer.head for answer in story.answers if answer.head is not None]
        if self._heads is None or not told:
            return
        try:
            found = self._heads.compare(member.site, order.epoch, told, self.register, self._central)
        except GridError as error:
            self._say_few(now_ms, member.site, "heads_damaged", str(error))
            return
        if found == "split":
            self._say_few(now_ms, member.site, "two_histories", "two histories of this site's records were seen")

    def _seen(self, site: str) -> str | None:
        if self._heads is None:
            return None
        return self._heads.newest(site, current_epoch(self.register, site), self.register, self._central)

    def _give(self, member: Member, issued: Issued) -> None:
        if member.given is not None:
            member.earlier.append(member.given.signed.order.id)
        signed = parse_order(issued.raw)
        member.given = Given(
            signed, issued.signed_ms, issued.before_w, issued.limit_w, issued.ramp, posted=issued.posted
        )
        member.ordered_w += member.given.cut_w
        member.standing, member.code, member.text = Standing.SENT, "", ""
        member.story, member.over_since_ms, member.over_samples = None, None, 0

    def _post(self, member: Member, now_ms: int) -> None:
        """Hand a signed order over, the same bytes until central has them or it may not begin any more."""
        given = member.given
        if given is None or given.posted or now_ms > given.signed.order.execute_by:
            return
        try:
            self._central.post_order(given.signed.raw)
        except CentralRefused as error:
            if error.status >= 500:
                return  # it may have room again in a second
            member.standing, member.code, member.text = Standing.OUT, "central_refused", str(error)
            self._say(now_ms, member.site, member.code, f"central does not carry it: {error}")
        given.posted = True
        self._journal.mark(given.signed.order.id, posted=True)

    # where it stands -------------------------------------------------------------------------------------------------

    def _renew_powers(self, now_ms: int) -> None:
        if self.plan is None:
            return
        try:
            self._powers = check_plan(
                self.plan, self._mandate, self._declaration, kid=self._key.kid, register=self.register, now_ms=now_ms
            )
        except PlanRefused as error:
            self._powers = None
            self._set("powerless", f"nothing more is ordered: {error}", now_ms)

    def _conclude(self, now_ms: int) -> None:
        plan, powers = self.plan, self._powers
        if plan is None or powers is None:
            return
        members = list(self.members.values())
        off = self.power_w - self.target_w
        if any(member.standing in {Standing.SENT, Standing.ACTING} for member in members):
            self._set(RUNNING, "sites are on their way", now_ms)
        elif abs(off) <= powers.mandate.band_w:
            self._set("held", "the total is within the mandate's band", now_ms)
        elif off < 0:
            self._set("below", f"{-off} W below the target; giving load back is a person's act", now_ms)
        elif exhausted(members, plan, powers):
            self._set("short", f"{off} W are missing and nobody can give more", now_ms)
        else:
            self._set(RUNNING, "more is due", now_ms)

    def _set(self, state: str, text: str, now_ms: int) -> None:
        if self.plan is None or state == self.state:
            return
        self.state = state
        self._journal.set_state(self.plan.id, state, text)
        self._say(now_ms, None, f"plan_{state}", f"{text} ({self.power_w} W, target {self.target_w} W)")

    def _say_few(self, now_ms: int, site: str, code: str, text: str) -> None:
        """What central can make up without end is written down a few times."""
        if self._strange.get(site, 0) < MAX_STRANGE:
            self._strange[site] = self._strange.get(site, 0) + self._say(now_ms, site, code, text)

    def _say(self, now_ms: int, site: str | None, code: str, text: str) -> bool:
        new = self.plan is not None and self._journal.say(self.plan.id, Said(now_ms, site, code, text[:600]))
        if new and self.plan is not None:
            log.warning("gateway_says", plan=self.plan.id, site=site, code=code, text=text[:600])
        return new
