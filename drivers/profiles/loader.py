"""Profiles from files: bounded, checked as a whole, and refused with file, line, field, seen and expected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from drivers.errors import ProfileError
from drivers.profiles.model import MeterProfile, Profile, RelayProfile
from drivers.profiles.rules import problems_of

DATA = Path(__file__).parent / "data"
MAX_BYTES = 256 * 1024
FOLDERS = ("meters", "relays", "breakers", "sunspec")

FILLED = {"Point": ("type",), "Variable": ("type",)}
"""Keys that a row of the file may leave to ``defaults``."""

AnyProfile = MeterProfile | RelayProfile
_ADAPTER: TypeAdapter[AnyProfile] = TypeAdapter(Profile)


def load_profile(id_or_path: str | Path) -> AnyProfile:
    """One profile, by id (``eastron-sdm630``) or by file.

    Raises:
        ProfileError: no such profile, or the file is wrong.
    """
    if isinstance(id_or_path, Path) or id_or_path.endswith((".yaml", ".yml")):
        return parse_profile(*_read(Path(id_or_path)))
    name = id_or_path.replace("-", "_") + ".yaml"
    for folder in FOLDERS:
        path = DATA / folder / name
        if path.parent.parent == DATA and path.is_file():
            return parse_profile(*_read(path))
    raise ProfileError(f"profile {id_or_path!r}: not found; `tizgin profile list` shows all, or give a file (*.yaml)")


def load_profiles() -> dict[str, AnyProfile]:
    """All shipped profiles by id, sorted.

    Raises:
        ProfileError: one of the files is wrong.
    """
    paths = sorted(p for folder in FOLDERS for p in (DATA / folder).glob("*.yaml"))
    return {profile.id: profile for profile in (parse_profile(*_read(path)) for path in paths)}


def profile_schema() -> dict[str, Any]:
    """JSON Schema of a profile file."""
    schema = _ADAPTER.json_schema()
    for name, keys in FILLED.items():
        # What 'defaults' or the type fills in need not stand in every row of the file.
        row = schema["$defs"][name]
        row["required"] = [key for key in row["required"] if key not in keys]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tizgin device profile", **schema}


def _read(path: Path) -> tuple[str, str, str]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror})") from error
    if len(raw) > MAX_BYTES:
        raise ProfileError(f"{path}: larger than {MAX_BYTES} bytes; a profile is a small file")
    try:
        return raw.decode("utf-8"), str(path), path.stem.replace("_", "-")
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: byte {error.start} is not UTF-8") from error


def parse_profile(text: str, where: str = "profile", expected_id: str | None = None) -> AnyProfile:
    """Profile from YAML text; ``where`` names it in errors, ``expected_id`` is what the file's name asks for.

    Raises:
        ProfileError: anything that the model or the rules of this module refuse.
    """
    node = _compose(text, where)
    try:
        data = yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        raise ProfileError(f"{where}: not YAML: {error}") from error
    try:
        profile = _ADAPTER.validate_python(data)
    except ValidationError as error:
        raise ProfileError("\n".join(_explain(error, node, where))) from None
    if expected_id is not None and profile.id != expected_id:
        at = _line(node, ("id",))
        raise ProfileError(f"{where}{at}: id: seen {profile.id!r}, expected {expected_id!r} (the file's name)")
    problems = [f"{where}{_line(node, at)}: {message}" for at, message in problems_of(profile)]
    if problems:
        raise ProfileError("\n".join(problems))
    return profile


def _compose(text: str, where: str) -> yaml.MappingNode:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ProfileError(f"{where}: not YAML: {error}") from error
    if not isinstance(node, yaml.MappingNode):
        raise ProfileError(f"{where}: expected a mapping with schema, id, kind, …")
    _walk(node, where, set())
    return node


def _walk(node: yaml.Node, where: str, seen: set[int]) -> None:
    """Refuse aliases (a small file could stand for a huge one) and keys written twice (the last would win silently)."""
    at = f"{where}, line {node.start_mark.line + 1}"
    if id(node) in seen:
        raise ProfileError(f"{at}: aliases (*name) are not allowed in a profile")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if str(key.value) in keys:
                raise ProfileError(f"{where}, line {key.start_mark.line + 1}: key {key.value!r} appears twice")
            keys.add(str(key.value))
            _walk(value, where, seen)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _walk(child, where, seen)


def _line(node: yaml.Node, path: tuple[int | str, ...]) -> str:
    here = node
    for step in path:
        found: yaml.Node | None = None
        if isinstance(here, yaml.MappingNode):
            found = next((v for k, v in here.value if k.value == step), None)
        elif isinstance(here, yaml.SequenceNode) and isinstance(step, int) and step < len(here.value):
            found = here.value[step]
        if found is None:
            break
        here = found
    return f", line {here.start_mark.line + 1}"


_ADVICE = {
    "extra_forbidden": "no such key; correct its spelling or remove it (`tizgin profile schema` lists the keys)",
    "missing": "add it (`tizgin profile schema` lists the keys)",
}


def _explain(error: ValidationError, node: yaml.Node, where: str) -> Iterator[str]:
    for item in error.errors(include_url=False):
        # The union's discriminator ("meter") is no step of the file.
        path = tuple(s for i, s in enumerate(item["loc"]) if not (i == 0 and s in {"meter", "relay", "breaker"}))
        field = ".".join(str(s) for s in path) or "profile"
        seen = item.get("input")
        shown = "" if item["type"] in {"missing", "value_error"} else f"; seen {str(seen)[:80]!r}"
        advice = _ADVICE.get(item["type"], "" if item["type"] == "value_error" else "correct the value")
        message = item["msg"].removeprefix("Value error, ")
        yield f"{where}{_line(node, path)}: {field}{_named(node, path)}: {message}{shown}" + (advice and f"; {advice}")


def _named(node: yaml.Node, path: tuple[int | str, ...]) -> str:
    """`` (power_w)`` where the path leads into a row that has an id."""
    here = node
    for step in path[:2]:
        if isinstance(here, yaml.MappingNode):
            here = next((v for k, v in here.value if k.value == step), here)
        elif isinstance(here, yaml.SequenceNode) and isinstance(step, int) and step < len(here.value):
            here = here.value[step]
    if len(path) < 2 or not isinstance(here, yaml.MappingNode):
        return ""
    name = next((v.value for k, v in here.value if k.value == "id" and isinstance(v, yaml.ScalarNode)), None)
    return f" ({str(name)[:60]})" if name is not None else ""
