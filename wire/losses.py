"""Losses between two levels of meters, and how far a balance may be off. Pure; figures are whole numbers.

Losses of one element over a slot, out of its passport and the energy that went through it:

* transformer: ``P0·t + Pk·(S/Sn)²·t``;
* line: ``3·I²·R·t`` = ``(S/U)²·R·t``,

with S = E / (t·cos φ) and cos φ = 0.95, which is not measured per slot. The load is taken as even over the slot. Both
simplifications, and the ±15 % that IEC 60076-1 allows a maker for each loss, are in ``slack_wh``: 15 % of the no-load
losses and 30 % of the losses under load.

Tolerance of a balance (V20): ``√((ε₀E₀)² + Σ(εᵢEᵢ)²) + δL + ΣLSBᵢ·kᵢ + Σ shiftᵢ`` with ``ε = 1.1·√(δCT² + δVT² +
δmeter²)``. The δ are limits of the accuracy class at the load at which the slot was metered:

=====  ======  ======  ======  ============  ==========================
class  1 %     5 %     20 %    100 - 120 %   IEC 61869-2, ratio error
=====  ======  ======  ======  ============  ==========================
0.2S   0.75    0.35    0.2     0.2           per cent
0.5S   1.5     0.75    0.5     0.5
0.2            0.75    0.35    0.2
0.5            1.5     0.75    0.5
1              3.0     1.5     1.0
=====  ======  ======  ======  ============  ==========================

Between two points of a class the limit of the lower one counts. Below the lowest point nothing is promised: the error
is then taken to be as large, in amperes, as at that point, so that its share grows as the load falls. A load that is
not known counts as the lowest point of the class; a class that is not known counts as 1 for transformers and as 2 for
meters.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from wire import canonical

VERSION = 1
"""Of the formulas above; it is part of every loss id."""
COS_PERMILLE = 950
NO_LOAD_SLACK = Fraction(15, 100)
LOAD_SLACK = Fraction(30, 100)
PPM = 1_000_000
Limits = tuple[tuple[int, int], ...]
"""((load, limit), …) both in ppm, by rising load."""

CT_LIMITS: dict[str, Limits] = {
    "0.2S": ((10_000, 7_500), (50_000, 3_500), (200_000, 2_000)),
    "0.5S": ((10_000, 15_000), (50_000, 7_500), (200_000, 5_000)),
    "0.2": ((50_000, 7_500), (200_000, 3_500), (1_000_000, 2_000)),
    "0.5": ((50_000, 15_000), (200_000, 7_500), (1_000_000, 5_000)),
    "1": ((50_000, 30_000), (200_000, 15_000), (1_000_000, 10_000)),
}
METER_LIMITS: dict[str, Limits] = {
    "0.2S": ((10_000, 4_000), (50_000, 2_000)),
    "0.5S": ((10_000, 10_000), (50_000, 5_000)),
    "0.5": ((20_000, 10_000), (50_000, 5_000)),
    "1": ((20_000, 15_000), (50_000, 10_000)),
    "2": ((20_000, 25_000), (50_000, 20_000)),
}
"""IEC 62053-22 (0.2S, 0.5S) and 62053-21 (1, 2) at cos φ 1, for meters behind transformers; 0.5 as 0.5S from 2 % on.
Classes A, B, C of the EU's measuring instruments directive are 2, 1 and 0.5."""
VT_LIMITS: dict[str, int] = {"0.1": 1_000, "0.2": 2_000, "0.5": 5_000, "1": 10_000, "3": 30_000}
_MID = {"A": "2", "B": "1", "C": "0.5"}


@dataclass(frozen=True, slots=True)
class TransformerLoss:
    """One transformer: losses in W, rating in VA."""

    id: str
    no_load_w: int
    load_w: int
    rated_va: int

    def doc(self) -> canonical.Json:
        """What its identity is made of."""
        return {"id": self.id, "p0_w": self.no_load_w, "pk_w": self.load_w, "sn_va": self.rated_va}


@dataclass(frozen=True, slots=True)
class LineLoss:
    """One line: resistance of a phase in µΩ, voltage between phases in V."""

    id: str
    r_uohm: int
    voltage_v: int

    def doc(self) -> canonical.Json:
        """What its identity is made of."""
        return {"id": self.id, "r_uohm": self.r_uohm, "u_v": self.voltage_v}


