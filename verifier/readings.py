"""One reading and one interval against their raw frames, the grid and exact arithmetic. Pure checks, no memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from verifier.canonical import Object
from verifier.dark import IMPORT, read_edge
from verifier.energy import DecodeMap, bits_from, energies_between, ratio, read_map, words_of
from verifier.errors import BindError, CalendarError, DecodeError, EnergyError, QualityError
from verifier.records import Record

EXPORT = "energy_export_wh"
FLAGS = frozenset({"late0", "late1", "rollover", "frozen"})
"""What may be said of a reading. An estimate is no reading, whatever it is called."""
MARGIN = 4
"""How many times the contracted power may have flowed where a falling register is taken for a rollover."""
Registers = dict[str, int]


@dataclass(frozen=True, slots=True)
class Bind:
    """The meter in service and how its registers are read."""

    leaf: str
    serial: str | None
    ct: Fraction
    vt: Fraction
    maps: Mapping[str, DecodeMap]

    def same_meter(self, other: Bind) -> bool:
        """True where readings of one continue those of the other."""
        return (self.serial, self.ct, self.vt, self.maps) == (other.serial, other.ct, other.vt, other.maps)


@dataclass(frozen=True, slots=True)
class Reading:
    """The closing reading of the last interval, or the opening one of a meter that was bound."""

    t: int
    rt: int
    reg: Registers
    bind: Bind


def read_bind(record: Record, point: str) -> Bind:
    """The meter that a ``bind`` record puts in service.

    Raises:
        BindError: it cannot be read for energy.
    """
    doc = record.doc
    maps = {str(name): read_map(how) for name, how in doc["pts"].items()}
    if IMPORT not in maps:
        raise BindError(f"{record.where}: {point} is bound without {IMPORT}")
    return Bind(record.leaf, doc["sn"], ratio(doc["ct"]), ratio(doc["vt"]), maps)


def opening_of(record: Record, bind: Bind, slot_s: int) -> Reading | None:
    """The opening reading of the meter that is bound, where the record has it.

    Raises:
        DecodeError: its frames say something else.
    """
    if record.doc.get("open") is None:
        return None
    edge = read_edge(record.doc["open"], bind.maps, f"{record.where}: open")
    return Reading(edge.rt // (1000 * slot_s) * slot_s, edge.rt, dict(edge.reg), bind)


def registers_of(record: Record, bind: Bind) -> tuple[Registers, Registers]:
    """Registers at both ends of an interval.

    Raises:
        EnergyError, DecodeError: no import register, or one that the bind does not know.
        QualityError: a flag that no reading has.
    """
    reg, flags = record.doc["reg"], record.doc["q"]
    if not FLAGS.issuperset(flags):
        raise QualityError(f"{record.where}: flags {str(flags)[:80]}; expected {', '.join(sorted(FLAGS))}")
    if IMPORT not in reg:
        raise EnergyError(f"{record.where}: no {IMPORT}")
    opening: Registers = {}
    closing: Registers = {}
    for point, pair in reg.items():
        if point not in bind.maps or type(pair) is not list or [type(n) for n in pair] != [int, int]:
            raise DecodeError(f"{record.where}: {point} has no decode map or is no pair of registers")
        opening[point], closing[point] = pair
    return opening, closing


def check_frames(record: Record, bind: Bind, opening: Registers, closing: Registers, *, follows: bool) -> None:
    """Both readings out of the raw frames again; the opening one was checked before where the interval follows one.

    Raises:
        DecodeError: the frames are absent or say something else.
    """
    doc = record.doc
    _compare(record, bind, words_of(doc["raw"]), closing)
    if "raw0" in doc:
        _compare(record, bind, words_of(doc["raw0"]), opening)
    elif not follows:
        raise DecodeError(f"{record.where}: no frames of the opening reading, and no interval before has them")


def _compare(record: Record, bind: Bind, words: dict[tuple[int, int], int], expected: Registers) -> None:
    for point, bits in expected.items():
        seen = bits_from(words, bind.maps[point])
        if seen != bits:
            raise DecodeError(f"{record.where}: {point} is {bits}, its raw frames say {seen}")


def window_ms(slot_s: int) -> int:
    """How long after a slot's edge its boundary reading may come."""
    return min(30_000, slot_s * 100)


def check_times(record: Record, t0: int, t1: int, slot_s: int) -> None:
    """Boundary readings lie in their windows.

    Raises:
        CalendarError: one does not.
    """
    for name, boundary in (("rt0", t0), ("rt1", t1)):
        late = record.doc[name] - boundary * 1000
        if not 0 <= late <= window_ms(slot_s):
            text = f"{name} is {late} ms after its boundary, allowed: 0-{window_ms(slot_s)}"
            raise CalendarError(f"{record.where}: {text}")


def check_energy(
    record: Record, bind: Bind, point: str, opening: Registers, closing: Registers, stated: Any, limit_w: int | None
) -> None:
    """What an interval states of one register.

    Raises:
        EnergyError: it does not follow from the registers, or runs backwards.
    """
    if point not in opening:
        if stated is not None:
            raise EnergyError(f"{record.where}: {stated} Wh without registers of {point}")
        return
    doc = record.doc
    possible = between(opening[point], closing[point], bind.maps[point], doc, (doc["rt0"], doc["rt1"]), limit_w)
    if type(stated) is not int or stated not in possible:
        raise EnergyError(f"{record.where}: {point} states {stated} Wh, the registers say {list(possible)}")
    if stated < 0:
        raise EnergyError(f"{record.where}: {point} runs backwards by {-stated} Wh")


def between(
    first: int, last: int, how: DecodeMap, doc: Object, times_ms: tuple[int, int], limit_w: int | None
) -> tuple[int, ...]:
    """Wh between two values of a register; over a rollover where the record claims one and it can have been one."""
    plain = energies_between(first, last, how, rollover=False)
    if "rollover" not in doc["q"] or not plain or plain[0] >= 0:
        return plain
    over = energies_between(first, last, how, rollover=True)
    if limit_w is None:
        return over
    most = Fraction(MARGIN * limit_w * (times_ms[1] - times_ms[0]), 3_600_000) + 2 * how.quantum_wh(first)
    return tuple(wh for wh in over if wh <= most)


def claimed(doc: Object, bind: Bind | None) -> Reading | None:
    """The closing reading of an interval that was refused, as far as it has one."""
    try:
        closing = {str(point): int(pair[1]) for point, pair in doc["reg"].items()}
        return Reading(int(doc["t1"]), int(doc["rt1"]), closing, bind) if bind else None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
