"""Canonical JSON: the RFC 8785 subset in which evidence and orders are signed.

Objects with keys ``[a-z0-9_]``, strings without lone surrogates, integers of at most 53 bits, booleans, null, arrays.
No floats: a number that can be written two ways can be argued about.
"""

from __future__ import annotations

import json
import re
from typing import Any

from wire.errors import NotCanonical

MAX_INT = 2**53 - 1
MAX_DEPTH = 16
_KEY = re.compile(r"[a-z0-9_]{1,64}")

Json = dict[str, Any]


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NotCanonical(f"nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if abs(value) > MAX_INT:
            raise NotCanonical(f"integer of {value.bit_length()} bits: at most 53 are allowed")
    elif isinstance(value, str):
        if any(0xD800 <= ord(ch) <= 0xDFFF for ch in value) if not value.isascii() else False:
            raise NotCanonical("string holds a lone surrogate")
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise NotCanonical(f"object key {key!r}: only a-z, 0-9 and _ are allowed")
            _check(item, depth + 1)
    else:
        raise NotCanonical(
            f"{type(value).__name__} {value!r}: only objects, arrays, strings, integers, true/false/null"
        )


def encode(value: Json) -> bytes:
    """Canonical bytes of an object.

    Raises:
        NotCanonical: a float, a large integer, a strange key, too deep.
    """
    _check(value, 0)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _no_float(text: str) -> Any:
    raise NotCanonical(f"number {text[:32]!r}: floats are not allowed")


def _int(text: str) -> int:
    if len(text) > 17:
        raise NotCanonical(f"integer {text[:20]!r}… needs more than 53 bits")
    return int(text)


def _pairs(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotCanonical("an object names a key twice")
    return found


def decode(data: bytes, *, max_bytes: int = 65_536) -> Json:
    """Parse canonical bytes and require that they are exactly the canonical encoding.

    Raises:
        NotCanonical: anything else, hostile input included.
    """
    if len(data) > max_bytes:
        raise NotCanonical(f"{len(data)} bytes, at most {max_bytes} are allowed")
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_float=_no_float,
            parse_constant=_no_float,
            parse_int=_int,
            object_pairs_hook=_pairs,
        )
    except NotCanonical:
        raise
    except (ValueError, RecursionError) as error:
        raise NotCanonical(f"not JSON: {type(error).__name__}: {error}"[:200]) from None
    if not isinstance(value, dict):
        raise NotCanonical(f"a JSON {type(value).__name__}, expected an object")
    if encode(value) != data:
        raise NotCanonical("the bytes are not the canonical encoding (key order, spacing or escapes differ)")
    return value
