"""A power cut at any write of the order journal: the next process ends where this one would have ended."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from crash_images import images, lay_down
from crash_plant import RememberingPlant, Scene, plant_of, scene
from recording_vfs import Log, recorded

from agent.curtailment import shed as shed_module
from agent.ledger import store as store_module
from tests.unit.agent_kit import BASE_W, MACHINE_W, Core, sealed
from wire.orders import Escalation, Order, Restore
from wire.states import OrderState, ended

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W
SWITCH = Escalation(to="switch", after_s=5)
AT_ONCE = Restore(stage_permille=1000, stage_delay_s=1)
COMING_BACK = frozenset({S.RESTORING, S.RESTORE_BLOCKED})


@dataclass
class Story:
    """A whole run: its log, its plant, the orders in the order they were given, and what held under each."""

    core: Core
    plant: RememberingPlant
    log: Log
    first: int
    """Events before the first order."""
    sent: list[tuple[Order, bytes]]
    held: dict[str, dict[str, bool]]
    """Order → positions while it held."""


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with (
        mock.patch.object(store_module, "GROUP_S", 0.001),
        mock.patch.object(shed_module, "READBACK_STEP_S", 0.001),
    ):
        yield


async def follow(core: Core, order: Order) -> None:
    """Until an order has done what it says."""
    if order.sheds:

        def there() -> bool:
            live = core.journal.live.get(order.id)
            return live is None or live.state is S.HOLDING or live.state in COMING_BACK
    else:

        def there() -> bool:
            return order.target not in core.journal.live

    await core.until(there)


def positions(plant: RememberingPlant) -> dict[str, bool]:
    return {name: switch.closed for name, switch in plant.switches.items()}


def opened_of(closed: dict[str, bool]) -> set[str]:
    return {name for name, is_closed in closed.items() if not is_closed}


async def tell(folder: Path, log: Log) -> Story:
    """Stop (four machines sleep, four refuse: their breaker opens), trip (both breakers), each released; then a limit,
    a stricter one in its place, and the release of that one."""
    core = Core(folder)
    core.plant = plant = RememberingPlant(core.clock, core.path, log=log)
    plant.at_write = lambda _kind, _target: scene(plant)
    await core.boot()
    await core.arm()
    scene(plant)
    story = Story(core, plant, log, len(log), [], {})

    async def give(order: Order) -> Order:
        raw = sealed(order, core.people.dispatcher)
        story.sent.append((order, raw))
        await core.reception.take(raw, False)
        await follow(core, order)
        if order.sheds:
            story.held[order.id] = positions(plant)
            assert plant.net_w <= (core.journal.live[order.id].doc.target_w or 0)
        await core.pass_time(2)
        return order

    for action in ("stop", "emergency_trip"):
        shed = await give(core.order(action, restore=AT_ONCE))
        await give(core.order("release", target=shed.id))
    loose = await give(core.order("limit", limit_w=50_000, restore=AT_ONCE))
    strict = await give(core.order("limit", limit_w=45_000, supersedes=loose.id, escalation=SWITCH, restore=AT_ONCE))
    await give(core.order("release", target=strict.id))
    assert plant.net_w == ALL_W
    assert story.held[loose.id] != story.held[strict.id]
    scene(plant)
    await core.shut()
    assert plant.undurable == []
    assert {kind for kind, _ in plant.writes} == {"sleep", "open", "close", "wake"}
    return story


def core_of(story: Story, found: Scene, folder: Path) -> Core:
    """The next process over the plant as the cut left it."""
    plant = plant_of(found, folder / "ledger.db")
    core = Core(folder, clock=plant.clock, site=story.core.site)
    core.key, core.people, core.keys, core.plant = story.core.key, story.core.people, story.core.keys, plant
    core.path.with_suffix(".ballast").touch()
    return core


async def recover(story: Story, found: Scene, folder: Path) -> None:
    core = core_of(story, found, folder)
    plant = core.plant
    assert isinstance(plant, RememberingPlant)
    wrongs: list[str] = []

    def on_write(kind: str, target: str) -> None:
        if kind in {"close", "wake"} and not any(o.doc.released_by for o in core.journal.live.values()):
            wrongs.append(f"{kind} {target} without a release")
        if kind in {"open", "sleep"} and all(ended(o.state) for o in core.journal.live.values() if o.order.sheds):
            wrongs.append(f"{kind} {target} without an order")

    plant.at_write = on_write
    await core.boot(run=False)
    try:
        intended = {(k, t) for k, t in core.ledger.read_now("SELECT kind, target FROM step")}
        for name, closed in found.closed.items():
            assert closed or ("open", name) in intended, f"{name} stands open and nobody intended it"
        for name, asleep in found.asleep.items():
            assert not asleep or ("sleep", name) in intended, f"{name} sleeps and nobody intended it"
        assert core.journal.open_steps() == [], "every intent has its outcome after the start"
        assert {kind for kind, _ in plant.writes} <= {"open"}, "a start only ever opens"
        await core.go()
        for order, raw in story.sent:  # central sends again what was not answered
            was = core.journal.states.get(order.id)
            core.clock.advance(max(0, order.issued_at - core.clock.now_ms()) / 1000)
            await core.reception.take(raw, False)
            assert order.id in core.journal.states
            await follow(core, order)
            if order.sheds and (was is None or not ended(was[1])):
                live = core.journal.live.get(order.id)
                if live is not None and live.state is S.HOLDING:
                    assert plant.net_w <= (live.doc.target_w or 0)
                    # Waiting sorts out who sleeps: the target may then be met with fewer breakers, never with others.
                    assert opened_of(positions(plant)) <= opened_of(story.held[order.id])
        assert plant.net_w == ALL_W
        assert core.journal.held == {}
        for order, _ in story.sent:
            assert ended(await core.state(order.id))
        assert {await core.state(o.id) for o, _ in story.sent if o.sheds} == {S.DONE}
        assert wrongs == []
        assert plant.undurable == []
        assert [r for r in plant.repeated if r[0] == "open"] == [], "an impulse for a breaker that stands open"
    finally:
        await core.shut()


async def recover_all(story: Story, wanted: set[int], folder: Path, seed: int) -> int:
    done = 0
    for position, kind, files in images(story.log, wanted, seed):
        for found in story.plant.at(position):
            place = lay_down(files, folder / "image")
            try:
                await recover(story, found, place)
            except Exception as error:
                text = f"cut after {position} of {len(story.log)} events, un-synced: {kind}, {found}: {error}"
                raise AssertionError(text) from error
            shutil.rmtree(place)
            done += 1
    return done


@contextlib.asynccontextmanager
async def told(folder: Path) -> AsyncIterator[Story]:
    with recorded(folder / "ledger.db") as log:
        yield await tell(folder, log)


async def test_a_cut_at_sampled_writes_ends_as_without_it(tmp_path: Path) -> None:
    async with told(tmp_path) as story:
        rng = random.Random(7)
        opened = story.plant.changes(lambda was, now: sum(now.closed.values()) < sum(was.closed.values()))
        other = story.plant.changes(lambda was, now: was.asleep != now.asleep or was.closed != now.closed) - opened
        assert len(opened) >= 3
        wanted = {*opened, *rng.sample(sorted(other), 2), *rng.sample(range(story.first, len(story.log) + 1), 4)}
        assert await recover_all(story, wanted, tmp_path, 8) >= 3 * len(wanted)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_a_cut_at_every_write_ends_as_without_it(tmp_path: Path) -> None:
    async with told(tmp_path) as story:
        await recover_all(story, set(range(story.first, len(story.log) + 1)), tmp_path, 9)
