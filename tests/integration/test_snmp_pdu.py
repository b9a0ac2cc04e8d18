"""The PDU driver and the simulated PDU: against each other, and the simulated one against net-snmp's tools."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto import api

from drivers.capabilities import Position, Switch, WriteStatus
from drivers.errors import ProfileError
from drivers.snmp import Community, Credentials, User, load_pdu_profile, load_pdu_profiles
from drivers.snmp.decode import Raw, decode_measure
from drivers.snmp.entity import COLUMNS as SENSOR_COLUMNS
from drivers.snmp.pdu import SnmpPdu
from drivers.snmp.probe import probe
from drivers.snmp.session import ForbiddenWrite, SnmpSession
from simulator.devices.snmp_pdu import SnmpPduAgent
from wire.quality import Quality

OUTLETS = 24
APC = load_pdu_profile("apc-rpdu2")
READ, WRITE = "tz-read", "tz-write"
ENTERPRISE = "1.3.6.1.4.1.318.1.1.26"
CONTROL = f"{ENTERPRISE}.9.2.4.1.5"
STATE = f"{ENTERPRISE}.9.2.3.1.5"


@dataclass
class Rack:
    """A PDU model with a constant load on each outlet."""

    on: dict[int, bool] = field(default_factory=lambda: dict.fromkeys(range(1, OUTLETS + 1), True))
    has_power: bool = True
    load_w: float = 3500.0
    stuck: bool = False

    def powered(self) -> bool:
        return self.has_power

    def power_w(self) -> float:
        return sum(self.outlet_power_w(n) for n in self.on)

    def energy_wh(self) -> float:
        return 1_951_699.0

    def voltage_v(self) -> float:
        return 231.0

    def outlet_on(self, outlet: int) -> bool:
        return self.on[outlet]

    def outlet_power_w(self, outlet: int) -> float:
        return self.load_w if self.on[outlet] else 0.0

    def set_outlet(self, outlet: int, on: bool) -> None:
        if not self.stuck:
            self.on[outlet] = on


Make = Callable[..., SnmpPdu]


@pytest.fixture
def rack() -> Rack:
    return Rack()


@pytest.fixture
async def agent(rack: Rack) -> AsyncIterator[SnmpPduAgent]:
    served = SnmpPduAgent(load_pdu_profile("apc-rpdu2"), rack, OUTLETS, read_community=READ, write_community=WRITE)
    await served.start()
    yield served
    served.stop()


@pytest.fixture
async def session() -> AsyncIterator[SnmpSession]:
    async with SnmpSession() as opened:
        yield opened


def device(session: SnmpSession, port: int, profile: str = "apc-rpdu2", **changes: object) -> SnmpPdu:
    given_: dict = {"timeout_s": 2.0, "allow_write": True, "read": READ, "write": WRITE, "version": "2c"} | changes
    version = given_.pop("version")
    write = given_.pop("write")
    secret = Credentials(Community(given_.pop("read"), version), Community(write, version) if write else None)
    return SnmpPdu("pdu-1", "127.0.0.1", port, load_pdu_profile(profile), secret, session, **given_)


AUTH, PRIV = "auth-key-of-test", "priv-key-of-test"
USERS = {User("reader", AUTH, PRIV, "sha256", "aes"): False, User("writer", AUTH, PRIV, "sha", "aes"): True}
V3 = ("-u", "reader", "-l", "authPriv", "-a", "SHA-256", "-A", AUTH, "-x", "AES", "-X", PRIV)


async def net_snmp(
    tool: str, port: int, *arguments: str, community: str = READ, version: str = "2c", options: tuple[str, ...] = ()
) -> tuple[int, str]:
    if shutil.which(tool) is None:
        pytest.skip(f"left out: {tool} of net-snmp is not installed")
    own = ("-c", community) if version != "3" else () if "-u" in options else V3
    fixed = ("-m", "", "-M", "", "-On", "-t", "2", "-r", "0", f"-v{version}", *own, *options, f"127.0.0.1:{port}")
    process = await asyncio.create_subprocess_exec(
        tool, *fixed, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


# --- the simulated PDU, read by net-snmp ----------------------------------------------------------------------------


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


def _get_one() -> bytes:
    rfc = api.PROTOCOL_MODULES[1]
    pdu = rfc.GetRequestPDU()
    rfc.apiPDU.set_defaults(pdu)
    rfc.apiPDU.set_varbinds(pdu, [(f"{STATE}.1", rfc.Null(""))])
    message = rfc.Message()
    rfc.apiMessage.set_defaults(message)
    rfc.apiMessage.set_community(message, READ)
    rfc.apiMessage.set_pdu(message, pdu)
    return bytes(encoder.encode(message))


GET_ONE = _get_one()


# --- the driver -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "2c"])
@pytest.mark.parametrize("profile_id", sorted(load_pdu_profiles()))
async def test_every_profile_reads_and_switches_its_own_simulated_pdu(
    session: SnmpSession, rack: Rack, profile_id: str, version: str
) -> None:
    agent = SnmpPduAgent(load_pdu_profile(profile_id), rack, OUTLETS, read_community=READ, write_community=WRITE)
    await agent.start()
    pdu = device(session, agent.port, profile_id, version=version)
    rack.on[2] = False
    sample = await pdu.sample()
    assert sample.ok
    values = {point: reading.value for point, reading in sample.readings.items()}
    assert values["power_w"] == pytest.approx(80_500, abs=5)
    for point, expected in (("power_apparent_va", 80_500 / 0.97), ("power_factor", 0.97), ("frequency_hz", 50.0)):
        if point in values:
            assert values[point] == pytest.approx(expected, abs=6 if point == "power_apparent_va" else 0.006)
    if "energy_import_wh" in values:
        assert 0 <= 1_951_699 - float(str(values["energy_import_wh"])) < 100
    table = await pdu.outlets()
    assert table.error is None
    described = load_pdu_profile(profile_id).outlets
    if described is None or described.state is None:
        assert table.outlets == {}
        with pytest.raises(ProfileError, match="no switched outlets"):
            pdu.outlet_switch(1)
        agent.stop()
        return
    assert sorted(table.outlets) == list(range(1, OUTLETS + 1))
    assert [n for n, outlet in table.outlets.items() if outlet.state is Position.OPEN] == [2]
    if described.power_w is not None:
        assert table.outlets[2].power_w.value == 0.0
        assert table.outlets[3].power_w.value == pytest.approx(3500)
    if described.current_a is not None:
        assert table.outlets[3].current_a.value == pytest.approx(3500 / (231 * 0.97), abs=0.06)
    switch = pdu.outlet_switch(5)
    assert isinstance(switch, Switch)
    opened = await switch.open()
    assert (opened.status, opened.detail) == (WriteStatus.ACKNOWLEDGED, "acknowledged; state reads open")
    assert (rack.on[5], (await switch.read()).position) == (False, Position.OPEN)
    assert (await switch.close()).status is WriteStatus.ACKNOWLEDGED
    assert (rack.on[5], (await switch.read()).position) == (True, Position.CLOSED)
    assert all(on for n, on in rack.on.items() if n != 2), "no other outlet was touched"
    agent.stop()


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


async def test_a_v3_user_without_its_keys_or_the_right_ones_reads_nothing(rack: Rack, session: SnmpSession) -> None:
    agent = SnmpPduAgent(APC, rack, 3, read_community=READ, write_community=WRITE, users=USERS)
    await agent.start()
    for options, reason in (
        (("-u", "reader", "-l", "noAuthNoPriv"), "security level"),
        (("-u", "reader", "-l", "authPriv", "-a", "SHA-256", "-A", "wrong-auth-key", "-x", "AES", "-X", PRIV), "Auth"),
        (("-u", "stranger", "-l", "noAuthNoPriv"), "user name"),
    ):
        code, output = await net_snmp("snmpget", agent.port, f"{STATE}.1", version="3", options=options)
        assert (code, reason in output) == (1, True), output
    reader, writer = USERS
    pdu = SnmpPdu("p", "127.0.0.1", agent.port, APC, Credentials(reader, writer), session, allow_write=True)
    assert (await pdu.sample()).readings["power_w"].value == pytest.approx(84_000)
    assert (await pdu.outlet_switch(2).open()).status is WriteStatus.ACKNOWLEDGED
    assert [n for n, on in rack.on.items() if not on] == [2]
    only_reader = SnmpPdu("q", "127.0.0.1", agent.port, APC, Credentials(reader, reader), session, allow_write=True)
    assert (await only_reader.outlet_switch(3).open()).status is WriteStatus.REFUSED
    assert rack.on[3] is True
    agent.stop()


async def test_nothing_is_written_but_the_commands_of_outlets_that_the_site_names(
    agent: SnmpPduAgent, session: SnmpSession, rack: Rack
) -> None:
    pdu = device(session, agent.port, switchable=frozenset({5}))
    refused = await pdu.outlet_switch(6).open()
    assert refused.status is WriteStatus.REFUSED
    assert "outlet 6 is no output in the site file" in refused.detail
    writer = pdu._writer
    assert writer is not None
    for oid, value in ((f"{CONTROL}.5", 3), (f"{CONTROL}.6", 2), (f"{ENTERPRISE}.4.4.1.4.1", 3)):
        with pytest.raises(ForbiddenWrite, match="nothing was sent"):
            await writer.set_integer(oid, value)
    reader = pdu._reader
    with pytest.raises(ForbiddenWrite):
        await reader.set_integer(f"{CONTROL}.5", 2)
    assert all(rack.on.values())
    assert (await pdu.outlet_switch(5).open()).status is WriteStatus.ACKNOWLEDGED
    assert [n for n, on in rack.on.items() if not on] == [5]


async def test_an_outlet_that_stays_on_is_told_as_unknown_and_not_as_done(
    agent: SnmpPduAgent, session: SnmpSession, rack: Rack
) -> None:
    rack.stuck = True
    switch = replace(device(session, agent.port).outlet_switch(4), read_back_s=0.3)
    outcome = await switch.open()
    assert outcome.status is WriteStatus.UNKNOWN
    assert outcome.detail == "acknowledged, but the state reads closed, expected open"


async def test_a_phase_that_the_unit_does_not_have_has_no_value(agent: SnmpPduAgent, session: SnmpSession) -> None:
    sample = await device(session, agent.port).sample()
    assert sample.readings["current_l1_a"].quality is Quality.GOOD
    assert (sample.readings["current_l2_a"].value, sample.readings["current_l2_a"].quality) == (None, Quality.NO_VALUE)
    assert sample.bits["power_w"] == 8400
    assert "current_l2_a" not in sample.bits


async def test_a_sentinel_on_the_wire_is_no_value(agent: SnmpPduAgent, session: SnmpSession, rack: Rack) -> None:
    rack.load_w = float("nan")
    sample = await device(session, agent.port).sample()
    assert (sample.readings["power_w"].value, sample.readings["power_w"].quality) == (None, Quality.NO_VALUE)
    assert sample.readings["energy_import_wh"].quality is Quality.GOOD


@pytest.mark.parametrize("why", ["unpowered", "wrong community", "nobody there"])
async def test_silence_ends_in_time_and_is_never_zero(
    agent: SnmpPduAgent, session: SnmpSession, rack: Rack, why: str
) -> None:
    port, read = agent.port, READ
    if why == "unpowered":
        rack.has_power = False
    elif why == "wrong community":
        read = "wrong"
    else:
        agent.stop()
    pdu = device(session, port, read=read, timeout_s=0.3, retries=1)
    loop = asyncio.get_running_loop()
    started = loop.time()
    sample, table, state = await pdu.sample(), await pdu.outlets(), await pdu.outlet_switch(1).read()
    assert loop.time() - started < 3 * 0.3 + 0.5
    assert {(r.value, r.quality) for r in sample.readings.values()} == {(None, Quality.TIMEOUT)}
    assert not sample.ok
    assert (table.outlets, table.quality) == ({}, Quality.TIMEOUT)
    assert state.position is Position.UNKNOWN


async def test_a_device_that_comes_back_is_read_again(agent: SnmpPduAgent, session: SnmpSession, rack: Rack) -> None:
    pdu = device(session, agent.port, timeout_s=0.3)
    rack.has_power = False
    assert not (await pdu.sample()).ok
    rack.has_power = True
    assert (await pdu.sample()).ok


async def test_a_command_without_an_answer_is_unknown_and_sent_once(session: SnmpSession) -> None:
    async with Peer(lambda _: None) as peer:
        pdu = device(session, peer.port, timeout_s=0.4, retries=3)
        outcome = await pdu.outlet_switch(1).open()
        assert outcome.status is WriteStatus.UNKNOWN
        assert len(peer.seen) == 1


@pytest.mark.parametrize(
    ("change", "sent"),
    [({"allow_write": False}, False), ({"write": None}, False), ({"write": READ}, True)],
)
async def test_a_command_that_is_not_permitted_is_refused(
    agent: SnmpPduAgent, session: SnmpSession, rack: Rack, change: dict, sent: bool
) -> None:
    outcome = await device(session, agent.port, **change).outlet_switch(1).open()
    assert outcome.status is WriteStatus.REFUSED
    assert ("nothing was sent" in outcome.detail) is not sent
    assert rack.on[1] is True


@pytest.mark.parametrize(("error_status", "status"), [(5, "unknown"), (15, "unknown"), (6, "refused"), (14, "refused")])
async def test_only_an_error_that_excludes_an_effect_is_a_refusal(
    session: SnmpSession, error_status: int, status: str
) -> None:
    async with Peer(lambda message: reply(message, error_status=error_status)) as peer:
        outcome = await device(session, peer.port).outlet_switch(1).open()
        assert outcome.status.value == status


async def test_an_outlet_that_the_model_cannot_have_is_refused_before_anything_is_sent(session: SnmpSession) -> None:
    pdu = device(session, 9)
    for number in (0, -1, 97):
        with pytest.raises(ProfileError, match="outlet"):
            pdu.outlet_switch(number)


@pytest.mark.parametrize("garbage", [b"", b"\x30", b"\x00" * 100, b"\x30\x82\xff\xff" + b"A" * 1000, GET_ONE])
async def test_garbage_is_not_an_answer(session: SnmpSession, garbage: bytes) -> None:
    broken: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
    async with Peer(lambda _: garbage) as peer:
        sample = await device(session, peer.port, timeout_s=0.4).sample()
        assert {r.value for r in sample.readings.values()} == {None}
        assert not sample.ok
    assert broken == [], "a foreign datagram must not raise in the event loop: each would be a traceback in the log"


async def test_an_answer_about_other_objects_is_a_foreign_frame(session: SnmpSession) -> None:
    async with Peer(lambda message: reply(message, rename=f"{ENTERPRISE}.99.1")) as peer:
        sample = await device(session, peer.port).sample()
        assert {(r.value, r.quality) for r in sample.readings.values()} == {(None, Quality.CRC)}


async def test_a_table_without_end_is_bounded(session: SnmpSession) -> None:
    async with Peer(lambda message: reply(message, rename=f"{STATE}.5")) as peer:
        table = await device(session, peer.port).outlets()
        assert table.quality is Quality.CRC
        assert len(peer.seen) < 5


async def test_no_secret_is_logged_or_told(agent: SnmpPduAgent, session: SnmpSession) -> None:
    with structlog.testing.capture_logs() as logs:
        pdu = device(session, agent.port, read="s3cret-read", write="s3cret-write", timeout_s=0.3)
        told = [await pdu.sample(), await pdu.outlets(), await pdu.outlet_switch(1).open(), pdu, pdu.outlet_switch(1)]
    assert {entry["event"] for entry in logs} == {"pdu_read_failed", "outlet_command_failed"}
    assert "s3cret" not in repr(logs) + repr(told)


async def test_many_devices_share_one_session(session: SnmpSession, rack: Rack) -> None:
    profile = load_pdu_profile("servertech-sentry4")
    agents = [SnmpPduAgent(profile, rack, 2, read_community=READ, write_community=WRITE) for _ in range(20)]
    for agent in agents:
        await agent.start()
    pdus = [device(session, agent.port, profile.id) for agent in agents]
    samples = await asyncio.gather(*(pdu.sample() for pdu in pdus))
    assert all(sample.ok for sample in samples)
    for agent in agents:
        agent.stop()


# --- probing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile_id", sorted(load_pdu_profiles()))
async def test_probe_finds_the_profile_by_itself(session: SnmpSession, rack: Rack, profile_id: str) -> None:
    agent = SnmpPduAgent(load_pdu_profile(profile_id), rack, 3, read_community=READ, write_community=WRITE)
    await agent.start()
    url = f"snmp://127.0.0.1:{agent.port}?cred=rack"
    found = await probe(url, credentials=lambda _: Credentials(Community(READ)), session=session)
    agent.stop()
    assert (found["url"], found["responds"], found["profile"]) == (url, True, profile_id)
    assert found["points"]["power_w"] == {"value": pytest.approx(84_000, abs=5), "quality": "good"}
    described = load_pdu_profile(profile_id).outlets
    if described is not None and described.state is not None:
        assert found["outlets"]["3"]["state"] == "closed"
    assert found["power_source"] in {"measured", "unknown"}
    assert 0.25 < found["confidence"] <= 1
    assert READ not in repr(found)


async def test_probe_of_a_silent_address_says_so(agent: SnmpPduAgent, rack: Rack) -> None:
    rack.has_power = False
    url = f"snmp://127.0.0.1:{agent.port}?cred=rack"
    found = await probe(url, credentials=lambda _: Credentials(Community(READ)), timeout_s=0.3)
    assert (found["responds"], found["url"]) == (False, url)
    assert "no answer" in found["reason"]


# --- a peer that answers what a test wants ------------------------------------------------------------


class Peer(asyncio.DatagramProtocol):
    """A UDP socket that keeps what it was sent and answers what ``answer`` makes of it."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.answer = answer
        self.seen: list[bytes] = []

    async def __aenter__(self) -> Peer:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0), family=socket.AF_INET
        )
        self.port = self.transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.seen.append(data)
        answer = self.answer(data)
        if answer is not None:
            self.transport.sendto(answer, addr)


def reply(data: bytes, *, rename: str | None = None, error_status: int = 0) -> bytes:
    """A well-formed answer to a v2c message; ``rename``: all its objects under that name with value 2."""
    rfc = api.PROTOCOL_MODULES[1]
    message, _ = decoder.decode(data, asn1Spec=rfc.Message())
    answer = rfc.apiMessage.get_response(message)
    pdu = rfc.apiMessage.get_pdu(answer)
    pairs = rfc.apiPDU.get_varbinds(rfc.apiMessage.get_pdu(message))
    if rename is not None:
        pairs = [(rename, rfc.Integer32(2)) for _ in pairs]
    rfc.apiPDU.set_varbinds(pdu, pairs)
    rfc.apiPDU.set_error_status(pdu, error_status)
    rfc.apiPDU.set_error_index(pdu, 1 if error_status else 0)
    return bytes(encoder.encode(answer))
