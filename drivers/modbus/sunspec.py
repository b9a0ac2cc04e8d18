"""Meters that describe themselves by SunSpec: find the marker, walk the chain of models, bind the meter's profile.

The two shipped SunSpec profiles describe the usual place of the models. The walk tells where they really are, and with
which powers of ten the meter counts energy; :func:`bind` moves the profile there. From then on the meter is an ordinary
one, except that each request brings the model's number and the scale registers along, and nothing is believed where
they are others than at the walk.

Source: SunSpec Alliance, Device Information Model specification; models 1, 201-204 and 211-214.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from drivers.errors import ProfileError
from drivers.modbus.looking import Registers
from drivers.modbus.meter import FixedScale
from drivers.profiles.loader import load_profile
from drivers.profiles.model import MeterProfile, Point, Variable
from drivers.profiles.plan import Span

SCALED, FLOAT = "sunspec-meter", "sunspec-meter-float"
PROFILES = frozenset({SCALED, FLOAT})
MARKER = (0x5375, 0x6E53)
BASES = (40000, 0, 50000)
USUAL_BASE, USUAL_METER = 40000, 40070
END = 0xFFFF
COMMON = 1
MODELS = {**dict.fromkeys((201, 202, 203, 204), SCALED), **dict.fromkeys((211, 212, 213, 214), FLOAT)}
LEAST_LENGTH = {SCALED: 105, FLOAT: 124}
MAX_MODELS = 64
"""Longer chains than this are not a device's directory."""
MAX_EXPONENT = 10
"""Of a scale register, by the standard."""
NOT_IMPLEMENTED = 0x8000
MODEL_NUMBER = "sunspec_model"
ENERGY_SCALE = "totwh_sf"


class NotSunSpec(Exception):
    """The unit has no SunSpec directory with a meter in it; the message says what was seen instead."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the walk found. ``chain`` is (model, address of its number, length) as read."""

    base: int
    model: int
    addr: int
    """Register that holds the meter model's number."""
    energy_exponent: int | None
    """Power of ten of the energy registers; ``None``: floats, or not implemented."""
    chain: tuple[tuple[int, int, int], ...]

    @property
    def profile_id(self) -> str:
        """Which of the two shipped profiles describes it."""
        return MODELS[self.model]

    def document(self) -> dict[str, Any]:
        """For a store."""
        return asdict(self)


def layout_from(doc: object) -> Layout | None:
    """A layout out of a store; ``None`` where it is none."""
    if not isinstance(doc, dict):
        return None
    numbers = [doc.get(name) for name in ("base", "model", "addr")]
    chain, exponent = doc.get("chain"), doc.get("energy_exponent")
    if not all(isinstance(n, int) and 0 <= n <= 0xFFFF for n in numbers) or not isinstance(chain, list | tuple):
        return None
    if exponent is not None and not (isinstance(exponent, int) and abs(exponent) <= MAX_EXPONENT):
        return None
    rows = [tuple(row) for row in chain if isinstance(row, list | tuple) and len(row) == 3]
    base, model, addr = doc["base"], doc["model"], doc["addr"]
    if (
        model not in MODELS
        or base not in BASES
        or len(rows) != len(chain) > 0
        or (model, addr) not in {(row[0], row[1]) for row in rows}
    ):
        return None
    if not base < addr <= 0xFFFF - LEAST_LENGTH[MODELS[model]] - 1:
        return None
    return Layout(base, model, addr, exponent, tuple((int(a), int(b), int(c)) for a, b, c in rows))


async def walk(registers: Registers) -> Layout:
    """Read the directory of a unit.

    Raises:
        NobodyThere: it does not answer.
        NotSunSpec: there is no directory, it is damaged, or it holds no meter.
    """
    base = await _marker(registers)
    chain = await _chain(registers, base)
    meters = [row for row in chain if row[0] in MODELS]
    short = [row for row in meters if row[2] < LEAST_LENGTH[MODELS[row[0]]]]
    meters = [row for row in meters if row not in short]
    if not meters:
        seen = ", ".join(str(model) for model, _, _ in chain) or "none"
        why = f" (model {short[0][0]} is only {short[0][2]} registers long)" if short else ""
        raise NotSunSpec(f"SunSpec models seen: {seen}; expected a meter, 201 to 204 or 211 to 214{why}")
    # Scaled models first: their energy registers are whole numbers and never lose the last Wh.
    for model, addr, _ in sorted(meters):
        exponent = await _energy_exponent(registers, model, addr)
        if exponent is not None or MODELS[model] == FLOAT:
            return Layout(base, model, addr, exponent, chain)
    model, addr, _ = min(meters)
    return Layout(base, model, addr, None, chain)


