"""Canonical JSON, read strictly: the bytes must be the one encoding of what they say.

The subset of RFC 8785 that evidence uses: keys of ``a-z 0-9 _``, integers of at most 53 bits, no floats.
"""

from __future__ import annotations

import json
from typing import Any

from verifier.errors import InputLimit

LARGEST = 2**53 - 1
DEEPEST = 16
KEY_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
USUAL = frozenset({
    "v", "log", "st", "n", "p", "a", "ty", "at", "mono", "boot", "clk", "fw", "s", "h", "off_us", "src", "t0", "t1",
    "rt0", "rt1", "reg", "cfg", "wh", "exp_wh", "sn", "mto", "q", "raw", "pi", "gap_ms",
    "energy_import_wh", "energy_export_wh",
})  # fmt: skip
"""Keys of most records, looked up instead of looked at: that is a tenth of the time of a whole bundle."""
Object = dict[str, Any]


def read_canonical(data: bytes, *, max_bytes: int) -> Object:
    """Decode an object and require that encoding it again gives the same bytes.

    Raises:
        ValueError: not such bytes.
        InputLimit: larger, deeper, or with longer numbers than any honest writer's.
    """
    value = read_json(data, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON {type(value).__name__}, expected an object")
    if write_canonical(value) != data:
        raise ValueError("the bytes are not the canonical encoding of what they say")
    return value


def read_json(data: bytes, *, max_bytes: int) -> Any:
    """Decode JSON of the subset, in whatever spacing.

    Raises:
        ValueError: not such JSON.
        InputLimit: larger, deeper, or with longer numbers than any honest writer's.
    """
    if len(data) > max_bytes:
        raise InputLimit(f"{len(data)} bytes, at most {max_bytes} are expected")
    try:
        value = DECODER.decode(data.decode("utf-8"))
    except RecursionError:
        raise InputLimit("JSON nested too deeply") from None
    if data.count(b"[") + data.count(b"{") > DEEPEST:
        _depth(value, 0)
    return value


def write_canonical(value: Object) -> bytes:
    """The canonical bytes of an object that :func:`read_json` gave.

    Raises:
        ValueError: a string with half a surrogate pair.
    """
    return ENCODER.encode(value).encode("utf-8")


def _depth(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise InputLimit(f"JSON nested deeper than {DEEPEST} levels")
    if isinstance(value, dict):
        for item in value.values():
            _depth(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _depth(item, depth + 1)


def _refuse(text: str) -> Any:
    raise ValueError(f"number {text[:24]!r}: only integers are allowed")


def _integer(text: str) -> int:
    if len(text) <= 15:
        return int(text)
    if len(text) > 17 or abs(int(text)) > LARGEST:
        raise InputLimit(f"integer {text[:24]!r} has more than 53 bits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> Object:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names a key twice")
    for key in found:
        if key not in USUAL and (not key or len(key) > 64 or not KEY_CHARACTERS.issuperset(key)):
            raise ValueError(f"key {key[:40]!r}: expected a-z, 0-9 and _")
    return found


DECODER = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse, parse_int=_integer, object_pairs_hook=_object)
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
