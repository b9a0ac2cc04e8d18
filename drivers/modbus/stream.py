"""One open connection of a link: bytes out, bytes in, one question at a time, and a time-out that costs no timer each.

The receiver below knows frames; this knows time and the event loop.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from drivers.errors import BadFrame, DriverError, NoAnswer, NoConnection
from drivers.modbus.mbap import MbapReceiver, OutOfStep
from drivers.modbus.rtu import RtuReceiver

DAMAGE_QUIET_S = 0.1
"""A damaged or short serial answer is given up after so long without a byte (USB adapters pause up to 16 ms)."""
HOLD_S = 0.06
"""How long the first repetition of a write waits for a second one, where it is not known whether the adapter echoes."""
TALK_LIMIT_S = 0.3
"""A line that is never quiet is talked over after so long: waiting on would be silence too."""
OTHERS_ANSWER_S = 0.05
"""What a second master's question gets before ours, for its answer."""


class _Pipe(Protocol):
    """What is needed of an asyncio transport."""

    def write(self, data: bytes, /) -> None: ...

    def abort(self) -> None: ...


class Stream(asyncio.Protocol):
    """Bytes of one connection. Made by the event loop; :meth:`ask` is for its one owner."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receiver: MbapReceiver | RtuReceiver, *, serial: bool) -> None:
        self._loop = loop
        self._receiver = receiver
        self._rtu = receiver if isinstance(receiver, RtuReceiver) else None
        self._serial = serial
        self._pipe: _Pipe | None = None
        self._waiting: asyncio.Future[bytes] | None = None
        self._deadline = self._limit = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self.made: asyncio.Future[None] = loop.create_future()

    @property
    def up(self) -> bool:
        """True while bytes can go out."""
        return self._pipe is not None

    # -- called by the event loop ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._pipe = transport  # type: ignore[assignment]  # asyncio promises a base class; streams get one that writes
        if not self.made.done():
            self.made.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection broke, or was closed."""
        self._pipe = None
        self._fail(NoConnection(f"connection lost{f': {exc}' if exc else ''}"))

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._rtu is not None:
            self._rtu.now = self._heard_at = self._loop.time()
        try:
            frame = self._receiver.feed(data)
        except OutOfStep as error:
            self._fail(error)
            self.close()
            return
        if self._rtu is not None:
            if self._rtu.held is not None:
                self._set_deadline(min(self._limit, self._heard_at + HOLD_S))
            elif self._serial and frame is None and self._waiting is not None:
                quiet = self._heard_at + DAMAGE_QUIET_S if self._rtu.broken else self._limit
                self._set_deadline(min(self._limit, quiet))
        if frame is not None and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(frame)

    # -- for the owner -----------------------------------------------------------------------------------------------

    async def ask(self, request: bytes, timeout_s: float) -> bytes:
        """One question (unit + PDU) and its answer.

        Raises:
            NoConnection: there is none, or it broke while waiting.
            NoAnswer: silence.
            BadFrame: bytes that make no answer.
        """
        if self._pipe is None:
            raise NoConnection("not connected")
        self._waiting = waiting = self._loop.create_future()
        self._note_time(timeout_s)
        self._limit = self._loop.time() + timeout_s
        self._set_deadline(self._limit)
        self._pipe.write(self._receiver.question(request))
        try:
            frame: bytes = await waiting
        except asyncio.CancelledError:
            self._note_time(timeout_s)
            self._receiver.give_up()
            raise
        except NoAnswer:
            self._note_time(timeout_s)
            if self._receiver.give_up():
                raise BadFrame(f"unit {request[0]}: bytes came, but no whole answer within {timeout_s:g} s") from None
            raise NoAnswer(f"unit {request[0]}: no answer within {timeout_s:g} s") from None
        finally:
            self._waiting = None
        return frame

    async def quiet(self, guard_s: float) -> None:
        """Wait until a line that everybody shares has been silent for ``guard_s``; bytes not asked for are dropped."""
        if self._rtu is None:
            return
        # What the kernel already holds is read in the next round of the event loop: it is older than our question.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        until = self._loop.time() + TALK_LIMIT_S
        while (now := self._loop.time()) < until and self._pipe is not None:
            rest_s = self._heard_at + guard_s - now
            if rest_s > 0:
                await asyncio.sleep(rest_s)
                continue
            self._rtu.purge()
            if not self._rtu.others_wait:
                return
            self._rtu.others_wait = False
            await asyncio.sleep(OTHERS_ANSWER_S)

    def close(self) -> None:
        """Close; harmless when closed."""
        pipe, self._pipe = self._pipe, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if pipe is not None:
            pipe.abort()
        self._fail(NoConnection("connection closed"))

    def _note_time(self, timeout_s: float) -> None:
        if self._rtu is not None:
            self._rtu.now, self._rtu.late_s = self._loop.time(), timeout_s

    # -- time --------------------------------------------------------------------------------------------------------

    def _set_deadline(self, at: float) -> None:
        # One timer for many questions: it is only moved when it would come too late, and looks again when it fires.
        self._deadline = at
        if self._timer is None or self._timer.when() > at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._expire)

    def _expire(self) -> None:
        self._timer = None
        waiting = self._waiting
        if waiting is None or waiting.done():
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._expire)
        elif self._rtu is not None and self._rtu.held is not None:
            waiting.set_result(self._rtu.held)
            self._rtu.accept_held()
        else:
            waiting.set_exception(NoAnswer("no answer in time"))

    def _fail(self, error: DriverError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
