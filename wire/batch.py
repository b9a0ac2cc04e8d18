"""Telemetry batches: columnar JSON in a zstd frame, unsigned.

Bytes: ``TZB1`` then one zstd frame of JSON::

    {"v":1,"site","epoch","boot","n","t0":ms,"clk":"S","parts":[
      {"kind":"meter","dev":[ids],"row":[index into dev],"dt":[ms after t0],
       "cols":{"power_w":{"v":[numbers or null],"q":[codes] or one code}}}]}

Identity of a batch is (site, epoch, boot, n); of a value (site, kind, device, point, time). Quality codes are those of
:data:`wire.quality.CODES`. A value with a quality other than good is null unless it is stale or suspect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import zstandard

from wire.errors import BadBatch
from wire.names import EPOCH, SITE

MAGIC = b"TZB1"
MAX_PACKET = 262_144
MAX_RAW = 8 * 1024 * 1024
MAX_CELLS = 2_000_000
MAX_INT = 2**53 - 1
Scalar = float | int | None


class Column(msgspec.Struct, forbid_unknown_fields=True):
    """Values and qualities of one point; ``q`` is one code for all rows or one per row."""

    v: list[Scalar]
    q: int | list[int] = 0


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """Rows of one kind of device."""

    kind: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,20}\Z")]
    dev: list[Annotated[str, msgspec.Meta(min_length=1, max_length=128)]]
    row: list[int]
    dt: list[int]
    cols: dict[Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,64}\Z")], Column]


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """One batch."""

    v: int
    site: str
    epoch: str
    boot: str
    n: int
    t0: int
    clk: str
    parts: list[Part]

    def rows(self) -> int:
        """Number of device rows."""
        return sum(len(p.row) for p in self.parts)

    def values(self) -> int:
        """Number of cells, nulls included: a null is an observation too."""
        return sum(len(p.row) * len(p.cols) for p in self.parts)


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Batch)


def encode(batch: Batch, *, level: int = 3) -> bytes:
    """Bytes of a batch.

    Raises:
        BadBatch: larger than a packet may be; the caller splits it.
    """
    raw = _ENCODER.encode(batch)
    if len(raw) > MAX_RAW or batch.values() > MAX_CELLS:
        raise BadBatch(f"batch of {len(raw)} bytes unpacked and {batch.values()} cells: at most {MAX_RAW}, {MAX_CELLS}")
    packed = MAGIC + zstandard.ZstdCompressor(level=level, write_content_size=True).compress(raw)
    if len(packed) > MAX_PACKET:
        raise BadBatch(f"batch of {len(packed)} bytes is larger than {MAX_PACKET}")
    return packed


def decode(packed: bytes) -> Batch:
    """Parse and check a batch.

    Raises:
        BadBatch: not a batch, over a limit, or inconsistent.
    """
    if len(packed) > MAX_PACKET:
        raise BadBatch(f"batch of {len(packed)} bytes, at most {MAX_PACKET}")
    if packed[:4] != MAGIC:
        raise BadBatch(f"batch begins with {packed[:4]!r}, expected {MAGIC!r}")
    try:
        size = zstandard.frame_content_size(packed[4:])
        if not 0 <= size <= MAX_RAW:
            raise BadBatch(f"batch says {size} bytes unpacked, at most {MAX_RAW}")
        raw = zstandard.ZstdDecompressor().decompress(packed[4:], max_output_size=MAX_RAW, allow_extra_data=False)
        batch = _DECODER.decode(raw)
    except zstandard.ZstdError as error:
        raise BadBatch(f"batch is not a zstd frame: {error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBatch(f"batch: {error}"[:300]) from None
    _check(batch)
    return batch


def _check(batch: Batch) -> None:
    if (
        batch.v != 1
        or not 0 <= batch.n <= MAX_INT
        or not SITE.fullmatch(batch.site)
        or not EPOCH.fullmatch(batch.epoch)
    ):
        raise BadBatch("batch header: version, number, site or epoch is wrong")
    if not 1 <= len(batch.boot) <= 64 or batch.values() > MAX_CELLS:
        raise BadBatch(f"batch: boot id or {batch.values()} cells out of bounds")
    for part in batch.parts:
        rows = len(part.row)
        if not 0 <= batch.t0 <= MAX_INT or any(abs(dt) > MAX_INT for dt in part.dt):
            raise BadBatch(f"batch part {part.kind}: a time needs more than 53 bits")
        if len(part.dt) != rows or any(not 0 <= i < len(part.dev) for i in part.row):
            raise BadBatch(f"batch part {part.kind}: rows, times and devices do not fit together")
        for name, col in part.cols.items():
            if len(col.v) != rows or (isinstance(col.q, list) and len(col.q) != rows):
                raise BadBatch(f"batch part {part.kind}: column {name} has not {rows} entries")


@dataclass(slots=True)
class PartBuilder:
    """Collects rows of one kind; missing points become null with quality ``no_value``."""

    kind: str
    missing_code: int
    devices: dict[str, int] = field(default_factory=dict)
    row: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    values: dict[str, list[Scalar]] = field(default_factory=dict)
    codes: dict[str, list[int]] = field(default_factory=dict)

    def add(self, device: str, at_ms: int, cells: dict[str, tuple[Scalar, int]]) -> None:
        """Add one row: point → (value, quality code)."""
        done = len(self.row)
        for name in cells:
            if name not in self.values:
                self.values[name] = [None] * done
                self.codes[name] = [self.missing_code] * done
        self.row.append(self.devices.setdefault(device, len(self.devices)))
        self.times.append(at_ms)
        for name, column in self.values.items():
            value, code = cells.get(name, (None, self.missing_code))
            column.append(value)
            self.codes[name].append(code)

    def build(self, t0: int) -> Part:
        """The part, with times relative to ``t0`` and constant qualities folded."""
        cols: dict[str, Column] = {}
        for name, values in self.values.items():
            codes = self.codes[name]
            cols[name] = Column(values, codes[0] if len(set(codes)) == 1 else codes)
        return Part(self.kind, list(self.devices), self.row, [t - t0 for t in self.times], cols)
