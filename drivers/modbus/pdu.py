"""Modbus protocol data units as bytes: requests we send, answers we accept.

Source: MODBUS Application Protocol Specification V1.1b3. Frames here are *unit address + PDU*: without MBAP header or
check sum, as evidence keeps them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from drivers.errors import BadAnswer, BadFrame

READ_FUNCTIONS = frozenset({1, 2, 3, 4})
READ_FILE = 20
"""Read File Record. It changes nothing in the device."""
FILE_REQUEST_BYTES = 10
"""Unit, function, length and one sub-request."""
FILE_REFERENCE = 6
MAX_FILE_WORDS = 120
READING = READ_FUNCTIONS | {READ_FILE}
"""Every function that only reads."""
WRITE_SINGLE_COIL = 5
WRITE_SINGLE_REGISTER = 6
WRITE_COILS = 15
WRITE_REGISTERS = 16
COIL_ON, COIL_OFF = 0xFF00, 0x0000

EXCEPTIONS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "server device failure",
    5: "acknowledge, still working",
    6: "server device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}
SILENT_TARGET = 11
"""A gateway's word that the unit behind it did not answer."""
MAYBE_DONE = frozenset({4, 5, 11})
"""Exceptions after which a write may have had its effect all the same."""


def read_request(function: int, addr: int, count: int) -> bytes:
    """Functions 1 to 4.

    Raises:
        ValueError: a count or address the protocol does not have.
    """
    limit = 2000 if function in {1, 2} else 125
    if function not in READ_FUNCTIONS or not 1 <= count <= limit or addr < 0 or addr + count > 0x10000:
        raise ValueError(f"read: function {function}, address {addr}, count {count} is outside the protocol's bounds")
    return bytes((function,)) + addr.to_bytes(2, "big") + count.to_bytes(2, "big")


def read_file_request(file: int, record: int, words: int) -> bytes:
    """Function 20 with one sub-request.

    Raises:
        ValueError: a file, record or length the protocol does not have.
    """
    if not 1 <= file <= 0xFFFF or not 0 <= record <= 0xFFFF or not 1 <= words <= MAX_FILE_WORDS:
        raise ValueError(f"read file: file {file}, record {record}, {words} words is outside the protocol's bounds")
    return struct.pack(">BBBHHH", READ_FILE, 7, FILE_REFERENCE, file, record, words)


def write_coil_request(addr: int, value: int) -> bytes:
    """Function 5. ``value`` is :data:`COIL_ON`, :data:`COIL_OFF`, or a length where a device times its own pulse."""
    return bytes((WRITE_SINGLE_COIL,)) + addr.to_bytes(2, "big") + value.to_bytes(2, "big")


def write_register_request(addr: int, value: int) -> bytes:
    """Function 6: one register.

    Raises:
        ValueError: an address or value the protocol does not have.
    """
    if not (0 <= addr <= 0xFFFF and 0 <= value <= 0xFFFF):
        raise ValueError(f"write: address {addr}, value {value} is outside the protocol's bounds")
    return bytes((WRITE_SINGLE_REGISTER,)) + addr.to_bytes(2, "big") + value.to_bytes(2, "big")


def write_registers_request(addr: int, words: Sequence[int]) -> bytes:
    """Function 16: registers in a row.

    Raises:
        ValueError: a count, address or value the protocol does not have.
    """
    if not 1 <= len(words) <= 123 or addr < 0 or addr + len(words) > 0x10000:
        raise ValueError(f"write: address {addr}, count {len(words)} is outside the protocol's bounds")
    if any(not 0 <= word <= 0xFFFF for word in words):
        raise ValueError(f"write: address {addr}: a register holds 0 to 65535")
    data = b"".join(word.to_bytes(2, "big") for word in words)
    head = bytes((WRITE_REGISTERS,)) + addr.to_bytes(2, "big") + len(words).to_bytes(2, "big")
    return head + bytes((len(data),)) + data


