"""The daily round: every switch's position and readiness, САОН inputs and proof tests, as signed records.

Changes are recorded when they happen. The round is the ground they stand on: with it a reader knows the state also of a
switch that never moved, and how long it is known.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog

from agent.acquisition import Bench
from agent.curtailment.gates import MONTH_MS, MUST_BE, Gates
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.live import LiveState
from config.nodes import Switch
from drivers.capabilities import SwitchState

log = structlog.get_logger()

FIRST_S = 15.0
"""So long after a start everything that answers has answered."""
PERIOD_S = 24 * 3600.0
PART = 200
"""Switches in one record: a record is bounded."""


def readiness(node: Switch, state: SwitchState) -> str:
    """``good``; ``bad: …`` with the reason; ``unknown: …`` where a wired point is not read; ``absent`` if none is."""
    wired = [name for name in MUST_BE if getattr(node.readiness, name) is not None]
    unread = None
    for name in wired:
        good, reason = MUST_BE[name]
        seen: bool | None = getattr(state, name)
        if seen is (not good):
            return f"bad: {reason}"
        if seen is None:
            unread = name
    if unread is not None:
        return f"unknown: {unread}"
    return "good" if wired else "absent"


@dataclass(slots=True)
class Rounds:
    """Writes the round after a start and each day."""

    ledger: Ledger
    live: LiveState
    gates: Gates
    bench: Bench
    first_s: float = FIRST_S

    def look(self) -> list[dict[str, Any]]:
        """Fields of the records of one round."""
        rows: list[list[Any]] = []
        for name, state in sorted(self.live.switches.items()):
            node = self.gates.switches.get(name)
            if node is not None:
                rows.append([name, state.position.value, readiness(node, state), name in self.gates.tags])
        parts = [rows[i : i + PART] for i in range(0, len(rows), PART)] or [[]]
        saon = [[feeder, stage, operated] for (feeder, stage), operated in sorted(self.bench.saon.items())][:PART]
        proof = []
        for name in sorted(self.gates.fingerprints):
            done = self.gates.commissioned.get(name)
            due = None if done is None else done.at + self.gates.switches[name].proof_test_months * MONTH_MS
            proof.append([name, None if done is None else done.at, due])
        found: list[dict[str, Any]] = []
        for number, part in enumerate(parts):
            detail: dict[str, Any] = {"switches": part}
            if number == 0:
                detail |= {"saon": saon, "proof": proof[: 2 * PART]}
            found.append({"ev": "round", "obj": "site", "now": f"{number + 1}/{len(parts)}", "detail": detail})
        return found

    async def run(self) -> None:
        """Write rounds until cancelled."""
        await asyncio.sleep(self.first_s)
        while True:
            try:
                txn = Txn()
                for fields in self.look():
                    txn.record("site", "event", fields)
                await self.ledger.commit(txn)
            except LedgerError as error:
                log.error("round_not_recorded", error=str(error))
            await asyncio.sleep(PERIOD_S)
