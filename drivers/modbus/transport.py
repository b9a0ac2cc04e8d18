"""One connection to one physical link, over pymodbus: one question at a time, the exact bytes of both frames.

pymodbus does framing, check sums and transaction numbers. Its own retries, reconnection and answer decoding are off:
the link above decides about time, and evidence wants the bytes as they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusException
from pymodbus.framer import FramerType
from pymodbus.pdu import ModbusPDU

from drivers.errors import BadFrame, NoAnswer, NoConnection
from drivers.modbus.pdu import check_answer
from drivers.modbus.url import LinkUrl

_NEVER = 1 << 30
"""pymodbus drops the connection after a few silent requests; silent units behind a gateway are no reason for that."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer: unit address + PDU each."""

    request: bytes
    answer: bytes


class Transport(Protocol):
    """What the link needs of a connection."""

    @property
    def connected(self) -> bool:
        """True while the connection stands."""
        ...

    async def connect(self, timeout_s: float) -> None:
        """Connect anew.

        Raises:
            NoConnection: nothing there.
        """
        ...

    async def exchange(self, unit: int, pdu: bytes, timeout_s: float) -> Exchange:
        """Ask and wait.

        Raises:
            NoConnection: not connected, or lost while waiting.
            NoAnswer: silence.
            BadFrame: an answer that is damaged or does not fit the question.
        """
        ...

    def close(self) -> None:
        """Close; harmless when closed."""
        ...


class _Question(ModbusPDU):
    """A request whose bytes are given."""

    def __init__(self, unit: int, pdu: bytes) -> None:
        super().__init__(dev_id=unit)
        self.function_code = pdu[0]
        self._data = pdu[1:]

    def encode(self) -> bytes:
        return self._data

    def __str__(self) -> str:
        return "question"  # pymodbus formats every frame for a debug log that is off; keep that cheap


class _Answer(ModbusPDU):
    """An answer whose bytes are kept."""

    raw: bytes = b""

    def decode(self, data: bytes) -> None:
        self.raw = bytes(data)

    def __str__(self) -> str:
        return "answer"


class _ReadCoils(_Answer):
    function_code = 1
    rtu_byte_count_pos = 2


class _ReadDiscrete(_ReadCoils):
    function_code = 2


class _ReadHolding(_ReadCoils):
    function_code = 3


class _ReadInput(_ReadCoils):
    function_code = 4


class _WriteCoil(_Answer):
    function_code = 5
    rtu_frame_size = 8


_ANSWERS = (_ReadCoils, _ReadDiscrete, _ReadHolding, _ReadInput, _WriteCoil)


class ModbusTransport:
    """Modbus TCP, RTU on a serial line, or RTU frames over TCP."""

    def __init__(self, url: LinkUrl) -> None:
        self.url = url
        self._client: AsyncModbusTcpClient | AsyncModbusSerialClient | None = None
        self._heard = False
        self._lost = False

    @property
    def connected(self) -> bool:
        """True while the connection stands."""
        return self._client is not None and not self._lost and self._client.connected

    async def connect(self, timeout_s: float) -> None:
        """Connect anew.

        Raises:
            NoConnection: nothing there, or the serial device cannot be opened.
        """
        self.close()
        client = self._new_client(timeout_s)
        client.set_max_no_responses(_NEVER)
        for answer in _ANSWERS:
            client.register(answer)
        self._client, self._lost = client, False
        try:
            reached = await client.connect()
        except (OSError, ModbusException) as error:
            self.close()
            raise NoConnection(f"{self.url}: {error}") from error
        if not reached:
            self.close()
            raise NoConnection(
                f"{self.url}: no connection within {timeout_s:g} s; is it powered, is the address right?"
            )

    def _new_client(self, timeout_s: float) -> AsyncModbusTcpClient | AsyncModbusSerialClient:
        if self.url.scheme == "rtu":
            try:
                return AsyncModbusSerialClient(
                    self.url.path,
                    baudrate=self.url.baud,
                    parity=self.url.parity,
                    stopbits=self.url.stop_bits,
                    timeout=timeout_s,
                    retries=0,
                    reconnect_delay=0,
                    trace_packet=self._trace,
                    trace_connect=self._connection,
                )
            except RuntimeError as error:
                raise NoConnection(f"{self.url}: serial lines need the package pyserial ({error})") from error
        return AsyncModbusTcpClient(
            self.url.host,
            port=self.url.port,
            framer=FramerType.RTU if self.url.rtu_framing else FramerType.SOCKET,
            timeout=timeout_s,
            retries=0,
            reconnect_delay=0,
            trace_packet=self._trace,
            trace_connect=self._connection,
        )

    def _trace(self, sending: bool, data: bytes) -> bytes:
        if not sending:
            self._heard = True
        return data

    def _connection(self, up: bool) -> None:
        if up or self._client is None:
            return
        self._lost = True
        waiting = self._client.ctx.response_future
        if not waiting.done():  # do not sit out the time-out of a question that nobody can answer any more
            waiting.set_exception(ConnectionException("connection lost"))
            waiting.exception()

    async def exchange(self, unit: int, pdu: bytes, timeout_s: float) -> Exchange:
        """Ask and wait; see :class:`Transport`."""
        client = self._client
        if client is None or not self.connected:
            raise NoConnection(f"{self.url}: not connected")
        request = bytes((unit,)) + pdu
        client.ctx.comm_params.timeout_connect = timeout_s
        self._heard = False
        try:
            answer = await client.ctx.execute(False, _Question(unit, pdu))
        except ConnectionException as error:
            raise NoConnection(f"{self.url}: {error}") from error
        except ModbusException as error:
            if not self.connected:
                raise NoConnection(f"{self.url}: connection lost while unit {unit} was asked") from error
            # On TCP what was heard can be a late answer to an earlier question: that is silence to this one.
            if self._heard and self.url.rtu_framing:
                raise BadFrame(f"unit {unit}: bytes came, but no whole answer within {timeout_s:g} s") from error
            raise NoAnswer(f"unit {unit}: no answer within {timeout_s:g} s") from error
        frame = _frame_of(answer)
        check_answer(request, frame)
        return Exchange(request, frame)

    def close(self) -> None:
        """Close; harmless when closed."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _frame_of(answer: ModbusPDU) -> bytes:
    if isinstance(answer, _Answer):
        return bytes((answer.dev_id, answer.function_code)) + answer.raw
    # pymodbus keeps exception answers as function and code, which is all they are.
    return bytes((answer.dev_id, answer.function_code | 0x80, answer.exception_code))
