"""What an order allows at its point, now: by its action, its hour, its energy, and never below the reservation.

A target is what the order says in W. Of an order that is judged by energy (``limit_basis`` slot or hour) the power that
is allowed now follows from what is left of the window's energy; windows lie on the clock, and the first one counts from
the order's arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import Clock
from agent.curtailment.journal import LiveOrder, Window
from agent.live import LiveState
from config.site import Site
from wire.orders import Order
from wire.registry import RegisteredSite

HOUR_MS = 3_600_000
KZ_OFFSET_MS = 5 * HOUR_MS
"""Hours of a schedule are those of Kazakhstan time, UTC+5 without summer time."""
UNSEEN_MS = 10_000
LEAST_LEFT_MS = 60_000
"""What is over the energy of a window is not asked back in less than a minute."""


@dataclass(slots=True)
class Targets:
    """Pure but for the clock and the newest power."""

    site: Site
    live: LiveState
    clock: Clock
    entry: Callable[[], RegisteredSite | None]
    """The site in the register, as far as there is one."""
    emergency_w: Callable[[], int]

    def point_of(self, order: Order) -> str | None:
        """The metering or virtual point an order is judged by."""
        measured = self.site.measured_at
        if order.measured_at == "net_import":
            return measured.net_import
        if order.measured_at == "gross_mining":
            return measured.gross_mining
        name = order.measured_at.removeprefix("point:")
        known = {p.id for p in self.site.metering_points} | {v.id for v in self.site.virtual_points}
        return name if order.measured_at.startswith("point:") and name in known else None

    def contracted_w(self) -> int:
        """Contracted power: the register's word, the site file's until there is one."""
        entry = self.entry()
        return entry.contracted_w if entry else round(self.site.site.contracted_kw * 1000)

    def technological(self) -> tuple[int, int]:
        """Technological reservation: (W, ms); what a process needs, and for how long, to end safely."""
        entry = self.entry()
        if entry is not None:
            return entry.technological_w, entry.technological_min * 60_000
        reservation = self.site.site.reservation
        return round(reservation.technological_kw * 1000), round(reservation.technological_min * 60_000)

    def stage_w(self, stage: int) -> int | None:
        """Limit of a stage, W, as the register has it; ``None`` where it has none."""
        entry = self.entry()
        return next((s.limit_w for s in entry.stages if s.stage == stage), None) if entry else None

    def at(self, order: Order, before_w: int | None, now_ms: int, *, sure: bool = True) -> int | None:
        """Target in W; ``None`` where the order names no power, or its reduction has no known power to begin from.

        Args:
            order: what was ordered.
            before_w: power when it arrived.
            now_ms: the present.
            sure: whether the clock can be relied on; of a schedule the strictest hour counts where it cannot.
        """
        contracted = self.contracted_w()
        floor = self.emergency_w()
        match order.action:
            case "limit":
                wanted = order.limit_w if order.limit_w is not None else contracted * (order.permille or 0) // 1000
            case "reduce":
                if before_w is None:
                    return None
                by = order.reduce_w if order.reduce_w is not None else contracted * (order.permille or 0) // 1000
                wanted = before_w - by
            case "stage":
                found = self.stage_w(order.stage or 0)
                wanted = floor if found is None else found
            case "schedule":
                hours = order.hours or (0,) * 24
                wanted = hours[hour_of(now_ms)] if sure else min(hours)
            case "stop" | "emergency_trip":
                wanted = floor
            case _:
                return None
        # The reservation is the site's: it bounds what the site draws, not one feeder or the machines alone.
        return max(wanted, floor if self.point_of(order) == self.site.measured_at.net_import else 0)

    def ends_process(self, order: LiveOrder) -> bool:
        """True while a stop leaves the technological reservation its time."""
        watts, lasts_ms = self.technological()
        if order.order.action != "stop" or watts <= self.emergency_w():
            return False
        return self.clock.now_ms() < order.received_ms + lasts_ms

    def account(self, order: LiveOrder) -> None:
        """Set what follows from the moment: the process that still has its time, and the energy left in the window."""
        order.process_w = self.technological()[0] if self.ends_process(order) else 0
        basis = order.order.limit_basis
        target = order.doc.target_w
        if basis == "instant_1min" or target is None:
            order.allowed_w = None
            return
        now = self.clock.now_ms()
        length = self.site.agent.slot_s * 1000 if basis == "slot" else HOUR_MS
        power = self.live.judged(order.doc.point).value_w
        window = order.doc.window
        if window is None or now >= window["end_ms"]:
            start = now - now % length
            begun = max(start, order.received_ms) if window is None else start
            order.doc.window = window = Window(from_ms=begun, end_ms=start + length, at_ms=begun, used_mwh=0)
        passed_ms = max(0, now - window["at_ms"])
        most = max(order.doc.before_w or 0, self.contracted_w())
        # What was not read, or not while this process ran, is taken for the most that it can have been: doubt sheds.
        drawn = most if power is None or passed_ms > UNSEEN_MS else power
        window["used_mwh"] += max(0, drawn) * passed_ms // 3600
        window["at_ms"] = now
        budget_mwh = target * (window["end_ms"] - window["from_ms"]) // 3600
        left_ms = max(LEAST_LEFT_MS, window["end_ms"] - now)
        allowed = max(0, budget_mwh - window["used_mwh"]) * 3600 // left_ms
        at_site = order.doc.point == self.site.measured_at.net_import
        order.allowed_w = max(allowed, self.emergency_w() if at_site else 0)


def hour_of(now_ms: int) -> int:
    """Hour of the day, 0 to 23, in Kazakhstan time."""
    return (now_ms + KZ_OFFSET_MS) // HOUR_MS % 24
