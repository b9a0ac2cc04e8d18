"""One connection to one physical link: one question at a time, the exact bytes of both frames.

Framing is our own (:mod:`mbap`, :mod:`rtu`), because evidence wants the bytes as they came and because late, foreign
and damaged answers have to be told apart. pymodbus gives the serial port of the event loop and the check sum.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol

from pymodbus.transport.serialtransport import create_serial_connection

from drivers.errors import NoConnection
from drivers.modbus.mbap import MbapReceiver
from drivers.modbus.pdu import answer_length, check_answer
from drivers.modbus.rtu import CRC_BYTES, RtuReceiver
from drivers.modbus.stray import Stray
from drivers.modbus.stream import Stream
from drivers.modbus.tls import TlsFiles, context
from drivers.modbus.url import LinkUrl

FAST_LINE_BAUD = 19200
FAST_LINE_GUARD_S = 0.00175
"""Above 19200 baud the standard fixes the silence between frames."""
GUARD_CHARACTERS = 3.5
TLS_HANDSHAKE_S = 5.0
LISTEN_S = 0.5
"""How long a serial line is listened to after it was opened, at most."""


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

    async def exchange(self, unit: int, pdu: bytes, timeout_s: float) -> bytes:
        """Ask and wait; the answer as unit + PDU.

        Raises:
            NoConnection: not connected, or lost while waiting.
            NoAnswer: silence.
            BadFrame: an answer that is damaged or does not fit the question.
        """
        ...

    def close(self) -> None:
        """Close; harmless when closed."""
        ...


def character_s(url: LinkUrl) -> float:
    """Time of one character on a serial line; 0 where the line is not ours to know."""
    if url.scheme != "rtu":
        return 0.0
    return (9 + (url.parity != "N") + url.stop_bits) / url.baud


def default_guard_s(url: LinkUrl) -> float:
    """Silence between frames: 3.5 characters, 1.75 ms on fast lines; 0 where the other end keeps it (gateways)."""
    if url.scheme != "rtu":
        return 0.0
    return FAST_LINE_GUARD_S if url.baud > FAST_LINE_BAUD else GUARD_CHARACTERS * character_s(url)


def _no_stray(stray: Stray) -> None:
    """Nobody counts."""


class ModbusTransport:
    """Modbus TCP, the same in TLS, RTU on a serial line, or RTU frames over TCP."""

    def __init__(
        self,
        url: LinkUrl,
        *,
        guard_s: float | None = None,
        tls: TlsFiles | None = None,
        on_stray: Callable[[Stray], None] = _no_stray,
    ) -> None:
        """``guard_s``: silence before each question (RTU); ``None``: what the standard asks for.

        Raises:
            ValueError: TLS on a serial line.
        """
        if tls is not None and url.scheme == "rtu":
            raise ValueError(f"{url}: tls: seen on a serial line, expected on modbus:// or rtutcp:// alone")
        self.url = url
        self.guard_s = default_guard_s(url) if guard_s is None else guard_s
        self._tls = tls
        self._on_stray = on_stray
        self._stream: Stream | None = None
        self._character_s = character_s(url)
        # What a line's adapter does (echo, late answers) outlives a connection; the numbers of TCP do not.
        self._line = RtuReceiver(on_stray) if url.rtu_framing else None

    @property
    def connected(self) -> bool:
        """True while the connection stands."""
        return self._stream is not None and self._stream.up

    async def connect(self, timeout_s: float) -> None:
        """Connect anew.

        Raises:
            NoConnection: nothing there, the serial device cannot be opened, or the certificate is not to be trusted.
        """
        self.close()
        loop = asyncio.get_running_loop()
        if self._line is not None:
            self._line.give_up()
        stream = Stream(loop, self._line or MbapReceiver(self._on_stray), serial=self.url.scheme == "rtu")
        bound_s = timeout_s if self._tls is None else max(timeout_s, TLS_HANDSHAKE_S)
        try:
            async with asyncio.timeout(bound_s):
                await self._open(loop, stream)
        except TimeoutError:
            stream.close()
            raise NoConnection(
                f"{self.url}: no connection within {bound_s:g} s; is it powered, is the address right?"
            ) from None
        except ssl.SSLCertVerificationError as error:
            stream.close()
            raise NoConnection(
                f"{self.url}: its certificate is not trusted ({error.verify_message}); check ca_file and server_name"
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            stream.close()
            raise NoConnection(f"{self.url}: {error}") from error
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        if self.url.scheme == "rtu":
            # Whoever else asks on this line is heard before our first question: the answer to a question that was asked
            # before we listened could not be told from ours.
            await asyncio.sleep(min(timeout_s, LISTEN_S))

    async def _open(self, loop: asyncio.AbstractEventLoop, stream: Stream) -> None:
        url = self.url
        if url.scheme == "rtu":
            await create_serial_connection(
                loop,
                lambda: stream,
                url.path,
                baudrate=url.baud,
                bytesize=8,
                parity=url.parity,
                stopbits=url.stop_bits,
                timeout=0,
            )
            await stream.made
            return
        if self._tls is None:
            await loop.create_connection(lambda: stream, url.host, url.port)
            return
        name = self._tls.server_name or url.host
        await loop.create_connection(lambda: stream, url.host, url.port, ssl=context(self._tls), server_hostname=name)

    async def exchange(self, unit: int, pdu: bytes, timeout_s: float) -> bytes:
        """Ask and wait; see :class:`Transport`."""
        stream = self._stream
        if stream is None or not stream.up:
            raise NoConnection(f"{self.url}: not connected")
        request = bytes((unit,)) + pdu
        if self._line is not None:
            await stream.quiet(self.guard_s)
            # The time-out is the device's; what the bytes need on the line comes on top.
            on_line = len(request) + (answer_length(request) or 0) + 2 * CRC_BYTES
            timeout_s += on_line * self._character_s
        answer = await stream.ask(request, timeout_s)
        check_answer(request, answer)
        return answer

    def close(self) -> None:
        """Close; harmless when closed."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
