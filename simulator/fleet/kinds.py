"""What kinds of machines a fleet can have: a nameplate, a firmware family, and the server that speaks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from simulator.devices.asic import AsicServer, LuxosMiner, StockAntminer
from simulator.devices.asic_families.auradine import SimulatedAuradine
from simulator.devices.asic_families.avalon import AvalonMiner
from simulator.devices.asic_families.braiins import SimulatedBraiins
from simulator.devices.asic_families.sealminer import SealminerMiner
from simulator.devices.asic_families.vnish import SimulatedVnish
from simulator.devices.asic_families.whatsminer_v2 import SimulatedWhatsminerV2
from simulator.devices.asic_families.whatsminer_v3 import SimulatedWhatsminerV3
from simulator.devices.models import MachineModel, Nameplate

MAX_MACHINES = 65_536
"""In one fleet; as many as one miner group may have."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. ``make`` gives a machine its server; the time scale and the answer time of writes (s) are handed on."""

    family: str
    plate: Nameplate
    make: Callable[[MachineModel, float, float], AsicServer]
    login: tuple[str, str] | None = None
    """User and password of its web interface or its writes: the vendor's own, for simulated machines."""
    has_web: bool = False


def _stock(machine: MachineModel, time_scale: float, answer_s: float) -> AsicServer:
    return StockAntminer(machine, write_answer_s=answer_s, time_scale=time_scale)


def _plain(server: Callable[..., AsicServer]) -> Callable[[MachineModel, float, float], AsicServer]:
    """Firmwares whose write is answered at once."""
    return lambda machine, time_scale, _answer_s: server(machine, time_scale=time_scale)


def _plate(model: str, hashrate_ths: float, power_w: float, sleep_w: float = 30.0) -> Nameplate:
    return Nameplate(model=model, hashrate_ths=hashrate_ths, power_w=power_w, sleep_w=sleep_w)


KINDS: Mapping[str, Kind] = {
    kind.family: kind
    for kind in (
        Kind("antminer-stock", _plate("Antminer S19", 95, 3250), _stock, ("root", "root"), has_web=True),
        Kind("luxos", _plate("Antminer S19k Pro", 120, 2760, 25), _plain(LuxosMiner)),
        Kind("whatsminer-v2", _plate("WhatsMiner M50S", 126, 3276), _plain(SimulatedWhatsminerV2), ("admin", "admin")),
        Kind("whatsminer-v3", _plate("WhatsMiner M60S", 186, 3441), _plain(SimulatedWhatsminerV3), ("super", "super")),
        Kind(
            "braiins", _plate("Antminer S19j Pro", 104, 3068), _plain(SimulatedBraiins), ("root", "root"), has_web=True
        ),
        Kind("vnish", _plate("Antminer S19", 95, 3250), _plain(SimulatedVnish), ("admin", "admin"), has_web=True),
        Kind("auradine", _plate("AT1500", 150, 3000), _plain(SimulatedAuradine), ("admin", "admin"), has_web=True),
        Kind("avalon", _plate("AvalonMiner 1346", 110, 3300), _plain(AvalonMiner)),
        Kind("sealminer", _plate("SEALMINER A2", 226, 3730), _plain(SealminerMiner)),
    )
}
"""Nameplates are those of simulated machines, about as large as real ones."""


def parse_mix(text: str, machines: int) -> list[tuple[Kind, int]]:
    """``antminer-stock=60,luxos=40`` as shares of a number of machines, which come out exactly.

    Raises:
        ValueError: an unknown kind, a share that is no positive number, or no machine at all.
    """
    if not 1 <= machines <= MAX_MACHINES:
        raise ValueError(f"machines: saw {machines}, expected 1 to {MAX_MACHINES}")
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, figure = part.strip().partition("=")
        if name not in KINDS or name in shares:
            raise ValueError(f"mix: saw {part.strip()!r}, expected one of {', '.join(KINDS)}, each once, with =SHARE")
        try:
            shares[name] = float(figure or 1)
        except ValueError:
            shares[name] = 0.0
        if not 0 < shares[name] <= 1e9:
            raise ValueError(f"mix: saw {part.strip()!r}, expected a share above 0, such as {name}=60")
    whole = sum(shares.values())
    counts: list[tuple[Kind, int]] = []
    given, sum_of = 0, 0.0
    for name, share in shares.items():
        sum_of += share
        upto = round(machines * sum_of / whole)
        counts.append((KINDS[name], upto - given))
        given = upto
    return counts
