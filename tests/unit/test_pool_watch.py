"""Pool switches with their times, and few records for many machines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from agent.errors import AgentError
from agent.inventory import accredited, register, seen
from agent.inventory.accredited import Accredited
from agent.inventory.grouped import MANY, MAX_PER_GROUP, Change, Grouped, machines_digest
from agent.inventory.pools import ListedPool
from agent.inventory.register import Entry, RegisterList
from agent.inventory.watch import InventoryWatch
from agent.inventory.workdays import kazakhstan, notice_due
from config.loader import load_site
from drivers.capabilities import MinerStatus, Pool
from tests.unit.agent_kit import EXAMPLE, SimClock
from tests.unit.pool_kit import LIST, WALLET
from wire import canonical

# the watch ----------------------------------------------------------------------------------------------------------

Take = Callable[..., None]


class Scene:
    """A watch over the example site's two racks of 24 machines, its clock, and the records it gave."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.clock = SimClock()
        self.records: list[dict[str, Any]] = []
        self.watch = self.start()

    def start(self) -> InventoryWatch:
        return InventoryWatch(load_site(EXAMPLE), self.state, self.clock, self.records.append)

    def poll(self, machine: str, *pools: Pool, advance_s: float = 0.0, **said: Any) -> None:
        self.clock.wall_ms += round(advance_s * 1000)
        self.clock.mono += round(advance_s * 1e9)
        identity = {"serial": "SN" + machine.replace("/", "X"), "model": "Antminer S21", "firmware": "v1", **said}
        self.watch.take(machine, MinerStatus(family="x", pools=pools, **identity), self.clock.now_ms())

    async def after(self, seconds: float) -> list[dict[str, Any]]:
        """Records that came within so many seconds."""
        self.records.clear()
        for _ in range(round(seconds / 5)):
            self.clock.wall_ms += 5_000
            self.clock.mono += 5_000_000_000
            await self.watch.tick()
        return list(self.records)

    def switches(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [r for r in records if r["ev"] == "pool_switch" and r["was"] is not None]


@asynccontextmanager
async def opened(state: Path) -> AsyncIterator[Scene]:
    accredited.store(state, Accredited(LIST.pools))
    scene = Scene(state)
    await scene.watch.open()
    yield scene


def at(url: str, *, active: bool | None = True, worker: str = "1") -> Pool:
    return Pool(f"stratum+tcp://{url}:3333", f"{WALLET}.rig{worker}", active, 5, 0)


RACK1 = [f"rack1/{n}" for n in range(1, 25)]


async def test_a_rack_that_goes_to_another_pool_gives_one_record_with_times_count_and_deadline(tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        for machine in RACK1:
            scene.poll(machine, at("pool.kz", worker=machine))
        old_ms = scene.clock.now_ms()
        baseline = await scene.after(120)
        assert [(r["obj"], r["was"], r["now"]) for r in baseline if r["ev"] == "pool_switch"] == [
            ("rack1", None, "Pool KZ")
        ]
        for machine in RACK1:
            scene.poll(machine, at("pool.kz", worker=machine))
        old_ms = scene.clock.now_ms()
        first_ms = old_ms + 30_000
        scene.poll(RACK1[0], at("other.com"), advance_s=30)
        for machine in RACK1[1:]:
            scene.poll(machine, at("other.com"), advance_s=1)
        (record,) = scene.switches(await scene.after(3600))
        assert (record["obj"], record["was"], record["now"]) == ("rack1", "Pool KZ", "other.com")
        detail = record["detail"]
        assert (detail["machines"], detail["first_seen"], detail["last_seen_old"]) == (24, first_ms, old_ms)
        assert detail["digest"] == machines_digest(RACK1)
        assert detail["verdicts"] == [["other.com", "unlisted"]]
        calendar = kazakhstan(range(2026, 2028))
        assert detail["due"] == notice_due(first_ms, calendar).isoformat()
        canonical.encode(record)


def kept_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_no_record_log_or_file_holds_a_wallet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with opened(tmp_path) as scene:
        for machine in RACK1:
            scene.poll(machine, at("pool.kz"), Pool("other.com:1", WALLET, False, 0, 0))
        told = await scene.after(120)
        for machine in RACK1:
            scene.poll(machine, Pool(f"{WALLET}@other.com:1", WALLET, True, 0, 0))
        told += await scene.after(700)
    kept = kept_in(tmp_path)
    captured = capfd.readouterr()
    assert b"rack1/24" in kept
    for text in (json.dumps(told), kept.decode("utf-8", "replace"), captured.out, captured.err):
        assert WALLET not in text


@pytest.mark.parametrize(
    "blip",
    [
        pytest.param((at("other.com"),), id="fail-over-and-back"),
        pytest.param((at("pool.kz", active=False), Pool("DevFee", "DevFee", True, 1, 0)), id="vendors-share"),
        pytest.param((at("a.eu.pool.kz"),), id="another-host-of-the-same-pool"),
        pytest.param((at("pool.kz", active=False), at("other.com", active=False)), id="asleep"),
        pytest.param((), id="says-nothing"),
        pytest.param((Pool("???", None, True, None, None),), id="nonsense"),
    ],
)
async def test_what_is_no_switch_gives_no_record(blip: tuple[Pool, ...], tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        scene.poll("rack1/1", at("pool.kz"))
        await scene.after(120)
        scene.poll("rack1/1", *blip)
        scene.poll("rack1/1", at("pool.kz"), advance_s=30)
        assert scene.switches(await scene.after(1200)) == []


async def test_of_several_pools_that_answer_the_first_is_worked_for(tmp_path: Path) -> None:
    """Firmwares mark every pool that answers: a second one that comes and goes is no switch, the first one's end is."""
    async with opened(tmp_path) as scene:
        scene.poll("rack1/1", at("pool.kz"), at("other.com"))
        await scene.after(120)
        scene.poll("rack1/1", at("pool.kz"), at("other.com", active=False))
        assert await scene.after(120) == []
        scene.poll("rack1/1", at("pool.kz"), at("other.com"))
        assert await scene.after(120) == []
        scene.poll("rack1/1", at("pool.kz", active=False), at("other.com"))
        (record,) = await scene.after(120)
        assert (record["ev"], record["was"], record["now"]) == ("pool_switch", "Pool KZ", "other.com")


async def test_another_list_of_pools_is_told_also_while_the_machine_sleeps(tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        scene.poll("rack1/1", at("pool.kz"))
        await scene.after(120)
        scene.poll("rack1/1", at("pool.kz", active=False), at("other.com", active=False))
        (record,) = await scene.after(120)
        assert (record["ev"], record["was"], record["now"]) == ("pool_setup", "Pool KZ", "Pool KZ + other.com")
        assert record["detail"]["verdicts"] == [["Pool KZ", "accredited"], ["other.com", "unlisted"]]
        assert "due" not in record["detail"]
        scene.poll("rack1/1", at("pool.kz"), at("third.com", active=False))
        scene.poll("rack1/1", at("pool.kz"), at("other.com", active=False))
        assert await scene.after(1200) == []


@pytest.mark.parametrize("name", [seen.FILE, accredited.FILE, register.FILE, seen.SECRET_FILE])
async def test_a_damaged_file_is_told_and_done_without(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(tmp_path / name)
    scene = Scene(tmp_path)
    await scene.watch.open()
    scene.poll("rack1/1", at("pool.kz"))
    assert {r["ev"] for r in await scene.after(120)} == {"asic_identity", "pool_switch"}
    assert "inventory_file_refused" in capfd.readouterr().out


def damage(path: Path) -> None:
    if path.name == seen.SECRET_FILE:
        path.mkdir()
    else:
        path.write_bytes(b'{"v": ')


async def test_a_list_damaged_while_the_agent_runs_ends_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        scene.poll("rack1/1", at("pool.kz"))
        await scene.after(120)
        damage(tmp_path / accredited.FILE)
        damage(tmp_path / register.FILE)
        await scene.after(10)
        scene.poll("rack1/1", at("other.com"))
        assert len(scene.switches(await scene.after(120))) == 1


async def test_days_off_that_leave_no_working_day_leave_the_deadline_open(tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        today = date(2026, 9, 1)
        off = tuple(date.fromordinal(today.toordinal() + n) for n in range(400))
        accredited.store(tmp_path, Accredited(LIST.pools, off=off))
        await scene.after(10)
        scene.poll("rack1/1", at("pool.kz"))
        await scene.after(120)
        scene.poll("rack1/1", at("other.com"))
        (record,) = scene.switches(await scene.after(120))
        assert (record["detail"]["due"], record["detail"]["holidays_known"]) == (None, False)


async def test_the_old_pool_was_last_seen_before_the_machine_slept(tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        scene.poll("rack1/1", at("pool.kz"))
        await scene.after(120)
        scene.poll("rack1/1", at("pool.kz"))
        old_ms = scene.clock.now_ms()
        scene.poll("rack1/1", at("pool.kz", active=False), at("other.com", active=False), advance_s=30)
        scene.poll("rack1/1", at("pool.kz", active=False), at("other.com", active=False), advance_s=3600)
        scene.poll("rack1/1", at("other.com"), advance_s=30)
        (record,) = scene.switches(await scene.after(120))
        assert record["detail"]["last_seen_old"] == old_ms


async def test_a_switch_that_was_not_told_before_a_restart_is_told_after_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        scene.poll("rack1/1", at("pool.kz"))
        await scene.after(120)
        scene.poll("rack1/1", at("other.com"), advance_s=5)
        first_ms = scene.clock.now_ms()
        await scene.watch._save()
        scene.watch = scene.start()
        await scene.watch.open()
        scene.clock.wall_ms += 86_400_000
        scene.poll("rack1/1", at("other.com"))
        (record,) = scene.switches(await scene.after(120))
        assert (record["was"], record["now"], record["detail"]["first_seen"]) == ("Pool KZ", "other.com", first_ms)
        assert scene.switches(await scene.after(2000)) == []


async def test_a_pool_that_gets_a_name_on_the_list_is_no_switch(tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        scene.poll("rack1/1", at("new.kz"))
        await scene.after(120)
        accredited.store(tmp_path, Accredited((*LIST.pools, ListedPool("New Pool", ("new.kz",)))))
        await scene.after(10)
        scene.poll("rack1/1", at("new.kz"), at("pool.kz", active=False))
        assert scene.switches(await scene.after(1200)) == []
        scene.poll("rack1/1", at("pool.kz"))
        (record,) = scene.switches(await scene.after(120))
        assert (record["was"], record["now"]) == ("New Pool", "Pool KZ")


async def test_machines_that_lie_anew_each_time_give_a_bounded_number_of_records(tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        told: list[dict[str, Any]] = []
        for turn in range(90):
            for machine in RACK1:
                scene.poll(
                    machine,
                    at(f"p{turn}.{machine.replace('/', '-')}.com"),
                    serial=f"S{turn}{machine}",
                    firmware=f"{turn}",
                )
            told += await scene.after(20)
        per_kind = [r for r in told if r["ev"] == "pool_switch"]
        identities = [r for r in told if r["ev"] == "asic_identity"]
    # Half an hour holds at most two windows of a quarter and the one that was open before.
    assert 0 < len(per_kind) <= 3 * (MAX_PER_GROUP + 1)
    assert 0 < len(identities) <= 3 * (MAX_PER_GROUP + 1)
    assert any(r["now"] == MANY for r in per_kind)
    assert all(len(json.dumps(r)) < 16_000 for r in told)


async def test_identity_changes_are_told_by_group_and_kind(tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        entries = tuple(Entry(row=n, serial=f"SNRACK1X{n}", model="Antminer S21") for n in range(1, 24))
        register.store(tmp_path, RegisterList("list.csv", "0" * 64, 0, entries))
        for machine in RACK1:
            scene.poll(machine)
        told = await scene.after(120)
        by_kind = {(r["obj"], r["now"]): r["detail"] for r in told if r["ev"] == "asic_identity"}
        assert by_kind["rack1", "first_seen"]["machines"] == 24
        assert by_kind["register", "imported"]["machines"] == 23
        assert [row[0] for row in by_kind["rack1", "unregistered"]["list"]] == ["rack1/24"]
        for machine in RACK1:
            scene.poll(machine, firmware="v2")
        scene.poll("rack1/3", serial="OTHER", firmware="v2")
        told = await scene.after(1000)
        by_kind = {(r["obj"], r["now"]): r["detail"] for r in told}
        assert by_kind["rack1", "firmware_changed"]["machines"] == 24
        assert by_kind["rack1", "firmware_changed"]["list"][0] == ["rack1/1", "v1", "v2"]
        assert by_kind["rack1", "replaced"]["list"] == [["rack1/3", "SNRACK1X3", "OTHER"]]
        assert scene.watch.summary()["unregistered"] == 2
        for record in told:
            canonical.encode(record)


async def test_what_was_seen_is_read_back_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    async with opened(tmp_path) as scene:
        scene.poll("rack1/1", at("pool.kz"))
        await scene.watch._save()
        found = seen.load(tmp_path)
        assert found is not None
        row = found[1]["rack1/1"]
        assert (row.serial, row.pools[0].host, row.pools[0].worker) == ("SNRACK1X1", "pool.kz", "….rig1")
    assert (tmp_path / seen.SECRET_FILE).stat().st_mode & 0o077 == 0
    (tmp_path / seen.FILE).write_bytes(b"{}\n")
    with pytest.raises(AgentError, match="remove it"):
        seen.load(tmp_path)


async def test_the_watch_runs_and_saves_when_it_is_ended(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    task = asyncio.create_task(scene.watch.run())
    async with asyncio.timeout(20):
        while not (tmp_path / seen.SECRET_FILE).exists() or scene.watch._pools is None:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
    scene.poll("rack1/1", at("pool.kz"))
    scene.watch.take("no-such/1", MinerStatus(family="x", serial="A"), 1)
    scene.watch.take("rack1/2", None, 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    found = seen.load(tmp_path)
    assert found is not None
    assert list(found[1]) == ["rack1/1"]


# grouping -----------------------------------------------------------------------------------------------------------


def test_a_change_waits_for_its_neighbours_and_is_not_repeated_within_a_quarter_of_an_hour() -> None:
    grouped = Grouped()
    change = Change("pool_switch", "g", "a", "b")
    grouped.add(change, "g/1", 0, old_ms=-5)
    grouped.add(change, "g/2", 30_000, old_ms=-3)
    assert grouped.due(59_999) == []
    ((told, pending),) = grouped.due(60_000)
    assert (told, sorted(pending.machines), pending.first_ms, pending.old_ms) == (change, ["g/1", "g/2"], 0, -3)
    grouped.add(change, "g/3", 70_000)
    assert grouped.due(900_000) == []
    assert [sorted(p.machines) for _, p in grouped.due(960_000)] == [["g/3"]]


def test_a_change_undone_before_it_was_told_is_not_told() -> None:
    grouped = Grouped()
    kept = grouped.add(Change("pool_switch", "g", "a", "b"), "g/1", 0)
    grouped.remove(kept, "g/1")
    assert grouped.due(10**9) == []


def test_a_clock_set_back_delays_no_record_for_ever() -> None:
    grouped = Grouped()
    grouped.add(Change("pool_switch", "g", "a", "b"), "g/1", 10**12)
    assert len(grouped.due(10**11)) == 1
