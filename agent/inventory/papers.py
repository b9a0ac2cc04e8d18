"""Equipment for the papers: names and counts per model and owner, from the register and from what was seen."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

from agent.inventory.identity import model_key, place_key
from agent.inventory.reconcile import Reconciler


@dataclass(frozen=True, slots=True)
class EquipmentLine:
    """One model of one owner. Sums count only machines whose value the register gives; ``None`` where none does."""

    owner: str | None
    model: str | None
    registered: int
    """Entries of the register."""
    seen: int
    """Entries that a machine was seen to be."""
    unregistered: int
    """Machines of this model and owner (their group's tenant) that gave an identity the register does not have."""
    nameplate_w: float | None
    nameplate_known: int
    nominal_ths: float | None
    nominal_known: int


class _Sum:
    __slots__ = ("model", "nominal", "owner", "power", "registered", "seen", "unregistered")

    def __init__(self, owner: str | None, model: str | None) -> None:
        self.owner, self.model = owner, model
        self.registered = self.seen = self.unregistered = 0
        self.power: list[float] = []
        self.nominal: list[float] = []


def equipment(book: Reconciler) -> list[EquipmentLine]:
    """Lines by owner and model; spelling variants of one model are one line, under the first spelling."""
    sums: dict[tuple[str | None, str | None], _Sum] = {}

    def line(owner: str | None, model: str | None) -> _Sum:
        return sums.setdefault((place_key(owner), model_key(model)), _Sum(owner, model))

    missing = {entry.row for entry in book.missing()}
    for entry in book.entries:
        found = line(entry.owner, entry.model)
        found.registered += 1
        found.seen += entry.row not in missing
        if entry.nameplate_w is not None:
            found.power.append(entry.nameplate_w)
        if entry.nominal_ths is not None:
            found.nominal.append(entry.nominal_ths)
    for finding in book.findings():
        if finding.standing == "unregistered" and finding.seen is not None:
            line(finding.owner, finding.seen.model).unregistered += 1
    lines = [
        EquipmentLine(
            owner=found.owner,
            model=found.model,
            registered=found.registered,
            seen=found.seen,
            unregistered=found.unregistered,
            nameplate_w=round(sum(found.power), 3) if found.power else None,
            nameplate_known=len(found.power),
            nominal_ths=round(sum(found.nominal), 3) if found.nominal else None,
            nominal_known=len(found.nominal),
        )
        for found in sums.values()
    ]
    return sorted(lines, key=lambda found: (found.owner or "\uffff", found.model or "\uffff"))


def to_csv(lines: Sequence[EquipmentLine]) -> str:
    """The lines as CSV with a header, for a spreadsheet; unknown is an empty field."""
    return csv_text([field.name for field in fields(EquipmentLine)], (asdict(line).values() for line in lines))


def csv_text(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """CSV that a spreadsheet opens as values: no text can begin a formula."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(header)
    for row in rows:
        writer.writerow([_safe(value) for value in row])
    return out.getvalue()


def _safe(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"}:
        return "'" + value
    return value
