"""The procedure by which an output is proven, over a played plant: what is written before what, and what stops it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.commissioning import machines, procedure
from agent.commissioning.commissioner import Commissioner
from agent.commissioning.outcome import Outcome
from agent.curtailment import shed
from agent.ledger import store
from drivers.capabilities import Position, SwitchState
from tests.unit.agent_kit import MACHINE_W, SLEEP_W, Core
from wire import canonical
from wire.errors import WireError

WHO = ["D. Kim", "B. Akhmetova"]
PATIENCE = 20_000
"""Steps of a quarter of a second that a test may take."""


@dataclass
class PlayedBench:
    """Switches of the plant; ``unsafe`` is what the relay's settings say."""

    switches: dict[str, Any]
    unsafe: str | None = None

    def why_unsafe(self, _switch: str) -> str | None:
        return self.unsafe


@dataclass
class Stage:
    """A core and its commissioner; every write to the plant finds its intent on disk, or is noted."""

    core: Core
    bench: PlayedBench = field(init=False)
    commissioner: Commissioner = field(init=False)
    work: asyncio.Task[None] | None = None
    undurable: list[tuple[str, str]] = field(default_factory=list)

    async def boot(self) -> Stage:
        core = self.core
        await core.boot(run=False)
        core.plant.at_write = self.written
        self.bench = PlayedBench(dict(core.plant.switches))
        self.commissioner = Commissioner(
            core.site,
            core.folder,
            core.ledger,
            core.gates,
            core.fleet,
            core.shedder,
            core.fleet.graph,
            core.live,
            core.clock,
            self.bench,
            {},
        )
        await self.commissioner.recover()
        self.work = asyncio.create_task(self.commissioner.run())
        return self

    def written(self, kind: str, target: str) -> None:
        wanted = {"open": "commission_open", "close": "commission_close", "sleep": "commission_sleep"}.get(kind)
        with sqlite3.connect(f"file:{self.core.path}?mode=ro", uri=True) as db:
            rows = db.execute("SELECT payload FROM record WHERE ty='event' ORDER BY idx DESC").fetchall()
        db.close()
        newest = next((r for (raw,) in rows if (r := canonical.decode(bytes(raw)))["ev"].startswith("commission")), {})
        if wanted is not None and newest.get("ev") != wanted:
            self.undurable.append((kind, target))

    async def kill(self) -> None:
        """The process ends: nothing of it runs on."""
        assert self.work is not None
        self.work.cancel()
        await asyncio.gather(self.work, return_exceptions=True)

    async def ask(self, **doc: Any) -> str:
        return await self.commissioner.take({"ty": "commission", **doc})

    async def begin(self, output: str = "KM1", **wish: Any) -> str:
        return await self.ask(do="begin", output=output, persons=WHO, **wish)

    async def until(self, condition: Callable[[], object]) -> None:
        """Time passes and the plant is read, until something is so."""
        for _ in range(PATIENCE):
            if condition():
                return
            self.core.clock.advance(0.25)
            await self.core.plant.publish(self.core.live)
            await asyncio.sleep(0.001)
        raise AssertionError(f"never: {self.progress}")

    def show(self, position: Position, **ready: bool) -> None:
        """What KM1 was last read as."""
        clock = self.core.clock
        self.core.live.put_switch("KM1", SwitchState(position, clock.now_ms(), clock.mono_ns(), **ready))

    @property
    def progress(self) -> Any:
        found = self.commissioner._progress
        assert found is not None
        return found

    async def result(self) -> dict[str, Any]:
        await self.until(lambda: self.progress.result is not None and not self.commissioner.busy())
        found: dict[str, Any] = self.progress.result
        return found

    async def proven(self, output: str = "KM1", **wish: Any) -> dict[str, Any]:
        """A test in which the person says yes."""
        test = await self.begin(output, **wish)
        await self.until(lambda: self.progress.waiting_for or self.progress.result)
        if self.progress.waiting_for == "confirm_close":
            await self.ask(do="confirm", test=test, who=WHO[0])
        return await self.result()

    async def told(self) -> list[str]:
        events = await self.core.records("event", "site")
        return [e["ev"] for e in events if e["ev"].startswith("commission")]


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(store, "GROUP_S", 0.001)
    monkeypatch.setattr(shed, "READBACK_STEP_S", 0.001)
    monkeypatch.setattr(procedure, "LOOK_S", 0.001)
    monkeypatch.setattr(machines, "RETRY_S", 0.001)
    made = await Stage(Core(tmp_path)).boot()
    try:
        yield made
    finally:
        await made.kill()
        await made.core.ledger.close()
    assert made.undurable == [], "these writes left before their intent was durable"


