"""The settings of a device on which the use of its outputs depends: watchdog, safe values, what its inputs do.

They are read and never written: a person sets them with the maker's tool and knows why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from drivers.profiles.model import RelayProfile
from drivers.profiles.switching import Actuator, Setting

OPTION_PREFIX = "expect_"
"""Of a device's options in the site file: ``expect_power_on: "1"`` demands another value than the profile does."""
ANY = "any"


class SafeStatus(StrEnum):
    """What is known of a device's settings."""

    GOOD = "good"
    """All that were asked for are as they have to be."""
    WRONG = "wrong"
    UNREAD = "unread"
    """They can be read and were not, or not lately."""
    NOT_READABLE = "not_readable"
    """This model shows none over the bus: only a cable-pull test proves them."""


@dataclass(frozen=True, slots=True)
class SafeState:
    """Settings of one device, judged."""

    status: SafeStatus
    problems: tuple[str, ...] = ()
    """What was seen, what was expected and what to do, one sentence each."""
    values: Mapping[str, int] = field(default_factory=dict)
    """Raw values by setting."""
    at_ms: int | None = None

    @property
    def why(self) -> str | None:
        """Why no output of this device may be armed; ``None`` where nothing speaks against it."""
        if self.status in {SafeStatus.GOOD, SafeStatus.NOT_READABLE}:
            return None
        return "; ".join(self.problems) or "settings not read yet"


@dataclass(frozen=True, slots=True)
class Demand:
    """One setting with what this site wants of it."""

    setting: Setting
    value: int | None = None
    """Raw value the site file demands; ``None``: what the profile says."""

    @property
    def expected(self) -> str:
        """For people."""
        return self.setting.expected if self.value is None else f"{self.value} (as the site file says)"

    def good(self, raw: int) -> bool:
        """Is this raw value in order?"""
        return self.setting.good(raw) if self.value is None else raw == self.value


@dataclass(frozen=True, slots=True)
class Used:
    """Terminals of a device that the site really uses."""

    outputs: Mapping[str, Actuator] = field(default_factory=dict)
    """Output → what it drives."""
    inputs: frozenset[str] = frozenset()
    counters: frozenset[str] = frozenset()


def demands_of(profile: RelayProfile, options: Mapping[str, str], used: Used) -> tuple[Demand, ...]:
    """What is read back of a device: the profile's settings that matter here, with the site file's own values.

    Raises:
        ValueError: an option names no setting of this profile, or is no raw number.
    """
    wanted = {
        name.removeprefix(OPTION_PREFIX): text for name, text in options.items() if name.startswith(OPTION_PREFIX)
    }
    known = {setting.id for setting in profile.settings}
    for name in sorted(wanted.keys() - known):
        has = ", ".join(sorted(known)) or "none"
        raise ValueError(f"option {OPTION_PREFIX}{name}: {profile.id} has no setting {name!r}; it has {has}")
    return tuple(_demands(profile, wanted, used))


def _demands(profile: RelayProfile, wanted: Mapping[str, str], used: Used) -> Iterator[Demand]:
    for setting in profile.settings:
        places = (
            (setting.for_output, used.outputs),
            (setting.for_input, used.inputs),
            (setting.for_counter, used.counters),
        )
        if any(terminal is not None and terminal not in terminals for terminal, terminals in places):
            continue
        text = wanted.get(setting.id)
        drives = used.outputs.get(setting.for_output or "")
        if text == ANY or (text is None and setting.for_actuators and drives not in setting.for_actuators):
            continue
        if text is not None and not (text.isascii() and text.isdigit() and int(text) <= 0xFFFF):
            raise ValueError(
                f"option {OPTION_PREFIX}{setting.id}: seen {text!r}, expected a raw value from 0 to 65535, or {ANY}"
            )
        yield Demand(setting, None if text is None else int(text))


def judge(
    device: str, demands: tuple[Demand, ...], values: Mapping[str, int], missing: Mapping[str, str], at_ms: int | None
) -> SafeState:
    """Judge what was read.

    Args:
        device: its id.
        demands: what is wanted.
        values: raw value by setting, as far as read; an optional setting that the device does not have is in neither.
        missing: why a setting could not be read, by setting.
        at_ms: when.
    """
    if not demands:
        return SafeState(SafeStatus.NOT_READABLE, at_ms=at_ms)
    wrong: list[str] = []
    unread: list[str] = []
    for demand in demands:
        setting = demand.setting
        if setting.instead_of is not None and setting.instead_of in values and demand.value is None:
            continue
        if setting.id in missing:
            unread.append(f"{device}: {setting.id} not read: {missing[setting.id]}")
        elif setting.id in values and not demand.good(values[setting.id]):
            wrong.append(
                f"{device}: {setting.id}: seen {values[setting.id]}, expected {demand.expected} ({setting.says}); "
                f"{setting.todo}"
            )
    status = SafeStatus.WRONG if wrong else SafeStatus.UNREAD if unread else SafeStatus.GOOD
    return SafeState(status, tuple(wrong + unread), dict(values), at_ms)
