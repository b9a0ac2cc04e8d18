"""Orders in the journal: one row each, every change durable before anything follows from it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

from agent.clock import Clock
from agent.curtailment.voids import Voids, void_of
from agent.errors import Overtaken
from agent.ledger import Ledger, Txn
from agent.ledger.store import dumps
from wire.orders import Order, Restore, parse_order
from wire.states import TRANSITIONS, Flag, OrderState, ended

if TYPE_CHECKING:
    from agent.curtailment.holder import Holder


SHEDDING = frozenset({OrderState.EXECUTING, OrderState.VERIFYING, OrderState.HOLDING, OrderState.FAILED})
STANDING = "standing"
"""Stands in the journal where an order's id would: put down under the standing limits of the site, by no order."""
HOLD_ENDED = "hold ended"
"""Stands where a release's id would: the order allowed its own end, and it came."""


class Window(TypedDict):
    """Energy of the window that an order is judged by: from when it counts, when it ends, and what is used (mWh)."""

    from_ms: int
    end_ms: int
    at_ms: int
    used_mwh: int


@dataclass(slots=True)
class OrderDoc:
    """What belongs to an order beyond its state; survives restarts."""

    persons: list[str] = field(default_factory=list)
    point: str = ""
    target_w: int | None = None
    before_w: int | None = None
    accepted_ms: int | None = None
    """Times in ms after the order entered the agent."""
    first_output_ms: int | None = None
    readback_ms: int | None = None
    """Longest time from a switch's write to its position read back."""
    sleep_readback_ms: int | None = None
    """Shortest time from a machine's write to its mode read back: what stands in where no switch moved."""
    confirmed_ms: int | None = None
    escalated: list[str] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)
    not_open: list[str] = field(default_factory=list)
    """Switches that were told to open and did not: reported, planned around."""
    stop_shedding: bool = False
    hold_until: int | None = None
    released_by: str | None = None
    targets: list[str] = field(default_factory=list)
    """Of a release, extension or cancellation: the orders it was accepted for."""
    voids: str | None = None
    """Of a release or cancellation: the order that had not come yet."""
    ceiling_w: int | None = None
    max_w_per_min: int | None = None
    min_mhz: int | None = None
    not_before: int | None = None
    stage_total_w: int = 0
    stages: int = 0
    abandoned: list[str] = field(default_factory=list)
    returning: str = ""
    """Why some of what is held may come back although nothing was released: the next hour of a schedule allows more,
    or a looser order superseded this one's predecessor. Empty: nothing may."""
    window: Window | None = None
    text: str = ""


@dataclass(slots=True)
class LiveOrder:
    """An order that may still act, with what this process knows beside the journal."""

    order: Order
    digest: str
    kid: str
    state: OrderState
    flags: set[Flag]
    received_ms: int
    rx_mono: int
    doc: OrderDoc
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    wave_ns: int = 0
    """When the last wave was fully answered (monotonic)."""
    good: int = 0
    bad: int = 0
    seen_ns: int = 0
    stable_ns: int = 0
    """Since when meter and positions agree without a break (monotonic)."""
    next_stage_ns: int = 0
    waiting: tuple[str, ...] = ()
    block: str | None = None
    saved_ns: int = 0
    """When the energy of its window was last made durable (monotonic)."""
    allowed_w: int | None = None
    """Power that the energy left in the window allows; ``None`` where the order is judged by power."""
    process_w: int = 0
    """Power that a process needs to end safely, while it has time for that: nothing is taken below it yet."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False, compare=False)
    """Held while a change is on its way to the disk: an engine that goes on and a release that comes in between are one
    after the other, in memory as on disk."""

    @property
    def id(self) -> str:
        """Order id."""
        return self.order.id

    @property
    def restore(self) -> Restore:
        """How the load comes back."""
        return self.order.restore

    @property
    def sheds_now(self) -> bool:
        """False once it is released, superseded or cancelled: nothing further goes down under it."""
        return self.state in SHEDDING and not self.doc.stop_shedding

    @property
    def due_w(self) -> int | None:
        """What the load may be now, W: the target, or what the energy left in the window allows."""
        return self.doc.target_w if self.allowed_w is None else self.allowed_w

    @property
    def aim_w(self) -> int | None:
        """What load is taken down to now, W: what is due, unless a process has to end first."""
        due = self.due_w
        return None if due is None else max(due, self.process_w)

    @property
    def limit_w(self) -> int | None:
        """What is due with the tolerance, W: what the meter has to confirm."""
        due = self.due_w
        return None if due is None else due + self.order.tolerance_w


HELD_KIND = {"sleep": "machine", "open": "switch", "limit": "limit"}
"""Kind of step → kind of what is held by it."""
LIMIT = "limit:"


def limit_of(machine: str) -> str:
    """The target that stands for a machine's power limit; the machine itself stands for its sleep."""
    return LIMIT + machine