async def test_a_good_output_passes_and_everything_is_as_it_was(stage: Stage) -> None:
    found = await stage.proven()
    assert found["passed"], found
    assert found["proof"]["expected_w"] == found["proof"]["seen_w"] == 4 * SLEEP_W
    assert found["load_w"] == found["returned_w"] == 4 * MACHINE_W
    kinds = [kind for kind, _ in stage.core.plant.writes]
    assert kinds == ["sleep"] * 4 + ["open", "close"] + ["wake"] * 4
    assert await stage.told() == ["commission_sleep", "commission_open", "commission_close", "commission_test"]
    assert stage.core.gates.commissioned == {}, "a test arms nothing"


async def test_nothing_closes_before_a_person_says_so(stage: Stage) -> None:
    await stage.begin(patience_s=600)
    await stage.until(lambda: stage.progress.waiting_for == "confirm_close")
    found = await stage.result()
    assert (found["passed"], found["left_asleep_count"]) == (False, 4)
    assert ("close", "KM1") not in stage.core.plant.writes
    assert not stage.core.plant.switches["KM1"].closed


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda s: s.core.gates.tags.update(QF3="X: permit"), "tag hangs at QF3"),
        (lambda s: setattr(s.core.gates, "saon_lock", "stage 1"), "САОН"),
        (lambda s: setattr(s.bench, "unsafe", "watchdog off"), "watchdog off"),
        (lambda s: s.show(Position.OPEN), "must be read closed"),
        (lambda s: s.show(Position.UNKNOWN), "must be read closed"),
        (lambda s: s.show(Position.CLOSED, remote=False), "local control"),
        (lambda s: s.show(Position.CLOSED, trip_circuit_ok=False), "trip circuit"),
    ],
)
async def test_a_test_does_not_begin_where(stage: Stage, spoil: Callable[[Stage], None], why: str) -> None:
    spoil(stage)
    with pytest.raises(WireError, match=why):
        await stage.begin()
    assert stage.core.plant.writes == []


@pytest.mark.parametrize("moment", ["commission_open", "commission_close"])
async def test_a_tag_that_is_hung_while_the_intent_is_written_stops_the_write(stage: Stage, moment: str) -> None:
    intend = stage.commissioner._hands.intend

    async def tagged(event: str, detail: dict[str, Any], priors: dict[str, str]) -> None:
        await intend(event, detail, priors)
        if event == moment:
            await stage.core.gates.tag("KM1", "A. Serik", "permit 12")

    stage.commissioner._hands.intend = tagged
    found = await stage.proven()
    assert "A. Serik" in found["why"][0]
    assert (moment.removeprefix("commission_"), "KM1") not in stage.core.plant.writes


async def test_a_switch_that_is_not_read_open_without_a_break_is_not_closed_by_the_agent(stage: Stage) -> None:
    test = await stage.begin()
    await stage.until(lambda: stage.progress.waiting_for == "confirm_close")
    switch = stage.core.plant.switches["KM1"]
    switch.readable = False
    moment = stage.core.clock.mono_ns()
    await stage.until(lambda: stage.core.clock.mono_ns() - moment > 20e9)
    switch.readable = True
    await stage.ask(do="confirm", test=test, who=WHO[0])
    found = await stage.result()
    assert "without a break" in found["why"][0]
    assert ("close", "KM1") not in stage.core.plant.writes


@pytest.mark.parametrize(
    ("point", "why"),
    [
        ("lockout", "lock-out"),
        ("protection_trip", "protection"),
    ],
)
async def test_readiness_is_asked_again_before_the_closing(stage: Stage, point: str, why: str) -> None:
    test = await stage.begin()
    await stage.until(lambda: stage.progress.waiting_for == "confirm_close")
    setattr(stage.core.plant.switches["KM1"], point, True)
    await stage.ask(do="confirm", test=test, who=WHO[0])
    assert why in (await stage.result())["why"][0]
    assert ("close", "KM1") not in stage.core.plant.writes


