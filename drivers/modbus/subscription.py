"""A repeated request on a link, as who asked for it holds it."""

from __future__ import annotations

from collections.abc import Callable

from drivers.modbus.device import LinkDevice
from drivers.modbus.scheduler import Answer


class Subscription:
    """A repeated request at a fixed phase. Owned by who asked for it; ends with :meth:`cancel`."""

    __slots__ = ("_arm", "active", "deliver", "device", "next_due", "pdus", "pending", "period_s", "seq")

    def __init__(
        self,
        device: LinkDevice,
        pdus: tuple[bytes, ...],
        period_s: float,
        deliver: Callable[[tuple[Answer, ...]], None],
        arm: Callable[[Subscription, float], None],
    ) -> None:
        """``arm``: the link's, called when the next request has to come earlier."""
        self.device = device
        self.pdus = pdus
        self.deliver = deliver
        self.period_s = period_s
        self._arm = arm
        self.next_due = 0.0
        self.pending = False
        self.active = True
        self.seq = 0

    def set_period(self, period_s: float) -> None:
        """Ask at another period from now on; the next request comes no later than one new period from now.

        Raises:
            ValueError: it is not more than 0.
        """
        if period_s <= 0:
            raise ValueError(f"period_s: seen {period_s}, expected more than 0")
        self.period_s = period_s
        self._arm(self, period_s)

    def set_requests(self, pdus: tuple[bytes, ...], deliver: Callable[[tuple[Answer, ...]], None]) -> None:
        """Ask other requests of the same device from the next time on, at the same phase.

        The link's look at what may be sent comes before each request leaves.
        """
        self.pdus, self.deliver = pdus, deliver

    def cancel(self) -> None:
        """Stop asking. A sample already under way may still be delivered."""
        self.active = False