def answer_length(request: bytes) -> int | None:
    """Length of the answer that fits a request (both unit + PDU); ``None`` for a function that is not known here."""
    function, count = request[1], int.from_bytes(request[4:6], "big")
    if function in {1, 2}:
        return 3 + (count + 7) // 8
    if function in {3, 4}:
        return 3 + 2 * count
    if function in {WRITE_SINGLE_COIL, WRITE_SINGLE_REGISTER, WRITE_COILS, WRITE_REGISTERS}:
        return 6
    if function == READ_FILE and len(request) == FILE_REQUEST_BYTES:
        return 5 + 2 * int.from_bytes(request[8:10], "big")
    return None


def exception_of(answer: bytes) -> int | None:
    """Exception code of an answer frame, if it is one."""
    return answer[2] if len(answer) >= 3 and answer[1] & 0x80 else None


def describe_exception(code: int) -> str:
    """For people."""
    return f"exception {code} ({EXCEPTIONS.get(code, 'not in the standard')})"


def read_words(request: bytes, answer: bytes) -> tuple[int, ...]:
    """Registers of an answer to function 3 or 4.

    Raises:
        BadFrame: another function or another length than was asked for.
    """
    count = int.from_bytes(request[4:6], "big")
    data = _payload(request, answer, 2 * count)
    return struct.unpack(f">{count}H", data)


def read_bits(request: bytes, answer: bytes) -> tuple[bool, ...]:
    """Coils or inputs of an answer to function 1 or 2.

    Raises:
        BadFrame: another function or another length than was asked for.
    """
    count = int.from_bytes(request[4:6], "big")
    data = _payload(request, answer, (count + 7) // 8)
    return tuple(bool(data[i // 8] >> i % 8 & 1) for i in range(count))


def file_words(request: bytes, answer: bytes) -> tuple[int, ...]:
    """Words of an answer to function 20 with one sub-request.

    Raises:
        BadFrame: another function, another reference or another length than was asked for.
    """
    count = int.from_bytes(request[8:10], "big")
    if answer[:2] != request[:2]:
        raise BadFrame(f"answer begins {answer[:2].hex()}, expected {request[:2].hex()} (unit, function)")
    head = bytes((2 + 2 * count, 1 + 2 * count, FILE_REFERENCE))
    if len(answer) != 5 + 2 * count or answer[2:5] != head:
        raise BadFrame(f"answer has {len(answer)} bytes and head {answer[2:5].hex()}, expected {head.hex()}")
    return struct.unpack(f">{count}H", answer[5:])


def _payload(request: bytes, answer: bytes, length: int) -> bytes:
    if answer[:2] != request[:2]:
        raise BadFrame(f"answer begins {answer[:2].hex()}, expected {request[:2].hex()} (unit, function)")
    if len(answer) != 3 + length or answer[2] != length:
        raise BadFrame(f"answer has {len(answer) - 3} data bytes and says {answer[2:3].hex()}, expected {length}")
    return answer[3:]


def check_answer(request: bytes, answer: bytes) -> None:
    """Does the answer fit the question? An exception answer fits.

    Raises:
        BadFrame: it does not.
    """
    if len(answer) == 3 and answer[0] == request[0] and answer[1] == request[1] | 0x80:
        return
    function = request[1]
    if function in READ_FUNCTIONS:
        _payload(request, answer, (answer_length(request) or 3) - 3)
    elif function == READ_FILE:
        file_words(request, answer)
    elif answer != request[:6]:  # functions 15 and 16 repeat address and count, 5 and 6 the whole request
        raise BadFrame(f"echo of the write is {answer.hex()}, expected {request[:6].hex()}")


def require_words(request: bytes, answer: bytes) -> tuple[int, ...]:
    """Like :func:`read_words`, but an exception answer is an error too.

    Raises:
        BadAnswer: the device answered with an exception.
        BadFrame: the answer does not fit.
    """
    code = exception_of(answer)
    if code is not None:
        raise BadAnswer(describe_exception(code))
    return read_words(request, answer)