Element = TransformerLoss | LineLoss


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses of one or several elements over a slot, exact Wh, and how far they may be off."""

    wh: Fraction = Fraction(0)
    slack_wh: Fraction = Fraction(0)

    def __add__(self, other: Losses) -> Losses:
        return Losses(self.wh + other.wh, self.slack_wh + other.slack_wh)


def element_losses(element: Element, energy_wh: int, seconds: int) -> Losses:
    """Losses of one live element.

    Args:
        element: with its passport data.
        energy_wh: energy that went through it in the slot, either way.
        seconds: how long the slot is.
    """
    va = Fraction(abs(energy_wh) * 3600 * 1000, seconds * COS_PERMILLE)
    hours = Fraction(seconds, 3600)
    if isinstance(element, LineLoss):
        load = va * va * Fraction(element.r_uohm, PPM) / element.voltage_v**2 * hours
        return Losses(load, LOAD_SLACK * load)
    idle = element.no_load_w * hours
    load = element.load_w * (va / element.rated_va) ** 2 * hours
    return Losses(idle + load, NO_LOAD_SLACK * idle + LOAD_SLACK * load)


def loss_id(elements: Iterable[Element]) -> str:
    """Identity of a set of elements with everything their losses follow from: 16 hex digits, in any order the same."""
    doc: canonical.Json = {"v": VERSION, "cos": COS_PERMILLE, "of": sorted((e.doc() for e in elements), key=str)}
    return hashlib.sha256(canonical.encode(doc)).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Chain:
    """What a metering point measures with. ``rated_w`` is what the transformers are rated for; ``None`` unknown.

    A class is ``None`` where it is not written down; ``has_ct`` and ``has_vt`` say whether there is a transformer.
    """

    meter: str | None = None
    ct: str | None = None
    vt: str | None = None
    has_ct: bool = False
    has_vt: bool = False
    rated_w: int | None = None

    def error_ppm(self, energy_wh: int, seconds: int) -> int:
        """ε of an energy, at the load that it stands for."""
        load = None
        if self.rated_w:
            load = max(1, abs(energy_wh) * 3600 * 1000 * PPM // (seconds * COS_PERMILLE * self.rated_w))
        parts = [_limit(METER_LIMITS, self.meter, "2", load)]
        if self.has_ct:
            parts.append(_limit(CT_LIMITS, self.ct, "1", load))
        if self.has_vt:
            parts.append(VT_LIMITS.get(_class(self.vt), VT_LIMITS["1"]))
        return math.isqrt(121 * sum(part * part for part in parts) // 100) + 1


def _class(text: str | None) -> str:
    """``0,5s`` → ``0.5S``, ``1.0`` → ``1``; empty where nothing is written."""
    found = (text or "").strip().upper().replace(",", ".").replace("\N{CYRILLIC CAPITAL LETTER ES}", "S")
    return found.removesuffix(".0")


def _limit(table: dict[str, Limits], written: str | None, unknown: str, load_ppm: int | None) -> int:
    name = _class(written)
    points = table.get(_MID.get(name, name), table[unknown])
    lowest, widest = points[0]
    if load_ppm is None:
        return widest
    if load_ppm < lowest:
        return min(PPM, widest * lowest // load_ppm)
    return next(limit for point, limit in reversed(points) if load_ppm >= point)


@dataclass(frozen=True, slots=True)
class Member:
    """One metering point in a balance.

    ``quantum_wh`` is the least its register moves by, primary; ``shift_wh`` the energy that the instants of its
    boundary readings may have moved into a neighbouring slot.
    """

    energy_wh: int
    error_ppm: int
    quantum_wh: Fraction = Fraction(0)
    shift_wh: Fraction = Fraction(0)


def tolerance_wh(members: Sequence[Member], losses: Losses) -> int:
    """How much of a balance need not be explained, rounded up.

    Args:
        members: every point of the balance, main and feeders.
        losses: between them.
    """
    squares = sum((m.energy_wh * m.error_ppm) ** 2 for m in members)
    root = -(-(math.isqrt(squares) + 1) // PPM)
    rest = losses.slack_wh + sum((m.quantum_wh + m.shift_wh for m in members), Fraction(0))
    return root + math.ceil(rest)
