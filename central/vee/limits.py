"""Thresholds as versioned data: ``thresholds/v<N>.yaml``. A verdict names version and hash of the file."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

CURRENT = 2
Count = Annotated[int, Field(ge=1, le=100_000)]
Permille = Annotated[int, Field(ge=1, le=100_000)]
Share = Annotated[float, Field(gt=0, le=1000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SlotLimits(_Part):
    """Single slots: V01 to V09."""

    missing_run_warn: Count
    high_over_contract: Permille
    high_over_rating: Permille
    rollover_over_contract: Permille
    spike_around: Count
    spike_z: Count
    spike_floor: Permille
    explained_slots: Count
    frozen_run: Count


class MeterLimits(_Part):
    """One meter against itself and its twin: V11 to V19."""

    integral_share: Permille
    integral_counts: Count
    jitter_s: Count
    clock_warn_ms: Count
    clock_fail_ms: Count
    check_class: Permille
    check_slots: Count


class PhaseLimits(_Part):
    """What the phases of a meter may show: V17."""

    polls: Count
    loss: Permille
    unfed: Permille
    backwards: Permille
    backwards_power: Permille
    unbalance: Permille
    unbalance_slots: Count
    load: Permille


class ShiftLimits(_Part):
    """How a change against the past is judged."""

    history_days: Count
    history_min_days: Count
    known: Permille
    seen: Permille
    peers: Count


class Window(_Part):
    """Mean over so many slots, so many times the spread of such means before; per mille of the load at least."""

    slots: Count
    sigmas: Count
    floor: Annotated[float, Field(gt=0, le=1000, strict=False)]


class ShiftRule(_Part):
    """One rule that looks for a change, over several windows."""

    load: Permille
    least_w: Annotated[int, Field(ge=1, le=100_000_000)]
    windows: tuple[Window, ...] = Field(strict=False)


class OrderLimits(_Part):
    """What is left while an order is held: V22."""

    settle_slots: Count
    asleep: Permille
    base_slots: Count
    least_w: Count
    share: Permille


class TotalLimits(_Part):
    """Long periods and other people's readings: V25, V26."""

    bridged_s: Count
    bridged_month: Permille
    outside_class: Permille
    outside_clock_s: Count
    display_wh: Count
    display_s: Count


class Thresholds(_Part):
    """One version, whole."""

    version: Count
    slots: SlotLimits
    meters: MeterLimits
    shift: ShiftLimits
    balance: ShiftRule
    machines: ShiftRule
    orders: OrderLimits
    totals: TotalLimits
    phases: PhaseLimits | None = None
    """``None`` in version 1, which judges none."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the file's bytes."""


def versions() -> tuple[int, ...]:
    """Versions that are shipped."""
    names = [entry.name for entry in (files("central.vee") / "thresholds").iterdir()]
    return tuple(sorted(int(n[1:-5]) for n in names if n.startswith("v") and n.endswith(".yaml")))


@cache
def load(version: int = CURRENT) -> Thresholds:
    """One shipped version.

    Raises:
        ValueError: there is none of that number.
    """
    if version not in versions():
        raise ValueError(f"thresholds: saw version {version}, expected one of {', '.join(map(str, versions()))}")
    raw = (files("central.vee") / "thresholds" / f"v{version}.yaml").read_bytes()
    return Thresholds.model_validate(yaml.safe_load(raw) | {"sha256": hashlib.sha256(raw).hexdigest()})
