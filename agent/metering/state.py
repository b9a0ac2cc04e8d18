"""One metering point in service: what the slot closer keeps of it between two boundaries."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from agent.acquisition.bench import MeterPort
from agent.metering.integral import PowerIntegral
from agent.metering.meterclock import ClockState
from agent.metering.phases import PhaseWatch
from agent.metering.registers import DecodeMaps
from agent.metering.slots import SlotChain, SlotRecord
from config.devices import MeteringPoint


@dataclass(slots=True)
class PointState:
    """One metering point in service."""

    point: MeteringPoint
    port: MeterPort
    decode: DecodeMaps
    settings: tuple[str, ...]
    """What is read right after a boundary, where the meter has it: transformer ratios, its clock and event counters."""
    integral: PowerIntegral
    phases: PhaseWatch
    lp: dict[str, Any] | None = None
    """How the meter's own load profile is read (``bind.lp``), where it has one that can be."""
    chain: SlotChain | None = None
    sn: str | None = None
    ratios: str | None = None
    """Transformer ratios as the meter was last seen to be set."""
    rebind: bool = False
    """True until the meter is bound anew, because its decode map or device is not that of the last bind."""
    renew: bool = False
    """True until the passport, which is another one than that of the last bind, is recorded. The meter goes on."""
    swap: dict[str, Any] | None = None
    """What a person said of an exchange of this meter, until the new one is bound."""
    clock: ClockState = ClockState.UNKNOWN
    newest: SlotRecord | None = None
    """The newest slot, as recorded."""
    stepped: bool = False
    """True from a step of the wall clock until the slot that holds it is recorded as a gap."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while records that name the bind in force are written, so that no other bind comes before them."""
