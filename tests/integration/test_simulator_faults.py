"""A simulated site broken on purpose: every fault as its readers see it, and hostile bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import simulator
from config.loader import load_site
from config.site import Site
from drivers.asic.identify import driver_for
from simulator.faults import FaultError
from simulator.machine import MachineState
from simulator.site import SimulatedSite

SITE_FILE = Path(simulator.__file__).parent / "data" / "two-incomers.yaml"
RAW: dict[str, Any] = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
SITE = load_site(SITE_FILE)
WITHOUT_MINERS = Site.model_validate({**RAW, "miners": []})
"""Starts faster; its mining loads draw their rated share."""


@asynccontextmanager
async def running(site: Site = WITHOUT_MINERS, *, time_scale: float = 400.0) -> AsyncIterator[SimulatedSite]:
    simulated = SimulatedSite(site, time_scale=time_scale, seed=3, step_s=0.02, ephemeral=True)
    await simulated.start()
    try:
        yield simulated
    finally:
        await simulated.stop()


async def until(condition: Callable[[], bool], what: str, limit_s: float = 8.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {limit_s} s: {what}"
        await asyncio.sleep(0.01)


async def ask(simulated: SimulatedSite, link: str, unit: int, pdu: bytes, limit_s: float = 0.3) -> bytes | None:
    """One raw question; ``None`` for silence."""
    reader, writer = await asyncio.open_connection(*simulated.addresses[link])
    try:
        writer.write(b"\x00\x07\x00\x00" + (len(pdu) + 1).to_bytes(2, "big") + bytes((unit,)) + pdu)
        async with asyncio.timeout(limit_s):
            head = await reader.readexactly(7)
            return await reader.readexactly(int.from_bytes(head[4:6], "big") - 1)
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        return None
    finally:
        writer.close()


def read(function: int, addr: int, count: int) -> bytes:
    return bytes((function,)) + addr.to_bytes(2, "big") + count.to_bytes(2, "big")


POWER = read(4, 52, 2)


class TestFaults:
    async def test_a_dead_unit_is_silent_and_its_neighbours_answer(self) -> None:
        async with running() as site:
            site.faults.set("dead", "em-1")
            assert await ask(site, "meters", 1, POWER) is None
            assert await ask(site, "meters", 3, POWER) is not None
            site.faults.clear("dead", "em-1")
            assert await ask(site, "meters", 1, POWER) is not None

    async def test_a_dead_link_takes_all_its_units_with_it(self) -> None:
        async with running() as site:
            site.faults.set("dead", "meters")
            assert await ask(site, "meters", 1, POWER) is None
            assert await ask(site, "meters", 3, POWER) is None
            site.faults.clear_all()
            assert await ask(site, "meters", 1, POWER) is not None

    async def test_a_gateway_that_loses_its_supply_silences_the_meters_behind_it(self) -> None:
        raw = yaml.safe_load(SITE_FILE.read_text(encoding="utf-8"))
        raw["miners"] = []
        raw["equipment"] = [{"id": "gw", "kind": "gateway", "fed_from": "BOARD1"}]
        raw["links"][0]["via"] = ["gw"]
        async with running(Site.model_validate(raw)) as site:
            assert await ask(site, "meters", 1, POWER) is not None
            site.faults.set("open", "KM1")
            await until(lambda: "BOARD1" not in site.plant.energised, "the gateway's board is dark")
            assert await ask(site, "meters", 1, POWER) is None
            assert await ask(site, "relays", 1, read(1, 0, 1)) is not None

    async def test_a_slow_unit_answers_later_and_does_not_hold_up_others_of_its_connection(self) -> None:
        async with running() as site:
            site.faults.set("slow", "em-1", seconds=0.3)
            reader, writer = await asyncio.open_connection(*site.addresses["meters"])
            writer.write(b"\x00\x01\x00\x00\x00\x06\x01" + POWER + b"\x00\x02\x00\x00\x00\x06\x03" + POWER)
            first = await reader.readexactly(7 + 6)
            second = await reader.readexactly(7 + 6)
            writer.close()
            assert (first[1], second[1]) == (2, 1)

    async def test_an_exception_and_nonsense_and_frozen_registers(self) -> None:
        async with running() as site:
            site.faults.set("exception", "em-1", code=4)
            assert await ask(site, "meters", 1, POWER) == b"\x84\x04"
            site.faults.clear("exception", "em-1")
            site.faults.set("nonsense", "em-1")
            assert len({await ask(site, "meters", 1, POWER) for _ in range(4)}) == 4
            site.faults.clear("nonsense", "em-1")
            site.faults.set("frozen", "em-1")
            lied = await ask(site, "meters", 1, POWER)
            site.plant.operate("QF3", False)
            await until(lambda: "FANS" not in site.plant.energised, "the fans stop")
            assert await ask(site, "meters", 1, POWER) == lied
            site.faults.clear("frozen", "em-1")
            assert await ask(site, "meters", 1, POWER) != lied

    async def test_a_welded_contact_stays_closed_with_its_coil_off_and_says_so(self) -> None:
        async with running() as site:
            site.faults.set("welded", "KM1")
            assert await ask(site, "relays", 1, b"\x05\x00\x00\x00\x00") == b"\x05\x00\x00\x00\x00"
            assert await ask(site, "relays", 1, read(1, 0, 1)) == b"\x01\x01\x00"
            site.plant.step(site.plant.now_s + 0.2)  # longer than the contacts' travel
            assert await ask(site, "relays", 1, read(2, 0, 2)) == b"\x02\x01\x02"
            assert "MINERS1" in site.plant.energised

    async def test_an_auxiliary_contact_lies_while_power_flows(self) -> None:
        async with running() as site:
            site.faults.set("aux_lies", "KM1", shows="open")
            assert await ask(site, "relays", 1, read(2, 0, 2)) == b"\x02\x01\x01"
            assert site.plant.node_power_w["KM1"] > 0
            site.faults.set("aux_lies", "KM1", shows="faulty")
            assert await ask(site, "relays", 1, read(2, 0, 2)) == b"\x02\x01\x03"

    async def test_reclosing_puts_the_load_back_once(self) -> None:
        async with running() as site:
            site.faults.set("reclose", "QF5", after_s=0.2, times=1)
            site.faults.set("trip", "QF5")
            await until(lambda: not site.plant.switches["QF5"].closed, "it trips")
            await until(lambda: site.plant.switches["QF5"].closed, "it closes again")
            assert site.plant.switches["QF5"].protection_trip
            site.faults.set("reset", "QF5")
            site.faults.set("open", "QF5")
            await until(lambda: not site.plant.switches["QF5"].closed, "opened by hand")
            site.plant.step(site.plant.now_s + 0.5)  # longer than the dead time
            assert not site.plant.switches["QF5"].closed

    async def test_swapped_wires_open_the_other_switch(self) -> None:
        async with running() as site:
            site.faults.set("swapped", "io-1", first="relay_1", second="relay_3")
            await ask(site, "relays", 1, b"\x05\x00\x00\x00\x00")  # meant for KM1; KM3 closes on a coil that is off
            await ask(site, "relays", 1, b"\x05\x00\x02\xff\x00")  # meant for KM3, drives KM1's coil on
            site.now()
            assert site.plant.switches["KM1"].closed
            await ask(site, "relays", 1, b"\x05\x00\x02\x00\x00")
            await until(lambda: not site.plant.switches["KM1"].closed, "the other output opens KM1")

    async def test_a_feeder_trip_shows_lockout_and_forbids_closing_until_reset(self) -> None:
        async with running() as site:
            site.faults.set("trip", "QF5", lockout=True)
            await until(lambda: not site.plant.switches["QF5"].closed, "it trips")
            assert await ask(site, "relays", 1, read(2, 2, 4)) == b"\x02\x01\x0d"  # open, lockout, protection trip
            site.faults.set("close", "QF5")
            site.plant.step(site.plant.now_s + 0.2)  # longer than the contacts' travel
            assert not site.plant.switches["QF5"].closed
            site.faults.set("reset", "QF5")
            await until(lambda: site.plant.operate("QF5", True) or site.plant.switches["QF5"].closed, "it closes", 12)

    async def test_local_ignores_coils_and_a_foreign_write_moves_them(self) -> None:
        async with running() as site:
            site.faults.set("local", "KM1")
            site.faults.set("write", "io-1", output="relay_1", level=False)
            site.plant.step(site.plant.now_s + 0.2)  # longer than the contacts' travel
            assert site.plant.switches["KM1"].closed
            assert await ask(site, "relays", 1, read(1, 0, 1)) == b"\x01\x01\x00"

    async def test_saon_opens_the_feeder_and_the_module_counts_its_short_contact(self) -> None:
        async with running() as site:
            assert await ask(site, "relays", 2, read(4, 26, 2)) == b"\x04\x04\x00\x00\x00\x00"
            site.faults.set("saon", "QF6")
            await until(lambda: not site.plant.switches["QF6"].closed, "САОН opens it")
            await until(lambda: not site.plant.wiring.level("io-2", "di_6"), "the contact is over")
            assert await ask(site, "relays", 2, read(4, 26, 2)) == b"\x04\x04\x00\x00\x00\x01"

    async def test_a_machine_that_refuses_says_yes_and_mines_on_and_one_wakes_by_itself(self) -> None:
        async with running(SITE) as site:
            refuser, waker = site.plant.machines["lux/1"], site.plant.machines["stock/2"]
            site.faults.set("refuses_sleep", "lux/1")
            site.faults.set("wakes_itself", "stock", after_s=0.2)
            site.machines["lux/1"].request_sleep()
            site.machines["stock/2"].request_sleep()
            await until(lambda: waker.state is MachineState.ASLEEP, "it falls asleep")
            await until(lambda: waker.state is MachineState.MINING, "it wakes by itself")
            assert refuser.state is MachineState.MINING
            driver = driver_for(
                "luxos", "127.0.0.1", rpc_port=site.addresses["lux/1"][1], http_port=None, writes_allowed=True
            )
            assert (await driver.status()).sleeping is False

    async def test_a_blackout_silences_everything_without_a_battery_and_machines_return_by_themselves(self) -> None:
        async with running(SITE) as site:
            site.faults.set("blackout", "*")
            await until(lambda: not site.plant.energised, "all is dark")
            assert await ask(site, "meters", 3, POWER) is None  # no battery
            assert await ask(site, "meters", 1, POWER) == b"\x04\x04\x00\x00\x00\x00"  # battery: reads 0 W
            site.faults.clear("blackout", "*")
            await until(
                lambda: {m.state for m in site.plant.machines.values()} == {MachineState.MINING}, "all machines mine"
            )
            assert await ask(site, "meters", 3, POWER) is not None

    @pytest.mark.parametrize(
        ("kind", "target", "given", "said"),
        [
            ("welded", "em-1", {}, "no such kind"),
            ("explode", "KM1", {}, "no such kind"),
            ("slow", "em-1", {"seconds": "long"}, "expected a number"),
            ("aux_lies", "KM1", {"shows": "upside_down"}, "expected one of"),
            ("refuses_sleep", "stock/9999", {}, "expected a machine"),
            ("blackout", "BUS1", {}, "expected a grid connection"),
            ("open", "BUS1", {}, "expected a switch"),
        ],
    )
    async def test_a_fault_that_is_none_is_refused_in_words(
        self, kind: str, target: str, given: dict[str, Any], said: str
    ) -> None:
        site = SimulatedSite(SITE, ephemeral=True)
        with pytest.raises(FaultError, match=said):
            site.faults.set(kind, target, **given)
        assert site.faults.active() == ()


class TestHostileInput:
    @pytest.mark.parametrize(
        "junk",
        [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x00\x01\x00\x00\xff\xff\x01\x03",
            b"\x00\x01\x00\x05\x00\x06\x01" + POWER,
            b"\x00\x01\x00\x00\x00\x01\x01\x03\x00\x00\x00\x01",
        ],
    )
    async def test_what_is_no_modbus_ends_its_own_connection_only(self, junk: bytes) -> None:
        async with running() as site:
            reader, writer = await asyncio.open_connection(*site.addresses["meters"])
            writer.write(junk)
            try:
                async with asyncio.timeout(2):
                    assert await reader.read() == b""
            except ConnectionError:
                pass
            writer.close()
            assert await ask(site, "meters", 1, POWER) is not None

    @pytest.mark.parametrize(
        ("unit", "pdu", "answer"),
        [
            (1, b"\x2b\x0e\x01\x00", b"\xab\x01"),
            (1, read(1, 0, 1), b"\x81\x01"),
            (1, b"\x06\x00\x00\x00\x01", b"\x86\x01"),
            (1, b"\x10\x00\x00\x00\x01\x02\x00\x01", b"\x90\x01"),
            (1, read(4, 52, 0), b"\x84\x03"),
            (1, read(4, 52, 126), b"\x84\x03"),
            (1, read(4, 40_000, 2), b"\x84\x02"),
            (1, b"\x04\x00", b"\x84\x03"),
        ],
    )
    async def test_a_meter_refuses_what_it_has_not_and_every_write(self, unit: int, pdu: bytes, answer: bytes) -> None:
        async with running() as site:
            assert await ask(site, "meters", unit, pdu) == answer

    @pytest.mark.parametrize(
        ("pdu", "answer"),
        [
            (b"\x05\x00\x00\x55\x00", b"\x85\x03"),
            (b"\x05\x00\x63\xff\x00", b"\x85\x02"),
            (b"\x0f\x00\x00\x00\x02\x01", b"\x8f\x03"),
            (b"\x0f\x00\x05\x00\x02\x01\x03", b"\x8f\x02"),
            (read(1, 0, 2001), b"\x81\x03"),
        ],
    )
    async def test_a_relay_refuses_toggles_unknown_coils_and_broken_lengths_and_moves_nothing(
        self, pdu: bytes, answer: bytes
    ) -> None:
        async with running() as site:
            before = dict(site.plant.relays["io-1"].outputs)
            assert await ask(site, "relays", 1, pdu) == answer
            assert site.plant.relays["io-1"].outputs == before
