"""A meter on a Modbus link: which requests read its points, and what their answers mean. It has no way to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from drivers.capabilities import Reading, Sample
from drivers.errors import BadFrame
from drivers.modbus.pdu import READ_FUNCTIONS, read_request, read_words
from drivers.modbus.scheduler import Answer
from drivers.profiles.codec import Decoded, decode_registers, failed_checks, plausible, scaled, to_value
from drivers.profiles.model import MeterProfile
from drivers.profiles.plan import Block, plan
from wire.quality import Quality

TINY = 1e-15
"""No instrument reads a quantity so small and not zero: such a float is other data read as a number."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Points asked for and the blocks that answer them."""

    points: tuple[str, ...]
    blocks: tuple[Block, ...]
    pdus: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class MeterDevice:
    """One meter of a site: id, unit address, profile."""

    id: str
    unit: int
    profile: MeterProfile

    def __post_init__(self) -> None:
        """Refuse anything that is not a meter."""
        if self.profile.kind != "meter":
            raise ValueError(f"{self.id}: profile {self.profile.id} is of kind {self.profile.kind}, expected meter")

    @property
    def functions(self) -> frozenset[int]:
        """Reads only."""
        return READ_FUNCTIONS & frozenset(self.profile.link.functions)

    @property
    def timeout_s(self) -> float | None:
        """Its own time-out, if the profile states one."""
        ms = self.profile.link.timeout_ms
        return None if ms is None else ms / 1000

    @property
    def gap_s(self) -> float:
        """Quiet time between two questions."""
        return self.profile.link.min_gap_ms / 1000

    @property
    def turnaround_s(self) -> float:
        """Quiet time of a serial line after its answer."""
        return self.profile.link.turnaround_ms / 1000

    def reading(self, points: Sequence[str]) -> Asked:
        """Requests that read these points.

        Raises:
            KeyError: the profile has no such point.
        """
        blocks = plan(self.profile, points)
        return Asked(tuple(points), blocks, tuple(read_request(b.fc, b.addr, b.count) for b in blocks))

    def sample(self, asked: Asked, answers: tuple[Answer, ...]) -> Sample:
        """Answers → sample. A block that failed takes only its own points with it."""
        decoded: dict[str, Decoded] = {}
        failed: dict[str, Quality] = {}
        problems: list[str] = []
        for block, answer in zip(asked.blocks, answers, strict=True):
            quality, error = answer.quality, answer.error
            if answer.ok:
                try:
                    words = read_words(answer.request, answer.answer)
                    decoded |= decode_registers(self.profile, block.table, block.addr, words, block.points)
                    continue
                except BadFrame as problem:
                    quality, error = problem.quality, str(problem)
            failed |= dict.fromkeys(block.points, quality)
            problems.append(f"{block.table} {block.addr}+{block.count}: {error}")
        readings = {name: self._reading(name, decoded, failed) for name in asked.points}
        values = {name: r.value for name, r in readings.items() if r.quality is Quality.GOOD}
        for check in failed_checks(self.profile, values):
            for name in (*check.sum, check.equals):
                if name in readings:
                    readings[name] = Reading(readings[name].value, Quality.SUSPECT)
        for check in self.profile.checks:
            # A sum whose parts are impossible is not to be believed either, though it looks possible itself.
            whole = readings.get(check.equals)
            if whole is not None and whole.quality is Quality.GOOD:
                parts = [readings[name].quality for name in check.sum if name in readings]
                if Quality.SUSPECT in parts or Quality.DECODE in parts:
                    readings[check.equals] = Reading(whole.value, Quality.SUSPECT)
        sent = [a for a in answers if a.sent]
        last = (sent or list(answers))[-1]
        return Sample(
            device=self.id,
            at_ms=last.at_ms,
            mono_ns=last.mono_ns,
            readings=readings,
            bits={n: d.bits for n in asked.points if (d := decoded.get(n)) is not None and d.bits is not None},
            frames=tuple((a.request, a.answer) for a in answers if a.ok),
            latency_ms=sum(a.latency_ms for a in answers),
            error="; ".join(problems) or None,
        )

    def _reading(self, name: str, decoded: dict[str, Decoded], failed: dict[str, Quality]) -> Reading:
        here = decoded.get(name)
        if here is None:
            return Reading(None, failed.get(name, Quality.NOT_READ))
        if here.error is not None:
            return Reading(None, Quality.DECODE)
        if here.number is None:
            return Reading(None, Quality.NO_VALUE)
        point = self.profile.point(name)
        number = here.number
        if point.scale_by and isinstance(number, Fraction):
            # Without its ratio the number is not the quantity: no value is better than one that is 100 times too small.
            for ratio in point.scale_by:
                got = decoded.get(ratio)
                if got is None or not isinstance(got.number, Fraction):
                    return Reading(None, failed.get(ratio, Quality.NO_VALUE))
            number = scaled(point, number, decoded)
        value = to_value(number)
        if isinstance(value, float) and 0.0 < abs(value) < TINY:
            return Reading(None, Quality.DECODE)
        return Reading(value, Quality.GOOD if plausible(point, value) else Quality.SUSPECT)
