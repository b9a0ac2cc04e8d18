"""The documents say what the code says: names, fields, commands, links, examples."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

import config.central
import config.devices
import config.nodes
import config.site
from drivers.asic.identify import AUTO, FAMILIES
from drivers.profiles.catalogue import catalogue
from grid.registrar.register import build
from tizgin.cli import COMMANDS, available, load
from verifier.plausible.rules import RULES
from wire import (
    acts,
    dsse,
    messages,
    names,
    orders,
    points,
    powers,
    quality,
    record_types,
    records,
    registry,
    spoken,
    states,
)
from wire.keys import SigningKey

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "drivers" / "README.md",
    ROOT / "drivers" / "profiles" / "README.md",
)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def lacking(text: str, wanted: set[str]) -> list[str]:
    words = set(re.findall(r"[A-Za-z0-9_]+", text))
    return sorted(wanted - words)


def fields_of(*modules: Any) -> set[str]:
    found: set[str] = set()
    for module in modules:
        for _, model in inspect.getmembers(module, inspect.isclass):
            if issubclass(model, BaseModel):
                found |= {field.alias or name for name, field in model.model_fields.items()}
    return found


def test_protocol_names_every_name_of_the_contract() -> None:
    enums = (quality.Quality, states.OrderState, states.Flag, states.Phase, states.Reason)
    wanted = {*names.UP, *names.DOWN, *records.TYPES, *records.COMMON, *record_types.GAP_REASONS, *points.UNITS}
    wanted |= {member.value for enum in enums for member in enum}
    assert lacking(text_of("docs/protocol.md"), wanted) == []


def test_protocol_names_every_field_of_the_contract() -> None:
    wanted = fields_of(messages, orders, registry, acts, powers, spoken)
    for _, shape in inspect.getmembers(record_types, inspect.isclass):
        wanted |= set(getattr(shape, "__annotations__", {}))
    assert lacking(text_of("docs/protocol.md"), wanted) == []


def test_protocol_names_every_kind_of_signed_document() -> None:
    kinds = {value for name, value in vars(dsse).items() if name.endswith("_TYPE")}
    assert {kind for kind in kinds if f"`{kind}`" not in text_of("docs/protocol.md")} == set()


def test_protocol_names_every_event_the_agent_records() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "agent").rglob("*.py")]
    written = {name for source in sources for name in re.findall(r'"ev": "(\w+)"', source)}
    rows = re.findall(r"^  \| (`[^|]+`) \|", text_of("docs/protocol.md"), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert written
    assert written - told == set()


def test_protocol_gives_each_quality_its_code() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", text_of("docs/protocol.md"), re.MULTILINE))
    assert rows == {str(code): q.value for q, code in quality.CODES.items()}


def test_protocol_has_exactly_the_transitions_that_exist() -> None:
    section = text_of("docs/protocol.md").partition("| from | to |")[2].partition("\n\n")[0]
    told: dict[str, set[str]] = {}
    for row in re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE):
        for state in re.findall(r"`(\w+)`", row[0]):
            told[state] = set(re.findall(r"`(\w+)`", row[1]))
    assert told == {s.value: {t.value for t in after} for s, after in states.TRANSITIONS.items()}


def test_protocol_shows_the_published_phases() -> None:
    section = text_of("docs/protocol.md").partition("| phase | states |")[2].partition("\n\n")[0]
    told = {
        state: phase
        for phase, found in re.findall(r"^\| `(\w+)` \| (.+?) \|$", section, re.MULTILINE)
        for state in re.findall(r"`(\w+)`", found)
    }
    assert told == {state.value: phase.value for state, phase in states.PHASE.items()}


def test_configuration_names_every_field_a_person_can_write() -> None:
    wanted = fields_of(config.site, config.nodes, config.devices, config.central)
    assert lacking(text_of("docs/configuration.md"), wanted) == []


def test_configuration_has_every_firmware_family_where_it_belongs() -> None:
    section = text_of("docs/configuration.md").partition("| `family` | agent |")[2].partition("\n\n")[0]
    told = {name: what for names_, what in re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)
            for name in re.findall(r"`([\w-]+)`", names_)}  # fmt: skip
    assert told.keys() == {family.name for family in FAMILIES}
    assert AUTO not in told
    for family in FAMILIES:
        assert ("sleep" in told[family.name]) == family.sleeps, family.name
        assert ("power limit" in told[family.name]) == family.limits_power, family.name


def test_verification_has_exactly_the_rules_that_the_verifier_judges() -> None:
    section = text_of("docs/verification.md").partition("| rules | here |")[2].partition("\n\n")[0]
    told = {rule: (here, lowers) for rule, here, lowers in
            re.findall(r"^\| (V[V\d ]+) \| (.+) \| .+? \| (.+?) \|$", section, re.MULTILINE)}  # fmt: skip
    assert list(told) == list(RULES)
    for rule, (here, lowers) in told.items():
        assert lowers.startswith("yes") == RULES[rule].lowers, rule
        assert {code for code in RULES[rule].codes if f"`{code}`" not in here} == set(), rule


def test_readme_counts_what_there_is() -> None:
    kinds = [entry.kind for entry in catalogue()]
    text = " ".join(text_of("README.md").split())
    described = sum(1 for entry in catalogue() if entry.id.startswith("sunspec-"))
    for said in (
        f"| {kinds.count('meter') - described} models, and any that describes itself by SunSpec |",
        f"| relay and I/O modules | {kinds.count('relay')} profiles |",
        f"| breakers by their own electronics | {kinds.count('breaker')} profile |",
        f"| {kinds.count('pdu')} profiles | SNMP v1, v2c, v3 |",
        f"| {len(FAMILIES)} firmware families; {sum(f.sleeps for f in FAMILIES)} of them can be put to sleep",
    ):
        assert said in text, said
    assert not [entry.id for entry in catalogue() if entry.status == "verified"]


def test_operations_lists_every_command() -> None:
    table = text_of("docs/operations.md")
    lacking_: list[str] = []
    for name, entry in available(COMMANDS).items():
        rows = re.findall(rf"^\| `tizgin {name}` \|.*$", table, re.MULTILINE)
        command = load(name, entry)
        subs = set(getattr(command, "commands", {}))
        if not rows:
            lacking_.append(name)
        lacking_ += [f"{name} {sub}" for sub in sorted(subs) if rows and not re.search(rf"`{sub}[ `]", rows[0])]
    assert lacking_ == []


def command_lines() -> Iterator[Any]:
    for path in DOCUMENTS:
        blocks = " \n".join(body.replace("\\\n", " ") for _, _, body in FENCE.findall(path.read_text(encoding="utf-8")))
        for number, line in enumerate(re.findall(r"(?:^|[\s/])(tizgin [a-z].*)$", blocks, re.MULTILINE)):
            yield pytest.param(line.partition(" #")[0].strip(), id=f"{path.name}-{number}")


@pytest.mark.parametrize("line", list(command_lines()))
def test_every_command_in_a_document_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)[1:]
    offered = available(COMMANDS)
    assert words[0] in offered, f"{line}: no such command"
    command = load(words[0], offered[words[0]])
    rest = words[1:]
    while hasattr(command, "commands"):
        following = rest[0] if rest else None
        assert following in command.commands, f"{line}: expected one of {', '.join(command.commands)}"
        command, rest = command.commands[rest[0]], rest[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - known - {"--help"}
    assert not unknown, f"{line}: {command.name} has no {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in
               re.findall(r"^#+ (.+)$", text, re.MULTILINE)}  # fmt: skip
    for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        assert not file or (path.parent / file).is_file(), f"{path.name}: {target}"
        assert file or anchor in anchors, f"{path.name}: #{anchor}"


def test_the_register_in_operations_can_be_built() -> None:
    block = next(body for _, kind, body in FENCE.findall(text_of("docs/operations.md")) if kind == "yaml")
    filled = re.sub(r"<(public key|k_)[^>]*>", lambda _: SigningKey.generate().public.text, block)
    document = build(
        yaml.safe_load(filled.replace("<epoch of the enrolment>", "e1-0a1b2c3d")),
        now_ms=1_790_000_000_000,
        source="docs",
    )
    assert [site.id for site in document.sites] == ["kz-small-1"]


def test_the_excerpt_in_readme_is_the_example() -> None:
    example = set(text_of("config/examples/small.yaml").splitlines())
    block = next(body for _, kind, body in FENCE.findall(text_of("README.md")) if kind == "yaml")
    assert [line for line in block.splitlines() if line not in example] == []


@pytest.mark.parametrize("path", sorted((ROOT / "deploy" / "systemd").glob("*.service")), ids=lambda p: p.name)
def test_units_start_commands_that_exist(path: Path) -> None:
    line = re.findall(r"^ExecStart=\S*/(tizgin .+)$", path.read_text(encoding="utf-8"), re.MULTILINE)[0]
    test_every_command_in_a_document_exists_with_its_options(line)
