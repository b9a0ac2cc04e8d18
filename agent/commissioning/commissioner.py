"""The commissioner: takes requests of persons on site, runs one test at a time, and writes down what came of it.

Beside the ledger there is one file, ``<state>/commissioning.json``: what is going on, for the command that follows it.
A test that the process did not survive is recorded as failed at the next start; nothing is moved because of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import structlog

from agent.clock import Clock
from agent.commissioning import request
from agent.commissioning.guards import Guards
from agent.commissioning.machines import Machines
from agent.commissioning.outcome import Outcome
from agent.commissioning.papers import check_meter, wrong
from agent.commissioning.plan import Plan, make_plan, owner_of
from agent.commissioning.procedure import Hands, Trial
from agent.commissioning.request import Wish
from agent.curtailment.fleet import Fleet
from agent.curtailment.gates import Gates
from agent.curtailment.shed import Shedder
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.live import LiveState
from agent.metering.state import PointState
from config.graph import Graph
from config.site import Site
from drivers.capabilities import Switch
from wire.errors import WireError
from wire.orders import uuid7

log = structlog.get_logger()

RUNNING, LEFT = "commission", "commission_left"
PROGRESS = "commissioning.json"
MAX_LINES = 200
BEAT_S = 1.0


class Benchlike(Protocol):
    """What of the bench is used."""

    switches: dict[str, Switch]

    def why_unsafe(self, switch_id: str) -> str | None:
        """Why the device that drives an output must not be used."""
        ...


@dataclass(slots=True)
class Progress:
    """What the command shows."""

    id: str
    output: str
    phase: str = "begin"
    waiting_for: str | None = None
    lines: list[str] = field(default_factory=list)
    result: dict[str, Any] | None = None

    def document(self, now_ms: int) -> dict[str, Any]:
        """For the file."""
        return {
            "id": self.id,
            "output": self.output,
            "at": now_ms,
            "phase": self.phase,
            "waiting_for": self.waiting_for,
            "lines": self.lines[-MAX_LINES:],
            "result": self.result,
        }


class Commissioner:
    """See the module. The owner runs :meth:`run` as a task and hands requests to :meth:`take`."""

    def __init__(
        self,
        site: Site,
        state_dir: Path,
        ledger: Ledger,
        gates: Gates,
        fleet: Fleet,
        shedder: Shedder,
        graph: Graph,
        live: LiveState,
        clock: Clock,
        bench: Benchlike,
        points: Mapping[str, PointState],
    ) -> None:
        self._site, self._ledger, self._gates, self._fleet = site, ledger, gates, fleet
        self._graph, self._live, self._clock, self._points = graph, live, clock, points
        self._file = state_dir / PROGRESS
        timing = site.agent.timing
        self._machines = Machines(fleet, live, clock, timing.sleep_concurrency, timing.wake_stagger_per_s)
        self._guards = Guards(gates, live, clock, lambda: tuple(fleet.journal.live), bench.why_unsafe)
        self._hands = Hands(
            site,
            live,
            clock,
            self._guards,
            self._machines,
            shedder,
            bench.switches,
            lambda point: owner_of(site, graph, gates.check, point),
            self._intend,
            self._say,
        )
        self._queue: asyncio.Queue[Trial | dict[str, str]] = asyncio.Queue()
        self._trial: Trial | None = None
        self._progress: Progress | None = None
        self._occupied = False
        self.left: dict[str, str] = {}
        """Machines that earlier tests laid down and did not put back, with what they were."""

    def busy(self) -> bool:
        """True while something is tested: meters are then read each second."""
        return self._occupied

    # start-up -------------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """After a restart: a test that was not finished failed. Nothing is moved."""
        self.left = json.loads(self._ledger.meta(LEFT) or "{}")
        doc = json.loads(self._ledger.meta(RUNNING) or "null")
        if doc is None:
            return
        state = self._live.switches.get(doc["output"])
        position = "unknown" if state is None else str(state.position)
        outcome = Outcome(doc["id"], doc["output"], tuple(doc["persons"]), doc["note"], doc["began"])
        outcome.why = [
            f"the agent stopped in the middle of the test, after {doc['phase']}; {doc['output']} is now {position}"
        ]
        if doc["phase"] != "commission_sleep" and position != "closed":
            outcome.why.append(f"{doc['output']} stays {position}: a person closes it once the cause is known")
        if doc["phase"] != "commission_sleep":
            outcome.refused = {doc["output"]: "its test was not finished"}
        outcome.slept = len(doc["priors"])
        self._progress = Progress(outcome.id, outcome.output)
        await self._record(outcome, doc["priors"])

    # requests -------------------------------------------------------------------------------------------------------

    async def take(self, doc: Mapping[str, Any]) -> str:
        """One request from the inbox; the answer for the person.

        Raises:
            WireError: not possible; the message says why.
            LedgerError: it could not be written down.
        """
        match request.what(doc):
            case "plan":
                wish = request.read_wish(doc)
                return json.dumps(self._show(wish, self._plan(wish)))
            case "begin":
                return await self._begin(request.read_wish(doc))
            case "give_back":
                return self._give_back(request.persons_of(doc))
            case what:
                return self._tell(what, request.text(doc, "test", 64), request.text(doc, "who"))

    def _plan(self, wish: Wish) -> Plan:
        unknown = [p for p, _ in wish.displays if p not in {m.id for m in self._site.metering_points}]
        if unknown:
            raise WireError(f"commission: {unknown[0]} is no metering point of the site file")
        try:
            return make_plan(
                self._site,
                self._graph,
                self._gates.check,
                self._fleet.positions(),
                wish.output,
                fingerprint=self._gates.fingerprints.get(wish.output, ""),
                without=wish.without,
            )
        except ValueError as error:
            raise WireError(f"commission: {error}") from None

    def _show(self, wish: Wish, plan: Plan) -> dict[str, Any]:
        behind = self._machines.behind(plan.output)
        running = self._machines.running(behind)
        power = {p: self._live.power(p).value_w for p in plan.judged}
        feeder = None if plan.feeder is None else power.get(plan.feeder)
        sleeping = 0 if wish.live_load else sum(1 for m in running if m.sleeper is not None)
        return {
            "output": plan.output,
            "close": plan.close,
            "dark": list(plan.dark),
            "rated_w": plan.rated_w,
            "live_w": feeder if feeder is not None else sum(self._machines.draw_w(m) for m in behind),
            "meter": plan.meter,
            "may_move": [[p, power.get(p)] for p in plan.falls],
            "must_not_move": [[p, power.get(p)] for p in plan.still],
            "without": list(plan.without),
            "machines": len(behind),
            "running": len(running),
            "will_sleep": max(0, sleeping - wish.awake),
            "cooldown_s": round(0 if wish.live_load else self._site.agent.timing.cooldown_s),
            "guard_s": round(plan.guard_s),
            "not_now": self._guards.may_open(plan.output, retest=wish.retest),
        }

    async def _begin(self, wish: Wish) -> str:
        if self._occupied:
            raise WireError(
                f"commission: {self._progress.output if self._progress else 'another output'} is under test"
            )
        plan = self._plan(wish)
        why = self._guards.may_open(plan.output, retest=wish.retest)
        if why is not None:
            raise WireError(f"commission: {why}")
        now = self._clock.now_ms()
        outcome = Outcome(uuid7(now), plan.output, wish.persons, wish.note, now, without=plan.without)
        self._occupied = True
        self._progress = Progress(outcome.id, plan.output)
        self._trial = Trial(wish, plan, self._hands, outcome)
        self._write()
        self._queue.put_nowait(self._trial)
        return outcome.id

    def _give_back(self, persons: tuple[str, ...]) -> str:
        if self._occupied:
            raise WireError("commission: an output is under test")
        if not self.left:
            raise WireError("commission: no test left a machine asleep")
        if (why := self._guards.may_work(retest=True)) is not None:
            raise WireError(f"commission: {why}")
        positions = self._fleet.positions()
        fed = {m: prior for m, prior in self.left.items() if self._fleet.fed(m, positions)}
        if not fed:
            raise WireError(f"commission: none of {len(self.left)} machines has voltage; close their switch first")
        self._occupied = True
        self._progress = Progress(uuid7(self._clock.now_ms()), "")
        self._say("return", f"{len(fed)} machines wake, on the word of {' and '.join(persons)}", None)
        self._queue.put_nowait(fed)
        return self._progress.id

    def _tell(self, what: str, test: str, who: str) -> str:
        trial = self._trial
        if trial is None or trial.outcome.id != test:
            raise WireError(f"commission: no test {test} is going on")
        if who not in trial.wish.persons:
            raise WireError(f"commission: {who} is not among the persons of this test")
        if what == "stop":
            trial.stop_why = f"stopped by {who}"
            return "the test is being stopped; nothing is closed"
        if self._progress is None or self._progress.waiting_for != "confirm_close":
            raise WireError("commission: nothing waits for a confirmation now")
        trial.confirmed_by = who
        return f"{trial.output} will be closed"

    def foreign_write(self, device: str, output: str, _was: bool, _now: bool) -> None:
        """Somebody else wrote a relay: a test of an output of that device is worth nothing."""
        trial = self._trial
        control = None if trial is None else self._gates.switches[trial.output].control
        if trial is not None and control is not None and control.device == device:
            trial.foreign = f"another master wrote {output} of {device}"

    # the work -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry out what was asked, until cancelled."""
        async with asyncio.TaskGroup() as group:
            beat = group.create_task(self._beat(), name="commissioning-beat")
            try:
                while True:
                    work = await self._queue.get()
                    try:
                        await (self._carry(work) if isinstance(work, Trial) else self._wake(work))
                    except (LedgerError, OSError) as error:
                        log.error("commissioning_not_recorded", error=str(error))
                        self._end({"passed": False, "why": [f"it could not be written down: {error}"]})
                    finally:
                        self._trial, self._occupied = None, False
            finally:
                beat.cancel()

    async def _beat(self) -> None:
        """The file's age tells the command that the agent is there."""
        while True:
            await asyncio.sleep(BEAT_S)
            if self._occupied:
                self._write()

    async def _carry(self, trial: Trial) -> None:
        outcome = trial.outcome
        for point in self._papers(trial.plan, trial.wish):
            outcome.meters.append(point)
        bad = [w for check in outcome.meters if (w := wrong(check)) is not None]
        if bad:
            outcome.why += bad
        else:
            try:
                await trial.run()
            except LedgerError as error:
                outcome.why.append(f"it could not be written down, so nothing was moved for it: {error}")
            except Exception as error:  # a test that breaks must leave a record, and the agent running
                log.exception("commissioning_broke", output=trial.output)
                outcome.why.append(f"the test broke: {type(error).__name__}")
        if not outcome.why and not outcome.passed:
            outcome.why.append("the test did not come to its end")
        await self._record(outcome, trial.priors)

    def _papers(self, plan: Plan, wish: Wish) -> list[dict[str, Any]]:
        displays = dict(wish.displays)
        wanted = {plan.meter, *displays, *([plan.feeder] if plan.feeder else [])}
        return [
            check_meter(self._site, self._live, p, self._points.get(p.id), displays.get(p.id))
            for p in self._site.metering_points
            if p.id in wanted and p.read_by == "agent"
        ]

    async def _wake(self, fed: dict[str, str]) -> None:
        lost = await self._machines.put_back(fed, 900, lambda: self._guards.may_work(retest=True))
        woken = len(fed) - len(lost)
        self.left = {m: p for m, p in self.left.items() if m not in fed or m in lost}
        txn = Txn().set_meta(LEFT, json.dumps(self.left))
        detail = {"woken": woken, "left": len(self.left)}
        await self._ledger.commit(
            txn.record("site", "event", {"ev": "commission_back", "obj": "site", "detail": detail})
        )
        self._end({"passed": not self.left, "woken": woken, "left_asleep": sorted(self.left), "why": []})

    # evidence -------------------------------------------------------------------------------------------------------

    async def _intend(self, event: str, detail: dict[str, Any], priors: dict[str, str]) -> None:
        trial = self._trial
        if trial is None:
            raise LedgerError("no test is going on")
        outcome = trial.outcome
        kept = {
            "id": outcome.id,
            "output": outcome.output,
            "persons": outcome.persons,
            "note": outcome.note,
            "began": outcome.began_ms,
            "phase": event,
            "priors": priors,
        }
        fields = {"test": outcome.id, "persons": list(outcome.persons), "mode": self._gates.mode}
        txn = Txn().record("site", "event", {"ev": event, "obj": outcome.output, "detail": fields | detail})
        await self._ledger.commit(txn.set_meta(RUNNING, json.dumps(kept)), urgent=True)

    async def _record(self, outcome: Outcome, priors: dict[str, str]) -> None:
        """The signed record. What the plant spoke against is unarmed, at once."""
        outcome.ended_ms = self._clock.now_ms()
        outcome.left = tuple(sorted(priors))
        txn = Txn().record(
            "site",
            "event",
            {
                "ev": "commission_test",
                "obj": outcome.output,
                "now": "passed" if outcome.passed else "failed",
                "detail": outcome.document(),
            },
        )
        unarmed = {o: c for o in outcome.refused if (c := self._gates.commissioned.get(o)) is not None}
        for output in unarmed:
            self._gates.commissioned.pop(output, None)
            txn.run("DELETE FROM commissioned WHERE output=?", output)
        left = priors | self.left
        txn.set_meta(RUNNING, "null").set_meta(LEFT, json.dumps(left))
        await self._ledger.commit(txn, urgent=True)
        self.left = left
        (log.info if outcome.passed else log.error)(
            "commission_test", output=outcome.output, passed=outcome.passed, why=outcome.why, unarmed=sorted(unarmed)
        )
        self._end(outcome.document())

    # progress -------------------------------------------------------------------------------------------------------

    def _say(self, phase: str, text: str, waits: str | None) -> None:
        if self._progress is None:
            return
        self._progress.phase, self._progress.waiting_for = phase, waits
        self._progress.lines.append(text)
        log.info("commissioning", output=self._progress.output, phase=phase, text=text)
        self._write()

    def _end(self, result: dict[str, Any]) -> None:
        if self._progress is not None:
            self._progress = replace(self._progress, phase="done", waiting_for=None, result=result)
            self._write()

    def _write(self) -> None:
        if self._progress is None:
            return
        part = self._file.with_suffix(".part")
        try:
            part.write_text(json.dumps(self._progress.document(self._clock.now_ms())))
            part.replace(self._file)
        except OSError as error:  # the file is for the command alone; the test does not depend on it
            log.error("commissioning_progress_not_written", error=str(error))