@dataclass(frozen=True, slots=True)
class Held:
    """Put down by this agent under an order: a ``machine`` asleep, its ``limit`` set, a ``switch`` open."""

    target: str
    kind: str
    order_id: str
    prior: str | None
    expected_w: int
    since_ms: int
    since_mono_ns: int | None = field(default=None, compare=False)
    """The same, monotonic; ``None`` where it was put down before this process began."""


class Journal:
    """Orders, steps, what is held. Everything that is true about the past is read from here."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self.live: dict[str, LiveOrder] = {}
        self.held: dict[str, Held] = {}
        self.states: dict[str, tuple[str, OrderState]] = {}
        """Every order ever received: id → (digest, state)."""
        self.last_seq: dict[str, int] = {}
        self.voids = Voids()
        self.shed_wh: dict[str, int] = {}
        """Tenant → energy that it gave under orders so far; the owner's own machines stand under no name."""
        self.tenant_of: Callable[[str], str | None] = lambda _target: None
        self.is_battery: Callable[[str], bool] = lambda _target: False
        """True of a switch with nothing but batteries behind it: what it brings is nobody's mining."""
        self._step_no: dict[str, int] = {}

    def load(self) -> None:
        """Read the journal at start-up, before anything else runs."""
        read = self._ledger.read_now
        for row in read("SELECT id, kid, digest, raw, state, flags, received_ms, rx_mono, rx_boot, doc FROM orders"):
            state = OrderState(row[4])
            self.states[row[0]] = (row[2], state)
            if ended(state):
                continue
            self.live[row[0]] = LiveOrder(
                order=parse_order(bytes(row[3])).order,
                digest=row[2],
                kid=row[1],
                state=state,
                flags={Flag(f) for f in row[5].split(",") if f},
                received_ms=row[6],
                rx_mono=row[7] if row[8] == self._ledger.boot else self._clock.mono_ns(),
                doc=OrderDoc(**json.loads(row[9])),
            )
        for raw, doc in read("SELECT raw, doc FROM orders WHERE json_extract(doc, '$.voids') IS NOT NULL"):
            order = parse_order(bytes(raw)).order
            void = void_of(order, json.loads(doc)["persons"], self.states)
            if void is not None:
                self.voids.add(void)
        for row in read("SELECT target, kind, order_id, prior, expected_w, since_ms FROM held"):
            self.held[row[0]] = Held(*row)
        self.shed_wh = json.loads(self._ledger.meta("shed_wh") or "{}")
        self.last_seq = {str(kid): int(last) for kid, last in read("SELECT kid, last FROM seq")}
        self._step_no = {order: n + 1 for order, n in read("SELECT order_id, max(n) FROM step GROUP BY order_id")}
        for order, target, count in read(
            "SELECT order_id, target, count(*) FROM step WHERE kind IN ('sleep', 'open', 'limit') "
            "GROUP BY order_id, target"
        ):
            if order in self.live:
                self.live[order].doc.attempts[target] = count

    def open_steps(self) -> list[tuple[str, int, str, str, str | None]]:
        """Intents without an outcome: (order, n, kind, target, prior)."""
        rows = self._ledger.read_now("SELECT order_id, n, kind, target, prior FROM step WHERE outcome_ms IS NULL")
        return [(str(a), int(b), str(c), str(d), e) for a, b, c, d, e in rows]

    def insert(self, live: LiveOrder, raw: bytes, txn: Txn) -> None:
        """Add to a transaction: the order's row and its number."""
        txn.run(
            "INSERT INTO orders (id, kid, seq, digest, raw, state, flags, received_ms, rx_mono, rx_boot, doc) "
            "VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            live.id,
            live.kid,
            live.order.seq,
            live.digest,
            raw,
            live.state,
            _flags(live),
            live.received_ms,
            live.rx_mono,
            self._ledger.boot,
            dumps(asdict(live.doc)),
        )
        txn.run(
            "INSERT INTO seq VALUES (?,?) ON CONFLICT (kid) DO UPDATE SET last = max(last, excluded.last)",
            live.kid,
            live.order.seq,
        )
        self._note(txn, live.id, None, live.state, "received")

    def inserted(self, live: LiveOrder) -> None:
        """The transaction of :meth:`insert` is durable."""
        self.states[live.id] = (live.digest, live.state)
        if live.doc.voids is not None and (void := void_of(live.order, live.doc.persons, {})) is not None:
            self.voids.add(void)
        self.voids.drop(live.id)
        self.last_seq[live.kid] = max(self.last_seq.get(live.kid, -1), live.order.seq)
        if not ended(live.state):
            self.live[live.id] = live

    def _note(self, txn: Txn, order: str, was: OrderState | None, now: OrderState, cause: str) -> None:
        txn.run(
            "INSERT INTO transition VALUES (?,?,?,?,?,?,?)",
            order,
            self._clock.now_ms(),
            self._clock.mono_ns(),
            self._ledger.boot,
            was,
            now,
            cause,
        )

    async def move(
        self, live: LiveOrder, state: OrderState, cause: str, *, record: dict[str, Any] | None = None
    ) -> None:
        """Change an order's state durably, with an optional ``cmd_eff`` record in the same transaction.

        Raises:
            ValueError: there is no such transition.
            Overtaken: there was, until a change that was on its way had ended.
            LedgerError: it is not durable; the state in memory is unchanged.
        """
        if state not in TRANSITIONS[live.state]:
            raise ValueError(f"order {live.id}: no transition {live.state} → {state}")
        async with live.changing:
            if state not in TRANSITIONS[live.state]:
                raise Overtaken(f"order {live.id} is {live.state} by now, {state} has no sense any more")
            live.doc.text = cause
            txn = Txn()
            self._update(txn, live, state)
            self._note(txn, live.id, live.state, state, cause)
            if record is not None:
                txn.record("cmd", "cmd_eff", record | {"state": state, "text": cause})
            await self._ledger.commit(txn, urgent=True)
            live.state = state
            self.states[live.id] = (live.digest, state)
            if ended(state):
                self.live.pop(live.id, None)

    def _update(self, txn: Txn, live: LiveOrder, state: OrderState) -> None:
        txn.run(
            "UPDATE orders SET state=?, flags=?, doc=? WHERE id=?",
            state,
            _flags(live),
            dumps(asdict(live.doc)),
            live.id,
        )

    async def save(self, live: LiveOrder, *, record: dict[str, Any] | None = None) -> None:
        """Make the order's document and flags durable without changing its state."""
        async with live.changing:
            txn = Txn()
            self._update(txn, live, live.state)
            if record is not None:
                txn.record("cmd", "cmd_eff", record)
            await self._ledger.commit(txn, urgent=record is not None)

    async def intend(
        self, live: Holder, kind: str, target: str, expected_w: int, prior: str | None, *, urgent: bool
    ) -> int:
        """A durable intent to move one output; returns the step's number. Nothing may be written before this returns.

        Kinds ``sleep``, ``limit`` and ``open`` also enter the target among what is held.
        """
        n = self._step_no.get(live.id, 0)
        self._step_no[live.id] = n + 1
        now = self._clock.now_ms()
        txn = Txn().run(
            "INSERT INTO step (order_id, n, kind, target, expected_w, prior, intent_ms) VALUES (?,?,?,?,?,?,?)",
            live.id,
            n,
            kind,
            target,
            expected_w,
            prior,
            now,
        )
        held, mono = None, self._clock.mono_ns()
        before = self.held.get(target)
        if kind in HELD_KIND and before is None:
            held = Held(target, HELD_KIND[kind], live.id, prior, expected_w, now, mono)
            txn.run("INSERT INTO held VALUES (?,?,?,?,?,?)", target, held.kind, live.id, prior, expected_w, now)
        elif kind in HELD_KIND and before is not None:  # it had come back by itself: held anew, from now on
            held = replace(before, since_ms=now, since_mono_ns=mono)
            self._gave(txn, before)
            if before.order_id == STANDING:  # what an order puts down too is the order's to give back
                held = replace(held, order_id=live.id)
            txn.run("UPDATE held SET since_ms=?, order_id=? WHERE target=?", now, held.order_id, target)
        await self._ledger.commit(txn, urgent=urgent)
        if held is not None:
            self.held[target] = held
        return n

    async def outcome(self, order: str, n: int, status: str, detail: str, *, drop: str | None = None) -> None:
        """What became of a step; ``drop`` takes a target off what is held."""
        txn = Txn().run(
            "UPDATE step SET outcome_ms=?, status=?, detail=? WHERE order_id=? AND n=?",
            self._clock.now_ms(),
            status,
            detail[:300],
            order,
            n,
        )
        if drop is not None:
            self._drop(txn, drop)
        await self._ledger.commit(txn)
        if drop is not None:
            self.held.pop(drop, None)

    async def drop(self, target: str) -> None:
        """Take a target off what is held (it came back by itself or is given up)."""
        txn = Txn()
        self._drop(txn, target)
        await self._ledger.commit(txn)
        self.held.pop(target, None)

    def _drop(self, txn: Txn, target: str) -> None:
        """Add to a transaction: a target is held no longer; what its tenant gave by it is added up."""
        txn.run("DELETE FROM held WHERE target=?", target)
        held = self.held.get(target)
        if held is not None:
            self._gave(txn, held)

    def _gave(self, txn: Txn, held: Held) -> None:
        if self.is_battery(held.target):
            return
        tenant = self.tenant_of(held.target.removeprefix(LIMIT)) or ""
        gave_wh = held.expected_w * max(0, self.held_ms(held)) // 3_600_000
        self.shed_wh[tenant] = self.shed_wh.get(tenant, 0) + gave_wh
        txn.set_meta("shed_wh", json.dumps(self.shed_wh, sort_keys=True))

    async def hand_over(self, old: str, new: str) -> None:
        """What one order holds is held by another from now on (supersession)."""
        await self._ledger.commit(Txn().run("UPDATE held SET order_id=? WHERE order_id=?", new, old), urgent=True)
        for target, held in list(self.held.items()):
            if held.order_id == old:
                self.held[target] = replace(held, order_id=new)

    def held_ms(self, held: Held) -> int:
        """How long something is held, ms; negative where the wall clock was set back since an earlier run."""
        if held.since_mono_ns is not None:
            return (self._clock.mono_ns() - held.since_mono_ns) // 1_000_000
        return self._clock.now_ms() - held.since_ms

    def held_by(self, order: str) -> list[Held]:
        """What is held under an order."""
        return [h for h in self.held.values() if h.order_id == order]


def _flags(live: LiveOrder) -> str:
    return ",".join(sorted(live.flags))
