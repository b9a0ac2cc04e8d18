"""What a board shows at one moment: the requests that read it, and what their answers mean. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from drivers.modbus.pdu import read_bits, read_request, read_words
from drivers.modbus.scheduler import Answer
from drivers.profiles.fields import READ_FUNCTION
from drivers.profiles.model import RelayProfile
from drivers.profiles.switching import EventCounter, Output

_MOST_BITS = 256
_MOST_WORDS = 64
"""Read in one request; terminals of one board lie close together."""


@dataclass(frozen=True, slots=True)
class RelayImage:
    """State of a board. ``None`` for what could not be read."""

    coils: Mapping[str, bool | None]
    """Level of each output, a coil or not; always ``None`` for a command, which has no level."""
    inputs: Mapping[str, bool | None]
    at_ms: int
    mono_ns: int
    error: str | None = None
    counters: Mapping[str, int | None] = field(default_factory=dict)
    """By input, those that are read; ``None`` also while a counter is stopped."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing that is read: ``words`` registers, or one bit of a bit table."""

    function: int
    addr: int
    words: int
    what: str
    """``outputs``, ``inputs``, ``counters`` or ``running``."""
    id: str
    meaning: Callable[[tuple[int, ...]], bool | int | None]


@dataclass(frozen=True, slots=True)
class Request:
    """One read and the cells it covers, by their offset in its data."""

    pdu: bytes
    cells: tuple[tuple[int, Cell], ...]

    @property
    def names(self) -> str:
        """For people: what this request reads."""
        return " and ".join(sorted({"outputs": "coils"}.get(cell.what, cell.what) for _, cell in self.cells))

    def values(self, answer: Answer) -> Iterator[tuple[Cell, bool | int | None]]:
        """What each cell says in a good answer."""
        bits = self.pdu[0] in {1, 2}
        raw: tuple[int, ...] = (read_bits if bits else read_words)(answer.request, answer.answer)
        for at, cell in self.cells:
            yield cell, cell.meaning(raw[at : at + cell.words])


def requests_of(profile: RelayProfile, counted: frozenset[str]) -> tuple[Request, ...]:
    """The reads that give a whole image: all outputs and inputs, and the counters of ``counted``.

    Nothing between the cells is read along: a board may refuse a request for what it does not have.
    """
    cells = sorted(_cells(profile, counted), key=lambda cell: (cell.function, cell.addr))
    runs: list[list[Cell]] = []
    for cell in cells:
        limit = _MOST_BITS if cell.function in {1, 2} else _MOST_WORDS
        if not runs or not _touch(runs[-1][-1], cell) or cell.addr + cell.words - runs[-1][0].addr > limit:
            runs.append([])
        runs[-1].append(cell)
    return tuple(_request(run) for run in runs)


def _touch(before: Cell, cell: Cell) -> bool:
    return before.function == cell.function and cell.addr <= before.addr + before.words


def _request(run: list[Cell]) -> Request:
    first = run[0].addr
    count = max(cell.addr + cell.words for cell in run) - first
    return Request(read_request(run[0].function, first, count), tuple((cell.addr - first, cell) for cell in run))


def _cells(profile: RelayProfile, counted: frozenset[str]) -> Iterator[Cell]:
    for output in profile.outputs:
        if output.addr is not None:
            addr = output.addr if output.read_addr is None else output.read_addr
            yield Cell(READ_FUNCTION[output.table], addr, 1, "outputs", output.id, level_of(output))
    for binary in profile.inputs:
        yield Cell(READ_FUNCTION[binary.table], binary.addr, 1, "inputs", binary.id, _bit(binary.bit))
        if binary.counter is not None and binary.id in counted:
            counter = binary.counter
            yield Cell(
                READ_FUNCTION[counter.table], counter.addr, counter.words, "counters", binary.id, _count(counter)
            )
            if counter.run_coil is not None:
                yield Cell(READ_FUNCTION["coil"], counter.run_coil, 1, "running", binary.id, _bit(None))


def level_of(output: Output) -> Callable[[tuple[int, ...]], bool | None]:
    """Level of an output in what was read of it; ``None`` for a register that holds neither of its two values."""
    if output.table != "holding" or output.bit is not None:
        return _bit(output.bit)
    return lambda raw: {output.on: True, output.off: False}.get(raw[0])


def _bit(bit: int | None) -> Callable[[tuple[int, ...]], bool]:
    return lambda raw: bool(raw[0] >> (bit or 0) & 1)


def _count(counter: EventCounter) -> Callable[[tuple[int, ...]], int]:
    def value(raw: tuple[int, ...]) -> int:
        words = raw if counter.word_order == "big" else raw[::-1]
        return int.from_bytes(b"".join(word.to_bytes(2, "big") for word in words), "big")

    return value


def image_of(profile: RelayProfile, requests: tuple[Request, ...], answers: tuple[Answer, ...]) -> RelayImage:
    """The board as its answers say; what was not answered is ``None`` and named in ``error``."""
    outputs: dict[str, bool | None] = {output.id: None for output in profile.outputs}
    inputs: dict[str, bool | None] = {binary.id: None for binary in profile.inputs}
    counters: dict[str, int | None] = {
        cell.id: None for request in requests for _, cell in request.cells if cell.what == "counters"
    }
    running: dict[str, bool | None] = {}
    problems: list[str] = []
    for request, answer in zip(requests, answers, strict=True):
        if not answer.ok:
            problems.append(f"{request.names}: {answer.error}")
            running.update({cell.id: None for _, cell in request.cells if cell.what == "running"})
            continue
        for cell, value in request.values(answer):
            if cell.what == "counters":
                counters[cell.id] = value
            elif cell.what == "running":
                running[cell.id] = bool(value)
            else:
                (outputs if cell.what == "outputs" else inputs)[cell.id] = None if value is None else bool(value)
    for name, runs in running.items():
        if not runs:
            counters[name] = None
        if runs is False:
            problems.append(f"counter of {name} does not run: start it, or nothing is counted")
    # The oldest of the answers: the image is no fresher than its oldest part.
    at_ms, mono_ns = min(((a.at_ms, a.mono_ns) for a in answers), key=lambda p: p[1], default=(0, 0))
    return RelayImage(outputs, inputs, at_ms, mono_ns, "; ".join(problems) or None, counters)
