"""Readings of the same meter by the system operator (V26): an envelope of its own, given beside the bundle.

``{"v": 1, "site", "point", "from", "to", "wh", "source"}``: import energy over [from, to), epoch s on the slot grid,
signed by a person of role ``system_operator`` with the right ``inspect``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from verifier.canonical import read_canonical
from verifier.errors import CannotVerify
from verifier.keys import read_envelope
from verifier.people import signer
from verifier.register import Register

READING_TYPE = "application/vnd.tizgin.reading.v1+json"
MAX_READING = 16_384
FIELDS = {"v", "site", "point", "from", "to", "wh", "source"}
CLOCK_MS = 5_000
"""How far the clocks of two systems that read one meter may be apart."""


@dataclass(frozen=True, slots=True)
class Independent:
    """One reading by the system operator: Wh over [from_s, to_s)."""

    point: str
    from_s: int
    to_s: int
    wh: int
    source: str
    who: str


def read_independent(path: Path, register: Register) -> Independent:
    """A reading out of its file.

    Raises:
        CannotVerify: not a reading of this site that the system operator signed; the message says why.
    """
    try:
        with path.open("rb") as file:
            data = file.read(2 * MAX_READING + 1)
        envelope = read_envelope(data, READING_TYPE, max_bytes=MAX_READING)
        doc = read_canonical(envelope.payload, max_bytes=MAX_READING)
        numbers = [doc.get(name) for name in ("v", "from", "to", "wh")]
        texts = [doc.get(name) for name in ("site", "point", "source")]
        if set(doc) != FIELDS or any(type(n) is not int for n in numbers) or not all(isinstance(t, str) for t in texts):
            raise ValueError(f"expected exactly {', '.join(sorted(FIELDS))}")
        _, from_s, to_s, wh = (int(str(number)) for number in numbers)
        if doc["v"] != 1 or doc["site"] != register.site or doc["point"] not in register.points:
            raise ValueError(
                f"it is of {str(doc['site'])[:41]} {str(doc['point'])[:64]}, not of a point of {register.site}"
            )
        if from_s % register.slot_s or to_s % register.slot_s or not 0 <= from_s < to_s or wh < 0:
            raise ValueError(f"{wh} Wh from {from_s} to {to_s} are no energy of whole slots of {register.slot_s} s")
        found = signer(envelope, register, to_s * 1000)
        if found is None or found.role != "system_operator":
            raise ValueError("it is not signed by a person of the system operator who may inspect this site")
    except OSError as error:
        raise CannotVerify(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise CannotVerify(f"{path}: {error}") from None
    return Independent(doc["point"], from_s, to_s, wh, doc["source"][:200], found.name)


def read_all(paths: Sequence[Path], register: Register) -> Mapping[str, tuple[Independent, ...]]:
    """Readings by metering point.

    Raises:
        CannotVerify: one cannot be believed.
    """
    found: dict[str, tuple[Independent, ...]] = {}
    for path in paths:
        one = read_independent(path, register)
        found[one.point] = (*found.get(one.point, ()), one)
    return found


def tolerance_wh(edges_wh: tuple[int, int], slot_s: int, window_ms: int, quantum_wh: Fraction) -> int:
    """How far two readings of one meter may be apart: two counts of the register each way, and at each edge what flows
    in the time that a boundary reading may be late and two clocks differ.

    Args:
        edges_wh: energy of the first and of the last slot.
        window_ms: how late a boundary reading may be.
        quantum_wh: the least the register moves by.
    """
    moved = Fraction(sum(edges_wh) * (window_ms + CLOCK_MS), 1000 * slot_s)
    return int(2 * quantum_wh + moved) + 1
