"""A problem in a file that a person wrote, told so that the person can mend it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning"]
Path = tuple[str | int, ...]
"""Place in the file: ``("nodes", 12, "close")``."""


def place(path: Path) -> str:
    """``("nodes", 12, "close")`` → ``nodes[12].close``; the whole file is ``file``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "file"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: where, what was seen, what was expected, what to do."""

    severity: Severity
    file: str
    line: int | None
    where: str
    seen: str
    expected: str
    todo: str

    @property
    def location(self) -> str:
        """``site.yaml:41``."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def message(self) -> str:
        """``saw 'automatic', expected one of never|by_person|auto; …``."""
        text = f"saw {self.seen}, expected {self.expected}"
        return f"{text}; {self.todo}" if self.todo else text

    def __str__(self) -> str:
        return f"{self.location}: {self.where}: {self.message}"


class ConfigError(Exception):
    """A file cannot be used. ``problems`` holds every problem found, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Where each key and list item of a file stands. Empty where a site was not read from a file."""

    file: str = "site"
    lines: Mapping[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int | None:
        """Line of the path, or of the nearest enclosing thing that has one."""
        for length in range(len(path), -1, -1):
            found = self.lines.get(path[:length])
            if found is not None:
                return found
        return None

    def problem(self, severity: Severity, path: Path, seen: str, expected: str, todo: str) -> Problem:
        """A problem at a place of this file."""
        return Problem(severity, self.file, self.line(path), place(path), seen, expected, todo)
