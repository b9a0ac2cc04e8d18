"""What a ``bind`` record says that the rules need: where the meter sits, what can be, how well it measures."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from verifier.canonical import Object
from verifier.energy import DecodeMap
from verifier.plausible.rules import CLASS, OVER_CONTRACT, OVER_RATING
from verifier.readings import Bind

NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Bound:
    """One meter in service."""

    serial: str | None
    swapped: bool
    role: str
    node: str
    device: str
    boundary: bool
    inverted: bool
    most_w: int | None
    """The most that can flow, by contract and ratings."""
    error: float
    """Limit of error as a share."""
    how: Bind

    def changed_map(self, before: Bound) -> bool:
        """The same meter read by another map than before, although no ratio changed."""
        same = self.serial is not None and self.serial == before.serial and not self.swapped
        ratios = (self.how.ct, self.how.vt) == (before.how.ct, before.how.vt)
        old, new = before.how.maps, self.how.maps
        return same and ratios and any(_form(old[name]) != _form(new[name]) for name in old.keys() & new.keys())


def _form(how: DecodeMap) -> tuple[object, ...]:
    """A map without the count of its rollover, which a person may write down later."""
    return how.fc, how.addr, how.words, how.order, how.enc, how.lsb


def bound(doc: Object, how: Bind, contracted_w: int | None) -> Bound:
    """Out of a record and the way its registers are read."""
    passport = doc.get("passport")
    papers = passport if isinstance(passport, dict) else {}
    boundary = doc.get("boundary") is True
    limits = _rated(papers)
    if boundary and contracted_w is not None:
        limits.append(contracted_w * OVER_CONTRACT[0] // OVER_CONTRACT[1])
    return Bound(
        how.serial,
        doc.get("swap") is not None,
        str(doc.get("role"))[:40],
        str(doc.get("node"))[:200],
        str(doc.get("device"))[:200],
        boundary,
        doc.get("inverted") is True,
        min(limits, default=None),
        _error(papers),
        how,
    )


def _rated(papers: Object) -> list[int]:
    """Most power in W by the transformers, and by the nominal power that is written down."""
    found: list[int] = []
    sets = [one.get("num") for one in (papers.get("ct"), papers.get("vt")) if isinstance(one, dict)]
    primaries = [n for n in sets if isinstance(n, int) and n > 0]
    if len(primaries) == 2:
        squared = 3 * (primaries[0] * primaries[1]) ** 2  # (√3·U·I)², exact
        found.append(math.isqrt(squared) * OVER_RATING[0] // OVER_RATING[1] + 1)
    nominal = papers.get("nominal_kw")
    if type(nominal) is int or (isinstance(nominal, str) and NUMBER.fullmatch(nominal)):
        found.append(math.ceil(float(nominal) * 1000 * OVER_RATING[0] / OVER_RATING[1]))
    return [most for most in found if most > 0]


def _error(papers: Object) -> float:
    """Meter and transformers together, by their classes; a fixed share where one is not written down."""
    texts = [papers.get("accuracy_class")]
    texts += [one.get("accuracy_class") for one in (papers.get("ct"), papers.get("vt")) if isinstance(one, dict)]
    shares = [_share(text) for text in texts]
    known = [share for share in shares if share is not None]
    if len(known) < len(shares):
        return CLASS
    return 1.1 * math.sqrt(sum(share * share for share in known))


def _share(text: Any) -> float | None:
    """``0.5S`` → 0.005."""
    body = text.strip().rstrip("SsPp").replace(",", ".") if isinstance(text, str) else ""
    value = float(body) if NUMBER.fullmatch(body) else 0.0
    return value / 100 if 0 < value <= 5 else None
