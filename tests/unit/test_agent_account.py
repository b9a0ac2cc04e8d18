"""The account of an order: samples as they were, a part a minute, through crashes; and the report over them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from obedience_kit import by_verifier

from agent.curtailment import account as account_module
from agent.curtailment.electrical import MAX_SPANS
from agent.curtailment.journal import LiveOrder
from agent.errors import LedgerError
from tests.unit.agent_kit import BASE_W, EMERGENCY_W, MACHINE_W, SLEEP_W, Core, running_core
from wire.obedience import Facts, slots_of
from wire.orders import Escalation, Order, Restore, parse_order
from wire.records import MAX_PAYLOAD
from wire.states import OrderState

S = OrderState
ALL_W = BASE_W + 8 * MACHINE_W
HELD_W = ALL_W - 3 * (MACHINE_W - SLEEP_W)
AT_ONCE = Restore(stage_permille=1000, stage_delay_s=1)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with running_core(tmp_path) as found:
        yield found


async def live_on(core: Core, seconds: float) -> None:
    """Time passes, and what is due is written."""
    for _ in range(round(seconds)):
        await core.step()
        await core.account.write()


async def traces(core: Core, order: str) -> list[dict[str, Any]]:
    return [doc for doc in await core.records("cmd_trace") if doc["id"] == order]


async def samples(core: Core, order: str) -> list[tuple[int, int | None]]:
    found = []
    for doc in await traces(core, order):
        at = doc["t0"]
        for step, watt in zip(doc["dt"], doc["w"], strict=True):
            at += step
            found.append((at, watt))
    return found


async def obeyed(core: Core, minutes: float = 4) -> LiveOrder:
    """An order held so long and released; its account closed."""
    order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    await live_on(core, minutes * 60)
    assert order.state is S.HOLDING
    await core.release(order)
    for _ in range(60):
        await live_on(core, 1)
        if not core.journal.live:
            break
    assert order.state is S.DONE
    await live_on(core, 1)
    return order


async def report_of(core: Core, order: str) -> dict[str, Any]:
    found = [doc for doc in await core.records("cmd_report") if doc["id"] == order]
    assert len(found) == 1
    return found[0]


async def recomputed(core: Core, order: Order, said: dict[str, Any]) -> dict[str, Any]:
    """By the verifier's code, out of the records alone."""
    rx = next(doc for doc in await core.records("cmd_rx") if doc["id"] == order.id)
    ack = next(doc for doc in await core.records("cmd_ack") if doc["id"] == order.id)
    known = Facts(
        order=order,
        received_ms=rx["rx"],
        point=said["point"],
        contracted_w=said["contracted_w"],
        before_w=ack["before_w"],
        target_w=ack["target_w"],
        slot_s=900,
        technological_s=0,
    )
    rows = [(doc["ty"], doc) for ty in ("bind", "interval", "gap") for doc in await core.records(ty, "mp:M0")]
    return by_verifier(known, await traces(core, order.id), slots_of(rows))


async def test_an_order_ends_with_a_report_that_follows_from_its_records(core: Core) -> None:
    await live_on(core, 900)
    order = await obeyed(core)
    said = await report_of(core, order.id)
    assert (said["verdict"], said["before_w"], said["target_w"], said["point"]) == ("obeyed", ALL_W, 50_000, "M0")
    # A step of this plant takes 1.1 s, so one sample in 5.5 s is kept from before: 600 s have 109 or 110.
    assert said["baseline"]["before_after"]["b_w"] == ALL_W
    assert said["baseline"]["before_after"]["n"] in {109, 110}
    assert (said["mw"]["m5_w"], said["overshoot_w"]) == (None, 50_000 - HELD_W)
    assert 0 < said["t100_ms"] < 60_000
    assert (said["hold_permille"], said["delivered_permille"], said["missing_permille"]) == (1000, 1000, 0)
    assert said["excuses"] == []
    right = await recomputed(core, order.order, said)
    assert right == {name: said[name] for name in right}
    assert await core.ledger.read("SELECT * FROM meta WHERE key LIKE 'account:%'") == []


async def test_samples_are_those_that_were_read(core: Core) -> None:
    await live_on(core, 30)
    order = await core.give("limit", limit_w=50_000)
    read: dict[int, int] = {}
    core.live.on_sample(
        lambda s: read.__setitem__(s.at_ms, int(s.readings["power_w"].value or 0)) if s.device == "em-0" else None
    )
    began = core.clock.now_ms()
    await live_on(core, 150)
    told = [(at, w) for at, w in await samples(core, order.id) if at > began]
    assert len(told) == len({at for at, _ in told})
    assert all(read[at] == w for at, w in told)
    held = await core.ledger.read("SELECT at FROM transition WHERE order_id=? AND now='holding'", order.id)
    moving = [at for at, _ in told if at <= held[0][0]]
    assert moving == [at for at in read if at <= held[0][0]], "while it acts every sample is kept"
    assert len(moving) >= 3
    before = [at for at, _ in await samples(core, order.id) if at <= began]
    assert len(before) == 7, "33 s, one sample in 5.5 s"
    assert min(b - a for a, b in pairwise(before)) >= 5_000