async def test_without_a_durable_intent_nothing_opens(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.errors import LedgerError

    intend = stage.commissioner._hands.intend

    async def full(event: str, detail: dict[str, Any], priors: dict[str, str]) -> None:
        if event == "commission_open":
            raise LedgerError("disk full")
        await intend(event, detail, priors)

    monkeypatch.setattr(stage.commissioner._hands, "intend", full)
    found = await stage.proven()
    assert "disk full" in found["why"][0]
    assert ("open", "KM1") not in stage.core.plant.writes
    assert found["left_asleep_count"] == 4, "what sleeps is named, and can be given back"


async def test_machines_that_refuse_to_sleep_are_not_cut_without_consent(stage: Stage) -> None:
    stage.core.plant.machines["rack1/2"].deaf = True
    found = await stage.proven()
    assert "1 machines did not fall asleep (rack1/2)" in found["why"][0]
    assert ("open", "KM1") not in stage.core.plant.writes
    assert stage.core.plant.asleep == set(), "the others are woken again"
    assert (await stage.proven(awake=1))["passed"]


async def test_a_machine_that_slept_before_stays_asleep(stage: Stage) -> None:
    stage.core.plant.machines["rack1/1"].asleep = True
    await stage.core.plant.publish(stage.core.live)
    assert (await stage.proven())["passed"]
    assert stage.core.plant.asleep == {"rack1/1"}


async def test_a_person_stops_it_and_what_sleeps_wakes(stage: Stage) -> None:
    test = await stage.begin()
    await stage.until(lambda: stage.progress.phase == "cool")
    with pytest.raises(WireError, match="not among"):
        await stage.ask(do="stop", test=test, who="Somebody")
    await stage.ask(do="stop", test=test, who=WHO[1])
    found = await stage.result()
    assert found["why"][0] == "stopped by B. Akhmetova"
    assert stage.core.plant.asleep == set()
    assert ("open", "KM1") not in stage.core.plant.writes


async def test_one_output_at_a_time(stage: Stage) -> None:
    await stage.begin()
    with pytest.raises(WireError, match="KM1 is under test"):
        await stage.begin("KM2")


@pytest.mark.parametrize("phase", ["cool", "watch", "close"])
async def test_a_restart_in_the_middle_moves_nothing_and_names_it(stage: Stage, phase: str) -> None:
    await stage.begin()
    await stage.until(lambda: stage.progress.phase == phase)
    await stage.kill()
    core = stage.core
    await core.ledger.close()
    core.plant.forbidden = True
    again = Stage(Core(core.folder, clock=core.clock))
    again.core.plant, again.core.key = core.plant, core.key
    await again.boot()
    stage.core, stage.work = again.core, again.work
    found = again.progress.result
    assert "stopped in the middle" in found["why"][0]
    assert found["left_asleep_count"] == 4
    assert core.plant.switches["KM1"].closed is (phase == "cool")
    assert (await again.told())[-1] == "commission_test"
    assert [o for o, _ in found["refused"]] == ([] if phase == "cool" else ["KM1"])
    if phase == "cool":
        core.plant.forbidden = False
        await again.ask(do="give_back", persons=WHO)
        await again.until(lambda: not again.commissioner.busy())
        assert core.plant.asleep == set()
        assert again.commissioner.left == {}


async def test_an_order_that_comes_stops_the_waking(stage: Stage) -> None:
    """Load that comes back while a limit is ordered is the one thing that must not be."""
    await stage.core.arm()
    test = await stage.begin(retest=True)
    await stage.until(lambda: stage.progress.waiting_for == "confirm_close")
    held_up: list[str] = []

    async def order_first(event: str, detail: dict[str, Any], priors: dict[str, str]) -> None:
        await intend(event, detail, priors)
        if event == "commission_close":
            stage.core.plant.at_write = ordered

    def ordered(kind: str, _target: str) -> None:
        if kind == "close":
            stage.core.journal.live["order-1"] = None  # type: ignore[assignment]  # only its presence counts
        elif kind == "wake":
            held_up.append(kind)

    intend = stage.commissioner._hands.intend
    stage.commissioner._hands.intend = order_first
    await stage.ask(do="confirm", test=test, who=WHO[0])
    found = await stage.result()
    stage.core.journal.live.clear()
    assert held_up == []
    assert (found["passed"], found["left_asleep_count"]) == (False, 4)
    assert "order-1 is live" in found["why"][0]


async def test_a_failed_test_unarms_what_was_armed(stage: Stage) -> None:
    await stage.core.arm()
    assert set(stage.core.gates.commissioned) == {"KM1", "KM2"}
    stage.core.plant.switches["KM1"].stuck = True
    found = await stage.proven(retest=True, live_load=True)
    assert "KM1 did not open" in found["why"][0]
    assert set(stage.core.gates.commissioned) == {"KM2"}
    rows = await stage.core.ledger.read("SELECT output FROM commissioned")
    assert rows == [("KM2",)]


async def test_the_record_of_a_large_site_fits(stage: Stage) -> None:
    outcome = Outcome("0" * 36, "KM1", ("A" * 100,) * 8, "n" * 300, 1, why=["w" * 5000] * 3)
    outcome.not_back = [f"hall-1-rack-{n}/{n}" for n in range(5000)]
    outcome.left = tuple(outcome.not_back)
    assert len(canonical.encode(outcome.document())) < 20_000
    assert stage.core.live.switches["KM1"].position is Position.CLOSED
