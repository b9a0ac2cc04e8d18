"""Telemetry batches: what was observed comes back, and no packet costs more than its limits allow."""

from __future__ import annotations

import json
import tracemalloc
from random import Random
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.batch import MAX_CELLS, MAX_PACKET, MAX_RAW, Batch, Column, Part, PartBuilder, decode, encode
from wire.errors import BadBatch
from wire.quality import CODES, Quality

T0 = 1_795_000_000_000
GOOD, NO_VALUE, TIMEOUT = CODES[Quality.GOOD], CODES[Quality.NO_VALUE], CODES[Quality.TIMEOUT]
PART: dict[str, Any] = {
    "kind": "meter",
    "dev": ["m1", "m2"],
    "row": [0, 1, 0],
    "dt": [0, 5, 1000],
    "cols": {"power_w": {"v": [5000.5, None, 7], "q": [0, 4, 0]}, "frequency_hz": {"v": [50, 50, 50]}},
}
HEAD: dict[str, Any] = {"v": 1, "site": "kz-01", "epoch": "e1-0a0b0c0d", "boot": "b1", "n": 3, "t0": T0, "clk": "S"}
DOC = HEAD | {"parts": [PART]}


def pack(raw: bytes, **options: Any) -> bytes:
    return b"TZB1" + zstandard.ZstdCompressor(**({"write_content_size": True} | options)).compress(raw)


def packed(document: Any) -> bytes:
    return pack(json.dumps(document).encode())


def part(**change: Any) -> dict[str, Any]:
    return DOC | {"parts": [PART | change]}


def column(values: Any, codes: Any = 0) -> dict[str, Any]:
    return part(cols={"power_w": {"v": values, "q": codes}})


def test_what_is_packed_is_found_again() -> None:
    found = decode(packed(DOC))
    assert (found.rows(), found.values()) == (3, 6)
    assert found.parts[0].cols["power_w"].v == [5000.5, None, 7]
    assert decode(encode(found)) == found


CELL = st.none() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
COLUMN_NAMES = st.from_regex(r"[a-z0-9_]{1,12}", fullmatch=True)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    parts = []
    for kind in draw(st.lists(st.sampled_from(["meter", "relay", "pdu", "asic"]), max_size=3)):
        devices = draw(
            st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=3)
        )
        rows = draw(st.integers(0, 5))

        def per_row(of: st.SearchStrategy[Any], rows: int = rows) -> list[Any]:
            return draw(st.lists(of, min_size=rows, max_size=rows))

        cols = {
            name: Column(
                per_row(CELL), draw(st.integers(0, 10)) if draw(st.booleans()) else per_row(st.integers(0, 10))
            )
            for name in draw(st.lists(COLUMN_NAMES, max_size=3, unique=True))
        }
        parts.append(
            Part(kind, devices, per_row(st.integers(0, len(devices) - 1)), per_row(st.integers(0, 10**6)), cols)
        )
    return Batch(1, "kz-01", "e1-0a0b0c0d", "boot", draw(st.integers(0, 2**53 - 1)), T0, "S", parts)


@settings(deadline=None)
@given(batches())
def test_any_batch_survives_the_round_trip(made: Batch) -> None:
    assert decode(encode(made)) == made


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["m1", "m2", "m3"]),
        st.integers(T0, T0 + 10**6),
        st.dictionaries(
            st.sampled_from(["power_w", "frequency_hz", "voltage_l1_n_v"]), st.tuples(CELL, st.integers(0, 10))
        ),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(ROWS)
def test_the_builder_keeps_every_cell_and_marks_what_is_missing(rows: list[tuple[str, int, dict[str, Any]]]) -> None:
    builder = PartBuilder("meter", NO_VALUE)
    for row in rows:
        builder.add(*row)
    made = decode(encode(Batch(1, "kz-01", "e1-0a0b0c0d", "boot", 0, T0, "S", [builder.build(T0)]))).parts[0]
    names = {name for _, _, cells in rows for name in cells}
    assert set(made.cols) == names
    for i, (device, at, cells) in enumerate(rows):
        assert made.dev[made.row[i]] == device
        assert T0 + made.dt[i] == at
        for name in names:
            col = made.cols[name]
            code = col.q[i] if isinstance(col.q, list) else col.q
            assert (col.v[i], code) == cells.get(name, (None, NO_VALUE))


