"""Fields of profiles: exact numbers, hexadecimal words, and a run of registers with its coding."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from config.base import Model

Table = Literal["holding", "input"]
BitTable = Literal["coil", "discrete"]
Order = Literal["big", "little"]
WordOrder = Order
FieldType = Literal[
    "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bcd", "mod10k", "bits", "enum", "str", "sum"
]

FIXED_WORDS: dict[str, int] = {"u16": 1, "i16": 1, "u32": 2, "i32": 2, "u64": 4, "i64": 4, "f32": 2, "f64": 4}
DECIMAL = frozenset({"bcd", "mod10k"})
"""Codings whose words hold decimal digits: some contents are no number at all."""
FREE_WORDS: dict[str, tuple[int, int]] = {
    "bcd": (1, 4),
    "mod10k": (1, 4),
    "bits": (1, 4),
    "enum": (1, 2),
    "str": (1, 32),
    "sum": (2, 125),
}
"""Least and most registers of the types whose width the profile states (``sum``: follows from its parts)."""
READ_FUNCTION: dict[str, int] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
"""Modbus function code that reads each table (Modbus application protocol V1.1b3, 6.1-6.4)."""

ADDRESS_END = 0x10000
MAX_PARTS = 8


_EXACT = r"-?[0-9]{1,40}(\.[0-9]{1,40}|/[0-9]{1,40})?"


def exact_number(value: object) -> Fraction:
    """``"0.001"``, ``"1/3"``, ``10`` or ``{num, den}`` → exact rational. Binary floats are refused."""
    if isinstance(value, Fraction):
        return value
    if isinstance(value, bool):
        raise ValueError('seen a boolean; expected a number such as "0.1" or {num: 1, den: 10}')
    if isinstance(value, int):
        return Fraction(value)
    if isinstance(value, float):
        raise ValueError(f'seen the binary float {value!r}; put it in quotes ("{value!r}") so that it stays exact')
    if isinstance(value, str):
        try:
            # No exponents: "1e999999999" is a small text and a number that fills the memory.
            if re.fullmatch(_EXACT, value, re.ASCII):
                return Fraction(value)
            raise ValueError(value)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f'seen {value!r}; expected a decimal such as "0.1" or a ratio such as "1/3"') from None
    if isinstance(value, dict) and set(value) == {"num", "den"}:
        num, den = value["num"], value["den"]
        if isinstance(num, int) and isinstance(den, int) and den > 0:
            return Fraction(num, den)
    raise ValueError(f"seen {value!r}; expected {{num, den}} with whole numbers and den > 0, or a decimal string")


Exact = Annotated[
    Fraction,
    PlainValidator(exact_number),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^({_EXACT})$"},
                {"type": "integer"},
                {
                    "type": "object",
                    "properties": {"num": {"type": "integer"}, "den": {"type": "integer", "minimum": 1}},
                    "required": ["num", "den"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""An exact rational number."""


def _hex(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"seen {value!r}; expected hexadecimal digits in quotes: their count is the width")
    digits = value.removeprefix("0x").removeprefix("0X").replace(" ", "").lower()
    if not digits or len(digits) % 4 or any(c not in "0123456789abcdef" for c in digits):
        raise ValueError(f"seen {value!r}; expected hexadecimal digits, four for each register")
    return digits


HexWords = Annotated[str, BeforeValidator(_hex), Field(max_length=500)]
"""Registers as big-endian hexadecimal digits, four each."""

Address = Annotated[int, Field(ge=0, lt=ADDRESS_END, strict=True)]


