"""What a board shows at one moment: the requests that read it, and what their answers mean. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from drivers.errors import BadAnswer
from drivers.modbus.pdu import read_bits, read_request, read_words
from drivers.modbus.scheduler import Answer
from drivers.profiles.codec import decode_bits, field_bits
from drivers.profiles.fields import READ_FUNCTION
from drivers.profiles.model import RelayProfile
from drivers.profiles.switching import EventCounter, Output, Temperature

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
    temperatures: Mapping[str, float | None] = field(default_factory=dict)
    """In °C; ``None`` also where the sensor is broken or not there."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing that is read: ``words`` registers, or one bit of a bit table."""

    function: int
    addr: int
    words: int
    what: str
    """``outputs``, ``inputs``, ``counters``, ``running`` or ``temperatures``."""
    id: str
    meaning: Callable[[tuple[int, ...]], bool | float | None]


@dataclass(frozen=True, slots=True)
class Request:
    """One read and the cells it covers, by their offset in its data."""

    pdu: bytes
    cells: tuple[tuple[int, Cell], ...]

    @property
    def names(self) -> str:
        """For people: what this request reads."""
        return " and ".join(sorted({"outputs": "coils"}.get(cell.what, cell.what) for _, cell in self.cells))

    def values(self, answer: Answer) -> Iterator[tuple[Cell, bool | float | None]]:
        """What each cell says in a good answer."""
        bits = self.pdu[0] in {1, 2}
        raw: tuple[int, ...] = (read_bits if bits else read_words)(answer.request, answer.answer)
        for at, cell in self.cells:
            yield cell, cell.meaning(raw[at : at + cell.words])


def requests_of(profile: RelayProfile, counted: frozenset[str]) -> tuple[Request, ...]:
    """The reads that give a whole image: all outputs, inputs and temperatures, and the counters of ``counted``.

    Nothing between the cells is read along, unless the profile says how wide a hole the board allows: it may refuse a
    request for what it does not have.
    """
    hole = profile.link.max_hole if "max_hole" in profile.link.model_fields_set else 0
    cells = sorted(_cells(profile, counted), key=lambda cell: (cell.function, cell.addr))
    runs: list[list[Cell]] = []
    for cell in cells:
        limit = _MOST_BITS if cell.function in {1, 2} else _MOST_WORDS
        if not runs or not _touch(runs[-1][-1], cell, hole) or cell.addr + cell.words - runs[-1][0].addr > limit:
            runs.append([])
        runs[-1].append(cell)
    return tuple(_request(run) for run in runs)


def _touch(before: Cell, cell: Cell, hole: int) -> bool:
    allowed = 0 if cell.function in {1, 2} else hole
    return before.function == cell.function and cell.addr <= before.addr + before.words + allowed


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
    for found in profile.temperatures:
        yield Cell(READ_FUNCTION[found.table], found.addr, found.words, "temperatures", found.id, _celsius(found))


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


def _celsius(found: Temperature) -> Callable[[tuple[int, ...]], float | None]:
    def value(raw: tuple[int, ...]) -> float | None:
        try:
            number = decode_bits(found, field_bits(found, raw))
        except BadAnswer:
            return None
        celsius = None if number is None or isinstance(number, str) else float(number)
        return celsius if celsius is not None and found.plausible(celsius) else None

    return value


def image_of(profile: RelayProfile, requests: tuple[Request, ...], answers: tuple[Answer, ...]) -> RelayImage:
    """The board as its answers say; what was not answered is ``None`` and named in ``error``."""
    outputs: dict[str, bool | None] = {output.id: None for output in profile.outputs}
    inputs: dict[str, bool | None] = {binary.id: None for binary in profile.inputs}
    counters: dict[str, int | None] = {
        cell.id: None for request in requests for _, cell in request.cells if cell.what == "counters"
    }
    temperatures: dict[str, float | None] = {found.id: None for found in profile.temperatures}
    running: dict[str, bool | None] = {}
    problems: list[str] = []
    for request, answer in zip(requests, answers, strict=True):
        if not answer.ok:
            problems.append(f"{request.names}: {answer.error}")
            running.update({cell.id: None for _, cell in request.cells if cell.what == "running"})
            continue
        for cell, value in request.values(answer):
            if cell.what == "counters":
                counters[cell.id] = None if value is None else int(value)
            elif cell.what == "temperatures":
                temperatures[cell.id] = value
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
    return RelayImage(outputs, inputs, at_ms, mono_ns, "; ".join(problems) or None, counters, temperatures)
