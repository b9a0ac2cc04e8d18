"""A plant that remembers what stood how after every write of a recorded ledger, and breakers driven by impulses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from recording_vfs import Log

from agent.live import LiveState
from drivers.capabilities import SwitchState, WriteOutcome, WriteStatus
from tests.unit.agent_kit import Plant, PlayedMachine, PlayedSwitch, SimClock

READS_TO_MOVE = 2


@dataclass(frozen=True)
class Scene:
    """The plant at a moment: ``events`` of the ledger's log had happened by then."""

    events: int
    wall_ms: int
    mono_ns: int
    closed: dict[str, bool]
    """An impulse that was given is carried out, whoever dies meanwhile."""
    asleep: dict[str, bool]


@dataclass
class ImpulseBreaker(PlayedSwitch):
    """Moves some readings after an impulse was given. One given for nothing is remembered by its plant."""

    target: bool | None = None
    reads: int = 0

    async def read(self) -> SwitchState:
        if self.target is not None:
            self.reads += 1
            if self.reads > READS_TO_MOVE:
                self.closed, self.target = self.target, None
                scene(self.plant)
        return await super().read()

    async def open(self) -> WriteOutcome:
        return self._impulse("open", False)

    async def close(self) -> WriteOutcome:
        return self._impulse("close", True)

    def _impulse(self, kind: str, closed: bool) -> WriteOutcome:
        assert isinstance(self.plant, RememberingPlant)
        self.plant.written(kind, self.id)
        if self.closed is closed:
            self.plant.repeated.append((kind, self.id))
        self.target, self.reads = closed, 0
        scene(self.plant)
        return WriteOutcome(WriteStatus.ACKNOWLEDGED, self.plant.clock.now_ms())


class RememberedMachine(PlayedMachine):
    """A machine that tells its plant when it changed."""

    async def sleep(self) -> WriteOutcome:
        outcome = await super().sleep()
        scene(self.plant)
        return outcome

    async def wake(self, prior_state: str) -> WriteOutcome:
        outcome = await super().wake(prior_state)
        scene(self.plant)
        return outcome


@dataclass
class RememberingPlant(Plant):
    """Without a log it is a plant as it stands after a cut."""

    log: Log = field(default_factory=Log)
    scenes: list[Scene] = field(default_factory=list)
    repeated: list[tuple[str, str]] = field(default_factory=list)
    """Impulses given to a breaker that already stood there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.switches = {name: ImpulseBreaker(name, self) for name in self.switches}
        self.machines = {m.id: RememberedMachine(m.id, self, m.switch) for m in self.machines.values()}
        for machine in self.machines.values():
            machine.refuses = machine.switch == "KM2"  # so that a stop takes machines and a breaker

    async def publish(self, live: LiveState) -> None:
        await super().publish(live)
        scene(self)  # time passes too

    def at(self, events: int) -> list[Scene]:
        """What may be found after a cut at that many events: just before, and just after, what moved then."""
        before = [s for s in self.scenes if s.events < events][-1:]
        now = [s for s in self.scenes if s.events == events]
        return [*before, *now[-1:]]

    def changes(self, of: Callable[[Scene, Scene], bool]) -> set[int]:
        """Events at which something moved, by the scene before and the scene after."""
        return {now.events for was, now in pairwise(self.scenes) if of(was, now)}


def scene(plant: Plant) -> None:
    """Remember how everything stands."""
    assert isinstance(plant, RememberingPlant)
    closed = {
        name: switch.closed if not isinstance(switch, ImpulseBreaker) or switch.target is None else switch.target
        for name, switch in plant.switches.items()
    }
    asleep = {name: machine.asleep for name, machine in plant.machines.items()}
    clock = plant.clock
    plant.scenes.append(Scene(len(plant.log), clock.now_ms(), clock.mono_ns(), closed, asleep))


def plant_of(found: Scene, ledger: Path) -> RememberingPlant:
    """The plant as a new process finds it some seconds after the cut."""
    clock = SimClock(found.wall_ms)
    clock.mono = found.mono_ns
    clock.advance(5)
    plant = RememberingPlant(clock, ledger)
    for name, closed in found.closed.items():
        plant.switches[name].closed = closed
    for name, asleep in found.asleep.items():
        plant.machines[name].asleep = asleep
    return plant