def test_a_constant_quality_is_one_number() -> None:
    builder = PartBuilder("meter", NO_VALUE)
    for i in range(3):
        builder.add("m1", T0 + i, {"power_w": (1.0, GOOD), "frequency_hz": (None, TIMEOUT if i else GOOD)})
    made = builder.build(T0)
    assert made.cols["power_w"].q == GOOD
    assert made.cols["frequency_hz"].q == [GOOD, TIMEOUT, TIMEOUT]


def test_zero_and_unknown_are_different() -> None:
    found = decode(packed(column([0, None, 0.0])))
    assert found.parts[0].cols["power_w"].v == [0, None, 0.0]


RAW = json.dumps(DOC).encode()


def lying_frame(says: int, really: bytes) -> bytes:
    """A frame of one raw block whose header says another size (single segment, 4-byte content size)."""
    block = (len(really) << 3 | 1).to_bytes(3, "little") + really
    return b"TZB1" + b"\x28\xb5\x2f\xfd\xa0" + says.to_bytes(4, "little") + block


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"TZB1",
        b"TZB2" + packed(DOC)[4:],
        packed(DOC)[4:],
        RAW,
        b"TZB1" + RAW,
        packed(DOC)[:-1],
        packed(DOC) + b"x",
        packed(DOC) + packed(DOC)[4:],
        b"x" * (MAX_PACKET + 1),
        pack(RAW, write_content_size=False),
        pack(b" " * (MAX_RAW + 1)),
        lying_frame(10, b"x" * 100),
        lying_frame(MAX_RAW, b"x" * 100),
        lying_frame(2**32 - 1, b"x" * 100),
        b"TZB1\x50\x2a\x4d\x18\x04\x00\x00\x00abcd",
        pack(b""),
        pack(b"\xff\xfe"),
        pack(RAW.replace(b"kz-01", b"kz-\xff1")),
        pack(RAW.replace(b'"b1"', b'"\xff"')),
        pack(RAW.replace(b'"b1"', b'"\\ud800"')),
        pack(RAW.replace(b"5000.5", b"NaN")),
        pack(RAW.replace(b"5000.5", b"1e400")),
        pack(RAW.replace(b"5000.5", b"9" * 5000)),
        pack(RAW + b"x"),
        pack(b"[" * 1_000_000),
        pack(RAW.replace(b'"parts": [', b'"parts": [' + b"[" * 100_000)),
        pack(b'{"v":' * 1_000_000),
    ],
    ids=lambda data: f"{len(data)}-{data[:24].hex()}",
)
def test_hostile_packets_are_refused(data: bytes) -> None:
    with pytest.raises(BadBatch) as caught:
        decode(data)
    assert len(str(caught.value)) < 400


def test_the_hand_made_frame_is_one_that_can_be_read() -> None:
    """Otherwise the lying ones above would be refused for another reason."""
    assert decode(lying_frame(len(RAW), RAW)) == decode(packed(DOC))


