"""Capacitor banks and filters: which are on, and the reactive power that stays at the net point when load goes.

An estimate for people. The agent switches no bank and regulates no voltage.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.clock import Clock
from agent.curtailment.cooling import STALE_S
from config.nodes import Compensation
from config.site import Site

NOISE_PERMILLE = 10
"""Reactive power below this share of the contracted power is no export to warn of."""


@dataclass(slots=True)
class Banks:
    """Compensation nodes of a site; fed by the images of the modules that read their contacts."""

    site: Site
    clock: Clock
    nodes: tuple[Compensation, ...] = field(init=False)
    _read: dict[tuple[str, str], tuple[bool | None, int]] = field(default_factory=dict)
    """(device, input) → what it felt, and when (monotonic)."""

    def __post_init__(self) -> None:
        self.nodes = tuple(n for n in self.site.nodes if isinstance(n, Compensation))

    def take(self, device: str, inputs: Mapping[str, bool | None]) -> None:
        """A module was read; ``None`` is not known."""
        now = self.clock.mono_ns()
        for bank in self.nodes:
            for wire in () if bank.position is None else (bank.position.open, bank.position.closed):
                if wire.device == device:
                    read = inputs.get(wire.input)
                    self._read[device, wire.input] = None if read is None else read is not wire.inverted, now

    def on(self, bank: Compensation, energised: Collection[str]) -> bool | None:
        """Is it connected to a live bus? By its contacts, and by the switches above; ``None`` where its contacts do not
        say, or not lately."""
        if bank.id not in energised:
            return False
        if bank.position is None:
            return True
        seen = [self._read.get((w.device, w.input), (None, 0)) for w in (bank.position.open, bank.position.closed)]
        now = self.clock.mono_ns()
        opened, closed = (value if (now - at) / 1e9 <= STALE_S else None for value, at in seen)
        return closed if opened is not None and closed is not None and opened is not closed else None

    def expect(
        self, var: int | None, watt: tuple[int | None, int | None], before: Collection[str], after: Collection[str]
    ) -> dict[str, Any]:
        """Reactive power at the net point after a cut, as plain data; var, drawn positive.

        What loads draw falls with their power. Banks stay with all of their rating where they stay live, and so does
        what gives reactive power now and is no bank (cables, filters).

        Args:
            var: now; ``None`` where it is not read.
            watt: active power now and after the cut.
            before: nodes that are live now.
            after: nodes that are live after the cut.
        """
        on = {bank.id: self.on(bank, before) for bank in self.nodes}
        stays = {bank.id: bank.id in after and on[bank.id] is not False for bank in self.nodes}
        rated = {bank.id: round(bank.rated_kvar * 1000) for bank in self.nodes}
        found: int | None = None
        unknown = [name for name, state in on.items() if state is None]
        now_w, after_w = watt
        why = None
        if var is None:
            why = "reactive power is not read at the net point"
        elif now_w is None or now_w <= 0 or after_w is None:
            why = "active power at the net point is not known, or nothing is drawn"
        elif unknown:
            why = f"position of {', '.join(unknown)} is not known"
        else:
            loads = var + sum(rated[name] for name, state in on.items() if state)
            left = loads if loads < 0 else loads * min(max(after_w, 0), now_w) // now_w
            found = left - sum(rated[name] for name in rated if stays[name])
        return {
            "var": var,
            "after_var": found,
            "why": why,
            "banks": [{"id": n, "rated_var": rated[n], "on": on[n], "stays": stays[n]} for n in rated],
            "warnings": self._warnings(var, found, why, sum(rated[n] for n in rated if stays[n])),
        }

    def _warnings(self, var: int | None, after: int | None, why: str | None, stays: int) -> list[str]:
        if after is None:
            return [f"{stays / 1000:.0f} kvar of compensation stay on; what that makes is not known: {why}"] * (
                stays > 0
            )
        if after >= -self.site.site.contracted_kw * NOISE_PERMILLE:
            return []
        now = f"now {abs(var or 0) / 1000:.0f} kvar {'drawn' if (var or 0) >= 0 else 'given'}"
        told = f"reactive export of {-after / 1000:.0f} kvar expected at the net point ({now})"
        if stays > 0:
            told += f": overcompensation, {stays / 1000:.0f} kvar of capacitors and filters stay on; voltage rises"
        return [told]