async def test_a_state_that_lasts_keeps_a_sample_in_five_seconds_and_the_ends_of_each_minute(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000)
    await core.until_state(order, S.HOLDING)
    await live_on(core, 70)
    since = core.clock.now_ms()
    peaks = []
    for second in range(240):
        core.plant.extra_w = {17: 700, 18: -900}.get(second % 60, second % 7)
        await live_on(core, 1)
        if second % 60 in {17, 18}:
            peaks.append((core.live.power("M0").at_ms, core.live.power("M0").value_w))
    await live_on(core, 70)
    told = [(at, w) for at, w in await samples(core, order.id) if at > since]
    assert set(peaks) <= set(told)
    assert len(told) < 80, "240 samples were read"
    parts = [doc for doc in await traces(core, order.id) if doc["t0"] > since]
    lines = [len(str(row[0])) for row in await core.ledger.read(
        "SELECT CAST(payload AS TEXT) FROM record WHERE ty='cmd_trace' ORDER BY n DESC LIMIT 4"
    )]  # fmt: skip
    assert len(parts) in {4, 5}
    hour = 60 * (sum(lines) // len(lines) + 130)
    print(f"an hour of holding: {hour} bytes of records")
    assert hour < 60_000


async def test_what_was_not_read_is_null_and_says_why(core: Core) -> None:
    order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    await live_on(core, 120)
    core.plant.meter_silent = True
    await live_on(core, 90)
    core.plant.meter_silent = False
    await live_on(core, 100)
    holes = [(w, q) for doc in await traces(core, order.id) for w, q in zip(doc["w"], doc["q"], strict=False) if q]
    assert holes
    assert {w for w, _ in holes} == {None}
    await core.release(order)
    await live_on(core, 120)
    assert 200 < (await report_of(core, order.id))["missing_permille"] < 800


async def test_states_and_positions_stand_in_the_trace_with_their_own_times(core: Core) -> None:
    order = await core.give("emergency_trip", restore=AT_ONCE)
    await live_on(core, 70)
    docs = await traces(core, order.id)
    states = [(doc["t0"] + after, state) for doc in docs for after, state in doc["states"]]
    rows = await core.ledger.read("SELECT at, now FROM transition WHERE order_id=? ORDER BY rowid", order.id)
    assert states == [tuple(row) for row in rows]
    positions = [(name, now) for doc in docs for _, name, now in doc["pos"]]
    assert positions[-2:] == [("KM1", "open"), ("KM2", "open")] or positions[-2:] == [("KM2", "open"), ("KM1", "open")]


async def test_what_stood_in_the_way_is_written_while_it_does(core: Core) -> None:
    for machine in core.plant.machines.values():
        machine.deaf = True
    await core.gates.tag("KM1", "dana", "people at work")
    order = await core.give("limit", limit_w=40_000, escalation=Escalation(to="switch", after_s=5), restore=AT_ONCE)
    await live_on(core, 120)
    assert order.state is S.FAILED
    await core.release(order)
    await live_on(core, 90)
    said = await report_of(core, order.id)
    assert said["verdict"] == "short"
    assert "tag" in said["excuses"]
    right = await recomputed(core, order.order, said)
    assert right == {name: said[name] for name in right}


async def test_a_drill_has_no_report(core: Core) -> None:
    order = core.order("limit", limit_w=50_000, mode="drill")
    await core.send(order)
    await live_on(core, 70)
    assert await core.records("cmd_trace") == []


# restarts ------------------------------------------------------------------------------------------------------------


async def crash(core: Core, folder: Path) -> None:
    """The process ends now; the next one finds the files as they are on disk at this instant."""
    folder.mkdir()  # noqa: ASYNC240 - a few files, in a test
    for path in core.path.parent.glob("ledger.*"):
        shutil.copy(path, folder / path.name)
    await core.shut()
    core.path = core.plant.ledger_path = folder / "ledger.db"
    await core.boot()


async def test_a_crash_loses_the_minute_that_was_not_written_and_doubles_nothing(core: Core, tmp_path: Path) -> None:
    order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    await live_on(core, 200)
    before, died = await samples(core, order.id), core.clock.now_ms()
    assert before[-1][0] > died - 61_000
    core.clock.advance(130)
    await crash(core, tmp_path / "next")
    woke = core.clock.now_ms()
    await live_on(core, 130)
    after = await samples(core, order.id)
    assert after[: len(before)] == before
    assert [at for at, _ in after] == sorted({at for at, _ in after})
    assert all(at >= woke for at, _ in after[len(before) :])
    assert [doc["part"] for doc in await traces(core, order.id)] == list(range(len(await traces(core, order.id))))
    states = [state for doc in await traces(core, order.id) for _, state in doc["states"]]
    assert states == ["validated", "armed", "executing", "verifying", "holding"]
    again = core.journal.live[order.id]
    await core.release(again)
    await live_on(core, 60)
    said = await report_of(core, order.id)
    assert 200 <= said["missing_permille"] < 600
    assert said["verdict"] == "unknown"
    right = await recomputed(core, order.order, said)
    assert right == {name: said[name] for name in right}


async def test_an_order_that_ended_just_before_a_crash_is_reported_after_it(core: Core, tmp_path: Path) -> None:
    order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    await live_on(core, 200)
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    assert await core.records("cmd_report") == []
    await crash(core, tmp_path / "next")
    await live_on(core, 2)
    said = await report_of(core, order.id)
    assert said["end"] > said["begin"] + 200_000
    right = await recomputed(core, order.order, said)
    assert right == {name: said[name] for name in right}


async def test_a_crash_at_any_write_leaves_one_whole_account(core: Core, tmp_path: Path) -> None:
    """Whatever the last thing on disk is, the account goes on from it: parts without a hole, one report."""
    order = await core.give("limit", limit_w=50_000, restore=AT_ONCE)
    for life in range(3):
        await live_on(core, 65)
        await crash(core, tmp_path / f"life{life}")
    await core.release(order.id)
    await core.until(lambda: not core.journal.live)
    real = core.ledger.commit
    with mock.patch.object(core.ledger, "commit", side_effect=LedgerError("disk full")):
        await live_on(core, 3)
    assert core.ledger.commit == real
    await live_on(core, 15)
    said = await report_of(core, order.id)
    assert said["parts"] == len(await traces(core, order.id))
    right = await recomputed(core, order.order, said)
    assert right == {name: said[name] for name in right}


async def test_a_journal_that_cannot_be_written_bounds_memory_and_the_size_of_a_part(core: Core) -> None:
    order = await core.give("limit", limit_w=30_000)
    with (
        mock.patch.object(core.account.ledger, "commit", side_effect=LedgerError("disk full")),
        mock.patch.object(account_module, "MAX_BUFFER", 200),
    ):
        await live_on(core, 400)
        assert len(core.account._open[order.id].samples) <= 300
    with mock.patch.object(account_module, "MAX_SAMPLES", 50):
        await live_on(core, 70)
    docs = await traces(core, order.id)
    assert max(len(doc["w"]) for doc in docs) <= 50
    sizes = await core.ledger.read("SELECT max(length(payload)) FROM record WHERE ty='cmd_trace'")
    assert sizes[0][0] < MAX_PAYLOAD


def test_the_largest_part_fits_into_a_record() -> None:
    fields = {
        "dt": [999_999] * account_module.MAX_SAMPLES,
        "w": [-9_999_999_999] * account_module.MAX_SAMPLES,
        "q": [12] * account_module.MAX_SAMPLES,
        "pos": [[9_999_999, "x" * 62, "unknown"]] * account_module.MAX_NOTES,
        "states": [[9_999_999, "restore_blocked"]] * account_module.MAX_NOTES,
        "why": [[9_999_999, "x" * 62, "not_commissioned"]] * account_module.MAX_NOTES,
        "uq": {"dt": [999_999] * MAX_SPANS}
        | {n: [999_999_999] * MAX_SPANS for n in ("lo", "hi")}
        | {n: [-999_999_999] * MAX_SPANS for n in ("qlo", "qhi")},
        "bat": {"dt": [999_999] * account_module.MAX_BATTERY, "w": [-9_999_999_999] * account_module.MAX_BATTERY},
    }
    assert len(str(fields).replace(" ", "")) + 1000 < MAX_PAYLOAD


async def test_the_order_is_taken_from_its_own_bytes(core: Core, tmp_path: Path) -> None:
    order = await core.give("limit", limit_w=50_000)
    await live_on(core, 61)
    await core.reboot()
    raw = await core.ledger.read("SELECT raw FROM orders WHERE id=?", order.id)
    assert core.account._open[order.id].order == parse_order(bytes(raw[0][0])).order


async def test_a_schedule_is_judged_by_the_limit_of_its_hour(core: Core) -> None:
    assert core.keys is not None
    rights = (*core.keys.issuers[0].rights, "schedule")
    issuers = tuple(i.model_copy(update={"rights": rights}) for i in core.keys.issuers)
    core.keys = core.keys.model_copy(update={"issuers": issuers})
    order = await core.give("schedule", hours=(45_000,) * 24)
    await core.until_state(order, S.HOLDING)
    await live_on(core, 300)
    await core.release(order)
    await core.until(lambda: not core.journal.live)
    await live_on(core, 1)
    report = await report_of(core, order.id)
    assert (report["target_w"], report["verdict"], report["hold_permille"]) == (None, "obeyed", 1000)
    assert report["floor_w"] == EMERGENCY_W
    ((_, limit_w, windows, known, met),) = report["hours"]
    assert limit_w == 45_000
    assert windows == known == met > 0
