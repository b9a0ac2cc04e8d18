"""Our client against servers nobody here wrote: libmodbus over TCP and over a serial line; the command line on top."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes.util
import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import tty
from collections.abc import AsyncIterator, Iterator

import pytest
from ports import free_ports

from drivers.capabilities import WriteStatus
from drivers.modbus import MeterDevice, ModbusLink, RelayDevice
from drivers.modbus.probe import probe
from drivers.profiles import load_profile
from drivers.profiles.model import MeterProfile, RelayProfile
from wire.quality import Quality

LIBRARY = ctypes.util.find_library("modbus")
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="left out: libmodbus is not installed (apt install libmodbus5)")

SERVER = textwrap.dedent(
    """
    import ctypes, os, sys
    kind, where = sys.argv[2], sys.argv[3]
    lib = ctypes.CDLL(sys.argv[1])
    lib.modbus_new_tcp.restype = lib.modbus_new_rtu.restype = ctypes.c_void_p
    lib.modbus_mapping_new_start_address.restype = ctypes.c_void_p
    class Mapping(ctypes.Structure):
        _fields_ = [(n, ctypes.c_int) for n in (
            "nb_bits", "start_bits", "nb_input_bits", "start_input_bits",
            "nb_input_registers", "start_input_registers", "nb_registers", "start_registers")] + [
            ("bits", ctypes.POINTER(ctypes.c_uint8)), ("input_bits", ctypes.POINTER(ctypes.c_uint8)),
            ("input_registers", ctypes.POINTER(ctypes.c_uint16)), ("registers", ctypes.POINTER(ctypes.c_uint16))]
    mapping = ctypes.cast(
        ctypes.c_void_p(lib.modbus_mapping_new_start_address(0, 600, 0, 100, 0, 200, 0, 400)), ctypes.POINTER(Mapping))
    def put(address, digits):
        for i in range(0, len(digits), 4):
            mapping.contents.input_registers[address + i // 4] = int(digits[i:i + 4], 16)
    put(0, "437080004367000043658000")      # 240.5 231 229.5 V
    put(12, "44cd4000" "44cd4000" "44cd4000")  # 1642 W a phase
    put(52, "4599f000")                     # 4926 W
    put(70, "42480000" "447a0000")          # 50 Hz, 1000 kWh
    mapping.contents.registers[40], mapping.contents.registers[41] = 0x4505, 0xD000
    query = (ctypes.c_uint8 * 260)()
    if kind == "tcp":
        ctx = ctypes.c_void_p(lib.modbus_new_tcp(b"127.0.0.1", int(where)))
        listener = lib.modbus_tcp_listen(ctx, 4)
        print("ready", flush=True)
        handle = ctypes.c_int(listener)
        while True:
            if lib.modbus_tcp_accept(ctx, ctypes.byref(handle)) < 0:
                break
            while (got := lib.modbus_receive(ctx, query)) >= 0:
                if got:
                    lib.modbus_reply(ctx, query, got, ctypes.cast(mapping, ctypes.c_void_p))
            lib.modbus_close(ctx)
    else:
        ctx = ctypes.c_void_p(lib.modbus_new_rtu(where.encode(), 115200, ctypes.c_char(b"N"), 8, 1))
        lib.modbus_set_slave(ctx, 5)
        assert lib.modbus_connect(ctx) == 0
        print("ready", flush=True)
        while True:
            got = lib.modbus_receive(ctx, query)
            if got > 0:
                lib.modbus_reply(ctx, query, got, ctypes.cast(mapping, ctypes.c_void_p))
            elif got < 0 and os.getppid() == 1:
                break
    """
)


@contextlib.contextmanager
def foreign(kind: str, where: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(LIBRARY), kind, where], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def tcp_port() -> Iterator[int]:
    (port,) = free_ports(1)
    with foreign("tcp", str(port)):
        yield port


@contextlib.asynccontextmanager
async def running(url: str) -> AsyncIterator[ModbusLink]:
    link = ModbusLink(url, name="foreign", timeout_s=0.5)
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def meter(unit: int) -> MeterDevice:
    profile = load_profile("eastron-sdm630")
    assert isinstance(profile, MeterProfile)
    return MeterDevice("m1", unit, profile)


async def test_reads_a_foreign_tcp_server(tcp_port: int) -> None:
    async with running(f"modbus://127.0.0.1:{tcp_port}") as link:
        sample = await link.read(meter(1), ["power_w", "voltage_l1_n_v", "energy_import_wh", "serial_number"])
    assert sample.readings["power_w"].value == 4926.0
    assert sample.readings["voltage_l1_n_v"].value == 240.5
    assert sample.readings["energy_import_wh"].value == 1_000_000.0
    assert sample.readings["serial_number"].quality is Quality.EXCEPTION  # libmodbus has no register 64512
    assert (bytes.fromhex("010400340002"), bytes.fromhex("0104044599f000")) in sample.frames


async def test_writes_coils_of_a_foreign_server_and_reads_them_back(tcp_port: int) -> None:
    profile = load_profile("moxa-iologik-e1214")
    assert isinstance(profile, RelayProfile)
    async with running(f"modbus://127.0.0.1:{tcp_port}") as link:
        relay = RelayDevice("r1", 1, profile, link)
        on = await relay.write("relay_2", True)
        image = await relay.read()
        off = await relay.write("relay_2", False)
    assert (on.status, on.detail) == (WriteStatus.ACKNOWLEDGED, "acknowledged; coil reads on")
    assert (off.status, off.detail) == (WriteStatus.ACKNOWLEDGED, "acknowledged; coil reads off")
    assert {name for name, level in image.coils.items() if level} == {"relay_2"}


async def test_probe_recognises_the_meter(tcp_port: int) -> None:
    told = await probe(f"modbus://127.0.0.1:{tcp_port}/1", "eastron-sdm630", timeout_s=0.5)
    assert told["responds"] is True
    assert told["profile"] == "eastron-sdm630"
    assert told["points"]["power_w"] == {"value": 4926.0, "quality": "good"}
    guessed = await probe(f"modbus://127.0.0.1:{tcp_port}/1", timeout_s=0.5)
    assert guessed["profile"] == "eastron-sdm630"
    assert guessed["confidence"] == told["confidence"] > 0.5


async def test_probe_of_an_empty_address_says_so() -> None:
    (port,) = free_ports(1)
    told = await probe(f"modbus://127.0.0.1:{port}/1", timeout_s=0.3)
    assert told["responds"] is False
    assert told["reason"]


def test_the_command_line_probes_and_exits_by_the_result(tcp_port: int) -> None:
    command = [sys.executable, "-c", "from tizgin.cli import main; main()", "probe", "--json"]
    found = subprocess.run(
        [*command, f"modbus://127.0.0.1:{tcp_port}/1", "--profile", "eastron-sdm630"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["points"]["frequency_hz"]["value"] == 50.0


async def test_reads_a_foreign_serial_slave_with_its_check_sums() -> None:
    pytest.importorskip("serial", reason="left out: pyserial is not installed")
    ours, theirs = pty.openpty(), pty.openpty()
    for end in (*ours, *theirs):
        tty.setraw(end)
    loop = asyncio.get_running_loop()

    def pipe(source: int, target: int) -> None:
        with contextlib.suppress(OSError):
            os.write(target, os.read(source, 4096))

    loop.add_reader(ours[0], pipe, ours[0], theirs[0])
    loop.add_reader(theirs[0], pipe, theirs[0], ours[0])
    try:
        with foreign("rtu", os.ttyname(theirs[1])):
            async with running(f"rtu://{os.ttyname(ours[1])}?baud=115200&parity=N") as link:
                sample = await link.read(meter(5), ["power_w"])
                nobody = await link.read(meter(6), ["power_w"])
    finally:
        loop.remove_reader(ours[0])
        loop.remove_reader(theirs[0])
        for end in (*ours, *theirs):
            os.close(end)
    assert sample.readings["power_w"].value == 4926.0
    assert sample.frames == ((bytes.fromhex("050400340002"), bytes.fromhex("0504044599f000")),)
    assert nobody.readings["power_w"].quality is Quality.TIMEOUT
