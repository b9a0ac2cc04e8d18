"""Guessing a model: every simulated one is recognised or its likeness named; wrong orders and bases are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import pytest
from word_unit import WordUnit, live_registers, meter_unit, served

from drivers.modbus.guess import AMBIGUOUS, UNNAMED, Candidate, fit, guess, identity, variant
from drivers.modbus.link import ModbusLink
from drivers.modbus.looking import NobodyThere, Registers
from drivers.modbus.probe import probe, running
from drivers.modbus.sunspec import PROFILES
from drivers.modbus.url import parse_url
from drivers.profiles.loader import load_profiles
from drivers.profiles.model import MeterProfile
from simulator.devices.meter import MeterUnit
from simulator.devices.modbus import ModbusError, ModbusTcpServer, Unit, answer_pdu

METERS: dict[str, MeterProfile] = {
    p.id: p for p in load_profiles().values() if isinstance(p, MeterProfile) and p.id not in PROFILES
}


async def ranking_of(unit: Unit, profiles: Mapping[str, MeterProfile] = METERS) -> tuple[Candidate, ...]:
    async with served({1: unit}) as server, on(server) as link:
        return await guess(Registers(link, 1), profiles.values())


def on(server: ModbusTcpServer, timeout_s: float = 0.5) -> AbstractAsyncContextManager[ModbusLink]:
    return running(parse_url(f"modbus://127.0.0.1:{server.port}")[0], timeout_s)


class Shifted:
    """A meter whose addresses are off by some, or whose words are turned round within each number."""

    def __init__(self, inner: MeterUnit, shift: int) -> None:
        self._inner, self._shift = inner, shift

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def read_registers(self, table: str, addr: int, count: int, /) -> Sequence[int]:
        if addr - self._shift < 0:
            raise ModbusError(2)
        return self._inner.read_registers(table, addr - self._shift, count)


class Ignoring:
    """A server that says nothing where another would refuse, as some meters do."""

    def __init__(self, units: Mapping[int, MeterUnit]) -> None:
        self.units, self.ignored, self.port = units, 0, 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(7)
                pdu = await reader.readexactly(int.from_bytes(head[4:6], "big") - 1)
                answer = answer_pdu(self.units[head[6]], pdu)
                if answer[0] & 0x80:
                    self.ignored += 1
                    continue
                writer.write(head[:4] + (len(answer) + 1).to_bytes(2, "big") + head[6:7] + answer)
        writer.close()


TELLING = {"voltage_l1_n_v", "frequency_hz", "current_l1_a"}
"""Without any of these a model's numbers prove nothing."""
NOT_SIMULATED = {"carlogavazzi-em330-em340"}
"""Models whose identity registers the simulated meter does not hold."""
TOLD_APART = sorted(p.id for p in METERS.values() if TELLING & set(p.point_ids) and p.id not in NOT_SIMULATED)


@pytest.mark.parametrize("profile_id", TOLD_APART)
async def test_every_simulated_model_is_recognised_or_named_among_those_that_look_alike(profile_id: str) -> None:
    profile = METERS[profile_id]
    # 8 kW: within the range of every model, those that count in small steps without transformers too.
    unit = meter_unit(profile, live_registers(8_000.0, 2_000.0))
    async with served({1: unit}) as server, on(server) as link:
        registers = Registers(link, 1)
        told = await fit(registers, profile)
        assert identity(profile, registers) is not False, "the simulated meter is another one by its own registers"
        ranking = await guess(registers, METERS.values())
    best = ranking[0]
    assert profile_id == best.profile.id or profile_id in best.same_as
    assert best.as_written
    assert told.confidence > 0.7, told.against
    if best.same_as:
        assert best.confidence <= AMBIGUOUS
    elif not best.identified:
        assert best.confidence <= UNNAMED
    assert best.reasons


async def test_identity_registers_decide_before_anything_is_guessed() -> None:
    async with served({1: meter_unit(METERS["eastron-sdm630"])}) as server, on(server) as link:
        registers = Registers(link, 1)
        ranking = await guess(registers, METERS.values())
    assert ranking[0].identified is True
    assert ranking[0].confidence > 0.9
    assert registers.requests < 120


async def test_a_meter_with_its_words_the_other_way_round_is_told_so() -> None:
    turned = variant(METERS["chint-dtsu666"], swapped=True, shift=0)
    assert turned is not None
    best = (await ranking_of(meter_unit(turned, live_registers(8_000.0, 2_000.0))))[0]
    assert (best.profile.id, best.swapped, best.shift) == ("chint-dtsu666", True, 0)


@pytest.mark.parametrize("shift", [1, -1])
async def test_an_address_base_off_by_one_is_told_so(shift: int) -> None:
    # 16-bit values throughout would fit at odd addresses too; 32-bit ones do not.
    unit = Shifted(meter_unit(METERS["schneider-iem3000"], live_registers(8_000.0, 2_000.0)), shift)
    best = (await ranking_of(unit))[0]  # type: ignore[arg-type]  # it forwards what it does not change
    assert "schneider-iem3000" in {best.profile.id, *best.same_as}
    assert best.shift == shift


@pytest.mark.parametrize("profile_id", sorted(p.id for p in METERS.values() if not TELLING & set(p.point_ids)))
async def test_a_model_without_telling_points_is_never_named_with_confidence(profile_id: str) -> None:
    ranking = await ranking_of(meter_unit(METERS[profile_id], live_registers(8_000.0, 2_000.0)))
    assert all(c.confidence <= AMBIGUOUS for c in ranking)


async def test_what_cannot_be_told_apart_is_said_to_be_so() -> None:
    best = (await ranking_of(meter_unit(METERS["janitza-umg96rm"])))[0]
    assert "janitza-umg96rm" in {best.profile.id, *best.same_as}
    assert best.same_as
    assert best.confidence <= AMBIGUOUS


async def test_a_dead_meter_or_a_device_of_zeros_is_no_meter() -> None:
    zeros = WordUnit(dict.fromkeys(range(6000), 0))
    ranking = await ranking_of(zeros)
    assert all(c.confidence < 0.2 for c in ranking)


async def test_a_relay_board_that_answers_registers_is_no_meter_and_is_not_touched() -> None:
    board = WordUnit(dict.fromkeys(range(16), 255))
    async with served({1: board}) as server:
        found = await probe(f"modbus://127.0.0.1:{server.port}/1", timeout_s=0.3)
    assert found["responds"] is True
    assert found["profile"] is None
    assert found["reason"]
    assert (board.writes, board.bit_reads) == (0, 0)


async def test_nobody_there_is_said_after_few_tries() -> None:
    async with (
        served({2: WordUnit()}) as server,
        running(parse_url(f"modbus://127.0.0.1:{server.port}")[0], 0.1) as link,
    ):
        registers = Registers(link, 1)
        with pytest.raises(NobodyThere):
            await guess(registers, METERS.values())
    assert registers.requests <= 6


async def test_a_unit_that_is_silent_about_what_it_does_not_have_is_still_guessed() -> None:
    few = {p: METERS[p] for p in ("chint-dtsu666", "abb-b23-b24", "finder-7m38")}
    unit = meter_unit(METERS["chint-dtsu666"], live_registers(8_000.0, 2_000.0))
    server = Ignoring({1: unit})
    await server.start()
    try:
        async with running(parse_url(f"modbus://127.0.0.1:{server.port}")[0], 0.1) as link:
            ranking = await guess(Registers(link, 1), few.values())
    finally:
        await server.stop()
    assert ranking[0].profile.id == "chint-dtsu666"
    assert server.ignored > 3
