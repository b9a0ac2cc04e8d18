"""What is recorded of a branch that was switched off is enough to judge it, from signed records alone.

The judge here is written from the rule in the protocol and uses nothing of the agent: frames are decoded again, and the
switch's position comes from its own signed events. ``Z``: no energy, proven. ``P``: part of the slot was live, and its
energy is known between readings. ``R``: known only together with its neighbours.
"""

from __future__ import annotations

import asyncio
import copy
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.unit.metering_kit import SLOT, START_S, metering
from verifier.energy import bits_from, read_map, words_of

IMPORT = "energy_import_wh"
SLACK_MS = 5_000
"""Between the moment at which contacts part and the record that says so."""
Record = dict[str, Any]


class Judge:
    """Grades the gaps of one metering point between two intervals."""

    def __init__(self, records: list[Record], events: list[Record]) -> None:
        self.records, self.events = records, [e for e in events if e.get("ev") == "switch_position"]
        self.how = read_map(records[0]["pts"][IMPORT])

    def grades(self) -> dict[int, str]:
        found: dict[int, str] = {}
        run: list[Record] = []
        for record in self.records:
            if record["ty"] == "gap":
                run.append(record)
            elif record["ty"] == "interval":
                if run:
                    found |= self._run(run) if "bridge_wh" in record else {g["t0"]: "M" for g in run}
                run = []
        return found

    def _run(self, run: list[Record]) -> dict[int, str]:
        grades = {g["t0"]: "R" for g in run}
        for i, first in enumerate(run):
            if not self._edge(first, "e1"):
                continue
            j = next((k for k in range(i + 1, len(run)) if "e0" in run[k]), None)
            if j is None or not self._edge(run[j], "e0"):
                continue
            if self._dead(first["e1"], run[j]["e0"], first.get("sw")):
                for k in range(i + 1, j):
                    if run[k]["why"] == "DE_ENERGISED" and run[k]["sw"] == first["sw"]:
                        grades[run[k]["t0"]] = "Z"
                for edge in (first, run[j]):
                    if self._part(edge):
                        grades[edge["t0"]] = "P"
        return grades

    def _energy(self, edge: Record) -> Fraction:
        found = self.how.energy(edge["reg"][IMPORT])
        assert found is not None
        return found

    def _edge(self, gap: Record, name: str) -> bool:
        edge = gap.get(name)
        if edge is None or not gap["t0"] * 1000 <= edge["rt"] <= gap["t1"] * 1000 + 30_000:
            return False
        return bits_from(words_of(edge["raw"]), self.how) == edge["reg"][IMPORT]

    def _part(self, gap: Record) -> bool:
        if "part_wh" not in gap or not (self._edge(gap, "e0") and self._edge(gap, "e1")):
            return False
        low, high = (self._energy(gap[name]) for name in ("e0", "e1"))
        return gap["part_wh"] == high.__floor__() - low.__floor__() >= 0

    def _dead(self, before: Record, after: Record, switch: str | None) -> bool:
        """True where the switch was open from shortly after one reading to shortly before the other, at rest."""
        events = [e for e in self.events if e["obj"] == switch]
        inside = [e for e in events if before["rt"] <= e["at"] <= after["rt"] + SLACK_MS]
        if len(inside) != 2 or [e["now"] for e in inside] != ["open", "closed"] or None in {before["w"], after["w"]}:
            return False
        opened, closed = inside
        unseen_ms = max(0, opened["at"] - before["rt"]) + max(0, after["rt"] - closed["at"]) + 2 * SLACK_MS
        most = Fraction(3, 2) * max(abs(before["w"]), abs(after["w"])) * unseen_ms / 3_600_000 + 2
        return 0 <= self._energy(after) - self._energy(before) <= most


async def dark_day(folder: Path, seed: int) -> tuple[list[Record], list[Record]]:
    """KM1 opens and closes at random moments of a few hours."""
    rng = random.Random(seed)
    async with metering(folder, seed=seed) as kit:
        await kit.close_slot(START_S)
        slot, is_open = 1, False
        for _ in range(6):
            for _ in range(rng.randrange(1, 4)):
                await kit.close_slot(START_S + slot * SLOT)
                slot += 1
            await kit.go_to(START_S + (slot - 1) * SLOT + rng.randrange(60, SLOT - 60))
            await kit.operate("KM1", close=is_open)
            is_open = not is_open
        for _ in range(3):
            await kit.close_slot(START_S + slot * SLOT)
            slot += 1
        return await kit.records("mp:M1"), await kit.records("site")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], list[Record]]:
    """One such day, recorded once."""
    return asyncio.run(dark_day(tmp_path_factory.mktemp("dark"), 0))


def test_every_slot_of_a_switched_off_branch_is_proven_dead_or_priced_at_its_edge(
    recorded: tuple[list[Record], list[Record]],
) -> None:
    records, events = recorded
    grades = Judge(records, events).grades()
    gaps = {r["t0"]: r["why"] for r in records if r["ty"] == "gap"}
    assert gaps
    assert {t: {"DE_ENERGISED": "Z", "NO_POWER": "P"}[why] for t, why in gaps.items()} == grades
    for record in records:
        if "bridge_wh" in record:
            parts = [g["part_wh"] for g in records if g["ty"] == "gap" and g["t1"] <= record["t0"] and "part_wh" in g]
            assert record["bridge_wh"] <= sum(parts) + 40


@pytest.mark.parametrize("forgery", ["reg", "raw", "position", "part", "power flowed"])
def test_a_forged_darkness_is_not_proven(recorded: tuple[list[Record], list[Record]], forgery: str) -> None:
    records, events = copy.deepcopy(recorded)
    edge = next(r for r in records if r["ty"] == "gap" and "e1" in r and r["why"] == "NO_POWER")
    back = next(r for r in records if r["ty"] == "gap" and "e0" in r and r["t0"] > edge["t0"])
    if forgery == "reg":
        edge["e1"]["reg"][IMPORT] += 1
    elif forgery == "raw":
        edge["e1"]["raw"] = edge["e0"]["raw"]
    elif forgery == "position":
        events = [e for e in events if not (e.get("ev") == "switch_position" and e["now"] == "open")]
    elif forgery == "part":
        edge["part_wh"] += 1
    else:
        back["e0"] |= {name: back["e1"][name] for name in ("reg", "raw")}
    grades = Judge(records, events).grades()
    assert grades[edge["t0"]] == "R"
    if forgery != "part":
        assert grades[back["t0"]] == "R"
        between = [g["t0"] for g in records if g["ty"] == "gap" and edge["t0"] < g["t0"] < back["t0"]]
        assert all(grades[t] == "R" for t in between)


async def test_a_branch_is_proven_dark_while_its_switch_is_read_open_and_its_fall_was_seen(tmp_path: Path) -> None:
    async with metering(tmp_path, seed=1) as kit:
        await kit.close_slot(START_S)
        assert kit.closer.dark_w("M1") is None, "it is live, and speaks for itself"
        await kit.go_to(START_S + 100)
        await kit.operate("KM1", close=False)
        await kit.go_to(START_S + 110)
        assert kit.closer.dark_w("M1") is None, "its position was not read lately"
        kit.see_switches()
        assert kit.closer.dark_w("M1") == 0
        assert kit.closer.dark_w("M0") is None
        await kit.operate("KM1", close=True)
        await kit.go_to(START_S + 130)
        assert kit.closer.dark_w("M1") is None
