"""What the rules say of one point: findings as runs of slots, the slots they stand against, what was not judged."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from verifier.plausible.rules import LISTED, RULES, WORDS, Severity

NUMBERS = {rule: number for number, rule in enumerate(RULES, 1)}
NAMES = tuple(RULES)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a rule holds against the slots [``t0``, ``t1``) of a point. ``unit`` is that of both numbers."""

    rule: str
    severity: Severity
    point: str
    t0: int
    t1: int
    seen: int | None
    expected: int | None
    unit: str
    what: str

    def figures(self) -> str:
        """``seen`` and ``expected`` for a person."""
        unit = f" {self.unit}" if self.unit else ""
        parts = [f"{name} {n}{unit}" for name, n in (("seen", self.seen), ("expected", self.expected)) if n is not None]
        return ", ".join(parts)

    def report(self) -> dict[str, object]:
        """For the report."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "point": self.point,
            "from": self.t0,
            "to": self.t1,
            "seen": self.seen,
            "expected": self.expected,
            "unit": self.unit,
            "what": self.what,
        }


@dataclass(slots=True)
class Said:
    """Collects for one point. Bounded: beyond ``LISTED`` findings of a rule are counted, not kept."""

    point: str
    start_s: int
    slot_s: int
    slots: int
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Rule → findings."""
    doubted: dict[str, tuple[int, int | None, Finding]] = field(default_factory=dict)
    """Rule → how many of them are doubts that nothing else tells of; the first one's place, and how it began."""
    grave: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Rule → from the first to the last slot that a ``fail`` or ``suspect`` stands against."""
    judged: set[str] = field(default_factory=set)
    unjudged: dict[str, str] = field(default_factory=dict)
    against: bytearray = field(init=False)
    """Of each asked slot: number of the first rule that lowers it, 0 for none."""
    _listed: dict[str, int] = field(default_factory=dict)
    _ends: dict[tuple[str, str, Severity], tuple[int, int | None]] = field(default_factory=dict)
    """Where the last run of each kind ended, and its place in ``findings``."""

    def __post_init__(self) -> None:
        self.against = bytearray(self.slots)

    def hold(
        self,
        rule: str,
        severity: Severity,
        t0: int,
        t1: int,
        seen: int | None,
        expected: int | None,
        unit: str,
        what: str,
        *,
        told: bool = False,
    ) -> None:
        """Hold something against [``t0``, ``t1``); what continues the run before is one finding with it.

        Args:
            told: another doubt tells of it already.
        """
        self.judged.add(rule)
        if severity != "warn":
            since, until = self.grave.get(rule, (t0, t1))
            self.grave[rule] = min(since, t0), max(until, t1)
            if RULES[rule].lowers:
                self._lower(rule, t0, t1)
        kind = rule, what, severity
        end, place = self._ends.get(kind, (None, None))
        if end == t0:
            if place is not None:
                self.findings[place] = _longer(self.findings[place], t1, seen, expected)
            self._ends[kind] = t1, place
            return
        found = Finding(rule, severity, self.point, t0, t1, seen, expected, unit, what)
        self.counts[rule] = self.counts.get(rule, 0) + 1
        place = None
        if self._listed.get(rule, 0) < LISTED:
            self._listed[rule] = self._listed.get(rule, 0) + 1
            place = len(self.findings)
            self.findings.append(found)
        if severity != "warn" and not told:
            count, at, first = self.doubted.get(rule, (0, place, found))
            self.doubted[rule] = count + 1, at, first
        self._ends[kind] = t1, place

    def slot(
        self, rule: str, severity: Severity, t0: int, seen: int | None, expected: int | None, unit: str, what: str
    ) -> None:
        """Hold something against the slot at ``t0``."""
        self.hold(rule, severity, t0, t0 + self.slot_s, seen, expected, unit, what)

    def _lower(self, rule: str, t0: int, t1: int) -> None:
        first = max(0, (t0 - self.start_s) // self.slot_s)
        number = NUMBERS[rule]
        for index in range(first, min(self.slots, (t1 - self.start_s) // self.slot_s)):
            self.against[index] = self.against[index] or number

    def leave(self, rule: str, why: str) -> None:
        """The rule had nothing to look at here."""
        if rule not in self.judged:
            self.unjudged[rule] = why

    def doubts(self) -> list[str]:
        """One line for each rule."""
        lines = []
        for rule, (count, place, begun) in self.doubted.items():
            first = begun if place is None else self.findings[place]
            word = WORDS.get(rule, "")
            head = f"{word} {self.point}: {rule} " if word else f"{rule} {self.point}: "
            figures = first.figures()
            at = f"from {first.t0} to {first.t1}"
            more = f"; {count - 1} more" if count > 1 else ""
            lines.append(f"{head}{first.what} {at}{': ' if figures else ''}{figures}{more}")
        return lines


def _longer(found: Finding, t1: int, seen: int | None, expected: int | None) -> Finding:
    if seen is not None and (found.seen is None or abs(seen) > abs(found.seen)):
        return replace(found, t1=t1, seen=seen, expected=expected)
    return replace(found, t1=t1)
