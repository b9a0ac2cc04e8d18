"""Modbus RTU framing: unit, PDU, check sum, and silence between frames. Source: Modbus over Serial Line V1.02. Pure.

A frame carries no number and the line carries everybody's bytes: an answer is found by unit, function, length and check
sum wherever it stands, and everything else is named (echo, late, foreign, noise) and thrown away before the next
question. pymodbus gives the check sum; its receiver clears unread bytes silently, which would hide a second master.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from math import inf

from pymodbus.framer import FramerRTU

from drivers.modbus.pdu import READ_FILE, READ_FUNCTIONS, READING, answer_length
from drivers.modbus.stray import Stray, StrayKind

CRC_BYTES = 2
QUESTION_BYTES = 6
REQUEST_BYTES = QUESTION_BYTES + CRC_BYTES
"""A question of functions 1 to 6, without and with its check sum."""
EXCEPTION_BYTES = 5
MAX_FRAME = 256
MAX_UNREAD = 1024
"""More unread bytes than this are looked through and dropped."""
REMEMBERED = 32
ANSWERED_WITHIN_S = 2.0
"""A question of somebody else that is older will not be answered any more."""


def crc(body: bytes) -> bytes:
    """Check sum as it is sent."""
    return FramerRTU.compute_CRC(body).to_bytes(CRC_BYTES, "big")


def with_crc(body: bytes) -> bytes:
    """A frame as it is sent."""
    return body + crc(body)


def _whole(data: bytes, at: int, length: int) -> bool:
    end = at + length
    return end <= len(data) and data[end - CRC_BYTES : end] == crc(data[at : end - CRC_BYTES])


def _lengths(data: bytes, at: int) -> tuple[int, ...]:
    """How long a frame of somebody, question or answer, can be that begins here."""
    function = data[at + 1]
    if function & 0x80:
        return (EXCEPTION_BYTES,) if function & 0x7F in {1, 2, 3, 4, 5, 6, 15, 16, READ_FILE} else ()
    if function in READ_FUNCTIONS:
        return (REQUEST_BYTES, 5 + data[at + 2])
    if function == READ_FILE:
        return (5 + data[at + 2],)
    if function in {5, 6}:
        return (REQUEST_BYTES,)
    if function in {15, 16}:
        return (REQUEST_BYTES, 9 + data[at + 6]) if at + 6 < len(data) else (REQUEST_BYTES,)
    return ()


def frames_in(data: bytes) -> Iterator[tuple[bool, bytes]]:
    """Split bytes into whole frames (True, unit + PDU) and what makes none (False, the bytes)."""
    at = noise_from = 0
    while at + EXCEPTION_BYTES <= len(data):
        length = next((n for n in _lengths(data, at) if _whole(data, at, n)), 0)
        if not length:
            at += 1
            continue
        if noise_from < at:
            yield False, data[noise_from:at]
        yield True, data[at : at + length - CRC_BYTES]
        at += length
        noise_from = at
    if noise_from < len(data):
        yield False, data[noise_from:]


class RtuReceiver:
    """Frames questions and finds their answers among the bytes of a line."""

    def __init__(self, on_stray: Callable[[Stray], None]) -> None:
        self._on_stray = on_stray
        self._buffer = b""
        self._request = b""
        """Question that is open, with its check sum."""
        self._answer_bytes: int | None = None
        self._echo_taken = False
        self._given_up: deque[tuple[int, int, int | None]] = deque(maxlen=REMEMBERED)
        self.echo: bool | None = None
        """Whether the adapter gives our own bytes back; ``None``: not known yet."""
        self.held: bytes | None = None
        """Repetition of a write that may be the adapter's echo: the answer only if no second one follows."""
        self.broken = False
        """What came begins like the answer, but is short or damaged."""
        self._unanswered: dict[int, deque[float]] = {}
        """By unit that others ask too: until when answers to questions may come that are not the open one."""
        self._doubtful = False
        """Somebody else asked the same unit after us: no answer can be told to be ours."""
        self._asked_by_others: dict[int, float] = {}
        """By unit: when somebody else last asked it."""
        self.late_s = 1.0
        """How much later than its time-out an answer to us may come; set by the owner too."""
        self.now = 0.0
        """Seconds; set by the owner before bytes are handed in."""
        self.others_wait = False
        """The last frame thrown away was somebody else's question: its answer is still to come."""

    def question(self, request: bytes) -> bytes:
        """Bytes to send for a request (unit + PDU); everything unread is thrown away first."""
        self.purge()
        self._request = with_crc(request)
        length = answer_length(request)
        self._answer_bytes = None if length is None else length + CRC_BYTES
        self._echo_taken, self.held, self.broken = False, None, False
        self._doubtful = False
        return self._request

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; the answer (unit + PDU) once it is whole."""
        self._buffer += data
        if not self._request:
            if len(self._buffer) > MAX_UNREAD:
                self.purge()
            return None
        if not self._take_echo():
            return None
        found = self._find()
        if found is None and len(self._buffer) > MAX_UNREAD:
            self._discard(self._buffer[:-MAX_FRAME])
            self._buffer = self._buffer[-MAX_FRAME:]
        return found

    def accept_held(self) -> None:
        """No second repetition of a write came: the one that is held was the device's."""
        self._request, self.held = b"", None

    def give_up(self) -> bool:
        """The question is not waited for any longer. True where bytes came that made no frame: damage, not silence."""
        if not self._request:
            return False
        request, self._request = self._request, b""
        self._given_up.append((request[0], request[1], self._answer_bytes))
        shared = self._unanswered.get(request[0])
        if shared is not None and not self._doubtful:
            # On a unit that others ask too, our own question that was given up is one more whose answer may come.
            shared.append(self.now + self.late_s)
        return self.purge() or self._doubtful

    def purge(self) -> bool:
        """Name and throw away everything unread. True where some of it made no frame."""
        unread, self._buffer = self._buffer, b""
        return self._discard(unread) if unread else False

    # -- looking for the answer ----------------------------------------------------------------------------------

    def _take_echo(self) -> bool:
        """Cut our own question from what came; False while more is needed to tell."""
        if self._echo_taken or self.echo is False:
            return True
        request = self._request
        is_write = request[1] not in READING
        if is_write and self.echo is None:
            return True  # the answer looks the same: see _find
        if len(self._buffer) < len(request):
            # An answer that begins like the question is longer than what could be held back here, or comes again.
            return not request.startswith(self._buffer)
        if self._buffer.startswith(request):
            self._buffer = self._buffer[len(request) :]
            self._echo_taken = self.echo = True
            self._on_stray(Stray(StrayKind.ECHO, request[:-CRC_BYTES]))
        return True

    def _find(self) -> bytes | None:
        data, unit, function = self._buffer, self._request[0], self._request[1]
        self.broken = False
        at = data.find(unit)
        while 0 <= at < len(data) - 1:
            if data[at + 1] == function | 0x80:
                length: int | None = EXCEPTION_BYTES
            elif data[at + 1] == function and self._heads_answer(data, at):
                length = self._answer_bytes
            else:
                length = None
            if length is not None:
                if _whole(data, at, length):
                    return self._take(at, length)
                self.broken = True
            at = data.find(unit, at + 1)
        return None

    def _heads_answer(self, data: bytes, at: int) -> bool:
        if self._request[1] not in READING:
            return True
        return self._answer_bytes is None or at + 2 >= len(data) or data[at + 2] == self._answer_bytes - 5

    def _take(self, at: int, length: int) -> bytes | None:
        frame = self._buffer[at : at + length - CRC_BYTES]
        before, self._buffer = self._buffer[:at], self._buffer[at + length :]
        self._discard(before)
        just_asked = self.now - self._asked_by_others.get(frame[0], -inf) <= self.late_s
        if self._answers_other(frame[0]) or self._doubtful or just_asked:
            # Another master has asked the same unit. What it asked before us is answered before us; once it asks after
            # us, either answer may be ours, and the two can look alike: then none is believed.
            self._on_stray(Stray(StrayKind.FOREIGN, frame))
            return self._find() if self._buffer else None
        if frame == self._request[:-CRC_BYTES] and self.echo is not False and not self._echo_taken:
            # The answer to a write looks like the write itself: an adapter that echoes must not acknowledge it.
            if self.echo or self.held is not None:
                self.echo = self._echo_taken = True
                self._on_stray(Stray(StrayKind.ECHO, frame))
            if self.held is None:
                self.held = None if self.echo else frame
                return self._find() if self._buffer else None
        elif self._request[1] in READING and not self._echo_taken:
            self.echo = False
        self._request, self.held = b"", None
        return frame

    def _discard(self, data: bytes) -> bool:
        """Name strays and remember whom others have asked. True where some bytes made no frame."""
        noise = False
        for is_frame, part in frames_in(data):
            if not is_frame:
                noise = True
                self._on_stray(Stray(StrayKind.NOISE, part))
                continue
            if self._request and part == self._request[:-CRC_BYTES]:
                self.echo = self._echo_taken = True
                self._on_stray(Stray(StrayKind.ECHO, part))
                continue
            kind = StrayKind.LATE if self._was_ours(part) else StrayKind.FOREIGN
            if kind is StrayKind.FOREIGN:
                self._foreign(part)
            else:
                self._answers_other(part[0])
            self._on_stray(Stray(kind, part))
        return noise

    def _foreign(self, frame: bytes) -> None:
        unit = frame[0]
        # Writes and their answers look the same: the first is taken for the question.
        asks = len(frame) == QUESTION_BYTES and (frame[1] in READ_FUNCTIONS or not self._unanswered.get(unit))
        self.others_wait = asks
        if not asks:
            self._answers_other(unit)
            return
        self._asked_by_others[unit] = self.now
        waiting = self._unanswered.setdefault(unit, deque(maxlen=REMEMBERED))
        if self._request and unit == self._request[0] and not self._doubtful:
            self._doubtful = True
            waiting.append(self.now + ANSWERED_WITHIN_S)  # ours is one of those whose answers are to come
        waiting.append(self.now + ANSWERED_WITHIN_S)

    def _answers_other(self, unit: int) -> bool:
        """A unit answered: to the oldest question that is remembered of it, if there is one."""
        waiting = self._unanswered.get(unit)
        while waiting:
            if self.now <= waiting.popleft():
                return True
        return False

    def _was_ours(self, frame: bytes) -> bool:
        for entry in self._given_up:
            unit, function, length = entry
            if frame[0] == unit and (
                (frame[1] == function and (length is None or len(frame) + CRC_BYTES == length))
                or frame[1] == function | 0x80
            ):
                self._given_up.remove(entry)
                return True
        return False
