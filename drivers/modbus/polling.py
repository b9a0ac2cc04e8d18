"""A meter polled for good: the requests are planned anew when something was learned of its unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from drivers.capabilities import Sample
from drivers.modbus.scheduler import Answer, Klass
from wire.quality import Quality

if TYPE_CHECKING:
    from drivers.modbus.link import ModbusLink, Subscription
    from drivers.modbus.meter import Asked, MeterDevice

MAX_ROUNDS = 24


class MeterPoll:
    """A repeated reading. Owned by who asked for it; ends with :meth:`cancel`."""

    def __init__(
        self,
        link: ModbusLink,
        device: MeterDevice,
        points: Sequence[str],
        period_s: float,
        on_sample: Callable[[Sample], None],
    ) -> None:
        """Begin to read points each ``period_s``; ``on_sample`` is called for failures too.

        Raises:
            KeyError: the profile has no such point.
        """
        self._link, self._device, self._on_sample = link, device, on_sample
        self._points = tuple(points)
        self._changes = device.memory.changes
        self._asked: Asked = device.polling(self._points)
        self._subscription: Subscription = link.subscribe(device, self._asked.pdus, period_s, self._take(self._asked))

    def set_period(self, period_s: float) -> None:
        """Ask at another period from now on.

        Raises:
            ValueError: it is not more than 0.
        """
        self._subscription.set_period(period_s)

    def cancel(self) -> None:
        """Stop asking. A sample already under way may still be delivered."""
        self._subscription.cancel()

    @property
    def asked(self) -> Asked:
        """The requests of the next poll."""
        return self._asked

    def _take(self, asked: Asked) -> Callable[[tuple[Answer, ...]], None]:
        def deliver(answers: tuple[Answer, ...]) -> None:
            sample = self._device.sample(asked, answers)
            memory = self._device.memory
            if memory.changes != self._changes or asked.lifted is not None or memory.due() is not None:
                self._changes = memory.changes
                self._asked = self._device.polling(self._points)
                self._subscription.set_requests(self._asked.pdus, self._take(self._asked))
            self._on_sample(sample)

        return deliver


async def read_settled(link: ModbusLink, device: MeterDevice, points: Sequence[str], *, deadline_s: float) -> Sample:
    """Read once for a person: where the unit refuses a request, ask again until it is known what it refuses.

    Values come from the newest answer to each point. Ends within about ``deadline_s``; never raises because of the
    device.

    Raises:
        KeyError: the profile has no such point.
    """
    began_ns = link.monotonic_ns()

    def left_s() -> float:
        return deadline_s - (link.monotonic_ns() - began_ns) / 1e9

    sample = await link.read(device, points, klass=Klass.VERIFICATION, deadline_s=deadline_s)
    for _ in range(MAX_ROUNDS):
        refused = any(r.quality is Quality.EXCEPTION for r in sample.readings.values())
        if not refused or device.memory.settled or device.memory.hopeless or left_s() <= 0:
            break
        sample = await link.read(device, points, klass=Klass.VERIFICATION, deadline_s=left_s())
    return sample
