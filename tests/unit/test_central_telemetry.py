"""Telemetry in DuckDB: every batch once, unknown is null, holes are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from central.telemetry.duck import DuckStore
from wire.batch import Batch, PartBuilder, decode, encode
from wire.quality import CODES, Quality

NOW = 1_795_000_000_000
GOOD, TIMEOUT = CODES[Quality.GOOD], CODES[Quality.TIMEOUT]


def batch(n: int, *, boot: str = "b1", site: str = "ekb-1", power: float | None = 5000.0) -> tuple[Batch, bytes]:
    builder = PartBuilder("meter", CODES[Quality.NO_VALUE])
    for i in range(10):
        at = NOW + n * 10_000 + i * 1000
        good = power is not None
        builder.add("m1", at, {"power_w": (power, GOOD if good else TIMEOUT), "energy_import_wh": (n * 100 + i, GOOD)})
    builder.add("m2", NOW + n * 10_000, {"power_w": (7.0, GOOD)})
    packed = encode(Batch(1, site, "e1-0a0a0a0a", boot, n, NOW + n * 10_000, "S", [builder.build(NOW + n * 10_000)]))
    return decode(packed), packed


@pytest.fixture
async def store(tmp_path: Path):
    made = DuckStore(tmp_path / "t.duckdb")
    yield made
    await made.close()


async def test_a_batch_sent_again_is_stored_once(store: DuckStore) -> None:
    first = await store.write([batch(0), batch(1), batch(0)], NOW)
    again = await store.write([batch(1), batch(2)], NOW)
    assert [b.n for b in first.new] == [0, 1]
    assert [b.n for b in first.duplicates] == [0]
    assert [b.n for b in again.new] == [2]
    assert [b.n for b in again.duplicates] == [1]
    counts = await store.counts()
    assert (counts.batches, counts.values, counts.distinct_values) == (3, 66, 66)


async def test_the_same_identity_with_other_bytes_is_reported_and_changes_nothing(store: DuckStore) -> None:
    await store.write([batch(0)], NOW)
    second = await store.write([batch(0, power=1.0)], NOW)
    assert [b.n for b in second.conflicting] == [0]
    steps = await store.series("ekb-1", "meter", "m1", "power_w", NOW, NOW + 10_000, 1)
    assert {s.mean for s in steps} == {5000.0}


async def test_unknown_is_null_and_never_zero(store: DuckStore) -> None:
    await store.write([batch(0, power=None)], NOW)
    steps = await store.series("ekb-1", "meter", "m1", "power_w", NOW, NOW + 10_000, 10)
    assert steps
    assert all(s.mean is None and s.good == 0 and s.samples > 0 for s in steps)
    newest = {(v.device, v.point): v for v in await store.latest("ekb-1", kind="meter")}
    assert newest["m1", "power_w"].value is None
    assert newest["m1", "power_w"].quality == "timeout"
    assert newest["m2", "energy_import_wh"].value is None
    assert newest["m2", "power_w"].value == 7.0


async def test_sites_do_not_see_each_other(store: DuckStore) -> None:
    await store.write([batch(0), batch(0, site="pvl-2", power=1.0)], NOW)
    assert {v.value for v in await store.latest("pvl-2") if v.device == "m1" and v.point == "power_w"} == {1.0}
    assert (await store.counts("pvl-2")).values == 22
    assert await store.latest("nowhere") == []


async def test_holes_are_found_at_the_head_inside_and_at_the_tail(store: DuckStore) -> None:
    await store.write([batch(n) for n in (2, 3, 7)], NOW)
    holes = await store.missing("ekb-1", "e1-0a0a0a0a", "b1", 9)
    assert [(h.first, h.last) for h in holes] == [(0, 1), (4, 6), (8, 9)]
    assert await store.missing("ekb-1", "e1-0a0a0a0a", "b1", 3) == holes[:1]
    assert [(h.first, h.last) for h in await store.missing("ekb-1", "e1-0a0a0a0a", "other", 1)] == [(0, 1)]


async def test_energy_is_the_growth_of_the_counter(store: DuckStore) -> None:
    await store.write([batch(0), batch(1)], NOW)
    steps = await store.energy("ekb-1", "m1", "energy_import_wh", NOW, NOW + 20_000, 10)
    assert [s.mean for s in steps] == [9.0, 9.0]


async def test_a_restart_finds_everything_and_numbers_go_on(tmp_path: Path) -> None:
    first = DuckStore(tmp_path / "t.duckdb")
    await first.write([batch(0)], NOW)
    await first.close()
    second = DuckStore(tmp_path / "t.duckdb")
    try:
        again = await second.write([batch(0), batch(1)], NOW)
        assert [b.n for b in again.new] == [1]
        assert [b.n for b in again.duplicates] == [0]
        assert (await second.counts()).values == (await second.counts()).distinct_values == 44
    finally:
        await second.close()


async def test_a_failed_write_leaves_nothing_behind(store: DuckStore) -> None:
    good, packed = batch(0)
    bad, bad_packed = batch(1)
    bad.parts[0].cols["power_w"].v[3] = "five"  # type: ignore[call-overload]  # what decode would have refused
    with pytest.raises(ValueError, match="could not convert"):
        await store.write([(good, packed), (bad, bad_packed)], NOW)
    counts = await store.counts()
    assert (counts.batches, counts.values) == (0, 0)
    assert [b.n for b in (await store.write([batch(0)], NOW)).new] == [0]
    assert (await store.counts()).values == 22
