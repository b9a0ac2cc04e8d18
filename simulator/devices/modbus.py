"""A Modbus/TCP server: several units behind one port, as a gateway has them.

Function codes 1 to 6, 15, 16 and 20 of the Modbus application protocol V1.1b3, exceptions 1, 2 and 3. What a unit says
is the unit's own matter (:class:`Unit`); a unit without power, or unknown, is answered by silence, as by a gateway
whose slave is dead. Hostile bytes end the connection that sent them and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import structlog

log = structlog.get_logger(__name__)

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
MBAP_BYTES = 7
LONGEST_PDU = 253
MOST_CONNECTIONS = 64
MOST_LATE_ANSWERS = 64
LONGEST_BUFFER = 4096


class ModbusError(Exception):
    """The unit refuses; ``code`` is the exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}")
        self.code = code


class Unit(Protocol):
    """One device behind the port."""

    def answers(self) -> bool:
        """False: silence (no power, dead)."""
        ...

    def delay_s(self) -> float:
        """How long it thinks before it answers."""
        ...

    def refuses(self) -> int | None:
        """Exception code with which it refuses everything, if it does."""
        ...

    def read_bits(self, table: str, addr: int, count: int, /) -> Sequence[bool]:
        """``table`` is coil or discrete. Raises: ModbusError."""
        ...

    def read_registers(self, table: str, addr: int, count: int, /) -> Sequence[int]:
        """``table`` is holding or input. Raises: ModbusError."""
        ...

    def write_coil(self, addr: int, value: int, /) -> None:
        """Function 5; ``value`` is the raw word. Raises: ModbusError."""
        ...

    def write_coils(self, addr: int, levels: Sequence[bool], /) -> None:
        """Function 15. Raises: ModbusError."""
        ...

    def write_registers(self, addr: int, words: Sequence[int], /) -> None:
        """Functions 6 and 16. Raises: ModbusError."""
        ...


@runtime_checkable
class FileUnit(Protocol):
    """A device that also answers function 20."""

    def read_file(self, file: int, record: int, words: int, /) -> Sequence[int]:
        """Words of a file from one record on. Raises: ModbusError."""
        ...


def answer_pdu(unit: Unit, pdu: bytes) -> bytes:
    """Request PDU to answer PDU; pure but for what the unit does."""
    function = pdu[0]
    try:
        if (code := unit.refuses()) is not None:
            raise ModbusError(code)
        return _answer(unit, function, pdu[1:])
    except ModbusError as error:
        return bytes((function | 0x80, error.code))


