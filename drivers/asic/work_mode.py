"""Sleep and wake of machines that have work modes in a configuration, which is read and written as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from drivers.asic.control import StateControl
from drivers.asic.given import Given
from drivers.asic.outcome import acknowledged, nothing_done, refused, unknown
from drivers.asic.prior import prior_text, prior_value
from drivers.asic.sending import send
from drivers.capabilities import WriteOutcome
from drivers.errors import BadAnswer, DriverError

Mode = TypeVar("Mode")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkModes(Generic[Mode]):
    """How a family's configuration says its work mode."""

    family: str
    sleep: Mode
    of: Callable[[Json], Mode | None]
    """The mode in a configuration."""
    put: Callable[[Json, Mode, str], Json]
    """The body of a write that changes the mode (of the machine called so) and nothing else; raises ``BadAnswer``."""
    valid: Callable[[object], bool]
    """Whether a value of a prior state is a mode."""
    expected: str
    """What :attr:`valid` wants, for people."""
    at_once: bool
    """A mode shows in the configuration as soon as the write was answered: another one there means it was not taken."""

    def prior_text(self, mode: Mode) -> str:
        """The prior state of a machine in this mode."""
        return prior_text(self.family, "mode", mode)

    def prior_mode(self, prior: str) -> Mode:
        """The mode in what :meth:`prior_text` wrote.

        Raises:
            ValueError: it is something else.
        """
        mode: Mode = prior_value(
            self.family, "mode", prior, self.valid, f"prior state of {self.family} with {self.expected}"
        )
        return mode


class Configured(Protocol):
    """What a family gives. Both raise :class:`DriverError`, ``Refused`` where nothing happened."""

    async def read_config(self) -> Json:
        """The configuration, only if it is correct JSON: it is going to be written back."""
        ...

    async def write_config(self, config: Json) -> str:
        """Write it; what it answered, for people."""
        ...


@dataclass(slots=True)
class ModeControl(StateControl[Mode]):
    """Sleep and wake of one machine."""

    name: str
    machine: Configured
    modes: WorkModes[Mode]
    given: Given
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    verb = "written"

    async def prior_state(self) -> str:
        """The work mode now, as compact JSON.

        Raises:
            DriverError: it could not be read; then the machine must not be changed.
        """
        mode = await self._read()
        if mode is None:
            raise BadAnswer(f"{self.name}: no work mode in its configuration; it must not be changed")
        return self.modes.prior_text(mode)

    def _sleeping(self) -> Mode:
        return self.modes.sleep

    def _prior(self, prior_state: str) -> Mode:
        return self.modes.prior_mode(prior_state)

    async def _read(self) -> Mode | None:
        return self.modes.of(await self.machine.read_config())

    async def _change(self, state: Mode) -> WriteOutcome:
        try:
            config = await self.machine.read_config()
            if self.modes.of(config) == state:
                return acknowledged(self.given.wall, f"mode is {state} already; nothing written")
            body = self.modes.put(config, state, self.name)
        except DriverError as error:
            return nothing_done(self.given.wall, error, "written")
        sent = await send(self.given, lambda: self.machine.write_config(body), self._read, lambda seen: seen == state)
        if sent.seen == state:
            return acknowledged(self.given.wall, f"mode {state} written and read back{sent.note}")
        outcome = refused if self.modes.at_once and sent.lost is None and sent.seen is not None else unknown
        return outcome(self.given.wall, f"{sent.answer(self.name)}; mode {state} reads back as {sent.seen}")
