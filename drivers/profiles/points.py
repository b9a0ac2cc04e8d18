"""What one row of a meter's profile may say: points, the variables that scale them, identity reads and self-checks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from config.base import Model
from drivers.profiles.fields import DECIMAL, Exact, RegisterField
from wire.points import COUNTERS, EVENT_POINTS, base_point, is_point, unit_of

WHOLE = frozenset({"u16", "u32", "u64", "bcd", "mod10k", "bits"})
"""Types that hold whole numbers and none below 0."""
Poll = Literal["boundary", "fast", "normal", "slow", "once"]


class Point(RegisterField):
    """One point of the vocabulary in one device model."""

    id: str
    kind: Literal["gauge", "counter", "derived", "count", "text"] = "gauge"
    """``counter``: an energy in one run of registers whose raw bits are evidence. ``derived``: an energy that is a sum
    of registers or scaled by another one, so no raw bits prove it; it is telemetry only. ``count``: how often
    something happened to the meter, as the meter itself counts it; never an energy."""
    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)
    """Plausible range in SI; outside it the value is suspect."""
    rollover: int | Literal["width", "unknown"] | None = None
    """Counters: raw count at which it starts again from 0; ``width``: where its registers are full; or ``unknown``."""
    resettable: bool = False
    poll: Poll = "normal"
    """``boundary``: counters, read at the boundaries of the slots and no oftener than ``normal`` between them.
    ``once``: does not change while the device runs."""
    atomic_with: tuple[str, ...] = ()
    """Points that must come from the same request."""
    scale_by: tuple[str, ...] = ()
    """Points (ratios) or variables whose values multiply this one."""
    alias_of: tuple[str, ...] = ()
    """Points that lie in the same registers on purpose. A sum and its own parts need not say so."""
    confirmed: int = Field(default=1, ge=0, le=9)
    """Independent sources that agree. 0: only by likeness to a sister model; no such point leaves ``community``."""
    note: str = ""

    @model_validator(mode="after")
    def _meaning(self) -> Point:
        if not is_point(self.id):
            raise ValueError(
                f"id: seen {self.id!r}, expected a name of the point vocabulary; docs/protocol.md lists them"
            )
        energy = base_point(self.id) in COUNTERS
        if energy != (self.kind in {"counter", "derived"}):
            expected = "counter (or derived)" if energy else "gauge or text"
            raise ValueError(f"kind: seen {self.kind}, expected {expected} for {self.id}")
        if (self.id in EVENT_POINTS) != (self.kind == "count"):
            expected = "count" if self.id in EVENT_POINTS else "another kind: only counters of events are counts"
            raise ValueError(f"kind: seen {self.kind}, expected {expected} for {self.id}")
        if self.kind == "count" and (self.type not in WHOLE or self.scale != 1 or self.scale_by):
            raise ValueError(
                f"type: seen {self.type} with scale {self.scale}, expected one of {', '.join(sorted(WHOLE))} without a "
                f"scale: {self.id} counts events"
            )
        text = unit_of(self.id) == ""
        if text != (self.kind == "text"):
            raise ValueError(f"kind: seen {self.kind}, expected {'text' if text else 'gauge or counter'} for {self.id}")
        if self.type in {"str", "enum"} and not text:
            raise ValueError(f"type: {self.type} cannot hold {self.id} in {unit_of(self.id)}; choose a number type")
        if text and self.type in {"f32", "f64", "sum"}:
            raise ValueError(f"type: seen {self.type}, expected a whole number, enum or str for {self.id}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min: {self.min} is above max {self.max}; swap the two")
        self._counting()
        return self

    def _counting(self) -> None:
        if self.kind == "counter" and self.rollover is None:
            raise ValueError(
                "rollover: missing; a counter states the raw count at which it wraps, 'width' or 'unknown'"
            )
        if self.kind not in {"counter", "derived"} and self.rollover is not None:
            raise ValueError("rollover: only counters have one; remove it")
        if self.rollover == "width" and self.type in {"f32", "f64", "sum"}:
            raise ValueError(f"rollover: seen width with type {self.type}, which has none; expected a raw count")
        if isinstance(self.rollover, int):
            most = raw_end(self.type, self.words)
            if self.rollover < 2 or (most is not None and self.rollover > most):
                raise ValueError(
                    f"rollover: seen {self.rollover}, expected at least 2"
                    + (f" and at most {most}, what {self.type} can count to" if most is not None else "")
                )
        why = self.unprovable
        if self.kind == "counter" and why is not None:
            raise ValueError(f"kind: seen counter, expected derived: {why}, so no raw bits prove it")
        if self.kind == "derived" and why is None:
            raise ValueError("kind: seen derived, expected counter: it is one run of registers with a fixed scale")

    @property
    def unprovable(self) -> str | None:
        """Why its raw bits and a decode map do not prove the value; ``None`` where they do."""
        if self.type == "sum":
            return "it is a sum of registers"
        if self.type in {"str", "enum"} or self.mask is not None or (self.type == "bits" and self.words == 3):
            return "it is not a plain number of 16, 32 or 64 bits"
        if self.scale_by:
            return f"it is scaled by {', '.join(self.scale_by)}"
        if self.byte_order != "big":
            return "its bytes are swapped"
        return None

    @property
    def evidence(self) -> bool:
        """True for a counter whose raw bits may stand in an evidence record."""
        return self.kind == "counter"

    @property
    def modulus(self) -> int | None:
        """Raw count at which a counter starts again; ``None`` where nobody knows."""
        if self.rollover == "width":
            return raw_end(self.type, self.words)
        return self.rollover if isinstance(self.rollover, int) else None

    @property
    def unit(self) -> str:
        """SI unit, from the vocabulary."""
        return unit_of(self.id)


class Variable(Point):
    """A register that is read because points are scaled by it. Never shown, never polled for itself.

    Its value is the multiplier: ``factor``: raw * scale. ``divisor``: 1 / (raw * scale). ``exponent``: 10 to the power
    of raw. ``index``: ``steps[raw]``. Contents that give no multiplier above 0 make the points that need it have no
    value.
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
    gives: Literal["factor", "divisor", "exponent", "index"] = "factor"
    steps: tuple[Exact, ...] = Field(default=(), max_length=32)
    """``index`` only: multiplier of each raw number, from 0."""
    poll: Poll = "slow"

    @model_validator(mode="after")
    def _meaning(self) -> Variable:
        if is_point(self.id):
            raise ValueError(f"id: seen {self.id!r}, a name of the point vocabulary; expected another name")
        if self.kind != "gauge" or self.rollover is not None or self.scale_by or self.atomic_with or self.alias_of:
            raise ValueError("a variable has no kind, rollover, scale_by, atomic_with or alias_of; remove it")
        if self.type in {"str", "enum"}:
            raise ValueError(f"type: seen {self.type}, expected a type that is a number")
        if bool(self.steps) != (self.gives == "index"):
            raise ValueError(
                f"steps: seen {len(self.steps)} with gives: {self.gives}; an index has steps, nothing else"
            )
        if any(step <= 0 for step in self.steps):
            raise ValueError("steps: seen a multiplier of 0 or less, expected more than 0")
        return self

    @property
    def unit(self) -> str:
        """A multiplier has no unit."""
        return "1"