def test_a_small_packet_cannot_take_much_memory() -> None:
    """64 MiB of blanks pack into a few KB; neither an honest nor a lying header gets them unpacked."""
    blanks = b" " * (64 << 20)
    honest, silent = pack(blanks), pack(blanks, write_content_size=False)
    assert max(len(honest), len(silent)) < MAX_PACKET
    # Single frame header of the honest one, with its content size (4 bytes after magic and descriptor) made small.
    head = zstandard.get_frame_parameters(honest[4:])
    assert head.content_size == len(blanks)
    at = honest.index(len(blanks).to_bytes(4, "little"))
    lying = honest[:at] + (1 << 20).to_bytes(4, "little") + honest[at + 4 :]
    del blanks
    tracemalloc.start()
    try:
        for data in (honest, silent, lying):
            with pytest.raises(BadBatch):
                decode(data)
        assert tracemalloc.get_traced_memory()[1] < 2 * MAX_RAW
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        DOC | {"v": 2},
        DOC | {"v": True},
        DOC | {"v": "1"},
        DOC | {"extra": 1},
        {k: v for k, v in DOC.items() if k != "clk"},
        DOC | {"site": "KZ"},
        DOC | {"site": "kz-01\n"},
        DOC | {"epoch": "e1"},
        DOC | {"epoch": "e1-0a0b0c0d\n"},
        DOC | {"boot": ""},
        DOC | {"boot": "b" * 65},
        DOC | {"n": -1},
        DOC | {"n": 2**53},
        DOC | {"n": 10**30},
        DOC | {"n": 1.5},
        DOC | {"n": None},
        DOC | {"parts": {}},
        DOC | {"t0": 10**30},
        DOC | {"t0": -1},
        part(kind=""),
        part(kind="Meter"),
        part(kind="meter\n"),
        part(kind="m" * 21),
        part(dev=["m1"]),
        part(dev=["m1", ""]),
        part(dev=["m1", "x" * 129]),
        part(dev=["m1", 5]),
        part(row=[0, 1]),
        part(row=[0, 1, 2]),
        part(row=[0, 1, -1]),
        part(row=[0, 1, 10**30]),
        part(row=[0, 1, 1.5]),
        part(dt=[0, 1]),
        part(dt=[0, 1, None]),
        part(dt=[0, 1, 10**30]),
        part(dt=[0, 1, -(10**30)]),
        part(cols=[]),
        part(cols={"Power": {"v": [1, 2, 3]}}),
        part(cols={"power_w\n": {"v": [1, 2, 3]}}),
        part(cols={"": {"v": [1, 2, 3]}}),
        part(cols={"power_w": [1, 2, 3]}),
        part(cols={"power_w": {"v": [1, 2, 3], "extra": 1}}),
        part(extra=1),
        column([1, 2]),
        column([1, 2, 3, 4]),
        column([1, 2, "3"]),
        column([1, 2, True]),
        column([1, 2, [3]]),
        column([1, 2, 3], [0, 0]),
        column([1, 2, 3], [0, 0, 0, 0]),
        column([1, 2, 3], [0, 0, None]),
        column([1, 2, 3], None),
        column([1, 2, 3], "good"),
    ],
    ids=lambda document: str(document)[-60:],
)
def test_inconsistent_batches_are_refused(document: Any) -> None:
    with pytest.raises(BadBatch):
        decode(packed(document))


def test_cells_are_counted_before_anything_is_made_of_them() -> None:
    rows = 1000
    names = [f"c{i}" for i in range(MAX_CELLS // rows + 1)]
    cols = {name: {"v": []} for name in names}
    with pytest.raises(BadBatch, match="cells"):
        decode(packed(part(dev=["m"], row=[0] * rows, dt=[0] * rows, cols=cols)))


def test_the_sender_refuses_what_the_receiver_would() -> None:
    blank = Part("asic", ["a"], [0] * 500_000, [0] * 500_000, {f"c{i}": Column([None] * 500_000) for i in range(4)})
    made = Batch(1, "kz-01", "e1-0a0b0c0d", "boot", 0, T0, "S", [blank])
    with pytest.raises(BadBatch, match="unpacked"):
        encode(made)


def test_a_batch_that_packs_badly_is_refused_for_its_packet() -> None:
    """Random figures do not compress: 60 000 of them fit the unpacked limit and not the packet."""
    noise = Random(1)
    values: list[float | int | None] = [noise.random() for _ in range(60_000)]
    made = Batch(
        1,
        "kz-01",
        "e1-0a0b0c0d",
        "b",
        0,
        T0,
        "S",
        [Part("asic", ["a"], [0] * 60_000, [0] * 60_000, {"c": Column(values)})],
    )
    with pytest.raises(BadBatch, match=f"larger than {MAX_PACKET}"):
        encode(made)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_raise_nothing_but_a_bad_batch(raw: bytes) -> None:
    for data in (raw, b"TZB1" + raw, pack(raw)):
        with pytest.raises(BadBatch):
            decode(data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_batches_are_refused_or_consistent(data: st.DataObject) -> None:
    inner = data.draw(st.booleans())
    raw = bytearray(RAW if inner else packed(DOC))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        found = decode(pack(bytes(raw)) if inner else bytes(raw))
    except BadBatch:
        return
    assert decode(encode(found)) == found
