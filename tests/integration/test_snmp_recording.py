"""The PDU driver against snmpsim, an agent that others wrote, playing public recordings of PDUs and UPSs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_ports
from pyasn1.codec.ber import encoder
from pysnmp.proto import api

from drivers.capabilities import Position
from drivers.snmp import Community, Credentials, User, load_pdu_profile
from drivers.snmp.pdu import SnmpPdu
from drivers.snmp.probe import probe
from drivers.snmp.session import SnmpSession
from wire.quality import Quality

NAME = "apc-8641"
RECORDINGS = (
    NAME,
    "apc-7902b",
    "apc-8932",
    "eaton-93e-80",
    "eaton-9px-partial",
    "emerson-network-power",
    "geist-temperature-sensor",
    "vertiv-power",
)
AUTH, PRIV = "auth-key-of-test", "priv-key-of-test"


@pytest.fixture(scope="module")
def port(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """UDP port of snmpsim; community and v3 context are the recording's name, v3 user ``reader``."""
    pytest.importorskip("snmpsim", reason="left out: snmpsim is not installed (extra 'dev')")
    folder = tmp_path_factory.mktemp("snmpsim")
    (folder / "data").mkdir()
    for name in RECORDINGS:
        recording = shared_data / "pdu" / "snmprec" / f"snmpsim-data__{name}.snmprec"
        if not recording.is_file():
            pytest.skip(f"left out: {recording.name} is not in ../shared/data")
        shutil.copyfile(recording, folder / "data" / f"{name}.snmprec")
    (number,) = free_ports(1)
    command = [
        sys.executable, "-W", "ignore", "-u", "-c", "from snmpsim.commands.responder import main; main()",
        f"--data-dir={folder / 'data'}", f"--cache-dir={folder / 'cache'}",
        f"--agent-udpv4-endpoint=127.0.0.1:{number}",
        "--v3-user=reader", f"--v3-auth-key={AUTH}", "--v3-auth-proto=SHA256",
        f"--v3-priv-key={PRIV}", "--v3-priv-proto=AES", "--logging-method=stdout",
    ]  # fmt: skip
    environment = os.environ | {"SNMPSIM_ALLOW_ROOT": "true"}
    said = folder / "log"
    with said.open("wb") as log:  # a file: a pipe that nobody reads would stop it after some questions
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_until_it_listens(process, said)
        wait_until_it_answers(number)
        yield number
    finally:
        process.terminate()
        process.wait(10)


def wait_until_it_listens(process: subprocess.Popen[bytes], said: Path) -> None:
    end = time.monotonic() + 60
    while b"Listening at UDP" not in said.read_bytes():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"snmpsim did not start: {said.read_bytes()[-2000:]!r}")
        time.sleep(0.05)


def wait_until_it_answers(number: int) -> None:
    """Ask for sysDescr until there is an answer: snmpsim says that it listens before its socket is open."""
    rfc = api.PROTOCOL_MODULES[1]
    pdu, message = rfc.GetRequestPDU(), rfc.Message()
    rfc.apiPDU.set_defaults(pdu)
    rfc.apiPDU.set_varbinds(pdu, [("1.3.6.1.2.1.1.1.0", rfc.Null(""))])
    rfc.apiMessage.set_defaults(message)
    rfc.apiMessage.set_community(message, NAME)
    rfc.apiMessage.set_pdu(message, pdu)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        for _ in range(100):
            asking.sendto(bytes(encoder.encode(message)), ("127.0.0.1", number))
            with contextlib.suppress(TimeoutError, ConnectionError):
                asking.recv(65535)
                return
    pytest.fail("snmpsim listens but does not answer")


SECRETS = {
    "v1": Community(NAME, "1"),
    "v2c": Community(NAME),
    "v3": User("reader", AUTH, PRIV, "sha256", "aes", context=NAME),
}


@pytest.mark.parametrize("version", sorted(SECRETS))
async def test_the_recorded_pdu_is_read_as_its_display_would_show(port: int, version: str) -> None:
    async with SnmpSession() as session:
        secret = Credentials(SECRETS[version])
        pdu = SnmpPdu("pdu", "127.0.0.1", port, load_pdu_profile("apc-rpdu2"), secret, session, timeout_s=10.0)
        sample = await pdu.sample()
        assert sample.error is None
        good = {point: r.value for point, r in sample.readings.items() if r.quality is Quality.GOOD}
        assert good == {
            "power_w": 1210.0,
            "power_apparent_va": 1310.0,
            "power_factor": 0.94,
            "energy_import_wh": 1_951_600.0,
            "current_l1_a": 6.5,
            "voltage_l1_n_v": 201.0,
            "power_l1_w": 1220.0,
            "serial_number": "3F3452A52295",
        }
        others = {r.quality for point, r in sample.readings.items() if point not in good}
        assert others == {Quality.NO_VALUE}, "a single-phase unit has no second and third phase"


