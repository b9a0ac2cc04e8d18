"""Relay boards over the link: each actuator's level or pulse, positions by two bits, coils that others move."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from drivers.capabilities import Position, Switch, WriteStatus
from drivers.modbus import (
    InputRef,
    ModbusLink,
    RelayDevice,
    RelaySwitch,
)
from drivers.modbus.pdu import write_coil_request
from tests.integration.modbus_server import Server, relay_profile, running, serving, until


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as served:
        yield served


@pytest.mark.parametrize(
    ("actuator", "opens", "closes"),
    [
        ("contactor_no", bytes.fromhex("0500000000"), bytes.fromhex("050000ff00")),
        ("contactor_nc", bytes.fromhex("050000ff00"), bytes.fromhex("0500000000")),
        ("undervoltage_release", bytes.fromhex("0500000000"), bytes.fromhex("050000ff00")),
        ("shunt_trip", bytes.fromhex("0502000005"), None),
        ("latching", bytes.fromhex("0502000005"), bytes.fromhex("0502010005")),
        ("motor_operator", bytes.fromhex("0502000005"), bytes.fromhex("0502010005")),
    ],
)
async def test_each_actuator_has_its_own_level_or_device_timed_pulse(
    server: Server, actuator: str, opens: bytes, closes: bytes | None
) -> None:
    async with running(server.port) as link:
        relay = RelayDevice("r1", 3, relay_profile(), link)
        two_coils = actuator in {"latching", "motor_operator"}
        switch = RelaySwitch(
            relay,
            "relay_1",
            actuator,  # type: ignore[arg-type]  # from the table above
            InputRef(relay, "di_1"),
            InputRef(relay, "di_2"),
            close_output="relay_2" if two_coils else None,
            pulse_ms=500,
        )
        assert isinstance(switch, Switch)
        assert (await switch.open()).status is WriteStatus.ACKNOWLEDGED
        assert [pdu for _, _, pdu in server.log if pdu[0] == 5] == [opens]
        server.log.clear()
        closed = await switch.close()
        writes = [pdu for _, _, pdu in server.log if pdu[0] == 5]
        assert writes == ([] if closes is None else [closes])
        assert closed.status is (WriteStatus.REFUSED if closes is None else WriteStatus.ACKNOWLEDGED)


@pytest.mark.parametrize("profile", ["wirenboard-wb-mr", "icpdas-et7000", "moxa-iologik-e1211"])
@pytest.mark.parametrize("actuator", ["shunt_trip", "latching", "motor_operator"])
def test_a_board_that_cannot_time_a_pulse_is_refused_for_pulsed_actuators(profile: str, actuator: str) -> None:
    link = ModbusLink("modbus://127.0.0.1:502", name="x")
    relay = RelayDevice("r1", 1, relay_profile(profile), link)
    with pytest.raises(ValueError, match="cannot time a pulse"):
        RelaySwitch(relay, "relay_1", actuator, None, None, pulse_ms=500)  # type: ignore[arg-type]  # from the table above


@pytest.mark.parametrize(
    ("open_contact", "closed_contact", "position"),
    [
        (True, False, Position.OPEN),
        (False, True, Position.CLOSED),
        (False, False, Position.MOVING),
        (True, True, Position.FAULTY),
    ],
)
async def test_position_is_two_bits(
    server: Server, open_contact: bool, closed_contact: bool, position: Position
) -> None:
    server.inputs = {0: open_contact, 1: not closed_contact, 2: True}
    async with running(server.port) as link:
        relay = RelayDevice("r1", 3, relay_profile(), link)
        switch = RelaySwitch(
            relay,
            "relay_1",
            "contactor_no",
            InputRef(relay, "di_1"),
            InputRef(relay, "di_2", inverted=True),
            readiness={"remote": InputRef(relay, "di_3")},
        )
        state = await switch.read()
    assert state.position is position
    assert state.remote is True
    assert state.lockout is None
    assert state.coil is False


async def test_a_board_that_does_not_answer_is_unknown_not_open(server: Server) -> None:
    server.dead.add(3)
    async with running(server.port) as link:
        relay = RelayDevice("r1", 3, relay_profile(), link)
        switch = RelaySwitch(relay, "relay_1", "contactor_no", InputRef(relay, "di_1"), InputRef(relay, "di_2"))
        state = await switch.read()
    assert state.position is Position.UNKNOWN
    assert state.coil is None
    assert state.detail


async def test_a_coil_that_someone_else_moved_is_reported_and_our_own_write_is_not(server: Server) -> None:
    seen: list[tuple[str, bool, bool]] = []
    images = 0

    def count(image: object) -> None:
        nonlocal images
        images += 1

    async with running(server.port) as link:
        relay = RelayDevice("r1", 3, relay_profile(), link)
        relay.watch(0.02, lambda output, was, now: seen.append((output, was, now)), count)
        await until(lambda: images >= 2)
        await relay.write("relay_1", True)
        after = images
        await until(lambda: images >= after + 3)
        assert seen == []
        server.coils[1] = True
        await until(lambda: bool(seen))
        after = images
        await until(lambda: images >= after + 3)
    assert seen == [("relay_2", False, True)]


async def test_an_acknowledged_write_whose_coil_reads_otherwise_is_unknown(server: Server) -> None:
    answer = server.answer
    server.answer = lambda pdu: pdu if pdu[0] == 5 else answer(pdu)  # type: ignore[method-assign]  # a board that lies
    async with running(server.port) as link:
        outcome = await RelayDevice("r1", 3, relay_profile(), link).write("relay_1", True)
    assert outcome.status is WriteStatus.UNKNOWN
    assert "coil reads off" in outcome.detail
    assert write_coil_request(0, 0xFF00) in [pdu for _, _, pdu in server.log]