class Coding(Model):
    """How a run of registers becomes one number or text."""

    addr: Address
    type: FieldType
    words: int = Field(default=0, ge=0, le=125)
    """Registers; follows from ``type`` except for ``str``, ``bcd``, ``mod10k``, ``bits`` and ``enum``."""
    word_order: Order = "big"
    """``big``: most significant word at the lowest address."""
    byte_order: Order = "big"
    """Of the two bytes in each word, texts included. ``big`` is what Modbus says; some devices do otherwise."""
    scale: Exact = Fraction(1)
    """Device count → SI base unit."""
    positive: Literal["import", "export"] = "import"
    """What a positive raw value means; ours is import."""
    sentinels: tuple[HexWords, ...] = ()
    """Contents that mean "no value", most significant word first, exactly as wide as the field."""
    mask: HexWords | None = None
    """``bits`` only: the bits that count, as wide as the field; the value is shifted down to their lowest."""
    names: dict[int, Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,60}$")]] = Field(default={}, max_length=64)
    """``enum`` only: what each number means."""
    padding: Literal["zero", "space"] = "zero"
    """``str`` only: what fills the room behind the text. Either is cut off when reading."""

    @model_validator(mode="before")
    @classmethod
    def _words_from_type(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("words"):
            kind = data.get("type")
            fixed = FIXED_WORDS.get(kind, 1 if kind in {"bits", "enum"} else 0) if isinstance(kind, str) else 0
            if fixed:
                return {**data, "words": fixed}
        return data

    @model_validator(mode="after")
    def _widths(self) -> Coding:
        fixed = FIXED_WORDS.get(self.type)
        if fixed is not None and self.words != fixed:
            raise ValueError(
                f"words: seen {self.words}, expected {fixed} for type {self.type}; leave 'words' out or change the type"
            )
        least, most = (fixed, fixed) if fixed is not None else FREE_WORDS[self.type]
        if not least <= self.words <= most:
            raise ValueError(
                f"words: seen {self.words}, expected {least} to {most} for type {self.type}; state how many "
                "registers the maker gives it"
            )
        if self.addr + self.words > ADDRESS_END:
            raise ValueError(
                f"addr: seen {self.addr} with {self.words} words, which runs past the last register 65535; "
                "addresses are 0-based, as on the wire"
            )
        if self.scale <= 0:
            raise ValueError(f"scale: seen {self.scale}, expected more than 0 (use 'positive: export' to turn a sign)")
        for sentinel in self.sentinels:
            if len(sentinel) != 4 * self.words:
                raise ValueError(
                    f"sentinels: {sentinel} is {len(sentinel) // 4} registers wide, the field has {self.words}; "
                    "write four digits for each register"
                )
        return self

    @model_validator(mode="after")
    def _only_where_it_means_something(self) -> Coding:
        if self.mask is not None:
            if self.type != "bits":
                raise ValueError(f"mask: seen with type {self.type}, expected type bits; remove the mask")
            if len(self.mask) != 4 * self.words or not int(self.mask, 16):
                raise ValueError(
                    f"mask: seen {self.mask}, expected {4 * self.words} digits that are not all 0; it is as wide as "
                    "the field"
                )
        if bool(self.names) != (self.type == "enum"):
            raise ValueError(
                f"names: seen {len(self.names)} names with type {self.type}; an enum has names and nothing else has"
            )
        if any(not 0 <= code < 1 << 16 * self.words for code in self.names):
            raise ValueError(f"names: seen a code outside 0 to {(1 << 16 * self.words) - 1}; correct the code")
        return self

    @property
    def span(self) -> range:
        """Registers it occupies."""
        return range(self.addr, self.addr + self.words)


class Part(Coding):
    """One addend of a ``sum``. ``positive: export`` subtracts it."""

    @model_validator(mode="after")
    def _number(self) -> Part:
        if self.type in {"str", "enum", "sum"}:
            raise ValueError(f"type: seen {self.type}, expected a type that is a number; a sum adds numbers")
        return self


def _end(row: object) -> int:
    """One past the last register of a part that nobody has checked yet."""
    if isinstance(row, Part):
        return row.span.stop
    if not isinstance(row, dict):
        return 0
    kind, addr, words = row.get("type"), row.get("addr"), row.get("words")
    if isinstance(kind, str):
        words = words or FIXED_WORDS.get(kind, 1)
    return addr + words if isinstance(addr, int) and isinstance(words, int) else 0


class RegisterField(Coding):
    """A run of registers of one table."""

    table: Table = "holding"
    parts: tuple[Part, ...] = Field(default=(), max_length=MAX_PARTS)
    """``sum`` only: what is added. ``addr`` is the first register of them all; they are read in one request."""

    @model_validator(mode="before")
    @classmethod
    def _width_of_parts(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("type") != "sum" or not isinstance(data.get("parts"), list | tuple):
            return data
        orders = {k: data[k] for k in ("word_order", "byte_order") if k in data}
        rows = [{**orders, **row} if isinstance(row, dict) else row for row in data["parts"]]
        ends = [_end(row) for row in rows]
        first = data.get("addr")
        words = max(ends, default=0) - first if isinstance(first, int) else 0
        return {**data, "parts": tuple(rows), "words": min(max(words, 0), ADDRESS_END)}

    @model_validator(mode="after")
    def _parts(self) -> RegisterField:
        if (self.type == "sum") != (len(self.parts) >= 2):
            raise ValueError(
                f"parts: seen {len(self.parts)} with type {self.type}; a sum has at least two and nothing else has any"
            )
        if self.type != "sum":
            return self
        if min(p.addr for p in self.parts) != self.addr:
            raise ValueError(
                f"addr: seen {self.addr}, expected {min(p.addr for p in self.parts)}, the first register of the parts"
            )
        if self.sentinels or self.positive != "import" or self.scale != 1:
            raise ValueError("sum: scale, positive and sentinels belong to its parts; move them there")
        taken: set[int] = set()
        for part in self.parts:
            if not taken.isdisjoint(part.span):
                raise ValueError(f"parts: the one at {part.addr} overlaps another; each register is added once")
            taken |= set(part.span)
        return self