def raw_end(kind: str, words: int) -> int | None:
    """One more than the largest raw count of a type; ``None`` for floats and sums."""
    if kind in {"f32", "f64", "sum"}:
        return None
    if kind in DECIMAL:
        return int(10 ** (4 * words))
    return 1 << (16 * words - (kind[0] == "i"))


class Identify(RegisterField):
    """A read that tells whether the device is what the profile says."""

    expect: tuple[int, ...] = ()
    """Accepted values (after ``scale``)."""
    text: str | None = None
    """Accepted beginning, for ``str`` and ``enum``."""
    note: str = ""

    @model_validator(mode="after")
    def _something(self) -> Identify:
        if not self.expect and self.text is None:
            raise ValueError("identify: expected 'expect' (numbers) or 'text'; without one it tells nothing")
        return self


class Check(Model):
    """Self-check: the parts add up to the whole within a tolerance."""

    sum: tuple[str, ...] = Field(min_length=2)
    equals: str
    relative: float = Field(default=0.02, ge=0, le=1)
    absolute: float = Field(default=1.0, ge=0)


class Live(Model):
    """What a point of a live installation reads, far narrower than its plausible range: tells profiles apart.

    Used to guess a model, its word order or its address base; never to judge a reading in service.
    """

    point: str
    between: tuple[float, float]

    @model_validator(mode="after")
    def _forwards(self) -> Live:
        if self.between[0] >= self.between[1]:
            raise ValueError(f"between: seen {list(self.between)}, expected the lower end first")
        return self
