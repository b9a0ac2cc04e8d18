"""What an interval says of the meter beside its registers: values by phase (``ph``), event counters (``ev``). Pure.

Shapes and arithmetic only: what the values mean for the energy is judged elsewhere.
"""

from __future__ import annotations

from verifier.canonical import Object
from verifier.errors import EnergyError

MEASURED = ("u", "i", "p")
COUNTED = ("iu", "neg")
PHASE_FIELDS = frozenset({"n", *MEASURED, *COUNTED})
EVENTS = frozenset({"power_off", "clock_set", "programmed", "cover_open", "phase_loss", "reset"})
MOST = 2**53 - 1


def check_phases(doc: Object, where: str) -> None:
    """``ph`` of an interval, where it has one.

    Raises:
        EnergyError: it is not of the contract's shape, or counts more polls than there were.
    """
    if "ph" not in doc:
        return
    found = doc["ph"]
    if type(found) is not dict or found.keys() != PHASE_FIELDS:
        seen = sorted(map(str, found))[:12] if type(found) is dict else type(found).__name__
        raise EnergyError(f"{where}: ph: seen {seen}, expected exactly {', '.join(sorted(PHASE_FIELDS))}")
    polls = found["n"]
    if not _between(polls, 1, MOST):
        raise EnergyError(f"{where}: ph.n: seen {str(polls)[:40]}, expected at least 1")
    for name in (*MEASURED, *COUNTED):
        three = found[name]
        if type(three) is not list or len(three) != 3:
            raise EnergyError(f"{where}: ph.{name}: seen {str(three)[:80]}, expected a list of three")
        low, high = (0, polls) if name in COUNTED else (-MOST if name == "p" else 0, MOST)
        for one in three:
            if not _between(one, low, high) and not (one is None and name in MEASURED):
                raise EnergyError(f"{where}: ph.{name}: seen {str(one)[:40]}, expected a number from {low} to {high}")


def check_events(doc: Object, where: str) -> None:
    """``ev`` of an interval, where it has one.

    Raises:
        EnergyError: it is not of the contract's shape.
    """
    if "ev" not in doc:
        return
    found = doc["ev"]
    if type(found) is not dict or not found or not found.keys() <= EVENTS:
        seen = sorted(map(str, found))[:12] if type(found) is dict else type(found).__name__
        raise EnergyError(f"{where}: ev: seen {seen}, expected counters of {', '.join(sorted(EVENTS))}")
    for name, count in found.items():
        if not _between(count, 0, MOST):
            raise EnergyError(f"{where}: ev.{name}: seen {str(count)[:40]}, expected a count from 0 to {MOST}")


def _between(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high