def _answer(unit: Unit, function: int, data: bytes) -> bytes:
    if function in {1, 2}:
        addr, count = _range(data, 2000)
        bits = unit.read_bits("coil" if function == 1 else "discrete", addr, count)
        packed = pack_bits(bits)
        return bytes((function, len(packed))) + packed
    if function in {3, 4}:
        addr, count = _range(data, 125)
        words = unit.read_registers("holding" if function == 3 else "input", addr, count)
        return bytes((function, 2 * count)) + b"".join(word.to_bytes(2, "big") for word in words)
    if function == 20 and isinstance(unit, FileUnit):
        return _file(unit, data)
    if function in {5, 6}:
        if len(data) != 4:
            raise ModbusError(ILLEGAL_VALUE)
        addr, value = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:], "big")
        if function == 5:
            unit.write_coil(addr, value)
        else:
            unit.write_registers(addr, (value,))
        return bytes((function,)) + data
    if function == 15:
        addr, count, payload = _block(data, 1968, lambda n: (n + 7) // 8)
        unit.write_coils(addr, [bool(payload[i // 8] >> i % 8 & 1) for i in range(count)])
        return bytes((function,)) + data[:4]
    if function == 16:
        addr, count, payload = _block(data, 123, lambda n: 2 * n)
        unit.write_registers(addr, [int.from_bytes(payload[2 * i : 2 * i + 2], "big") for i in range(count)])
        return bytes((function,)) + data[:4]
    raise ModbusError(ILLEGAL_FUNCTION)


def _file(unit: FileUnit, data: bytes) -> bytes:
    """Function 20 with one sub-request."""
    if len(data) != 8 or data[0] != 7 or data[1] != 6:
        raise ModbusError(ILLEGAL_VALUE)
    file, record, count = (int.from_bytes(data[i : i + 2], "big") for i in (2, 4, 6))
    if not 1 <= count <= 120:
        raise ModbusError(ILLEGAL_VALUE)
    words = b"".join(word.to_bytes(2, "big") for word in unit.read_file(file, record, count))
    return bytes((20, len(words) + 2, len(words) + 1, 6)) + words


def pack_bits(bits: Sequence[bool]) -> bytes:
    """First bit in the lowest bit of the first byte."""
    packed = bytearray((len(bits) + 7) // 8)
    for i, bit in enumerate(bits):
        if bit:
            packed[i // 8] |= 1 << i % 8
    return bytes(packed)


def _range(data: bytes, most: int) -> tuple[int, int]:
    if len(data) != 4:
        raise ModbusError(ILLEGAL_VALUE)
    addr, count = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:], "big")
    _within(addr, count, most)
    return addr, count


def _block(data: bytes, most: int, size: Callable[[int], int]) -> tuple[int, int, bytes]:
    if len(data) < 5:
        raise ModbusError(ILLEGAL_VALUE)
    addr, count, payload = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big"), data[5:]
    _within(addr, count, most)
    if len(payload) != size(count) or data[4] != len(payload):
        raise ModbusError(ILLEGAL_VALUE)
    return addr, count, payload


def _within(addr: int, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise ModbusError(ILLEGAL_VALUE)
    if addr + count > 0x10000:
        raise ModbusError(ILLEGAL_ADDRESS)


class ModbusTcpServer:
    """One port. ``up`` says whether the gateway itself has power: without it, connections die and nothing answers."""

    def __init__(self, units: Mapping[int, Unit], *, up: Callable[[], bool] = lambda: True) -> None:
        self.units = dict(units)
        self.up = up
        self.requests = 0
        self.malformed = 0
        """Connections ended because of bytes that are no Modbus/TCP."""
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen.

        Raises:
            OSError: the port cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), host, port, backlog=32)

    @property
    def port(self) -> int:
        """The port it listens on.

        Raises:
            RuntimeError: it is not started.
        """
        if self._server is None or not self._server.sockets:
            raise RuntimeError("Modbus server: not started")
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the port and every connection; harmless when it is closed already."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self.connections):
            connection.abort()
        await self._server.wait_closed()
        self._server = None


class _Connection(asyncio.Protocol):
    """One master."""

    def __init__(self, server: ModbusTcpServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._late: set[asyncio.TimerHandle] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._server.connections) >= MOST_CONNECTIONS or not self._server.up():
            transport.abort()
            return
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._server.connections.discard(self)
        for handle in self._late:
            handle.cancel()
        self._late.clear()
        self._transport = None

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= MBAP_BYTES:
            protocol = int.from_bytes(self._buffer[2:4], "big")
            length = int.from_bytes(self._buffer[4:6], "big")
            if protocol != 0 or not 2 <= length <= LONGEST_PDU + 1:
                self._server.malformed += 1
                log.debug("simulated_modbus_malformed", protocol=protocol, length=length)
                self.abort()
                return
            if len(self._buffer) < 6 + length:
                break
            frame = bytes(self._buffer[: 6 + length])
            del self._buffer[: 6 + length]
            self._handle(frame)
        if len(self._buffer) > LONGEST_BUFFER:
            self.abort()

    def _handle(self, frame: bytes) -> None:
        unit = self._server.units.get(frame[6])
        if unit is None or not self._server.up() or not unit.answers():
            return
        self._server.requests += 1
        pdu = answer_pdu(unit, frame[MBAP_BYTES:])
        answer = frame[:4] + (len(pdu) + 1).to_bytes(2, "big") + frame[6:7] + pdu
        delay_s = unit.delay_s()
        if delay_s <= 0:
            self._send(answer)
        elif len(self._late) < MOST_LATE_ANSWERS:
            self._send_later(answer, delay_s)

    def _send(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)

    def _send_later(self, answer: bytes, delay_s: float) -> None:
        loop = asyncio.get_running_loop()

        def send() -> None:
            self._late.discard(handle)
            self._send(answer)

        handle = loop.call_later(delay_s, send)
        self._late.add(handle)
