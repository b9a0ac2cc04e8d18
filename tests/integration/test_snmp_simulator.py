"""The simulated PDU, read and switched by net-snmp's tools, and given what is no message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyasn1.codec.ber import decoder
from pysnmp.proto import api

from drivers.snmp import load_pdu_profile, load_pdu_profiles
from drivers.snmp.decode import Raw, decode_measure
from drivers.snmp.entity import COLUMNS as SENSOR_COLUMNS
from simulator.devices.snmp_pdu import SnmpPduAgent
from tests.integration.snmp_sides import (
    APC,
    CONTROL,
    ENTERPRISE,
    GET_ONE,
    OUTLETS,
    READ,
    STATE,
    USERS,
    WRITE,
    Rack,
    net_snmp,
    serving,
)


@pytest.fixture
def rack() -> Rack:
    return Rack()


@pytest.fixture
async def agent(rack: Rack) -> AsyncIterator[SnmpPduAgent]:
    async with serving(rack) as served:
        yield served


@pytest.mark.parametrize("version", ["1", "2c"])
async def test_net_snmp_reads_the_simulated_pdu_in_the_devices_own_units(agent: SnmpPduAgent, version: str) -> None:
    oids = [f"{ENTERPRISE}.4.3.1.5.1", f"{ENTERPRISE}.4.3.1.9.1", f"{STATE}.3", f"{CONTROL}.3"]
    code, output = await net_snmp("snmpget", agent.port, *oids, version=version)
    assert code == 0, output
    values = [line.rpartition(" ")[2] for line in output.splitlines()]
    assert values == ["8400", "19516", "2", "1"], "0.01 kW; 0.1 kWh, full ones only; state on = 2; command on = 1"


async def test_net_snmp_walks_the_outlets_in_bulk(agent: SnmpPduAgent) -> None:
    code, output = await net_snmp("snmpbulkwalk", agent.port, f"{ENTERPRISE}.9.4.3.1.7")
    assert code == 0, output
    lines = [line for line in output.splitlines() if "No more variables" not in line]
    assert lines == [f".{ENTERPRISE}.9.4.3.1.7.{n} = INTEGER: 3500" for n in range(1, OUTLETS + 1)]


@pytest.mark.parametrize("version", ["1", "2c"])
async def test_net_snmp_walks_the_whole_tree_in_order_and_to_its_end(agent: SnmpPduAgent, version: str) -> None:
    code, output = await net_snmp("snmpwalk", agent.port, "1.3.6.1", version=version)
    assert code == 0, output
    lines = [line for line in output.splitlines() if "= " in line and "No more variables" not in line]
    oids = [tuple(map(int, line.split(" ")[0].strip(".").split("."))) for line in lines]
    wanted = [oid for oid in oids if len(oid) > 7]
    assert wanted == sorted(set(wanted))
    assert len([oid for oid in wanted if ".".join(map(str, oid)).startswith(STATE)]) == OUTLETS


async def test_net_snmp_switches_an_outlet_with_the_commands_numbers(agent: SnmpPduAgent, rack: Rack) -> None:
    code, output = await net_snmp("snmpset", agent.port, f"{CONTROL}.7", "i", "2", community=WRITE)
    assert code == 0, output
    assert rack.on[7] is False
    assert all(on for n, on in rack.on.items() if n != 7)
    await net_snmp("snmpset", agent.port, f"{CONTROL}.7", "i", "1", community=WRITE)
    assert rack.on[7] is True


@pytest.mark.parametrize(
    ("arguments", "community", "reason"),
    [
        ((f"{CONTROL}.1", "i", "2"), READ, "noAccess"),
        ((f"{CONTROL}.1", "i", "9"), WRITE, "wrongValue"),
        ((f"{CONTROL}.1", "s", "2"), WRITE, "wrongType"),
        ((f"{STATE}.1", "i", "1"), WRITE, "notWritable"),
        ((f"{CONTROL}.1", "i", "2", f"{CONTROL}.2", "i", "9"), WRITE, "wrongValue"),
    ],
)
async def test_a_refused_set_changes_nothing(
    agent: SnmpPduAgent, rack: Rack, arguments: tuple[str, ...], community: str, reason: str
) -> None:
    code, output = await net_snmp("snmpset", agent.port, *arguments, community=community)
    assert code != 0
    assert reason in output
    assert all(rack.on.values())


async def test_the_simulated_pdu_is_silent_to_a_stranger_and_without_power(agent: SnmpPduAgent, rack: Rack) -> None:
    code, output = await net_snmp("snmpget", agent.port, f"{STATE}.1", community="public", options=("-t", "0.3"))
    assert (code, "Timeout" in output) == (1, True)
    assert agent.denied == 1
    rack.has_power = False
    code, output = await net_snmp("snmpget", agent.port, f"{STATE}.1", options=("-t", "0.3"))
    assert (code, "Timeout" in output) == (1, True)


class Sink(asyncio.DatagramTransport):
    """Takes answers and checks that each is an SNMP message."""

    def sendto(self, data: bytes, addr: object = None) -> None:
        decoder.decode(data, asn1Spec=api.PROTOCOL_MODULES[int(api.decodeMessageVersion(data))].Message())


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 80))
def test_no_datagram_breaks_the_simulated_pdu(noise: bytes, at: int) -> None:
    agent = SnmpPduAgent(APC, rack := Rack(), 1, read_community=READ, write_community=WRITE)
    agent._transport = Sink()
    damaged = GET_ONE[:at] + noise + GET_ONE[at + len(noise) :]
    for datagram in (noise, damaged, GET_ONE + noise, b"\x30\x80" * 200):
        agent.datagram_received(datagram, ("127.0.0.1", 1))
    assert all(rack.on.values())
    assert agent.malformed >= 1


@pytest.mark.parametrize("profile_id", sorted(load_pdu_profiles()))
async def test_net_snmp_reads_of_every_simulated_pdu_what_its_profile_says(rack: Rack, profile_id: str) -> None:
    profile = load_pdu_profile(profile_id)
    agent = SnmpPduAgent(profile, rack, 3, read_community=READ, write_community=WRITE, users=USERS)
    await agent.start()
    oids = [column for measure in profile.points.values() for column in measure.columns()]
    oids += [f"{column}.1001" for column in SENSOR_COLUMNS] if profile.sensors else []
    oids = [oid for oid in dict.fromkeys(oids) if agent.tree.get(tuple(map(int, oid.split(".")))) is not None]
    for version in ("1", "2c", "3"):
        code, output = await net_snmp("snmpget", agent.port, *oids, version=version)
        assert code == 0, output
        shown = dict(line.removeprefix(".").split(" = ", 1) for line in output.splitlines())
        answers = {oid: raw_of(text) for oid, text in shown.items()}
        assert set(answers) == set(oids)
        for point, measure in profile.points.items():
            expected = {"power_w": 84_000.0, "voltage_l1_n_v": 231.0, "serial_number": "SIM0001"}.get(point)
            if expected is not None:
                assert decode_measure(measure, answers).value == expected
    state = None if profile.outlets is None else profile.outlets.state
    for version in () if state is None else ("2c", "3"):
        assert state is not None
        code, output = await net_snmp(
            "snmpbulkget", agent.port, str(state.walk_prefix), version=version, options=("-Cr3",)
        )
        assert code == 0, output
        assert [raw_of(line.split(" = ", 1)[1]) for line in output.splitlines()] == [state.on[0]] * 3
    agent.stop()


def raw_of(text: str) -> Raw:
    """A value as net-snmp prints it."""
    kind, _, value = text.partition(": ")
    return int(value) if kind in {"INTEGER", "Gauge32"} else value.strip('"').encode()
