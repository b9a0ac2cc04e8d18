"""What came of a test: for the person, for the evidence, and as it goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.commissioning.judge import SILENT, Seen
from wire.acts import OutputTest

NAMED = 50
"""So many machines are named in a record; the rest is counted."""


class Stopped(Exception):
    """The test cannot go on: a person, an order, a tag. It says nothing about the plant."""


class Failed(Exception):
    """The plant did not do what it should. Outputs that this speaks against are named with their reasons."""

    def __init__(self, why: str, refused: dict[str, str] | None = None) -> None:
        super().__init__(why)
        self.refused = refused or {}


@dataclass(slots=True)
class Outcome:
    """One test, as far as it came. Powers in W, times in ms."""

    id: str
    output: str
    persons: tuple[str, ...]
    note: str
    began_ms: int
    ended_ms: int = 0
    passed: bool = False
    why: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Outputs that must not be used after this, and why."""
    test: OutputTest | None = None
    expected_w: int | None = None
    before: dict[str, Seen] = field(default_factory=dict)
    after: dict[str, Seen] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    meters: list[dict[str, Any]] = field(default_factory=list)
    slept: int = 0
    cut_live: int = 0
    opened_ms: int | None = None
    closed_ms: int | None = None
    closed_by: str | None = None
    load_w: int | None = None
    """Behind the output before the test."""
    returned_w: int | None = None
    not_back: list[str] = field(default_factory=list)
    left: tuple[str, ...] = ()
    """Machines that this test laid down and did not put back."""

    def document(self) -> dict[str, Any]:
        """For the record and for the person: whole numbers, texts, lists of pairs."""
        return {
            "test": self.id,
            "output": self.output,
            "passed": self.passed,
            "why": [w[:300] for w in self.why],
            "refused": [[o, w[:300]] for o, w in sorted(self.refused.items())],
            "persons": list(self.persons),
            "note": self.note,
            "began": self.began_ms,
            "ended": self.ended_ms,
            "opened": self.opened_ms,
            "closed": self.closed_ms,
            "closed_by": self.closed_by,
            "proof": None if self.test is None else self.test.model_dump(mode="json"),
            "expected_w": self.expected_w,
            "powers": [[p, s.power_w, self.after.get(p, SILENT).power_w] for p, s in sorted(self.before.items())],
            "without": list(self.without),
            "meters": self.meters,
            "slept": self.slept,
            "cut_live": self.cut_live,
            "load_w": self.load_w,
            "returned_w": self.returned_w,
            "not_back": self.not_back[:NAMED],
            "not_back_count": len(self.not_back),
            "left_asleep": list(self.left[:NAMED]),
            "left_asleep_count": len(self.left),
        }
