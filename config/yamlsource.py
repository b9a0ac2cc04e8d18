"""YAML text → plain data plus the line of every key and list item.

Built from the parser's events rather than PyYAML's loader, because a file that a person wrote for a plant needs what
the loader does not give: lines, duplicate keys refused, no anchors, aliases or tags (so no bombs and no objects),
bounded size and depth. Plain words follow the YAML 1.2 core schema: ``no``, ``on`` and ``12:30`` stay text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath

import yaml

from config.problems import ConfigError, Path, Problem, SourceMap, place

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 24
MAX_ITEMS = 400_000

Data = dict[str, "Data"] | list["Data"] | str | int | float | bool | None

_INT = re.compile(r"^[-+]?(0|[1-9][0-9]*)$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_LEADING_ZERO = re.compile(r"^[-+]?0[0-9]")
_MAX_DIGITS = 40


@dataclass(slots=True)
class _Open:
    """A mapping or list that is still being read."""

    path: Path
    value: dict[str, Data] | list[Data]
    key: str | None = None
    lines: dict[str, int] = field(default_factory=dict)


def read(path: FilePath) -> tuple[Data, SourceMap]:
    """Read a file.

    Raises:
        ConfigError: it cannot be opened, is not UTF-8, too large, or :func:`parse` refuses it.
    """
    name = path.name
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _error(name, None, error.strerror or str(error), "a readable file", f"check the path {path}") from error
    if len(raw) > MAX_BYTES:
        raise _error(
            name, None, f"more than {MAX_BYTES} bytes", f"at most {MAX_BYTES}", "use address ranges for machines"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _error(name, line, f"byte 0x{raw[error.start]:02x}", "UTF-8 text", "save the file as UTF-8") from error
    return parse(text, name)


def parse(text: str, name: str) -> tuple[Data, SourceMap]:
    """Parse YAML text; ``name`` is what problems call the file.

    Raises:
        ConfigError: not YAML, or YAML that a plant's file may not use (duplicate keys, anchors, tags, documents).
    """
    if len(text) > MAX_BYTES:
        raise _error(name, None, f"more than {MAX_BYTES} characters", f"at most {MAX_BYTES}", "")
    builder = _Builder(name)
    try:
        for event in _events(text):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise _syntax(name, text, error) from error
    except yaml.YAMLError as error:  # a control character: PyYAML gives a position, not a mark
        position = getattr(error, "position", None)
        line = text[:position].count("\n") + 1 if isinstance(position, int) else None
        raise _error(name, line, _first_line(error), "printable text", "remove the character") from error
    if builder.problems:
        raise ConfigError(builder.problems)
    return builder.root, SourceMap(name, builder.lines)


def _events(text: str) -> Iterator[yaml.Event]:
    # The C parser reads a large site file some ten times faster; it is absent where PyYAML was built without libyaml.
    yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


class _Builder:
    """Turns events into data; keeps going after a problem so that several are reported at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root: Data = None
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self._stack: list[_Open] = []
        self._documents = 0
        self._items = 0

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _error(self.name, line, "a second document (---)", "one document", "remove it")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _error(
                self.name, line, "an anchor or alias (& or *)", "plain values", "write the value out in each place"
            )
        if not isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            return
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _error(self.name, line, f"the tag {tag}", "plain values", "remove the tag")
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, yaml.MappingStartEvent):
            self._open({}, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._open([], line)
        else:
            self._stack.pop()

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            self._key(top, event.value, line)
            return
        plain = event.style in {None, ""}  # the C parser says "" where the Python one says None
        self._put(_plain(event.value) if plain else event.value, line)

    def _key(self, top: _Open, key: str, line: int) -> None:
        if key in top.lines:
            path = (*top.path, key)
            self._problem(
                path, line, f"{key!r} again, first in line {top.lines[key]}", "each key once", "remove one of the two"
            )
        top.key = key
        top.lines.setdefault(key, line)
        self.lines[(*top.path, key)] = line

    def _open(self, value: dict[str, Data] | list[Data], line: int) -> None:
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            raise _error(self.name, line, "a list or mapping as a key", "a word", "write a plain key")
        path = self._put(value, line)
        if len(self._stack) >= MAX_DEPTH:
            raise _error(self.name, line, f"nesting deeper than {MAX_DEPTH}", "a flatter file", "")
        self._stack.append(_Open(path, value))

    def _put(self, value: Data, line: int) -> Path:
        self._items += 1
        if self._items > MAX_ITEMS:
            raise _error(self.name, line, f"more than {MAX_ITEMS} values", "fewer", "use address ranges for machines")
        if not self._stack:
            self.root = value
            self.lines[()] = line
            return ()
        top = self._stack[-1]
        if isinstance(top.value, list):
            path: Path = (*top.path, len(top.value))
            top.value.append(value)
            self.lines[path] = line
            return path
        if top.key is None:  # cannot be: _scalar and _open turn these into keys or refuse them
            raise AssertionError("a value without its key")
        path = (*top.path, top.key)
        top.value[top.key] = value
        top.key = None
        return path

    def _problem(self, path: Path, line: int, seen: str, expected: str, todo: str) -> None:
        self.problems.append(Problem("error", self.name, line, place(path), seen, expected, todo))


def _plain(text: str) -> Data:
    """A plain (unquoted) word by the YAML 1.2 core schema; numbers with leading zeros stay text."""
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text in {"true", "True", "TRUE"}:
        return True
    if text in {"false", "False", "FALSE"}:
        return False
    if len(text) > _MAX_DIGITS or _LEADING_ZERO.match(text):
        return text
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    return text


def _syntax(name: str, text: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else None
    rows = text.split("\n")
    row = rows[line - 1] if line is not None and line <= len(rows) else ""
    if "\t" in row[: len(row) - len(row.lstrip())]:
        return _error(name, line, "a tab", "spaces for indentation", "replace the tab by spaces")
    return _error(name, line, error.problem or _first_line(error), "YAML", "check quotes, colons and indentation")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _error(name: str, line: int | None, seen: str, expected: str, todo: str) -> ConfigError:
    return ConfigError([Problem("error", name, line, "file", seen, expected, todo)])
