"""The account of every order: signed samples of the point it is judged by, and at its end the report over them.

:meth:`Account.observe` is called with every pass of the engine and touches memory alone; :meth:`Account.write` puts
what was gathered on disk, one part a minute. A part and the note of how far it goes are one transaction, so that a
crash loses at most the minute that was not written and doubles nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import structlog

from agent.clock import Clock
from agent.curtailment import electrical
from agent.curtailment.electrical import Electrical, first
from agent.curtailment.fleet import Fleet
from agent.curtailment.gates import Gates
from agent.curtailment.journal import Journal, LiveOrder
from agent.curtailment.samples import MINUTE_MS, STEP_MS, Open, Sample, Terms, thinned
from agent.curtailment.voltage import VoltageGuard
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.ledger.store import dumps
from agent.live import LiveState
from config.nodes import Storage
from config.site import Site
from wire import canonical, obedience
from wire.orders import Order, parse_order
from wire.quality import CODES, Quality
from wire.states import Flag, OrderState

log = structlog.get_logger()

BEFORE_MS = 900_000
"""How much from before the order is kept in memory, for every point."""
MAX_SAMPLES = 1_000
MAX_NOTES = 100
MAX_BUFFER = 20_000
MAX_POINTS = 8
"""At which voltage and reactive power are kept for one order: a sum of many feeders says little by each of them."""
MAX_BATTERY = 200
"""Samples of batteries in one part, all together."""
BATTERY_BEFORE_MS = 120_000
RETRY_NS = 10_000_000_000
PIECE = 2_000
DAY_MS = 86_400_000
GOOD = CODES[Quality.GOOD]
LASTING = frozenset({OrderState.HOLDING, OrderState.SCHEDULED, OrderState.FAILED, OrderState.RESTORE_BLOCKED})
SHORT = frozenset({OrderState.EXECUTING, OrderState.VERIFYING, OrderState.HOLDING, OrderState.FAILED})
META = "account:"


@dataclass(slots=True)
class Account:
    """See the module."""

    site: Site
    ledger: Ledger
    journal: Journal
    fleet: Fleet
    gates: Gates
    cooling: Callable[[LiveOrder], bool]
    """True while an output only waits for its machines to cool down."""
    live: LiveState
    clock: Clock
    terms: Callable[[], Terms]
    _open: dict[str, Open] = field(default_factory=dict)
    _rings: dict[str, deque[Sample]] = field(default_factory=dict)
    _ring_ns: dict[str, int] = field(default_factory=dict)
    _looked_ns: int = 0
    _passed_ms: int = 0
    _due: asyncio.Event = field(default_factory=asyncio.Event)
    electrical: Electrical = field(init=False)
    guard: VoltageGuard = field(init=False)

    def __post_init__(self) -> None:
        self.electrical = Electrical(self.site, self.live, self.clock)
        self.guard = VoltageGuard(self.site, self.fleet.graph, self.live, frozenset)

    def load(self) -> None:
        """Take up the accounts that an earlier run left open; before the ledger's writer has work."""
        rows = self.ledger.read_now("SELECT key, value FROM meta WHERE key LIKE ?", META + "%")
        for key, value in rows:
            order_id = str(key).removeprefix(META)
            try:
                doc = json.loads(value)
                raw = self.ledger.read_now("SELECT raw FROM orders WHERE id=?", order_id)
                order = parse_order(bytes(raw[0][0])).order
                live = self.journal.live.get(order_id)
                self._open[order_id] = Open(order, live, doc["facts"], doc["parts"], doc["states"], doc["first_n"])
                self._open[order_id].points = self._points(doc["facts"]["point"])
                self._open[order_id].batteries_ms = dict.fromkeys(self._batteries(order), 0)
            except Exception:  # an account that cannot be taken up must not keep the agent from its orders
                log.exception("account_not_taken_up", order=order_id)

    # observing -----------------------------------------------------------------------------------------------------

    def observe(self) -> None:
        """Look at the points of all orders; memory only. Never raises: the engine does not wait for its own account."""
        try:
            self._look()
        except Exception:  # an account that fails must not stop what it tells of
            log.exception("account_failed")

    def _look(self) -> None:
        now, mono = self.clock.now_ms(), self.clock.mono_ns()
        second = mono - self._looked_ns >= 1_000_000_000
        if second:
            self._looked_ns = mono
            self._fill_rings(now)
        new = [o for o in self.journal.live.values() if o.order.sheds and o.id not in self._open]
        new = [o for o in new if o.order.mode != "drill"]
        self._look_at_supply(now, min((o.received_ms for o in new), default=None))
        for order in new:
            self._begin(order)
        for account in self._open.values():
            self._look_at_batteries(account)
            if account.live is not None and not account.over:
                self._watch(account, account.live, now)
                if second:
                    self._explain(account, account.live, now)
            if self._is_due(account, now):
                self._due.set()

    def _is_due(self, account: Open, now: int) -> bool:
        if self.clock.mono_ns() < account.retry_ns:
            return False
        return account.over or account.written_ms is None or now // MINUTE_MS != account.written_ms // MINUTE_MS

    def _look_at_supply(self, now: int, cut: int | None) -> None:
        """Voltage and reactive power; spans end where an order begins (``cut``), or changes its state."""
        turned = [a for a in self._open.values() if a.live is not None and a.state != a.live.state]
        for account in turned:
            account.state = account.live.state if account.live is not None else None
        acting = any(a.state not in LASTING for a in self._open.values())
        # What was read up to the pass before this one was read in the state before.
        cut, self._passed_ms = self._passed_ms if cut is None and turned else cut, now
        for point, span in self.electrical.look(now, acting=acting, cut=cut):
            for account in self._open.values():
                if point in account.points:
                    account.supply.setdefault(point, []).append(span)

    def _points(self, point: str) -> frozenset[str]:
        """Where voltage and reactive power belong to an order's account: at its point, and where the guard looks."""
        names = dict.fromkeys((point, *self.guard.buses(), *self.guard.members(point)))
        return frozenset(list(names)[:MAX_POINTS])

    def _look_at_batteries(self, account: Open) -> None:
        for name, last in list(account.batteries_ms.items()):
            new = [s for s in self._rings.get(name, ()) if s.at > last]
            if new:
                account.batteries_ms[name] = new[-1].at
                account.batteries.setdefault(name, []).extend(new)

    def _batteries(self, order: Order) -> list[str]:
        """Where batteries are metered, for an order that they can meet without any machine."""
        found = [self.fleet.battery_point(n) for n in self.site.nodes if isinstance(n, Storage)]
        return sorted({name for name in found if name is not None}) if order.measured_at == "net_import" else []

    def _fill_rings(self, now: int) -> None:
        for point in (*(p.id for p in self.site.metering_points), *(v.id for v in self.site.virtual_points)):
            power, ring = self.live.power(point), self._rings.setdefault(point, deque(maxlen=BEFORE_MS // STEP_MS))
            fresh = power.value_w is not None and power.mono_ns > self._ring_ns.get(point, -1)
            sample = Sample(power.at_ms if fresh else now, power.value_w, CODES[power.quality], lasting=False)
            if fresh or (power.value_w is None and ring):
                since = abs(sample.at - ring[-1].at) if ring else STEP_MS
                if since >= STEP_MS or (ring[-1].watt is None) is not (sample.watt is None):
                    ring.append(sample)
                    self._ring_ns[point] = power.mono_ns if fresh else self._ring_ns.get(point, -1)

    def _begin(self, order: LiveOrder) -> None:
        doc, terms = order.doc, self.terms()
        facts = {
            "received_ms": order.received_ms,
            "point": doc.point,
            "contracted_w": terms.contracted_w,
            "before_w": doc.before_w,
            # A schedule's target is another every hour: each is judged by its own.
            "target_w": None if order.order.hours is not None else doc.target_w,
            "slot_s": self.site.agent.slot_s,
            "technological_s": terms.technological_s,
        }
        if order.order.hours is not None:
            facts["floor_w"] = terms.emergency_w if doc.point == self.site.measured_at.net_import else 0
        account = Open(order.order, order, facts)
        account.samples += [s for s in self._rings.get(doc.point, ()) if s.at >= order.received_ms - BEFORE_MS]
        account.seen_ns = self._ring_ns.get(doc.point, -1) if account.samples else 0
        account.points, account.state = self._points(doc.point), order.state
        account.batteries_ms = dict.fromkeys(self._batteries(order.order), order.received_ms - BATTERY_BEFORE_MS)
        for name in account.points:
            account.supply[name] = self.electrical.before(name, order.received_ms - BEFORE_MS)
        self._open[order.id] = account

    def _watch(self, account: Open, order: LiveOrder, now: int) -> None:
        lasting, last = order.state in LASTING, account.samples[-1] if account.samples else None
        power = self.live.power(account.facts["point"])
        if power.value_w is not None:
            if power.mono_ns > account.seen_ns:
                account.seen_ns = power.mono_ns
                account.samples.append(Sample(power.at_ms, power.value_w, GOOD, lasting))
        elif last is None or last.watt is not None or now - last.at >= STEP_MS:
            account.samples.append(Sample(now, None, CODES[power.quality], lasting))
        for switch in {*self.fleet.switches, *(account.order.feeders or ())}:
            state = self.live.switches.get(switch)
            if state is not None and account.known.get(switch) != state.position:
                account.known[switch] = str(state.position)
                account.positions.append((state.at_ms, switch, str(state.position)))

    def _explain(self, account: Open, order: LiveOrder, now: int) -> None:
        """What stands in the way while the target is not met; each reason once a part."""
        target, watt = order.doc.target_w, self.live.power(account.facts["point"]).value_w
        if order.state not in SHORT or watt is None or (target is not None and watt <= target):
            return
        found = {("", "local_override")} if Flag.LOCAL_OVERRIDE in order.flags else set()
        found |= {("", "saon")} if Flag.SAON_LOCK in order.flags else set()
        found |= {("", "unsafe_cooling")} if self.cooling(order) else set()
        found |= self._obstacles(order.order)
        for switch, code in sorted(found - account.told):
            account.told.add((switch, code))
            account.reasons.append((now, switch, code))

    def _obstacles(self, order: Order) -> set[tuple[str, str]]:
        """Outputs that the order could use and that may not be used, with the published reason."""
        if order.action not in {"stop", "open_feeders", "emergency_trip"} and not (
            "switch" in order.methods or order.escalation.to == "switch"
        ):
            return set()
        found = set()
        for switch in self.fleet.switches:
            why, state = self.gates.unusable(switch) or "", self.live.switches.get(switch)
            if switch in self.gates.tags:
                found.add((switch, "tag"))
            elif why.startswith(("not commissioned", "commissioning lapsed")):
                found.add((switch, "not_commissioned"))
            elif state is not None and state.remote is False:
                found.add((switch, "local_override"))
        return found

    # writing -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what is due until cancelled; what is left is written at the end."""
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                await self.write()
                await asyncio.sleep(0.05)
        finally:
            await asyncio.shield(self.write(everything=True))

    async def write(self, *, everything: bool = False) -> None:
        """Write the parts that are due and the reports of orders that ended. Raises nothing; what fails is tried again
        with the next minute."""
        for account in list(self._open.values()):
            now = self.clock.now_ms()
            if not (everything or self._is_due(account, now)):
                continue
            account.written_ms = now
            try:
                over = account.over
                await self._write_parts(account)
                if over:
                    await self._close(account)
                account.retry_ns = 0
            except Exception as error:  # whatever it is: it must not end the agent, and nothing moves because of it
                known = isinstance(error, LedgerError)
                log.error("account_not_written", order=account.order.id, error=str(error), exc_info=not known)
                account.retry_ns = self.clock.mono_ns() + RETRY_NS
                del account.samples[:-MAX_BUFFER]
                for spans in account.supply.values():
                    del spans[:-MAX_BUFFER]
                for powers in account.batteries.values():
                    del powers[:-MAX_BUFFER]

    async def _write_parts(self, account: Open) -> None:
        while True:
            rows = await self.ledger.read(
                "SELECT at, now FROM transition WHERE order_id=? ORDER BY rowid LIMIT ? OFFSET ?",
                account.order.id,
                MAX_NOTES,
                account.states,
            )
            states = [(int(at), str(state)) for at, state in rows]
            supply = any(account.supply.values()) or any(account.batteries.values())
            if not (account.samples or account.positions or account.reasons or states or supply):
                return
            await self._write_part(account, states)

    async def _write_part(self, account: Open, states: list[tuple[int, str]]) -> None:
        samples, positions = account.samples[:MAX_SAMPLES], account.positions[:MAX_NOTES]
        reasons, kept = account.reasons[:MAX_NOTES], thinned(samples)
        began = [at for at, *_ in states] + [at for at, _, _ in positions + reasons] + [s.at for s in kept]
        supply = first(account.supply, electrical.MAX_SPANS)
        batteries = first(account.batteries, MAX_BATTERY)
        began += [spans[0].at for spans in supply.values()] + [powers[0].at for powers in batteries.values()]
        t0 = min(began)
        times = [t0, *(s.at for s in kept)]
        fields = {
            "id": account.order.id,
            "point": account.facts["point"],
            "part": account.parts,
            "t0": t0,
            "dt": [after - before for before, after in pairwise(times)],
            "w": [s.watt for s in kept],
            "q": [s.code for s in kept] if any(s.code != GOOD for s in kept) else [],
            "pos": [[at - t0, name, now] for at, name, now in positions],
            "states": [[at - t0, state] for at, state in states],
            "why": [[at - t0, name, code] for at, name, code in reasons],
        }
        fields |= {"uq": self.electrical.part(supply, t0)} if supply else {}
        fields |= {"bat": [_battery(name, kept, t0) for name, kept in batteries.items()]} if batteries else {}
        note = {"facts": account.facts, "parts": account.parts + 1, "states": account.states + len(states)}
        # The number of part 0 is known once it is written; whoever takes up before that reads from the beginning.
        note |= {"first_n": account.first_n}
        txn = Txn().record("cmd", "cmd_trace", fields).set_meta(META + account.order.id, dumps(note))
        done = await self.ledger.commit(txn)
        account.first_n = done[0].n if account.first_n is None and not account.parts else account.first_n
        account.parts, account.states = account.parts + 1, account.states + len(states)
        del account.samples[: len(samples)], account.positions[: len(positions)], account.reasons[: len(reasons)]
        for point, spans in supply.items():
            del account.supply[point][: len(spans)]
        for point, told in batteries.items():
            del account.batteries[point][: len(told)]
        account.told.clear()

    async def _close(self, account: Open) -> None:
        """The report over everything that is signed, and the end of the account."""
        facts = obedience.Facts(order=account.order, **account.facts)
        heads = await self.ledger.heads()
        stream = "mp:" + account.facts["point"]
        since = facts.begin_ms - (obedience.LIKE_DAYS_BACK + 2) * DAY_MS
        count, told = heads.get(stream, (0, None))[0], heads.get("cmd", (0, None))[0]
        traces = await self._records("cmd", ("cmd_trace",), account.first_n or 0, told, 0)
        parts = [doc for _, doc in traces if doc["id"] == account.order.id]
        records = await self._records(stream, ("bind",), 0, count, 0)
        records += await self._records(stream, ("interval", "gap"), 0, count, since)
        records.sort(key=lambda one: one[1]["n"])
        taken = await self._taken(account, told, since)
        fields = await asyncio.to_thread(
            lambda: obedience.report(facts, parts, obedience.slots_of(records), taken, count)
        )
        txn = Txn().record("cmd", "cmd_report", dict(fields))
        txn.run("DELETE FROM meta WHERE key=?", META + account.order.id)
        await self.ledger.commit(txn)
        self._open.pop(account.order.id, None)
        log.info("order_reported", order=account.order.id, verdict=fields["verdict"], parts=len(parts))

    async def _records(
        self, stream: str, types: tuple[str, ...], first: int, end: int, since: int
    ) -> list[tuple[str, dict[str, Any]]]:
        """(type, fields) of a stream's records with numbers in [first, end), made at ``since`` (ms) or later.

        A piece at a time: an order that comes meanwhile must not wait for the ledger.
        """
        found: list[tuple[str, dict[str, Any]]] = []
        for begin in range(first, end, PIECE):
            rows = await self.ledger.read(
                "SELECT ty, payload FROM record WHERE stream=? AND n>=? AND n<? AND at>=? AND ty IN (?, ?) ORDER BY n",
                stream,
                begin,
                min(begin + PIECE, end),
                since,
                types[0],
                types[-1],
            )
            found += await asyncio.to_thread(_decoded, rows)
        return found

    async def _taken(self, account: Open, count: int, since: int) -> set[int]:
        """Days with traces of other orders, among the ``count`` records of the stream."""
        found: set[int] = set()
        for begin in range(0, count, PIECE):
            rows = await self.ledger.read(
                "SELECT DISTINCT (at / 1000 + ?) / ? FROM record WHERE stream='cmd' AND n>=? AND n<? AND at>=? "
                "AND ty='cmd_trace' AND instr(payload, ?) = 0",
                obedience.LOCAL_S,
                obedience.DAY_S,
                begin,
                min(begin + PIECE, count),
                since,
                f'"id":"{account.order.id}"',
            )
            found |= {int(row[0]) for row in rows}
        return found


def _battery(point: str, samples: Sequence[Sample], t0: int) -> dict[str, Any]:
    times = [t0, *(s.at for s in samples)]
    return {"mp": point, "dt": [after - before for before, after in pairwise(times)], "w": [s.watt for s in samples]}


def _decoded(rows: Sequence[tuple[Any, ...]]) -> list[tuple[str, dict[str, Any]]]:
    return [(str(ty), canonical.decode(bytes(raw))) for ty, raw in rows]
