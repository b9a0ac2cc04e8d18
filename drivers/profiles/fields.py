"""Fields of profiles: exact numbers, hexadecimal words, and a run of registers with its coding."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from config.base import Model

Table = Literal["holding", "input"]
BitTable = Literal["coil", "discrete"]
WordOrder = Literal["big", "little"]
FieldType = Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bcd", "mod10k", "bits", "str"]

FIXED_WORDS: dict[str, int] = {"u16": 1, "i16": 1, "u32": 2, "i32": 2, "u64": 4, "i64": 4, "f32": 2, "f64": 4}
READ_FUNCTION: dict[str, int] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
"""Modbus function code that reads each table (Modbus application protocol V1.1b3, 6.1-6.4)."""

ADDRESS_END = 0x10000


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


class RegisterField(Model):
    """A run of registers and how its words become one number or text."""

    table: Table = "holding"
    addr: Address
    type: FieldType
    words: int = Field(default=0, ge=0, le=32)
    """Registers; follows from ``type`` except for ``str``, ``bcd``, ``mod10k`` and ``bits``."""
    word_order: WordOrder = "big"
    """``big``: most significant word at the lowest address."""
    scale: Exact = Fraction(1)
    """Device count → SI base unit."""
    positive: Literal["import", "export"] = "import"
    """What a positive raw value means; ours is import."""
    sentinels: tuple[HexWords, ...] = ()
    """Contents that mean "no value", most significant word first, exactly as wide as the field."""

    @model_validator(mode="before")
    @classmethod
    def _words_from_type(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("words"):
            kind = data.get("type")
            fixed = FIXED_WORDS.get(kind, 1 if kind == "bits" else 0) if isinstance(kind, str) else 0
            if fixed:
                return {**data, "words": fixed}
        return data

    @model_validator(mode="after")
    def _widths(self) -> RegisterField:
        fixed = FIXED_WORDS.get(self.type)
        if fixed is not None and self.words != fixed:
            raise ValueError(f"words: seen {self.words}, expected {fixed} for type {self.type}")
        limit = 4 if self.type in {"bcd", "mod10k", "bits"} else 32
        if not 1 <= self.words <= limit:
            raise ValueError(f"words: seen {self.words}, expected 1 to {limit} for type {self.type}")
        if self.addr + self.words > ADDRESS_END:
            raise ValueError(f"addr: {self.addr} with {self.words} words runs past the last register 65535")
        if self.scale <= 0:
            raise ValueError(f"scale: seen {self.scale}, expected more than 0 (use 'positive: export' to turn a sign)")
        for sentinel in self.sentinels:
            if len(sentinel) != 4 * self.words:
                raise ValueError(
                    f"sentinels: {sentinel} is {len(sentinel) // 4} registers wide, the field has {self.words}"
                )
        return self

    @property
    def span(self) -> range:
        """Registers it occupies."""
        return range(self.addr, self.addr + self.words)
