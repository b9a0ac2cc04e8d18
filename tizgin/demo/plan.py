"""How large a site of the demo is, and the figures that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from simulator.latencies import Latencies

LUXOS, STOCK = "luxos", "antminer-stock"
BOARDS = 4
OUTPUTS = tuple(f"KM{number}" for number in range(1, BOARDS + 1))
RESIDUAL_SHARE = 0.45
"""A stop may leave this share of what only opening takes away (sleeping machines, auxiliaries of the boards): so that
some boards must open and not all, and the reservation is neither met by sleep nor out of reach."""
RESERVATION_MARGIN = 1.015
"""Above the fixed load, whose draw wanders by half a per cent."""
NO_LOAD_LOSS_SHARE = 0.0015
"""Of the rating of a transformer."""

Machine = dict[str, Any]
MACHINES: dict[str, Machine] = {
    LUXOS: {"model": "Antminer S19", "nameplate_w": 3250, "nominal_ths": 95, "sleep_w": 25},
    STOCK: {"model": "Antminer S21", "nameplate_w": 3500, "nominal_ths": 200, "sleep_w": 30},
}
NAMES = (
    ("Екібастұз", "Экибастуз", "Ekibastuz"),
    ("Павлодар", "Павлодар", "Pavlodar"),
    ("Қарағанды", "Караганда", "Karaganda"),
    ("Ақсу", "Аксу", "Aksu"),
)


@dataclass(frozen=True, slots=True)
class Board:
    """Machines behind one contactor."""

    number: int
    family: str
    machines: int

    @property
    def mining_kw(self) -> float:
        """Nameplate of its machines."""
        return float(self.machines * MACHINES[self.family]["nameplate_w"]) / 1000

    @property
    def auxiliary_kw(self) -> float:
        """Fans in the racks, network switches and light of the board, rated."""
        return round(1.0 + 0.2 * self.machines, 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """One site's size and the figures that follow from it, kW."""

    number: int
    boards: tuple[Board, ...]
    cooling_kw: float
    guard_kw: float
    rack_kw: float
    transformer_kva: int
    contracted_kw: float
    emergency_kw: float

    @property
    def id(self) -> str:
        """Site id."""
        return f"kz-demo-{self.number:02d}"

    @property
    def machines(self) -> int:
        """Machines of the site."""
        return sum(board.machines for board in self.boards)

    @property
    def name(self) -> dict[str, str]:
        """In three languages."""
        kk, ru, en = NAMES[(self.number - 1) % len(NAMES)]
        return {
            "kk": f"{kk} (сынақ {self.number})",
            "ru": f"{ru} (демо {self.number})",
            "en": f"{en} (demo {self.number})",
        }

    @property
    def phone(self) -> str:
        """Of the site's duty engineer; a number that nobody has."""
        return f"+7 700 000 00 {self.number:02d}"


def shares(total: int, parts: int) -> tuple[int, ...]:
    """``total`` in ``parts`` that differ by one at most, larger ones first."""
    return tuple(total // parts + (1 if index < total % parts else 0) for index in range(parts))


def plan_site(number: int, machines: int, latencies: Latencies) -> Plan:
    """Figures of a site with so many machines (at least one per board).

    The emergency reservation follows from what the plant will draw, because it has to lie between two figures of the
    plant: what sleep alone leaves, and what is left with every output open.
    """
    counts = shares(machines, BOARDS)
    boards = tuple(Board(i + 1, LUXOS if i % 2 == 0 else STOCK, n) for i, n in enumerate(counts))
    mining = sum(board.mining_kw for board in boards)
    cooling, guard, rack = round(4 + 0.06 * mining, 1), 6.0, 2.0
    load = latencies.loads
    auxiliaries = sum(board.auxiliary_kw for board in boards)
    total = mining + cooling + guard + rack + auxiliaries
    kva = math.ceil(total / 2 * 1.3 / 10) * 10
    fixed = cooling * load["cooling"].share + guard * load["protected"].share + rack * load["other"].share
    fixed += 2 * kva * NO_LOAD_LOSS_SHARE
    sleeping = sum(b.machines * MACHINES[b.family]["sleep_w"] for b in boards) / 1000
    only_opening = auxiliaries * load["other"].share + sleeping
    return Plan(
        number=number,
        boards=boards,
        cooling_kw=cooling,
        guard_kw=guard,
        rack_kw=rack,
        transformer_kva=kva,
        contracted_kw=float(math.ceil(total * 1.15)),
        emergency_kw=round(fixed * RESERVATION_MARGIN + only_opening * RESIDUAL_SHARE, 1),
    )
