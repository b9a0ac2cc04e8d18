"""Modbus TCP framing: header with transaction number, unit and PDU. Source: Modbus Messaging on TCP/IP V1.0b. Pure.

pymodbus clears what it has received whenever it sends, and waits for ever behind a header it cannot read; here each
frame is told apart by its number, so that late and foreign answers are counted and a stream out of step is given up.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

from drivers.errors import BadFrame
from drivers.modbus.stray import Stray, StrayKind

HEAD = struct.Struct(">HHH")
HEAD_BYTES = 6
MAX_LENGTH = 254
"""Unit and PDU."""
REMEMBERED = 64
"""Numbers of questions that were given up, for telling late answers from foreign ones."""


class OutOfStep(BadFrame):
    """The stream holds what is no Modbus header: only a new connection helps."""


class MbapReceiver:
    """Frames questions and finds their answers in a stream of bytes."""

    def __init__(self, on_stray: Callable[[Stray], None]) -> None:
        self._on_stray = on_stray
        self._buffer = b""
        self._number = 0
        self._unit = 0
        self._open = False
        self._given_up: deque[int] = deque(maxlen=REMEMBERED)

    def question(self, request: bytes) -> bytes:
        """Bytes to send for a request (unit + PDU)."""
        self._number = self._number % 0xFFFF + 1
        self._unit = request[0]
        self._open = True
        return HEAD.pack(self._number, 0, len(request)) + request

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; the answer (unit + PDU) once it is whole, without a look at what it says.

        Raises:
            OutOfStep: what came is no Modbus TCP.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        found: bytes | None = None
        while len(data) >= HEAD_BYTES:
            number, protocol, length = HEAD.unpack_from(data)
            if protocol or not 2 <= length <= MAX_LENGTH:
                raise OutOfStep(
                    f"header {data[:HEAD_BYTES].hex()}: protocol {protocol}, length {length}; "
                    f"expected protocol 0 and length 2 to {MAX_LENGTH}"
                )
            end = HEAD_BYTES + length
            if len(data) < end:
                break
            frame, data = data[HEAD_BYTES:end], data[end:]
            if self._open and number == self._number and frame[0] == self._unit:
                found, self._open = frame, False
            else:
                self._stray(number, frame)
        self._buffer = data
        return found

    def give_up(self) -> bool:
        """The question is not waited for any longer. False: what was heard of an answer does not matter here."""
        if self._open:
            self._given_up.append(self._number)
            self._open = False
        return False

    def _stray(self, number: int, frame: bytes) -> None:
        late = number in self._given_up
        if late:
            self._given_up.remove(number)
        self._on_stray(Stray(StrayKind.LATE if late else StrayKind.FOREIGN, frame))
