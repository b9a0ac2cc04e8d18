"""Rules between the fields of a relay's or breaker's profile."""

from __future__ import annotations

from collections.abc import Iterator

from drivers.profiles.fields import READ_FUNCTION
from drivers.profiles.model import RelayProfile
from drivers.profiles.switching import BinaryInput, Output, Temperature

Problem = tuple[tuple[int | str, ...], str]
MOST_SETTINGS = 64
"""Read one by one at start and every so often: a profile that asks for more would block its line."""


def relay_problems(profile: RelayProfile) -> Iterator[Problem]:
    """Everything wrong with a relay's profile whose fields are each in order."""
    yield from _terminals(profile)
    yield from _temperatures(profile)
    yield from _pulses(profile)
    yield from _functions(profile)
    yield from _settings(profile)
    commands = [index for index, output in enumerate(profile.outputs) if output.table == "command"]
    if commands and profile.command_interface is None:
        yield ("outputs", commands[0]), "table command without command_interface; expected where commands are written"
    if not commands and profile.command_interface is not None:
        yield ("command_interface",), "no output of table command uses it"


def _terminals(profile: RelayProfile) -> Iterator[Problem]:
    groups: tuple[tuple[str, tuple[Output | BinaryInput, ...]], ...] = (
        ("outputs", profile.outputs),
        ("inputs", profile.inputs),
    )
    for name, rows in groups:
        ids: set[str] = set()
        taken: set[tuple[str, int | None, int | None]] = set()
        whole: dict[tuple[str, int | None], bool] = {}
        for index, row in enumerate(rows):
            if row.id in ids:
                yield (name, index), f"id {row.id!r} appears twice"
            ids.add(row.id)
            place = row.addr if not isinstance(row, Output) or row.addr is not None else row.code
            key = (row.table, place, row.bit)
            if key in taken or whole.get((row.table, place), row.bit is not None) is not (row.bit is not None):
                yield (name, index), f"{row.table} {place} is already another of the {name}"
            taken.add(key)
            whole.setdefault((row.table, place), row.bit is not None)


def _temperatures(profile: RelayProfile) -> Iterator[Problem]:
    ids: set[str] = set()
    taken: dict[tuple[str, int], Temperature] = {}
    for index, found in enumerate(profile.temperatures):
        if found.id in ids:
            yield ("temperatures", index), f"id {found.id!r} appears twice"
        ids.add(found.id)
        cells = [(found.table, addr) for addr in found.span]
        if other := next((taken[cell] for cell in cells if cell in taken), None):
            yield ("temperatures", index), f"{found.id} shares a register with {other.id}"
        taken.update(dict.fromkeys(cells, found))


def _pulses(profile: RelayProfile) -> Iterator[Problem]:
    levels = {output.addr for output in profile.outputs if output.table == "coil"}
    for index, output in enumerate(profile.outputs):
        if output.pulse is not None and output.pulse.addr in levels:
            yield ("outputs", index), f"pulse.addr {output.pulse.addr} is the level coil of an output"


def _functions(profile: RelayProfile) -> Iterator[Problem]:
    """``link.functions`` is what a person reads in the file: it has to be true."""
    if "functions" not in profile.link.model_fields_set:
        return
    declared = frozenset(profile.link.functions)
    needed = functions_of(profile)
    if missing := sorted(needed - declared):
        yield ("link", "functions"), f"functions {missing} are used and not listed"
    if foreign := sorted(declared - needed):
        yield ("link", "functions"), f"functions {foreign} are listed and not used"


def functions_of(profile: RelayProfile) -> frozenset[int]:
    """Function codes that this profile makes the driver send."""
    used: set[int] = set()
    for output in profile.outputs:
        used |= {"coil": {1, 5}, "holding": {3, 16}, "command": {3, 16}}[output.table]
    for binary in profile.inputs:
        used.add(READ_FUNCTION[binary.table])
        if binary.counter is not None:
            used.add(READ_FUNCTION[binary.counter.table])
            used |= {1} if binary.counter.run_coil is not None else set()
    used |= {READ_FUNCTION[found.table] for found in profile.temperatures}
    used |= {READ_FUNCTION[setting.table] for setting in profile.settings}
    return frozenset(used)


def _settings(profile: RelayProfile) -> Iterator[Problem]:
    if len(profile.settings) > MOST_SETTINGS:
        yield ("settings",), f"{len(profile.settings)} settings; expected at most {MOST_SETTINGS}"
    ids: set[str] = set()
    outputs = {output.id for output in profile.outputs}
    inputs = {binary.id: binary for binary in profile.inputs}
    for index, setting in enumerate(profile.settings):
        at = ("settings", index)
        if setting.id in ids:
            yield at, f"id {setting.id!r} appears twice"
        ids.add(setting.id)
        if setting.for_output is not None and setting.for_output not in outputs:
            yield at, f"for_output {setting.for_output!r} is no output of this profile"
        if setting.for_actuators and setting.for_output is None:
            yield at, "for_actuators without for_output: an actuator hangs on an output"
        if setting.instead_of is not None and setting.instead_of not in {other.id for other in profile.settings}:
            yield at, f"instead_of {setting.instead_of!r} is no setting of this profile"
        for name in (setting.for_input, setting.for_counter):
            if name is not None and name not in inputs:
                yield at, f"{name!r} is no input of this profile"
        counter = inputs.get(setting.for_counter or "")
        if counter is not None and counter.counter is None:
            yield at, f"for_counter {counter.id!r}: that input has no counter"
        if setting.table == "coil" and any(value > 1 for value in setting.values):
            yield at, f"a coil reads 0 or 1; expected values among them, seen {setting.values}"
