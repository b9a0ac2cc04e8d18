"""Where orders enter: judged, journalled and answered before anything moves.

``cmd_rx`` (the order verbatim) and ``cmd_ack`` (the decision) become durable in one urgent transaction, together with
the order's row and its number; only then does the engine learn of it. No journal, no movement.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from agent.clock import Clock, TrustedTime
from agent.curtailment.allowance import Allowance
from agent.curtailment.cut_off import not_handed_over, without_effect
from agent.curtailment.engine import Engine
from agent.curtailment.intake import RELEASE_MAX_AGE_MS, Context, Known, Verdict, judge
from agent.curtailment.journal import HOLD_ENDED, Journal, LiveOrder, OrderDoc
from agent.curtailment.planner import choose_machines
from agent.curtailment.voids import void_of
from agent.errors import LedgerError, Overtaken
from agent.ledger import Ledger, Txn
from config.site import Site
from wire.errors import BadOrder
from wire.keys import b64
from wire.orders import Order, SignedOrder, parse_order
from wire.record_types import LogHead
from wire.registry import KeysDocument
from wire.states import Flag, OrderState, Reason, ended

log = structlog.get_logger()

JUNK_PER_MIN = 10
JUNK_BYTES = 8192
S = OrderState


@dataclass(slots=True)
class Reception:
    """Takes order envelopes from wherever they come."""

    site: Site
    ledger: Ledger
    journal: Journal
    engine: Engine
    clock: Clock
    trusted: TrustedTime
    keys: Callable[[], KeysDocument | None]
    genesis_ms: int
    head: Callable[[], LogHead | None] = lambda: None
    """The newest checkpoint that this site signed of its log, for answers."""
    shown: Callable[[str], Awaitable[None]] | None = None
    """Given the checkpoint of this site's log that an order names, once the order is answered."""
    refused: dict[str, int] = field(default_factory=dict)
    accepted_ms: deque[int] = field(default_factory=lambda: deque(maxlen=1000))
    unrecorded: int = 0
    _junk: deque[int] = field(default_factory=deque)
    _allowance: Allowance = field(init=False)
    _judging: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from the judgement of an order to its durable end: copies that come by two ways at once are one after the
    other, and the second is a repetition."""

    def __post_init__(self) -> None:
        self._allowance = Allowance(self.journal)

    async def recover(self) -> None:
        """After a restart, and after the engine's own: what was accepted and had no effect yet takes effect.

        A lock after САОН stays: what was unlocked in the moment of the cut is unlocked by a new release.
        """
        for order, target in without_effect(self.ledger, self.journal):
            log.warning("cut_off_order_resumed", order=order.id, action=order.action, of=target.id)
            await self._apply(order, target)
        for new, old_id in not_handed_over(self.journal):
            log.warning("cut_off_order_resumed", order=new.id, action="supersede", of=old_id)
            await self._supersede(new, old_id)

    async def take(self, raw: bytes, retained: bool) -> None:
        """Take one envelope. Never raises: hostile input gets an answer or a count."""
        rx_mono, rx_ms = self.clock.mono_ns(), self.clock.now_ms()
        try:
            signed = parse_order(raw)
        except BadOrder as error:
            await self._refuse(raw, None, Verdict(Reason(error.code), str(error)), rx_ms)
            return
        async with self._judging:
            if not await self._judged(signed, retained, rx_ms, rx_mono):
                return
        self.engine.wake.set()
        if signed.order.seen is not None and self.shown is not None:
            # Whatever it shows, the order stands: two histories are no reason not to shed.
            await self.shown(signed.order.seen)

    async def _judged(self, signed: SignedOrder, retained: bool, rx_ms: int, rx_mono: int) -> bool:
        """Judge an order, and do what follows from the verdict; false where it is refused."""
        verdict = judge(signed, self._context(signed.order.id, retained))
        if not verdict.accepted and not verdict.duplicate:
            await self._refuse(signed.raw, signed, verdict, rx_ms)
            return False
        try:
            if verdict.duplicate:
                await self._repeat(signed, verdict, rx_ms)
            elif verdict.voided_by:
                await self._void(signed, verdict, rx_ms, rx_mono)
            elif signed.order.sheds:
                await self._shed(signed, verdict, rx_ms, rx_mono)
            else:
                await self._follow(signed, verdict, rx_ms, rx_mono)
        except LedgerError as error:
            self.refused[Reason.NO_JOURNAL] = self.refused.get(Reason.NO_JOURNAL, 0) + 1
            log.error("order_refused_no_journal", order=signed.order.id, error=str(error))
            # It cannot be signed without a journal; said all the same. Central sends the order again until answered.
            await self.engine.teller.tell_unjournalled(signed.order.id, str(error))
        return True

    def _context(self, order_id: str, retained: bool) -> Context:
        before = self.journal.states.get(order_id)
        return Context(
            site=self.site.site.id,
            epoch=self.ledger.epoch,
            genesis_ms=self.genesis_ms,
            # A wall clock behind the trusted time has been set back: the present is at least the trusted time.
            now_ms=max(self.clock.now_ms(), self.trusted.low_ms()),
            trusted_low_ms=self.trusted.low_ms(),
            synchronised=self.clock.synchronised(),
            retained=retained,
            mode=self.engine.gates.mode,
            keys=self.keys(),
            last_seq=self.journal.last_seq,
            known={} if before is None else {order_id: Known(*before)},
            voids=self.journal.voids.of(order_id, self.trusted.low_ms()),
        )

    # refusals ------------------------------------------------------------------------------------------------------

    async def _refuse(self, raw: bytes, signed: SignedOrder | None, verdict: Verdict, rx_ms: int) -> None:
        reason = str(verdict.reason)
        self.refused[reason] = self.refused.get(reason, 0) + 1
        log.warning(
            "order_refused", reason=reason, text=_plain(verdict.text), order=signed.order.id if signed else None
        )
        if not self._room_for_junk():
            self.unrecorded += 1
            return
        txn = Txn()
        self._received(txn, signed, raw, rx_ms)
        txn.record("cmd", "cmd_ack", self._ack(signed, "rejected", verdict))
        try:
            await self.ledger.commit(txn, urgent=True)
        except LedgerError as error:
            log.error("refusal_not_recorded", error=str(error))

    def _room_for_junk(self) -> bool:
        now = self.clock.now_ms()
        while self._junk and now - self._junk[0] > 60_000:
            self._junk.popleft()
        if len(self._junk) >= JUNK_PER_MIN:
            return False
        self._junk.append(now)
        return True

    async def _repeat(self, signed: SignedOrder, verdict: Verdict, rx_ms: int) -> None:
        """A live order came again: the same answer, marked as a repetition; or a second person countersigns it."""
        live = self.journal.live[signed.order.id]
        more = [person for person in verdict.persons if person not in live.doc.persons]
        if more:
            live.doc.persons.extend(more)
            await self.journal.save(live)
            verdict = replace(verdict, text=f"countersigned by {', '.join(more)}")
        if not more and not self._room_for_junk():
            self.unrecorded += 1
            return
        ack = self._ack(signed, live.state, verdict) | {"dup": True, "target_w": live.doc.target_w}
        await self.ledger.commit(Txn().record("cmd", "cmd_ack", ack), urgent=True)
        log.info("order_repeated", order=live.id, rx=rx_ms)

    def _received(self, txn: Txn, signed: SignedOrder | None, raw: bytes, rx_ms: int) -> None:
        txn.record(
            "cmd",
            "cmd_rx",
            {
                "id": signed.order.id if signed else None,
                "digest": signed.digest if signed else None,
                "raw": b64(raw) if len(raw) <= JUNK_BYTES or signed is not None else None,
                "rx": rx_ms,
            },
        )

    def _ack(self, signed: SignedOrder | None, state: str, verdict: Verdict) -> dict[str, Any]:
        head = self.head() if signed else None
        return ({"cp": head} if head else {}) | {
            "id": signed.order.id if signed else None,
            "state": state,
            "code": None if verdict.reason is None else str(verdict.reason),
            "text": _plain(verdict.text)[:480],
            "order_mode": signed.order.mode if signed else None,
            "agent_mode": self.engine.gates.mode,
            "kids": list(verdict.kids),
            "seq": signed.order.seq if signed else None,
        }

    # orders that shed ----------------------------------------------------------------------------------------------

    async def _shed(self, signed: SignedOrder, verdict: Verdict, rx_ms: int, rx_mono: int) -> None:
        order = signed.order
        targets = self.engine.targets
        point = targets.point_of(order)
        refusal = self._impossible(order, verdict, point)
        if refusal is not None or point is None:
            await self._refuse(signed.raw, signed, refusal or verdict, rx_ms)
            return
        before = self.engine.live.power(point).value_w
        target = targets.at(order, before, self.clock.now_ms(), sure=self.clock.synchronised())
        refusal = self._looser(order, verdict, point, target)
        if refusal is None and order.mode != "drill":
            refusal = self._allowance.refuses(order, verdict, before, target, rx_ms)
        if refusal is not None:
            await self._refuse(signed.raw, signed, refusal, rx_ms)
            return
        flags = set(verdict.flags)
        if before is None:
            flags.add(Flag.BLIND)
        live = LiveOrder(
            order=order,
            digest=signed.digest,
            kid=verdict.kids[0],
            state=S.VALIDATED,
            flags=flags,
            received_ms=rx_ms,
            rx_mono=rx_mono,
            doc=OrderDoc(
                persons=list(verdict.persons),
                point=point,
                target_w=target,
                before_w=before,
                hold_until=order.hold.until if order.hold else None,
                returning=f"looser than {order.supersedes}" if self._gives_back(order, point, target) else "",
            ),
        )
        shadow = self.engine.gates.mode != "armed" or order.mode == "drill"
        text = self._plan_text(live, shadow)
        if shadow:
            live.state = S.DONE
        live.doc.accepted_ms = (self.clock.mono_ns() - rx_mono) // 1_000_000
        txn = Txn()
        self._received(txn, signed, signed.raw, rx_ms)
        ack = self._ack(signed, S.VALIDATED, Verdict(None, text, verdict.kids))
        txn.record("cmd", "cmd_ack", ack | {"before_w": before, "target_w": target})
        if shadow:
            txn.record("cmd", "cmd_eff", self.engine.teller.effect(live, S.DONE) | {"text": text})
        self.journal.insert(live, signed.raw, txn)
        try:
            await self.ledger.commit(txn, urgent=True)
        except LedgerError:
            self._allowance.take_back(rx_ms, verdict.persons[0])
            raise
        self.journal.inserted(live)
        took = (self.clock.mono_ns() - rx_mono) // 1_000_000
        live.doc.accepted_ms = took
        self.accepted_ms.append(took)
        self.trusted.raise_to(order.issued_at)
        log.info("order_accepted", order=order.id, action=order.action, target_w=target, before_w=before, ms=took)
        if shadow:
            return
        if order.supersedes is not None:
            await self._supersede(live, order.supersedes)
        await self._tell_others(live)

    async def _void(self, signed: SignedOrder, verdict: Verdict, rx_ms: int, rx_mono: int) -> None:
        """Its cancellation came before it: kept, answered and over, in one transaction; nothing moves."""
        point = self.engine.targets.point_of(signed.order) or self.site.measured_at.net_import
        live = LiveOrder(
            order=signed.order,
            digest=signed.digest,
            kid=verdict.kids[0],
            state=S.CANCELLED,
            flags=set(verdict.flags),
            received_ms=rx_ms,
            rx_mono=rx_mono,
            doc=OrderDoc(persons=list(verdict.persons), point=point, text=verdict.text),
        )
        txn = Txn()
        self._received(txn, signed, signed.raw, rx_ms)
        txn.record("cmd", "cmd_ack", self._ack(signed, S.VALIDATED, verdict))
        txn.record("cmd", "cmd_eff", self.engine.teller.effect(live))
        self.journal.insert(live, signed.raw, txn)
        await self.ledger.commit(txn, urgent=True)
        self.journal.inserted(live)
        self.trusted.raise_to(signed.order.issued_at)
        log.warning("order_void", order=live.id, by=verdict.voided_by)

    def _impossible(self, order: Order, verdict: Verdict, point: str | None) -> Verdict | None:
        """What this site cannot do whoever orders it."""
        if point is None:
            text = f"no metering point answers measured_at {order.measured_at!r}"
            return Verdict(Reason.NO_METER, text, verdict.kids)
        if order.stage is not None and self.engine.targets.stage_w(order.stage) is None:
            text = f"the register has no stage {order.stage} for this site; order a limit, or have the stage registered"
            return Verdict(Reason.UNSUPPORTED, text, verdict.kids)
        unready = [f"{f}: {why}" for f in order.feeders or () if (why := self.engine.gates.unusable(f)) is not None]
        if unready and order.mode != "drill":
            text = f"outputs that may not be used: {'; '.join(unready)}"
            return Verdict(Reason.NOT_COMMISSIONED, text, verdict.kids)
        return None

    def _gives_back(self, order: Order, point: str, target: int | None) -> bool:
        """True where an order supersedes a stricter one at the same point: part of the load may come back."""
        old = self.journal.live.get(order.supersedes or "")
        if old is None or old.doc.point != point or old.doc.target_w is None or target is None:
            return False
        return target > old.doc.target_w and old.doc.released_by is None

    def _looser(self, order: Order, verdict: Verdict, point: str, target: int | None) -> Verdict | None:
        """A looser order that supersedes is a partial release, and needs what a release needs."""
        if order.mode == "drill" or not self._gives_back(order, point, target):
            return None
        without = [issuer.kid for issuer in verdict.issuers if "release" not in issuer.rights]
        if without:
            text = f"it gives load back, which is a release, and key {', '.join(without)} has no right to that"
            return Verdict(Reason.NO_RIGHT, text, verdict.kids)
        if not self.clock.synchronised() and len(verdict.persons) < 2:
            text = "the site's clock is not synchronised: giving load back needs two persons' signatures"
            return Verdict(Reason.CLOCK, text, verdict.kids)
        if self.clock.now_ms() - order.issued_at > RELEASE_MAX_AGE_MS:
            text = "it gives load back and was issued over 10 minutes ago: sign a new one"
            return Verdict(Reason.STALE_RELEASE, text, verdict.kids)
        if self.engine.gates.saon_lock is not None:
            return self._unlock_refusal(verdict)
        return None

    def _plan_text(self, live: LiveOrder, shadow: bool) -> str:
        """What the answer says.

        What a live order moves is planned after its answer is on disk: that takes time with thousands of machines.
        """
        prefix = "DRILL: " if Flag.DRILL in live.flags else f"{self.engine.gates.mode}: " if shadow else ""
        if live.doc.target_w is None or live.doc.before_w is None:
            return f"{prefix}accepted; power or target is not known in W"
        said = [f"accepted; {live.doc.before_w / 1000:.1f} kW now, target {live.doc.target_w / 1000:.1f} kW"]
        if shadow:
            excess, stops = max(0, live.doc.before_w - live.doc.target_w), live.order.action == "stop"
            choice = choose_machines(self.engine.fleet.sleepers({}), excess, everything=stops)
            said.append(f"would put {len(choice.targets)} machines to sleep for {choice.expected_w / 1000:.1f} kW")
        cold = self.engine.fleet.loops.advice()
        return prefix + "; ".join(said if cold is None else [*said, cold])

    async def _supersede(self, new: LiveOrder, old_id: str) -> None:
        while True:
            try:
                await self._take_over(new, old_id)
            except Overtaken:
                continue  # the engine went on with it in between: decided anew on what it is now
            return

    async def _take_over(self, new: LiveOrder, old_id: str) -> None:
        old = self.journal.live.get(old_id)
        partly = old is not None and old.state is S.RESTORING and bool(old.doc.returning)
        if old is None or not old.order.sheds or (old.state in {S.RESTORING, S.RESTORE_BLOCKED} and not partly):
            log.warning("supersedes_unknown", order=new.id, supersedes=old_id)
            return
        await self.journal.hand_over(old_id, new.id)
        # It may have begun to give back while what it holds was handed over.
        partly = partly or (old.state is S.RESTORING and bool(old.doc.returning))
        old.doc.returning = ""
        if partly:
            await self.journal.save(old, record=self.engine.teller.effect(old) | {"text": f"superseded by {new.id}"})
            return
        if old.state is not S.SUPERSEDED:  # a restart may find it half done
            await self.journal.move(
                old, S.SUPERSEDED, f"superseded by {new.id}", record=self.engine.teller.effect(old, S.SUPERSEDED)
            )
        await self.journal.move(old, S.RESTORING, "what it held is held by its successor")

    async def _tell_others(self, new: LiveOrder) -> None:
        """Two dispatchers order one point: the stricter holds, and both are told at once."""
        for other in list(self.journal.live.values()):
            contrary = other.order.sheds and other.doc.released_by is None and other.doc.point == new.doc.point
            if other is new or not contrary or set(other.doc.persons) & set(new.doc.persons):
                continue
            text = f"{new.id} of {', '.join(new.doc.persons)} is in force too; the stricter holds"
            await self.journal.save(other, record=self.engine.teller.effect(other) | {"text": text})
            text = f"{other.id} of {', '.join(other.doc.persons)} is in force too; the stricter holds"
            await self.journal.save(new, record=self.engine.teller.effect(new) | {"text": text})

    # release, extend, cancel ---------------------------------------------------------------------------------------

    async def _follow(self, signed: SignedOrder, verdict: Verdict, rx_ms: int, rx_mono: int) -> None:
        order = signed.order
        targets = self._targets(order, verdict)
        refusal = None
        void = None if targets else void_of(order, verdict.persons, self.journal.states)
        if not targets:
            self.journal.voids.forget(self.trusted.low_ms())
            why = self._why_none(order) if void is None else self.journal.voids.full(verdict.persons)
            refusal = None if why is None else Verdict(Reason.UNKNOWN_ORDER, why, verdict.kids)
        elif order.action == "release" and self.engine.gates.saon_lock is not None:
            refusal = self._unlock_refusal(verdict)
        if refusal is not None:
            await self._refuse(signed.raw, signed, refusal, rx_ms)
            return
        live = LiveOrder(
            order=order,
            digest=signed.digest,
            kid=verdict.kids[0],
            state=S.DONE,
            flags=set(verdict.flags),
            received_ms=rx_ms,
            rx_mono=rx_mono,
            doc=OrderDoc(persons=list(verdict.persons), voids=None if void is None else void.target),
        )
        if order.mode != "drill":
            live.doc.targets = [t.id for t in targets]
        names = ", ".join(t.id for t in targets) if void is None else void.target
        txn = Txn()
        self._received(txn, signed, signed.raw, rx_ms)
        text = f"{order.action} of {names}" if void is None else f"voids {names} when it comes"
        txn.record("cmd", "cmd_ack", self._ack(signed, S.VALIDATED, Verdict(None, text, verdict.kids)))
        self.journal.insert(live, signed.raw, txn)
        await self.ledger.commit(txn, urgent=True)
        self.journal.inserted(live)
        took = (self.clock.mono_ns() - rx_mono) // 1_000_000
        self.accepted_ms.append(took)
        self.trusted.raise_to(order.issued_at)
        log.info("order_accepted", order=order.id, action=order.action, of=names, ms=took)
        if order.mode == "drill":
            return
        if targets and self.engine.gates.saon_lock is not None and order.action == "release":
            await self.engine.gates.set_saon_lock(None)
        for target in targets:
            await self._apply(order, target)

    def _targets(self, order: Order, verdict: Verdict) -> list[LiveOrder]:
        shedding = [o for o in self.journal.live.values() if o.order.sheds]
        if order.target != "all":
            return [o for o in shedding if o.id == order.target and self._extendable(order, o)]
        persons = set(verdict.persons)
        return [o for o in shedding if persons & set(o.doc.persons)]

    @staticmethod
    def _extendable(order: Order, target: LiveOrder) -> bool:
        """False for an extension of what a person released: that is ordered anew."""
        return order.action != "extend" or target.doc.released_by in {None, HOLD_ENDED}

    def _why_none(self, order: Order) -> str:
        target = self.journal.live.get(order.target or "")
        if target is not None and not self._extendable(order, target):
            return f"{target.id} is released by {target.doc.released_by}: order anew what is to be held"
        return f"no live order {order.target}"

    def _unlock_refusal(self, verdict: Verdict) -> Verdict | None:
        """After САОН only the system operator's dispatcher unlocks, with a second person."""
        keys = self.keys()
        roles = {p.role for name in verdict.persons if keys and (p := keys.person(name))}
        if "system_operator" in roles and len(verdict.persons) >= 2:
            return None
        return Verdict(
            Reason.LOCKED,
            "restoration is locked after САОН operated: needs the system operator's dispatcher and a second person",
            verdict.kids,
        )

    async def _apply(self, order: Order, target: LiveOrder) -> None:
        while not ended(target.state):
            try:
                await self._take_effect(order, target)
            except Overtaken:
                continue  # the engine went on with it in between: decided anew on what it is now
            return

    async def _take_effect(self, order: Order, target: LiveOrder) -> None:
        if order.action == "release":
            target.doc.released_by = order.id
            target.doc.ceiling_w = order.restore.ceiling_w
            target.doc.max_w_per_min = order.restore.max_w_per_min
            target.doc.min_mhz = order.restore.min_mhz
            target.doc.not_before = order.not_before
            if target.state in {S.VALIDATED, S.SCHEDULED, S.ARMED}:
                effect = self.engine.teller.effect(target, S.CANCELLED)
                await self.journal.move(target, S.CANCELLED, f"released by {order.id} before it began", record=effect)
            elif target.state not in {S.RESTORING, S.RESTORE_BLOCKED}:
                effect = self.engine.teller.effect(target, S.RESTORING)
                await self.journal.move(target, S.RESTORING, f"released by {order.id}", record=effect)
            else:
                await self.journal.save(target)
        elif order.action == "extend" and order.hold is not None:
            target.doc.hold_until = order.hold.until
            if target.doc.released_by == HOLD_ENDED and target.state in {S.RESTORING, S.RESTORE_BLOCKED}:
                target.doc.released_by = None  # it came back by itself, and shall not yet
                effect = self.engine.teller.effect(target, S.EXECUTING)
                await self.journal.move(target, S.EXECUTING, f"extended by {order.id}", record=effect)
            else:
                await self.journal.save(target)
        elif order.action == "cancel":
            if target.state in {S.VALIDATED, S.SCHEDULED, S.ARMED}:
                effect = self.engine.teller.effect(target, S.CANCELLED)
                await self.journal.move(target, S.CANCELLED, f"cancelled by {order.id}", record=effect)
            else:
                target.doc.stop_shedding = True
                await self.journal.save(target)


def _plain(text: str) -> str:
    """Text that can be written everywhere: what strangers sent may hold lone surrogates."""
    return text.encode("utf-8", "replace").decode()
