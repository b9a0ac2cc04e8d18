"""Entries of a load profile out of words, and back into words for whoever imitates a meter. Pure and exact.

What is read here is described by ``bind.lp`` (:func:`drivers.profiles.loadcurve.evidence`), the same description that
goes into evidence, so that the agent and a verifier decode by one and the same paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from drivers.profiles.codec import bits_to_words, exact, raw_number, words_to_bits

CENTURY = 2000
Words = Sequence[int]


class BadEntry(ValueError):
    """An entry that cannot be what the profile says; the message tells what was seen."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One period as the meter keeps it. ``end_s`` is the end of the period, UTC epoch s; ``bits`` its energy, raw."""

    number: int
    end_s: int
    bits: int


def decode_instant(words: Words, how: Mapping[str, Any], zone_s: int) -> Fraction:
    """Instant → UTC epoch seconds.

    Raises:
        BadEntry: words that are no date.
    """
    if "bytes" in how:
        return Fraction(_calendar(words, how) - zone_s)
    bits = words_to_bits(words, how["order"])
    count = raw_number(bits, how["enc"], how["words"])
    if count is None:
        raise BadEntry(f"time {bits:#x} is no number")
    return count * Fraction(how["lsb"]["num"], how["lsb"]["den"]) + int(how["epoch_s"]) - zone_s


def _calendar(words: Words, how: Mapping[str, Any]) -> int:
    raw = b"".join(word.to_bytes(2, "big") for word in words)
    fields = {"second": 0}
    for name, byte in zip(how["bytes"], raw, strict=True):
        if name == "-":
            continue
        value = byte
        if how["digits"] == "bcd":
            if byte >> 4 > 9 or byte & 15 > 9:
                raise BadEntry(f"time {raw.hex()} has no decimal digits")
            value = 10 * (byte >> 4) + (byte & 15)
        fields[name] = value
    try:
        found = datetime(
            CENTURY + fields["year"], fields["month"], fields["day"], fields["hour"], fields["minute"],
            fields["second"], tzinfo=UTC,
        )  # fmt: skip
    except ValueError as error:
        raise BadEntry(f"time {raw.hex()} is no date ({error})") from None
    return int(found.timestamp())


def encode_instant(at_s: int, how: Mapping[str, Any], zone_s: int) -> tuple[int, ...]:
    """UTC epoch seconds → words, rounded down to what they can hold."""
    local = at_s + zone_s
    if "bytes" in how:
        date = datetime.fromtimestamp(local, UTC)
        fields = {"year": date.year - CENTURY, "month": date.month, "day": date.day}
        fields |= {"hour": date.hour, "minute": date.minute, "second": date.second, "-": 0}
        values = [fields[name] for name in how["bytes"]]
        if how["digits"] == "bcd":
            values = [value // 10 << 4 | value % 10 for value in values]
        return tuple(values[i] << 8 | values[i + 1] for i in range(0, len(values), 2))
    count = int((local - how["epoch_s"]) / Fraction(how["lsb"]["num"], how["lsb"]["den"]))
    return bits_to_words(count & ((1 << 16 * how["words"]) - 1), how["words"], how["order"])


def decode_entry(number: int, words: Words, lp: Mapping[str, Any], period_s: int) -> Entry | None:
    """One entry out of its words; ``None`` where it is empty.

    Raises:
        BadEntry: off the grid, not whole, or no number.
    """
    time, wh = lp["time"], lp["wh"]
    stamp = words[time["at"] : time["at"] + time["words"]]
    if _hex(stamp, time) in lp["none"]:
        return None
    at = decode_instant(stamp, time, lp["zone_s"])
    end = at + (period_s if time["marks"] == "begin" else 0)
    if end.denominator != 1 or end % period_s:
        raise BadEntry(f"entry {number}: its time {at} is not on the grid of {period_s} s")
    status = lp.get("status")
    if status is not None and words[status["at"]] & status["mask"] not in status["good"]:
        raise BadEntry(f"entry {number} of {int(end)}: status {words[status['at']]:#06x}, expected {status['good']}")
    energy = words[wh["at"] : wh["at"] + wh["words"]]
    bits = words_to_bits(energy, wh["order"])
    value = exact(bits, wh)
    if _hex(energy, wh) in wh["none"] or value is None or value < 0:
        raise BadEntry(f"entry {number} of {int(end)}: energy {_hex(energy, wh)} is none")
    return Entry(number, int(end), bits)


def _hex(words: Words, how: Mapping[str, Any]) -> str:
    """Most significant word first."""
    ordered = reversed(words) if how.get("order") == "little" else words
    return "".join(f"{word:04x}" for word in ordered)
