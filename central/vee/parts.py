"""Parts of records as a site signed them, typed; ``None`` or empty where their fields are not those of the contract."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from central.vee.model import Phases, Work
from wire.canonical import Json
from wire.points import EVENTS

MOST = 2**53 - 1


def whole(value: object) -> bool:
    """True for a whole number, which a truth value is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def phases_of(value: object) -> Phases | None:
    """``interval.ph``."""
    if not isinstance(value, dict) or not whole(value.get("n")) or value["n"] < 1:
        return None
    measured = [_three(value.get(name), known=False) for name in ("u", "i", "p")]
    counted = [_three(value.get(name), known=True) for name in ("iu", "neg")]
    if None in measured or None in counted:
        return None
    u, i, p = (tuple(three or ()) for three in measured)
    unfed, backwards = (tuple(count or 0 for count in three or ()) for three in counted)
    if any(not 0 <= count <= value["n"] for count in (*unfed, *backwards)) or any((x or 0) < 0 for x in (*u, *i)):
        return None
    return Phases(value["n"], u, i, p, unfed, backwards)


def _three(value: object, *, known: bool) -> list[int | None] | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    fits = all((one is None and not known) or (whole(one) and abs(one) <= MOST) for one in value)
    return value if fits else None


def events_of(value: object) -> dict[str, int]:
    """``interval.ev``: the counters of the vocabulary that are counts."""
    found = value if isinstance(value, dict) else {}
    return {name: found[name] for name in EVENTS if whole(found.get(name)) and 0 <= found[name] <= MOST}


def works_of(docs: Iterable[tuple[Json, str]]) -> Iterator[Work]:
    """Maintenance and exchanges of ``event`` records, given in the order of time with their leaf hashes.

    A maintenance whose end is not recorded counts to the end it was declared for.
    """
    begun: dict[str, Work] = {}
    for doc, digest in docs:
        obj, at, detail = doc.get("obj"), doc.get("at"), doc.get("detail")
        if not isinstance(obj, str) or not isinstance(at, int):
            continue
        told = detail if isinstance(detail, dict) else {}
        if doc.get("ev") == "replaced":
            since = told.get("since")
            yield Work(obj, since if isinstance(since, int) else at, at, digest)
        elif doc.get("ev") == "maintenance" and doc.get("now") in {"begun", "renewed"}:
            until = told.get("until")
            since = begun[obj].from_ms if obj in begun and doc["now"] == "renewed" else at
            begun[obj] = Work(obj, since, until if isinstance(until, int) else at, digest)
        elif doc.get("ev") == "maintenance" and doc.get("now") == "ended" and obj in begun:
            was = begun.pop(obj)
            yield Work(obj, was.from_ms, min(at, was.to_ms), was.hash)
    yield from begun.values()
