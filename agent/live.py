"""Live state: the newest value of every point, with quality and age."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import Clock
from agent.metering.registers import applied_ratio
from config.nodes import Generator, Storage
from config.site import Site
from drivers.capabilities import MinerStatus, Reading, Sample, SwitchState
from wire.quality import Quality

_NOT_READ = Reading(None, Quality.NOT_READ)
IMPOSSIBLE = 10
"""Power of so many times the contract is not a reading: no part of the site can draw it."""


@dataclass(frozen=True, slots=True)
class Power:
    """Power at a metering or virtual point, W; ``None`` where it is not known now."""

    value_w: int | None
    at_ms: int
    mono_ns: int
    quality: Quality

    def age_s(self, mono_ns: int) -> float:
        """Seconds since it was read."""
        return (mono_ns - self.mono_ns) / 1e9


UNKNOWN_POWER = Power(None, 0, 0, Quality.NOT_READ)


@dataclass(frozen=True, slots=True)
class Miner:
    """Newest answer of one machine."""

    status: MinerStatus | None
    quality: Quality
    at_ms: int
    mono_ns: int
    error: str | None = None


class LiveState:
    """Fed by acquisition; read by everyone else. Lives in the event loop only."""

    def __init__(self, site: Site, clock: Clock) -> None:
        self._clock = clock
        self._points = {p.id: p for p in site.metering_points}
        self._ratios = {p.id: float(applied_ratio(p.passport)) for p in site.metering_points}
        self._virtual = {v.id: v for v in site.virtual_points}
        self._periods = {d.id: d.period_s for d in site.devices}
        self._possible_w = IMPOSSIBLE * 1000 * site.site.contracted_kw
        self._net = site.measured_at.net_import
        self._gives = any(isinstance(n, Generator | Storage) for n in site.nodes)
        self._noise_w = 10 * site.site.contracted_kw
        self.samples: dict[str, Sample] = {}
        self.miners: dict[str, Miner] = {}
        self.switches: dict[str, SwitchState] = {}
        self._read: dict[str, tuple[int, int]] = {}
        """Device → (ms, monotonic ns) of the last sample whose power could be used."""
        self.dark_w: Callable[[str], int | None] = lambda _point: None
        """The most that a metering point can draw while its meter is proven dark behind an open switch."""
        self._on_sample: list[Callable[[Sample], None]] = []
        self._on_switch: list[Callable[[str, SwitchState | None, SwitchState], None]] = []

    def on_sample(self, listener: Callable[[Sample], None]) -> None:
        """Call back for each sample of a meter or PDU."""
        self._on_sample.append(listener)

    def on_switch(self, listener: Callable[[str, SwitchState | None, SwitchState], None]) -> None:
        """Call back (switch, state before, state now) for each reading of a switch."""
        self._on_switch.append(listener)

    def put_sample(self, sample: Sample) -> None:
        """A meter or PDU was polled."""
        self.samples[sample.device] = sample
        if sample.readings.get("power_w", _NOT_READ).quality.usable:
            self._read[sample.device] = (sample.at_ms, sample.mono_ns)
        for listener in self._on_sample:
            listener(sample)

    def put_miner(self, machine: str, status: MinerStatus | None, quality: Quality, error: str | None) -> None:
        """A machine was polled."""
        self.miners[machine] = Miner(status, quality, self._clock.now_ms(), self._clock.mono_ns(), error)

    def put_switch(self, switch: str, state: SwitchState) -> None:
        """A switch was read."""
        was = self.switches.get(switch)
        self.switches[switch] = state
        for listener in self._on_switch:
            listener(switch, was, state)

    def reading(self, device: str, point: str) -> Reading:
        """Newest reading of a device's point."""
        sample = self.samples.get(device)
        return _NOT_READ if sample is None else sample.readings.get(point, _NOT_READ)

    def device_alive(self, device: str) -> bool:
        """True where the device answered within three periods."""
        sample = self.samples.get(device)
        if sample is None or not sample.ok:
            return False
        return (self._clock.mono_ns() - sample.mono_ns) / 1e9 <= 3 * self._periods.get(device, 1.0) + 1.0

    def power(self, point: str) -> Power:
        """Power at a metering or virtual point now. Stale, odd or missing members make it unknown."""
        return self._possible(point, self._sum(point, self._metering_power))

    def judged(self, point: str) -> Power:
        """The same for judging an order: a meter that went dark with the branch it measures does not make it unknown,
        where the switch is read open and the meter above saw the branch fall. A record never says this power."""
        return self._possible(point, self._sum(point, self._judged_power))

    def reactive_var(self, point: str) -> int | None:
        """Reactive power at a metering or virtual point now, var, import positive; unknown as :meth:`power` is."""
        return self._sum(point, lambda name: self._metering(name, "power_reactive_var")).value_w

    def _possible(self, point: str, power: Power) -> Power:
        """A site without generation gives nothing to the grid: what says so is a wrong sign, not a low load."""
        if point != self._net or self._gives or power.value_w is None or power.value_w >= -self._noise_w:
            return power
        return Power(None, power.at_ms, power.mono_ns, Quality.SUSPECT)

    def _judged_power(self, point: str) -> Power:
        read = self._metering_power(point)
        most_w = self.dark_w(point) if read.value_w is None else None
        return read if most_w is None else Power(most_w, self._clock.now_ms(), self._clock.mono_ns(), Quality.GOOD)

    def _sum(self, point: str, power_of: Callable[[str], Power]) -> Power:
        virtual = self._virtual.get(point)
        if virtual is None:
            return power_of(point)
        total, oldest_ms, oldest_ns = 0, 2**62, 2**62
        for sign, member in virtual.terms():
            # What is taken off the sum is taken off only where it was read.
            part = self._sum(member, power_of if sign > 0 else self._metering_power)
            if part.value_w is None:
                return Power(None, part.at_ms, part.mono_ns, part.quality)
            total += sign * part.value_w
            oldest_ms, oldest_ns = min(oldest_ms, part.at_ms), min(oldest_ns, part.mono_ns)
        return Power(total, oldest_ms, oldest_ns, Quality.GOOD)

    def _metering_power(self, point: str) -> Power:
        return self._metering(point, "power_w")

    def _metering(self, point: str, name: str) -> Power:
        known = self._points.get(point)
        sample = self.samples.get(known.device) if known else None
        if known is None or sample is None:
            return UNKNOWN_POWER
        reading = sample.readings.get(name, _NOT_READ)
        if not reading.quality.usable or not isinstance(reading.value, int | float):
            # Its age is that of the last reading, however often the meter was asked in vain since.
            return Power(None, *self._read.get(known.device, (0, 0)), reading.quality)
        age = (self._clock.mono_ns() - sample.mono_ns) / 1e9
        if age > 3 * self._periods.get(known.device, 1.0) + 1.0:
            return Power(None, sample.at_ms, sample.mono_ns, Quality.STALE)
        if abs(reading.value) * self._ratios[point] > self._possible_w:
            return Power(None, sample.at_ms, sample.mono_ns, Quality.SUSPECT)
        # Where the agent applies the transformers' ratios, the meter shows secondary power.
        value = round(reading.value * self._ratios[point])
        return Power(-value if known.inverted else value, sample.at_ms, sample.mono_ns, Quality.GOOD)
