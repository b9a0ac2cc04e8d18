"""The load that emergency automatics (САОН) count on: live MW behind the feeders of each stage. Read, never driven.

Machines that sleep empty a stage without anybody noticing. The volume is told with every live message, and an alarm
says when it falls below what the site owes.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.curtailment.curtailable import power_behind
from agent.curtailment.fleet import Fleet
from agent.live import LiveState
from config.nodes import Switch
from config.site import Site


@dataclass(frozen=True, slots=True)
class SaonVolume:
    """Sums over feeders whose stage is ``in``."""

    site: Site
    fleet: Fleet
    live: LiveState

    def now(self) -> dict[int, int | None]:
        """Stage → W behind its feeders; ``None`` where one of them is not known."""
        found: dict[int, int | None] = {}
        for node in self.site.nodes:
            if not isinstance(node, Switch):
                continue
            for stage in node.saon:
                if stage.state != "in":
                    continue
                behind, before = power_behind(self.fleet, self.live, node.id), found.get(stage.stage, 0)
                found[stage.stage] = None if behind is None or before is None else before + behind
        return found

    def short(self) -> set[int]:
        """Stages with less behind them than the site owes. What is not known is not said to be short."""
        volumes = self.now()
        return {
            duty.stage
            for duty in self.site.site.saon
            if (watts := volumes.get(duty.stage)) is not None and watts < duty.min_kw * 1000
        }
