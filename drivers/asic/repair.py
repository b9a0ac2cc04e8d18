"""Miner answers as JSON: strict first, then tolerant of what firmwares are known to send.

Seen in the field: a trailing NUL, junk after the closing brace, ``}{`` without a comma, ``[,{``, ``,}``, bare ``nan``
and ``inf``, escapes such as ``\\'``, raw newlines inside strings, ``""temp0`` (a comma missing between two strings), an
answer that begins with ``,"id":1}``, lists written like objects, and tails cut off. The tolerant reader walks tokens,
so that text *inside* strings is never changed, which chains of blanket replacements would do.

A value that is cut off at the end of a truncated answer is dropped, not guessed: ``34`` cut from ``3450`` would be a
wrong reading. ``nan`` and infinities become ``None``: unknown is unknown.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

from drivers.asic.cgminer_text import is_text_answer, parse_text
from drivers.errors import BadAnswer

MAX_BYTES = 512 * 1024
"""Largest answer accepted at all."""
MAX_REPAIR_BYTES = 128 * 1024
"""Largest answer the tolerant reader works on: it is slow, and hostile input must not stall a site."""
MAX_DEPTH = 32
"""Deepest nesting accepted by the tolerant reader; real answers stay below 8."""
MAX_UNKNOWN_WORDS = 32
"""So many unquoted words that are no JSON, and it is not a damaged answer but something else (an HTML page)."""

_TOKEN = re.compile(
    r"""
    (?P<space>[\s\x00]+)
  | (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<open_string>")
  | (?P<punct>[{}\[\],:])
  | (?P<word>[^\s\x00{}\[\],:"]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,4})?")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "none": None}
_NOT_FINITE = {"nan", "inf", "infinity"}


def parse_answer(data: bytes, *, source: str = "miner", max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Decode one answer of a miner into an object; cgminer's plain-text form comes in the shape of its JSON.

    Args:
        data: the answer as received, with or without its trailing NUL.
        source: what to call the sender in an error.
        max_bytes: larger answers are refused.

    Raises:
        BadAnswer: too large, not an object, or not readable even tolerantly. Nothing else.
    """
    try:
        return parse_strict(data, source=source, max_bytes=max_bytes)
    except BadAnswer:
        pass
    if is_text_answer(data) and len(data) <= min(max_bytes, MAX_REPAIR_BYTES):
        return parse_text(data.decode("utf-8", "replace"))
    text = _text(data, source)
    try:
        value, _ = _lenient_decoder().raw_decode(text)
        if _HALF.search(text):
            value = _without_halves(value)
    except (ValueError, RecursionError):
        value = _Tolerant(text, source).read()
    return _object(value, data, source)


def parse_strict(data: bytes, *, source: str = "miner", max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Decode an answer that must be whole and correct JSON, for what will be written back to the machine.

    Raises:
        BadAnswer: it is not, or it is larger than ``max_bytes``.
    """
    if len(data) > max_bytes:
        raise BadAnswer(f"{source}: answer of {len(data)} bytes, at most {max_bytes} expected")
    try:
        value = msgspec.json.decode(data.rstrip(b"\x00 \r\n\t"))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadAnswer(f"{source}: not JSON ({error}); received {_excerpt(data)}") from error
    return _object(value, data, source)


def _text(data: bytes, source: str) -> str:
    if len(data) > MAX_REPAIR_BYTES:
        raise BadAnswer(f"{source}: damaged answer of {len(data)} bytes, at most {MAX_REPAIR_BYTES} are repaired")
    text = data.decode("utf-8", "replace")
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    if not starts:
        raise BadAnswer(f"{source}: no JSON in the answer; received {_excerpt(data)}")
    return text[min(starts) :]


def _object(value: object, data: bytes, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadAnswer(f"{source}: a JSON object expected; received {_excerpt(data)}")
    return value


def _excerpt(data: bytes) -> str:
    """What kind of thing came, not what it says: an answer may repeat the password it was told, or carry pool users."""
    start = data[:64].lstrip(b"\x00 \r\n\t")
    if not start:
        kind = "nothing"
    elif start.startswith(b"<"):
        kind = "a web page"
    elif start.startswith(b"HTTP/"):
        kind = "an HTTP answer"
    elif start.startswith(b"Socket connect failed"):
        kind = "the proxy's word that the mining program is down"
    elif start[:1] in b"{[":
        kind = "damaged JSON"
    elif all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start):
        kind = "text"
    else:
        kind = "no text"
    return f"{kind} ({len(data)} bytes)"


def _without_halves(value: object) -> object:
    """The same with no half of a surrogate pair in any text: such text can be neither stored nor sent."""
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, list):
        return [_without_halves(part) for part in value]
    if isinstance(value, dict):
        return {_whole(key): _without_halves(part) for key, part in value.items()}
    return value


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _lenient_decoder() -> json.JSONDecoder:
    """Whole JSON but for ``NaN``, raw control characters in strings, overflowing numbers and junk behind it."""
    return json.JSONDecoder(strict=False, parse_constant=_not_finite, parse_float=_finite)


def _not_finite(_: str) -> None:
    return None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


_MISSING = object()


class _Tolerant:
    """One walk over the tokens with an explicit stack; linear in the length of the text."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._stack: list[dict[str, Any] | list[Any]] = []
        self._keys: list[object] = []
        """Key waiting for its value, per open container."""
        self._pending: object = _MISSING
        """A scalar just read: value, or key if a colon follows."""
        self._unknown = 0
        self._root: object = None

    def read(self) -> object:
        at = 0
        length = len(self._text)
        while at < length:
            match = _TOKEN.match(self._text, at)
            if match is None or match.lastgroup == "open_string":
                break  # a string cut off at the end: what it would have said is not known
            at = match.end()
            kind = match.lastgroup
            if kind == "space":
                continue
            if kind == "string":
                self._scalar(_unescape(match.group()[1:-1]))
            elif kind == "word":
                if at == length:
                    break  # perhaps cut off: a shortened number is a wrong number
                self._scalar(self._word(match.group()))
            elif self._punct(match.group()):
                return self._root
        self._pending = _MISSING
        while self._stack:
            self._close(self._stack[-1])
        return self._root

    def _punct(self, char: str) -> bool:
        """Take one of ``{}[],:``; True when the outermost value is complete."""
        if char in "{[":
            self._flush()
            self._open({} if char == "{" else [])
        elif char == ":":
            self._colon()
        elif char == ",":
            self._flush()
        else:
            wanted = dict if char == "}" else list
            self._flush()
            if any(isinstance(container, wanted) for container in self._stack):
                while not isinstance(self._stack[-1], wanted):
                    self._close(self._stack[-1])
                self._close(self._stack[-1])
            return not self._stack
        return False

    def _open(self, container: dict[str, Any] | list[Any]) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise BadAnswer(f"{self._source}: nested deeper than {MAX_DEPTH}; not a miner's answer")
        self._stack.append(container)
        self._keys.append(_MISSING)

    def _close(self, container: dict[str, Any] | list[Any]) -> None:
        self._flush()
        self._stack.pop()
        self._keys.pop()
        if self._stack:
            self._put(container)
        else:
            self._root = container

    def _scalar(self, value: object) -> None:
        self._flush()
        self._pending = value

    def _colon(self) -> None:
        if self._pending is _MISSING or not self._stack:
            return
        self._keys[-1] = str(self._pending)
        self._pending = _MISSING

    def _flush(self) -> None:
        """Put the waiting scalar where it belongs, now that no colon followed it."""
        if self._pending is not _MISSING and self._stack:
            value, self._pending = self._pending, _MISSING
            top = self._stack[-1]
            if isinstance(top, dict) and self._keys[-1] is _MISSING:
                if isinstance(value, str):
                    top.setdefault(value, None)  # a key without a value
                return
            self._put(value)

    def _put(self, value: object) -> None:
        top = self._stack[-1]
        key, self._keys[-1] = self._keys[-1], _MISSING
        if isinstance(top, list):
            # A pair inside brackets (an object written like a list) becomes an object of its own.
            top.append(value if key is _MISSING else {str(key): value})
        elif key is not _MISSING:
            top[str(key)] = value

    def _word(self, word: str) -> object:
        lowered = word.lower()
        if lowered in _WORDS:
            return _WORDS[lowered]
        if lowered.lstrip("+-") in _NOT_FINITE:
            return None
        if _NUMBER.fullmatch(word):
            if word.lstrip("+-").isdigit():
                return int(word)
            return _finite(word)
        self._unknown += 1
        if self._unknown > MAX_UNKNOWN_WORDS:
            raise BadAnswer(f"{self._source}: more than {MAX_UNKNOWN_WORDS} unquoted words; not a miner's answer")
        return None


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text

    def one(match: re.Match[str]) -> str:
        escape = match.group(1)
        if len(escape) > 1:
            return chr(int(escape[1:], 16))
        return _ESCAPES.get(escape, escape)

    return _whole(_ESCAPE.sub(one, text))
