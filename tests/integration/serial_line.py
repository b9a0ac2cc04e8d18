"""A serial line in software: two pseudo-terminals, and between them a wire that can be as bad as one in a hall.

Our end and the slave's end are real terminals with real file names, so that any program can be the slave. The wire is
a pump in the test's event loop; it may echo, damage, cut, delay, and carry a second master's frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes.util
import os
import pty
import signal
import subprocess
import sys
import textwrap
import tty
from collections.abc import Callable, Iterator

import pytest

LIBRARY = ctypes.util.find_library("modbus")
needs_libmodbus = pytest.mark.skipif(
    LIBRARY is None, reason="left out: libmodbus is not installed (apt install libmodbus5)"
)

SLAVE = textwrap.dedent(
    """
    import ctypes, os, sys
    lib = ctypes.CDLL(sys.argv[1])
    lib.modbus_new_rtu.restype = ctypes.c_void_p
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
    put(0, "437080004367000043658000")
    put(52, "4599f000")
    put(70, "42480000" "447a0000")
    query = (ctypes.c_uint8 * 260)()
    ctx = ctypes.c_void_p(lib.modbus_new_rtu(sys.argv[2].encode(), 115200, ctypes.c_char(b"N"), 8, 1))
    lib.modbus_set_slave(ctx, int(sys.argv[3]))
    assert lib.modbus_connect(ctx) == 0
    print("ready", flush=True)
    while os.getppid() != 1:
        got = lib.modbus_receive(ctx, query)
        if got > 0:
            lib.modbus_reply(ctx, query, got, ctypes.cast(mapping, ctypes.c_void_p))
    """
)


class SerialLine:
    """Our terminal at ``path``, the slave's at ``slave_path``. Faults are functions on the bytes of one direction."""

    def __init__(self) -> None:
        self._ours, self._theirs = pty.openpty(), pty.openpty()
        for end in (*self._ours, *self._theirs):
            tty.setraw(end)
        self.path, self.slave_path = os.ttyname(self._ours[1]), os.ttyname(self._theirs[1])
        self.to_slave: Callable[[bytes], bytes] = bytes
        self.to_us: Callable[[bytes], bytes] = bytes
        self.echo = False
        self.one_at_a_time = False
        """A slave on a real line hears nothing while it works on a question; a pseudo-terminal would queue it."""
        self._slave_busy = False
        self.from_us: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours[0], self._down)
        self._loop.add_reader(self._theirs[0], self._up)

    def say(self, data: bytes) -> None:
        """Somebody else on the line speaks: we hear it, and so does the slave."""
        os.write(self._ours[0], data)
        self._to_slave(data)

    def tell_us(self, data: bytes) -> None:
        """Bytes that only we hear."""
        os.write(self._ours[0], data)

    def _down(self) -> None:
        with contextlib.suppress(OSError):
            data = os.read(self._ours[0], 4096)
            self.from_us.append(data)
            if self.echo:
                os.write(self._ours[0], data)
            if passed := self.to_slave(data):
                self._to_slave(passed)

    def _to_slave(self, data: bytes) -> None:
        if self.one_at_a_time and self._slave_busy:
            return
        self._slave_busy = True
        os.write(self._theirs[0], data)

    def _up(self) -> None:
        with contextlib.suppress(OSError):
            data = os.read(self._theirs[0], 4096)
            self._slave_busy = False
            if passed := self.to_us(data):
                os.write(self._ours[0], passed)

    def close(self) -> None:
        """Take the line away."""
        self._loop.remove_reader(self._ours[0])
        self._loop.remove_reader(self._theirs[0])
        for end in (*self._ours, *self._theirs):
            os.close(end)


@contextlib.contextmanager
def libmodbus_slave(path: str, unit: int) -> Iterator[None]:
    """A slave that nobody here wrote, on a terminal."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLAVE, str(LIBRARY), path, str(unit)], stdout=subprocess.PIPE, text=True
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