async def test_the_recorded_outlets_are_read(port: int) -> None:
    async with SnmpSession() as session:
        secret = Credentials(SECRETS["v2c"])
        pdu = SnmpPdu("pdu", "127.0.0.1", port, load_pdu_profile("apc-rpdu2"), secret, session, timeout_s=10.0)
        table = await pdu.outlets()
        assert table.error is None
        assert sorted(table.outlets) == list(range(1, 25))
        first = table.outlets[1]
        assert (first.power_w.value, first.current_a.value, first.energy_import_wh.value) == (163.0, 0.9, 304_600.0)
        # The recording lets the state wander between its two codes.
        assert {outlet.state for outlet in table.outlets.values()} <= {Position.OPEN, Position.CLOSED}


async def test_wrong_v3_keys_are_told_as_such_and_not_as_silence(port: int) -> None:
    async with SnmpSession() as session:
        wrong = Credentials(User("reader", "not-the-auth-key", PRIV, "sha256", "aes", context=NAME))
        right = Credentials(SECRETS["v3"])
        profile = load_pdu_profile("apc-rpdu2")
        refused = SnmpPdu("a", "127.0.0.1", port, profile, wrong, session, timeout_s=10.0)
        served = SnmpPdu("b", "127.0.0.1", port, profile, right, session, timeout_s=10.0)
        assert {r.quality for r in (await refused.sample()).readings.values()} == {Quality.EXCEPTION}
        assert (await served.sample()).ok, "one device's wrong keys must not spoil another's right ones"
        assert {r.quality for r in (await refused.sample()).readings.values()} == {Quality.EXCEPTION}


async def test_probe_recognises_the_recorded_pdu(port: int) -> None:
    found = await probe(
        f"snmp://127.0.0.1:{port}?cred=x", credentials=lambda _: Credentials(SECRETS["v2c"]), timeout_s=10.0
    )
    assert (found["responds"], found["profile"]) == (True, "apc-rpdu2")
    assert found["identity"]["model"] == "AP8641"
    assert found["points"]["power_w"] == {"value": 1210.0, "quality": "good"}


async def read_of(port: int, name: str, profile_id: str) -> dict[str, object]:
    """Good values of a recording."""
    async with SnmpSession() as session:
        secret = Credentials(Community(name))
        pdu = SnmpPdu("pdu", "127.0.0.1", port, load_pdu_profile(profile_id), secret, session, timeout_s=10.0)
        sample = await pdu.sample()
        assert sample.error is None
        assert all((r.value is None) == (r.quality is Quality.NO_VALUE) for r in sample.readings.values())
        return {point: r.value for point, r in sample.readings.items() if r.quality is Quality.GOOD}


async def test_a_pdu_without_metering_gives_its_current_and_no_power(port: int) -> None:
    good = await read_of(port, "apc-7902b", "apc-rpdu2")
    assert good == {"current_l1_a": 1.6, "serial_number": "5A1551F39430"}


async def test_a_metered_pdu_of_another_series_is_read(port: int) -> None:
    good = await read_of(port, "apc-8932", "apc-rpdu2")
    assert good == {
        "power_w": 160.0,
        "power_apparent_va": 170.0,
        "power_factor": 0.95,
        "energy_import_wh": 642_600.0,
        "current_l1_a": 1.4,
        "voltage_l1_n_v": 121.0,
        "power_l1_w": 160.0,
        "serial_number": "3F503A169043",
    }


async def test_a_three_phase_ups_gives_the_sum_of_its_lines(port: int) -> None:
    good = await read_of(port, "eaton-93e-80", "rfc1628-ups")
    assert good == {
        "power_w": 11_400.0,
        "frequency_hz": 49.0,
        **{f"voltage_l{n}_n_v": 220.0 for n in (1, 2, 3)},
        "current_l1_a": 27.0,
        "current_l2_a": 18.0,
        "current_l3_a": 15.0,
        "power_l1_w": 5100.0,
        "power_l2_w": 3600.0,
        "power_l3_w": 2700.0,
    }


@pytest.mark.parametrize(
    ("name", "profile_id"),
    [
        ("apc-7902b", "apc-rpdu2"),
        ("apc-8932", "apc-rpdu2"),
        ("eaton-93e-80", "rfc1628-ups"),
        ("eaton-9px-partial", None),
        ("emerson-network-power", None),
        ("geist-temperature-sensor", None),
        ("vertiv-power", None),
    ],
)
async def test_probe_names_the_profile_of_a_recording_or_says_that_there_is_none(
    port: int, name: str, profile_id: str | None
) -> None:
    secret = Credentials(Community(name))
    found = await probe(f"snmp://127.0.0.1:{port}?cred=x", credentials=lambda _: secret, timeout_s=10.0)
    assert (found["responds"], found["profile"]) == (True, profile_id)
    if profile_id is None:
        assert found["points"] == {}, "another maker's UPS or a thermometer is no PDU that is known here"