async def _marker(registers: Registers) -> int:
    for base in BASES:
        span = Span("holding", base, base + 1)
        await registers.fetch([span])
        if registers.holds(span) == MARKER:
            return base
    if not registers.answered:
        raise NotSunSpec("no answer: is it powered, and is the unit address right?")
    raise NotSunSpec(f"no SunSpec marker at holding {', '.join(map(str, BASES))}: it is not a SunSpec device")


async def _chain(registers: Registers, base: int) -> tuple[tuple[int, int, int], ...]:
    chain: list[tuple[int, int, int]] = []
    addr = base + 2
    for _ in range(MAX_MODELS):
        if addr > 0xFFFE:
            raise NotSunSpec(f"the SunSpec chain runs past the last register after {len(chain)} models: damaged")
        span = Span("holding", addr, addr + 1)
        await registers.fetch([span])
        head = registers.holds(span)
        if head is None:
            raise NotSunSpec(f"the SunSpec chain cannot be read at holding {addr}, after {len(chain)} models")
        model, length = head
        if model == END:
            return tuple(chain)
        if length == 0 or model == 0:
            raise NotSunSpec(f"SunSpec model {model} at holding {addr} has length {length}: damaged directory")
        chain.append((model, addr, length))
        addr += 2 + length  # only ever forwards: no chain can lead in a circle
    raise NotSunSpec(f"more than {MAX_MODELS} SunSpec models without an end: damaged directory")


async def _energy_exponent(registers: Registers, model: int, addr: int) -> int | None:
    if MODELS[model] != SCALED:
        return None
    place = _shipped(SCALED).point(ENERGY_SCALE).addr - USUAL_METER + addr
    span = Span("holding", place, place)
    await registers.fetch([span])
    words = registers.holds(span)
    if words is None or words[0] == NOT_IMPLEMENTED:
        return None
    exponent = words[0] - 0x10000 if words[0] & 0x8000 else words[0]
    return exponent if abs(exponent) <= MAX_EXPONENT else None


def _shipped(profile_id: str) -> MeterProfile:
    profile = load_profile(profile_id)
    if not isinstance(profile, MeterProfile):
        raise ProfileError(f"profile {profile_id}: seen kind {profile.kind}, expected meter")
    return profile


def bind(layout: Layout) -> tuple[MeterProfile, tuple[FixedScale, ...]]:
    """The profile of one meter, and what must stay as it was found.

    Energy registers get their power of ten as a fixed scale, so that their raw bits are evidence; where the meter has
    none, it has no energy points.
    """
    shipped = _shipped(layout.profile_id)
    number = Variable(id=MODEL_NUMBER, table="holding", addr=layout.addr, type="u16", poll="fast")
    points = [moved for point in shipped.points if (moved := _move(point, layout)) is not None]
    variables = tuple(v.model_copy(update={"addr": v.addr - USUAL_METER + layout.addr}) for v in shipped.variables)
    profile = shipped.model_copy(
        update={"points": tuple(points), "variables": (*variables, number), "identify": (), "tests": ()}
    )
    told = tuple(p.id for p in points if p.kind != "text")
    fixed = [FixedScale(MODEL_NUMBER, Fraction(layout.model), told)]
    if layout.energy_exponent is not None:
        energies = tuple(p.id for p in points if p.kind == "counter")
        fixed.append(FixedScale(ENERGY_SCALE, Fraction(10) ** layout.energy_exponent, energies))
    return profile, tuple(fixed)


def _move(point: Point, layout: Layout) -> Point | None:
    if point.kind == "text":  # of the common model, which stands first
        first = layout.chain[0]
        if first[0] != COMMON or first[2] < 65:
            return None
        return point.model_copy(update={"addr": point.addr - USUAL_BASE + layout.base})
    shift = layout.addr - USUAL_METER
    parts = tuple(p.model_copy(update={"addr": p.addr + shift}) for p in point.parts)
    # One request brings a value and its scale, so that neither can be of another moment; and with what is judged and
    # billed by, the model's number.
    judged = point.id == "power_w" or ENERGY_SCALE in point.scale_by or point.kind == "counter"
    with_it = (*point.scale_by, MODEL_NUMBER) if judged else point.scale_by
    changes: dict[str, Any] = {"addr": point.addr + shift, "parts": parts, "atomic_with": with_it}
    if ENERGY_SCALE in point.scale_by:
        if layout.energy_exponent is None:
            return None
        changes |= {"scale": Fraction(10) ** layout.energy_exponent, "scale_by": (), "kind": "counter"}
    return point.model_copy(update=changes)
