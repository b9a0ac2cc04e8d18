"""The PDU driver against the simulated PDU, and against peers that answer badly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import structlog
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto import api

from drivers.capabilities import Position, Switch, WriteStatus
from drivers.errors import ProfileError
from drivers.snmp import Community, Credentials, load_pdu_profile, load_pdu_profiles
from drivers.snmp.pdu import SnmpPdu
from drivers.snmp.probe import probe
from drivers.snmp.session import ForbiddenWrite, SnmpSession
from simulator.devices.snmp_pdu import SnmpPduAgent
from tests.integration.snmp_sides import (
    APC,
    CONTROL,
    ENTERPRISE,
    GET_ONE,
    OUTLETS,
    PRIV,
    READ,
    STATE,
    USERS,
    WRITE,
    Rack,
    device,
    net_snmp,
    serving,
)
from wire.quality import Quality


@pytest.fixture
def rack() -> Rack:
    return Rack()


@pytest.fixture
async def agent(rack: Rack) -> AsyncIterator[SnmpPduAgent]:
    async with serving(rack) as served:
        yield served


@pytest.fixture
async def session() -> AsyncIterator[SnmpSession]:
    async with SnmpSession() as opened:
        yield opened


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
