"""What persons on site ask of the running agent: documents of type ``commission`` in its inbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wire.errors import WireError

MAX_NAME = 100
MAX_PERSONS = 8
MAX_POINTS = 500
MAX_WH = 2**53 - 1
DAY_S = 86_400
DOINGS = ("plan", "begin", "confirm", "stop", "give_back")


@dataclass(frozen=True, slots=True)
class Wish:
    """One output to be proven, and how."""

    output: str
    persons: tuple[str, ...] = ()
    live_load: bool = False
    """Nothing is put to sleep: what runs is cut as it runs."""
    awake: int = 0
    """So many machines are left running, to be seen at the meter; as many more may refuse to sleep."""
    retest: bool = False
    """Also in mode ``armed``."""
    without: tuple[str, ...] = ()
    """Metering points that cannot be judged now; named in the evidence."""
    displays: tuple[tuple[str, int], ...] = ()
    """(metering point, Wh) as a person reads it on the meter's display."""
    patience_s: int = 3600
    """How long a person is waited for."""
    return_s: int = 900
    """How long machines may take to boot and draw again."""
    note: str = ""


def what(doc: Mapping[str, Any]) -> str:
    """Which of :data:`DOINGS` is asked.

    Raises:
        WireError: none of them.
    """
    found = doc.get("do")
    if found not in DOINGS:
        raise WireError(f"commission: do is {str(found)[:40]!r}, expected one of {', '.join(DOINGS)}")
    return str(found)


def text(doc: Mapping[str, Any], name: str, most: int = MAX_NAME, *, empty: bool = False) -> str:
    """A text field.

    Raises:
        WireError: it is missing, empty or too long.
    """
    value = doc.get(name, "" if empty else None)
    if not isinstance(value, str) or len(value) > most or not (empty or value.strip()):
        raise WireError(f"commission: {name} is {str(value)[:40]!r}, expected a text of at most {most} characters")
    return value.strip()


def persons_of(doc: Mapping[str, Any]) -> tuple[str, ...]:
    """The named persons: at least two.

    Raises:
        WireError: fewer than two different names.
    """
    names = tuple(dict.fromkeys(n.strip() for n in _texts(doc, "persons", MAX_PERSONS) if n.strip()))
    if len(names) < 2:
        raise WireError("commission: two different persons on site have to be named")
    return names


def read_wish(doc: Mapping[str, Any]) -> Wish:
    """A wish as it arrives.

    Raises:
        WireError: a field cannot be; the message names it.
    """
    return Wish(
        output=text(doc, "output", 64),
        persons=persons_of(doc) if what(doc) == "begin" else (),
        live_load=_flag(doc, "live_load"),
        awake=_number(doc, "awake", 0, 0, 100_000),
        retest=_flag(doc, "retest"),
        without=_texts(doc, "without", MAX_POINTS),
        displays=_displays(doc),
        patience_s=_number(doc, "patience_s", 3600, 1, DAY_S),
        return_s=_number(doc, "return_s", 900, 1, DAY_S),
        note=text(doc, "note", 300, empty=True),
    )


def _flag(doc: Mapping[str, Any], name: str) -> bool:
    value = doc.get(name, False)
    if not isinstance(value, bool):
        raise WireError(f"commission: {name} is {str(value)[:40]!r}, expected true or false")
    return value


def _number(doc: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = doc.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise WireError(f"commission: {name} is {str(value)[:40]!r}, expected a whole number from {low} to {high}")
    return value


def _texts(doc: Mapping[str, Any], name: str, most: int) -> tuple[str, ...]:
    value = doc.get(name, [])
    good = isinstance(value, list) and len(value) <= most
    if not good or not all(isinstance(v, str) and len(v) <= MAX_NAME for v in value):
        raise WireError(f"commission: {name}: expected a list of at most {most} texts of {MAX_NAME} characters")
    return tuple(value)


def _displays(doc: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    value = doc.get("displays", [])
    if not isinstance(value, list) or len(value) > MAX_POINTS or not all(_is_display(pair) for pair in value):
        raise WireError("commission: displays: expected a list of [metering point, whole Wh]")
    return tuple((str(point), int(wh)) for point, wh in value)


def _is_display(pair: Any) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    point, wh = pair
    whole = isinstance(wh, int) and not isinstance(wh, bool) and 0 <= wh <= MAX_WH
    return whole and isinstance(point, str) and len(point) <= MAX_NAME
