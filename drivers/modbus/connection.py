"""A connection that is made anew when it breaks, and one question over it told as what was heard. Never raises."""

from __future__ import annotations

import random
from dataclasses import dataclass

import structlog

from drivers.errors import BadFrame, DriverError, NoConnection
from drivers.modbus.clock import Clock
from drivers.modbus.mbap import OutOfStep
from drivers.modbus.pdu import SILENT_TARGET, describe_exception, exception_of
from drivers.modbus.transport import Transport
from drivers.modbus.url import LinkUrl
from wire.quality import Quality

log = structlog.get_logger(__name__)

RECONNECT_FIRST_S, RECONNECT_MAX_S = 0.25, 10.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back for one question. ``lost``: the connection broke. ``silent``: the wait was in vain."""

    quality: Quality
    took_s: float
    answer: bytes = b""
    error: str | None = None
    exception: int | None = None
    lost: bool = False
    silent: bool = False


class Connection:
    """Transport with jittered, bounded back-off between attempts to connect."""

    def __init__(self, url: LinkUrl, transport: Transport, *, name: str, clock: Clock, rng: random.Random) -> None:
        self.connects = 0
        self._url, self._transport, self._name = url, transport, name
        self._clock, self._rng = clock, rng
        self._next_try = 0.0
        self._delay_s = RECONNECT_FIRST_S

    @property
    def up(self) -> bool:
        """True while the connection stands."""
        return self._transport.connected

    def _now(self) -> float:
        return self._clock.monotonic_ns() / 1e9

    async def ensure(self, timeout_s: float, *, at_once: bool) -> str | None:
        """Connect where there is no connection; ``None``, or why there is none.

        ``at_once``: do not wait for the next attempt's turn (control).
        """
        if self._transport.connected:
            return None
        if self._now() < self._next_try and not at_once:
            return f"{self._url}: not connected, tried again shortly"
        try:
            await self._transport.connect(timeout_s)
        except NoConnection as error:
            self._lost(str(error))
            return str(error)
        self.connects += 1
        self._delay_s = RECONNECT_FIRST_S
        log.info("modbus_link_up", link=self._name, url=str(self._url))
        return None

    async def ask(self, unit: int, pdu: bytes, wait_s: float) -> Heard:
        """One question."""
        begun = self._now()
        try:
            answer = await self._transport.exchange(unit, pdu, wait_s)
        except NoConnection as error:
            self._lost(str(error))
            return Heard(Quality.NO_CONNECTION, self._now() - begun, error=str(error), lost=True)
        except OutOfStep as error:
            self._lost(str(error))
            return Heard(error.quality, self._now() - begun, error=str(error), lost=True)
        except DriverError as error:
            took_s = self._now() - begun
            # Noise that lasts as long as silence costs the link as much as silence.
            silent = not isinstance(error, BadFrame) or took_s >= 0.9 * wait_s
            return Heard(error.quality, took_s, error=str(error), silent=silent)
        except Exception as error:  # a fault in a library must cost one answer, not the link
            log.exception("modbus_transport_failed", link=self._name, unit=unit)
            text = f"{type(error).__name__}: {error}"
            self._lost(text)
            return Heard(Quality.NO_CONNECTION, self._now() - begun, error=text, lost=True)
        took_s = self._now() - begun
        code = exception_of(answer)
        if code is None:
            return Heard(Quality.GOOD, took_s, answer)
        silent = code == SILENT_TARGET  # a gateway says that the unit behind it did not answer
        quality = Quality.TIMEOUT if silent else Quality.EXCEPTION
        return Heard(quality, took_s, answer, describe_exception(code), code, silent=silent)

    def close(self) -> None:
        """Close; the next question connects anew."""
        self._transport.close()

    def _lost(self, why: str) -> None:
        if self._delay_s == RECONNECT_FIRST_S:
            log.warning("modbus_link_down", link=self._name, url=str(self._url), why=why)
        self._transport.close()
        self._next_try = self._now() + self._delay_s * self._rng.uniform(0.75, 1.25)
        self._delay_s = min(self._delay_s * 2, RECONNECT_MAX_S)
