"""A device was exchanged: what a person says of it becomes evidence, and nothing goes on as if it were the old one.

The meter's points are bound anew with a gap in between, however smoothly the new register seems to continue the old
one. Outputs that the device drives, shows or proves are unarmed until they are commissioned again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from agent.curtailment.gates import Commissioned, Gates
from agent.errors import LedgerError
from agent.ledger import Ledger, Txn
from agent.metering.closer import SlotCloser
from agent.metering.state import PointState
from config.site import Site
from wire.errors import WireError

log = structlog.get_logger()

META = "swap:"
MAX_WH = 2**53 - 1
TEXTS = {"person": 100, "reason": 300, "serial": 64}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Replacement:
    """What a person said. Readings in primary Wh as on the display; ``None`` where there is none."""

    device: str
    serial: str
    person: str
    reason: str
    closing_wh: int | None = None
    closing_why: str | None = None
    """Why the old device has no closing reading."""
    opening_wh: int | None = None
    photo_sha256: str | None = None


def read_replacement(doc: Mapping[str, Any]) -> Replacement:
    """A replacement as it arrives in the inbox.

    Raises:
        WireError: a field is missing or cannot be.
    """
    texts: dict[str, str] = {}
    for name, most in {"device": 64, **TEXTS}.items():
        value = doc.get(name)
        if not isinstance(value, str) or not value.strip() or len(value) > most:
            raise WireError(f"replace: {name} is {str(value)[:40]!r}, expected a text of 1 to {most} characters")
        texts[name] = value.strip()
    readings: dict[str, int | None] = {}
    for name in ("closing_wh", "opening_wh"):
        value = doc.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_WH):
            raise WireError(f"replace: {name} is {str(value)[:40]!r}, expected whole Wh or nothing")
        readings[name] = value
    why, photo = doc.get("closing_why"), doc.get("photo_sha256")
    if why is not None and (not isinstance(why, str) or not 0 < len(why) <= 300):
        raise WireError("replace: closing_why is not a text of 1 to 300 characters")
    if photo is not None and (not isinstance(photo, str) or not _SHA256.fullmatch(photo)):
        raise WireError("replace: photo_sha256 is not 64 hex digits")
    return Replacement(
        texts["device"],
        texts["serial"],
        texts["person"],
        texts["reason"],
        readings["closing_wh"],
        why,
        readings["opening_wh"],
        photo,
    )


@dataclass(slots=True)
class Exchange:
    """Takes replacements while the agent runs."""

    site: Site
    ledger: Ledger
    gates: Gates
    closer: SlotCloser

    def load(self) -> None:
        """Exchanges that were told before a start and whose new meter has not been bound yet."""
        for state in self.closer.states.values():
            stored = self.ledger.meta(f"{META}{state.point.id}")
            if stored:
                state.swap = json.loads(stored)

    async def take(self, doc: Mapping[str, Any]) -> str:
        """Record a replacement and act on it; the answer for the person.

        Raises:
            WireError: not acceptable; the message says why.
            LedgerError: it could not be recorded, so nothing was changed.
        """
        told = read_replacement(doc)
        device = next((d for d in self.site.devices if d.id == told.device), None)
        if device is None:
            raise WireError(f"replace: {told.device} is no device of the site file")
        if device.kind == "meter" and (told.closing_wh is None) is (told.closing_why is None):
            raise WireError("replace: a meter needs its closing reading, or why there is none, and not both")
        points = [s for s in self.closer.states.values() if s.point.device == device.id]
        outputs = {name: self.gates.commissioned[name] for name in self._outputs_of(device.id)}
        swaps = {s.point.id: self._swap(s, told) for s in points}
        first = points[0] if points else None
        detail = self._swap(first, told) if first else _swap(told, was_sn=device.serial_number, since=None)
        txn = Txn().record(
            "site",
            "event",
            {
                "ev": "replaced",
                "obj": device.id,
                "was": detail["was_sn"],
                "now": told.serial,
                "detail": detail | {"outputs": sorted(outputs)},
            },
        )
        for name in outputs:
            txn.run("DELETE FROM commissioned WHERE output=?", name)
        pending = [s for s in points if s.sn is None or s.sn != told.serial]
        for state in pending:
            txn.set_meta(f"{META}{state.point.id}", json.dumps(swaps[state.point.id]))
        await self._commit(txn, outputs)
        for state in pending:
            state.swap = swaps[state.point.id]
        log.warning("device_replaced", device=device.id, was=detail["was_sn"], now=told.serial, unarmed=sorted(outputs))
        return self._answer(told, points, pending, sorted(outputs))

    async def _commit(self, txn: Txn, outputs: dict[str, Commissioned]) -> None:
        for name in outputs:  # unarmed at once: nothing that is under way slips past it
            self.gates.commissioned.pop(name, None)
        try:
            await self.ledger.commit(txn, urgent=True)
        except LedgerError:
            self.gates.commissioned.update(outputs)
            raise

    def _outputs_of(self, device: str) -> list[str]:
        """Commissioned outputs that this device drives, shows or proves."""
        proved = {p.id for p in self.site.metering_points if p.device == device}
        found = {o.id for o in self.gates.check.outputs if o.proved_by in proved}
        found |= {s for s, node in self.gates.switches.items() if device in _devices(node.model_dump())}
        return sorted(found & self.gates.commissioned.keys())

    def _swap(self, state: PointState, told: Replacement) -> dict[str, Any]:
        chain = state.chain
        before = None if chain is None else chain.last if chain.last is not None and chain.last.good else chain.anchor
        return _swap(told, was_sn=state.sn, since=None if before is None else before.rt_ms)

    @staticmethod
    def _answer(told: Replacement, points: list[PointState], pending: list[PointState], outputs: list[str]) -> str:
        said = [f"{told.device} is recorded as replaced by {told.serial}"]
        if pending:
            said.append(f"{', '.join(s.point.id for s in pending)}: bound anew at the next boundary, with a gap before")
        elif points:
            said.append(f"{', '.join(s.point.id for s in points)}: the new meter was bound already")
        if outputs:
            said.append(f"unarmed until commissioned again: {', '.join(outputs)}")
        return "; ".join(said)


def _swap(told: Replacement, *, was_sn: str | None, since: int | None) -> dict[str, Any]:
    return {
        "person": told.person,
        "reason": told.reason,
        "was_sn": was_sn,
        "now_sn": told.serial,
        "closing_wh": told.closing_wh,
        "closing_why": told.closing_why,
        "opening_wh": told.opening_wh,
        "photo_sha256": told.photo_sha256,
        "since": since,
    }


def _devices(doc: Any) -> frozenset[str]:
    """Every device that a part of the site file names."""

    def walk(part: Any) -> Iterator[str]:
        if isinstance(part, Mapping):
            if isinstance(part.get("device"), str):
                yield part["device"]
            for value in part.values():
                yield from walk(value)
        elif isinstance(part, list | tuple):
            for value in part:
                yield from walk(value)

    return frozenset(walk(doc))
