"""A meter's own load profile out of raw frames again: what an ``archive`` record says has to follow from them.

``bind.lp`` says how entries are read (``docs/protocol.md``). Frames are reads of registers (functions 3, 4) or of one
file (20). Entries are found by their time alone; two of one time that differ give none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from verifier.canonical import Object
from verifier.energy import DecodeMap, bits_from, read_map, words_of
from verifier.errors import BindError, CalendarError, DecodeError, EnergyError, ProfileError

READ_FILE = 20
MOST_OFF_MS = 5_000
"""How far the meter's clock may have been away; a fifth of a slot where that is less."""
AHEAD_MS = 2_000
Words = dict[tuple[int, int], int]


@dataclass(frozen=True, slots=True)
class Curve:
    """``bind.lp``, read."""

    doc: Mapping[str, Any]
    wh: DecodeMap
    """Of an entry; its address counts from the entry's first word."""
    none: frozenset[str]


def read_curve(doc: Any) -> Curve | None:
    """How entries are read; ``None`` where the bind does not say.

    Raises:
        BindError: it cannot be read.
    """
    if doc is None:
        return None
    try:
        wh = read_map({"fc": 3, "addr": doc["wh"]["at"]} | {k: v for k, v in doc["wh"].items() if k not in {"fc"}})
        numbers = [doc[name] for name in ("fc", "addr", "step", "entries", "words", "zone_s")]
        if any(type(n) is not int for n in numbers) or doc["fc"] not in {3, 4, READ_FILE}:
            raise ValueError(f"numbers {numbers}")
        if not 1 <= doc["step"] <= doc["words"] <= 120 or not 2 <= doc["entries"] <= 65_536:
            raise ValueError(f"{doc['entries']} entries of {doc['words']} words, {doc['step']} apart")
        if doc["wh"]["of"] not in {"period", "register"} or doc["time"]["marks"] not in {"begin", "end"}:
            raise ValueError("of or marks")
        return Curve(doc, wh, frozenset(doc["none"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BindError(f"lp cannot be read: {type(error).__name__}: {error}") from None


def check_archive(doc: Object, curve: Curve, slot_s: int, where: str) -> None:
    """Hold an archive against its frames.

    Raises:
        DecodeError, EnergyError: the frames do not give it.
        CalendarError: it tells of a slot that had not ended.
        ProfileError: the meter's clock was not right.
    """
    lp = curve.doc
    if doc.get("raw") is None:
        raise DecodeError(f"{where}: an archive record without frames, and its bind says how to read them")
    words, file = _words(doc["raw"], lp)
    clock = _instant(_run(words, lp["clock"]["fc"], lp["clock"]["addr"], lp["clock"]["words"]), lp["clock"], lp)
    if clock is None or math.floor(clock * 1000) - doc["rt"] != doc["mto"]:
        raise DecodeError(f"{where}: mto {doc['mto']!r} does not follow from the clock in the frames")
    if abs(doc["mto"]) > min(MOST_OFF_MS, slot_s * 200):
        raise ProfileError(f"{where}: the meter's clock was {doc['mto']} ms away, its slots are not ours")
    if doc["t1"] * 1000 > doc["rt"] + AHEAD_MS:
        raise CalendarError(f"{where}: slot {doc['t0']} had not ended when the profile was read")
    period = _period(words, lp)
    if period is None or slot_s % period:
        raise DecodeError(f"{where}: periods of {period} s make no slot of {slot_s} s")
    entries = _entries(file if lp["fc"] == READ_FILE else words, curve, period)
    t0, t1 = doc["t0"], doc["t1"]
    register = lp["wh"]["of"] == "register"
    ends = (t0, t1) if register else range(t0 + period, t1 + 1, period)
    bits = [entries.get(end) for end in ends]
    if any(b is None for b in bits):
        raise DecodeError(f"{where}: the frames do not have every entry of slot {t0}")
    if doc["wh"] != _energy([b for b in bits if b is not None], curve.wh, register=register):
        raise DecodeError(f"{where}: {doc['wh']!r} Wh, the entries in its frames say otherwise")


def _energy(bits: list[int], how: DecodeMap, *, register: bool) -> int:
    values = [how.energy(b) for b in bits]
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        raise EnergyError("an entry whose energy is no number")
    if not register:
        return math.floor(sum(known, Fraction(0)))
    first, last = known
    if last < first and how.roll is not None and how.roll * how.lsb <= 10 * first < 10 * how.roll * how.lsb:
        last += how.roll * how.lsb
    return math.floor(last) - math.floor(first)


def _words(raw: Any, lp: Mapping[str, Any]) -> tuple[Words, Words]:
    """Registers, and words of the file, by (function, address); a file's address counts words from entry 0."""
    plain: list[Any] = []
    file: Words = {}
    for pair in raw if isinstance(raw, list) and len(raw) <= 64 else []:
        request, answer = (bytes.fromhex(text) for text in pair)
        if len(request) != 10 or request[1] != READ_FILE:
            plain.append(pair)
            continue
        number, record, count = (int.from_bytes(request[i : i + 2], "big") for i in (4, 6, 8))
        head = bytes((request[0], READ_FILE, 2 + 2 * count, 1 + 2 * count, 6))
        if request[2:4] != b"\x07\x06" or number != lp.get("file") or answer[:5] != head:
            raise DecodeError(f"frame {request.hex()} reads no file of this meter, or its answer does not fit")
        if len(answer) != 5 + 2 * count:
            raise DecodeError(f"answer {answer.hex()[:40]} does not answer request {request.hex()}")
        first = (record - lp["addr"]) * (lp["words"] if lp["step"] == 1 else 1)
        for i in range(count):
            file[READ_FILE, lp["addr"] + first + i] = int.from_bytes(answer[5 + 2 * i : 7 + 2 * i], "big")
    return words_of(plain), file


def _run(words: Words, fc: int, addr: int, count: int) -> list[int] | None:
    found = [words.get((fc, addr + i)) for i in range(count)]
    known = [word for word in found if word is not None]
    return known if len(known) == count else None


def _period(words: Words, lp: Mapping[str, Any]) -> int | None:
    if "period_s" in lp:
        return lp["period_s"] if type(lp["period_s"]) is int and lp["period_s"] > 0 else None
    how = read_map(lp["period"])
    bits = bits_from(words, how)
    value = None if bits is None else how.energy(bits)
    return int(value) if value is not None and value.denominator == 1 and value > 0 else None


def _entries(words: Words, curve: Curve, period: int) -> dict[int, int]:
    """End of the period → raw energy, of every whole entry in the frames."""
    lp = curve.doc
    found: dict[int, int | None] = {}
    for number in {(addr - lp["addr"]) // lp["words"] for fc, addr in words if fc == lp["fc"]}:
        if not 0 <= number < lp["entries"]:
            continue
        entry = _run(words, lp["fc"], lp["addr"] + number * lp["words"], lp["words"])
        if entry is None:
            continue
        told = _entry(entry, curve, period)
        if told is not None:
            end, bits = told
            found[end] = None if end in found and found[end] != bits else bits
    return {end: bits for end, bits in found.items() if bits is not None}


def _entry(entry: list[int], curve: Curve, period: int) -> tuple[int, int] | None:
    lp = curve.doc
    time, status = lp["time"], lp.get("status")
    stamp = entry[time["at"] : time["at"] + time["words"]]
    if _pattern(stamp, time) in curve.none:
        return None
    at = _instant(stamp, time, lp)
    if at is None or (status is not None and entry[status["at"]] & status["mask"] not in status["good"]):
        return None
    end = at + (period if time["marks"] == "begin" else 0)
    energy = entry[curve.wh.addr : curve.wh.addr + curve.wh.words]
    bits = bits_from(dict(zip([(3, curve.wh.addr + i) for i in range(len(energy))], energy, strict=True)), curve.wh)
    if bits is None or end.denominator != 1 or end % period or _pattern(energy, lp["wh"]) in lp["wh"].get("none", ()):
        return None
    return int(end), bits


def _instant(run: list[int] | None, how: Mapping[str, Any], lp: Mapping[str, Any]) -> Fraction | None:
    """UTC seconds; ``None`` where the words are no instant."""
    if run is None:
        return None
    if "bytes" not in how:
        number = read_map({"fc": 3, "addr": 0} | {k: how[k] for k in ("words", "order", "enc", "lsb")})
        bits = bits_from({(3, i): word for i, word in enumerate(run)}, number)
        value = None if bits is None else number.energy(bits)
        return None if value is None else value + int(how["epoch_s"]) - int(lp["zone_s"])
    raw = b"".join(word.to_bytes(2, "big") for word in run)
    part = {"second": 0}
    for name, byte in zip(how["bytes"], raw, strict=True):
        part[name] = byte if how["digits"] == "binary" else 10 * (byte >> 4) + (byte & 15)
        if how["digits"] == "bcd" and max(byte >> 4, byte & 15) > 9 and name != "-":
            return None
    try:
        found = datetime(
            2000 + part["year"], part["month"], part["day"], part["hour"], part["minute"], part["second"], tzinfo=UTC
        )
    except ValueError:
        return None
    return Fraction(int(found.timestamp()) - int(lp["zone_s"]))


def _pattern(run: list[int], how: Mapping[str, Any]) -> str:
    return "".join(f"{word:04x}" for word in (reversed(run) if how.get("order") == "little" else run))
