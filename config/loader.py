"""Files → models, with every mistake named by file and line.

``load_site`` and ``load_central`` answer whether a file can be *understood*; whether what it says is safe is
:mod:`config.check`'s question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path as FilePath
from types import UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from config import yamlsource
from config.central import Central
from config.problems import ConfigError, Path, Problem, SourceMap
from config.site import Site

M = TypeVar("M", bound=BaseModel)

SCHEMA_VERSIONS = (1,)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[M]):
    """A file that was understood, and where each of its keys stands."""

    value: M
    source: SourceMap


def load_site(path: FilePath | str) -> Site:
    """Read a site file.

    Raises:
        ConfigError: it cannot be read or understood; all problems at once.
    """
    return read_site(path).value


def load_central(path: FilePath | str) -> Central:
    """Read the settings of central.

    Raises:
        ConfigError: they cannot be read or understood; all problems at once.
    """
    return read_central(path).value


def read_site(path: FilePath | str) -> Loaded[Site]:
    """As :func:`load_site`, with the lines for :func:`config.check.check`."""
    return _validated(Site, *yamlsource.read(FilePath(path)))


def read_central(path: FilePath | str) -> Loaded[Central]:
    """As :func:`load_central`, with the lines."""
    return _validated(Central, *yamlsource.read(FilePath(path)))


def parse_site(text: str, name: str = "site.yaml") -> Loaded[Site]:
    """A site from text that is already in memory."""
    return _validated(Site, *yamlsource.parse(text, name))


def parse_central(text: str, name: str = "central.yaml") -> Loaded[Central]:
    """Settings of central from text that is already in memory."""
    return _validated(Central, *yamlsource.parse(text, name))


def _validated(model: type[M], data: yamlsource.Data, source: SourceMap) -> Loaded[M]:
    if not isinstance(data, dict):
        raise ConfigError(
            [source.problem("error", (), _shown(data), "a mapping of settings", "see config/examples for a whole file")]
        )
    if data.get("schema", 1) not in SCHEMA_VERSIONS:
        raise ConfigError(
            [
                source.problem(
                    "error",
                    ("schema",),
                    _shown(data["schema"]),
                    "|".join(str(version) for version in SCHEMA_VERSIONS),
                    "this release reads no other version of the file",
                )
            ]
        )
    try:
        return Loaded(model.model_validate(data), source)
    except ValidationError as error:
        problems = [_problem(model, data, source, dict(item)) for item in error.errors(include_url=False)]
        unique = dict.fromkeys(problems)
        raise ConfigError(sorted(unique, key=lambda problem: problem.line or 0)) from None


def _problem(model: type[BaseModel], data: yamlsource.Data, source: SourceMap, item: dict[str, Any]) -> Problem:
    path = _file_path(data, item["loc"])
    kind: str = item["type"]
    context: Mapping[str, Any] = item.get("ctx") or {}
    seen = _shown(item.get("input"))
    if kind == "missing":
        return source.problem("error", path, "nothing", "a value", "add it")
    if kind == "extra_forbidden":
        known = _known_fields(model, data, path[:-1])
        close = get_close_matches(str(path[-1]), known, n=1)
        todo = f"did you mean {close[0]}?" if close else "remove it"
        return source.problem("error", path, f"the unknown key {path[-1]!r}", _one_of(known), todo)
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        field = str(context.get("discriminator", "type")).strip("'")
        tag = context.get("tag")
        expected = _one_of(_words(str(context.get("expected_tags", ""))) or _known_tags(model, data, path))
        here = (*path, field) if tag is not None else path
        shown = repr(tag) if tag is not None else f"no {field!r}"
        return source.problem("error", here, shown, expected, f"set {field}")
    expected, todo = _expectation(kind, context, str(item["msg"]))
    return source.problem("error", path, seen, expected, todo)


_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _expectation(kind: str, context: Mapping[str, Any], message: str) -> tuple[str, str]:
    """(what was expected, what to do) for one kind of pydantic error."""
    if kind in {"literal_error", "enum"}:
        return _one_of(_words(str(context.get("expected", "")))), "choose one"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {context.get(name)}", "correct the number"
    if kind == "string_pattern_mismatch":
        return f"text like {context.get('pattern')}", "correct the text"
    if kind == "string_type":
        return "text", "put it in quotes"
    if kind in {"too_short", "too_long"}:
        bound = context.get("min_length", context.get("max_length"))
        return f"{'at least' if kind == 'too_short' else 'at most'} {bound} items", "correct the list"
    if kind == "missing_argument":
        return "a value", "add it"
    if kind == "value_error":
        return str(context.get("error", message)), "correct it"
    names = {
        "int_type": "a whole number",
        "int_parsing": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "float_parsing": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "bool_parsing": "true or false",
        "tuple_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "model_attributes_type": "a mapping",
    }
    return names.get(kind, message), "correct it"


def _file_path(data: yamlsource.Data, loc: tuple[str | int, ...]) -> Path:
    """Pydantic's location without the discriminator tags it puts between."""
    path: list[str | int] = []
    here: yamlsource.Data = data
    for part in loc:
        if isinstance(here, dict) and isinstance(part, str):
            if part not in here and part in {here.get("type"), here.get("mode")}:
                continue
            path.append(part)
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            path.append(part)
            here = here[part]
        elif not (isinstance(part, str) and part == "[key]"):
            path.append(part)
            here = None
    return tuple(path)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model that an annotation can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    if get_origin(annotation) in {Union, UnionType, tuple, dict} or hasattr(annotation, "__metadata__"):
        for part in get_args(annotation):
            yield from _models(part)


def _models_at(model: type[BaseModel], data: yamlsource.Data, path: Path) -> list[type[BaseModel]]:
    """Models that the mapping at ``path`` may be, narrowed by its ``type`` or ``mode``."""
    found = [model]
    here: yamlsource.Data = data
    for part in path:
        if isinstance(here, list) and isinstance(part, int):
            here = here[part]
        elif isinstance(here, dict) and isinstance(part, str):
            fields = [m.model_fields[part] for m in found if part in m.model_fields]
            if fields:
                found = [m for field in fields for m in _models(field.annotation)]
            here = here.get(part)
        if isinstance(here, dict):
            found = [m for m in found if _fits(m, here)] or found
    return found


def _fits(model: type[BaseModel], data: dict[str, yamlsource.Data]) -> bool:
    return all(
        name not in model.model_fields or data.get(name) in get_args(model.model_fields[name].annotation)
        for name in ("type", "mode")
        if isinstance(data.get(name), str)
    )


def _known_fields(model: type[BaseModel], data: yamlsource.Data, path: Path) -> list[str]:
    names: dict[str, None] = {}
    for found in _models_at(model, data, path):
        for name, field in found.model_fields.items():
            names[field.alias or name] = None
    return list(names)


def _known_tags(model: type[BaseModel], data: yamlsource.Data, path: Path) -> list[str]:
    tags: list[str] = []
    for found in _models_at(model, data, path):
        for name in ("type", "mode"):
            if name in found.model_fields:
                tags.extend(str(value) for value in get_args(found.model_fields[name].annotation))
    return tags


def _words(text: str) -> list[str]:
    """``'a', 'b' or 'c'`` → [a, b, c]."""
    return [word.strip().strip("'") for word in text.replace(" or ", ", ").split(",") if word.strip()]


def _one_of(words: list[str]) -> str:
    return f"one of {'|'.join(words)}" if len(words) > 1 else "".join(words) or "something else"


def _shown(value: Any) -> str:
    """A short, safe picture of what was seen."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
