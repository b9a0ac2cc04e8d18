"""Evidence bundles: a canonical zip that a verifier can rebuild byte for byte.

Stored, in one fixed order, with fixed dates and attributes and nothing else inside. ``manifest.json`` is signed by
central's own key; the records inside are signed by the site, the register by the registrar.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central import logbook
from central.errors import CentralError
from central.paths import write_public
from central.registers import stored_register
from central.store.schema import records
from central.vee.carried import carried
from wire import canonical
from wire.dsse import MANIFEST_TYPE, seal
from wire.keys import SigningKey, VerifyKey
from wire.records import parse_line

DATE = (1980, 1, 1, 0, 0, 0)
ATTRIBUTES = 0o100644 << 16
MAX_BYTES = 2_100_000_000
"""Of all files; with their headers an archive stays below 2^31."""


@dataclass(frozen=True, slots=True)
class Period:
    """[first_s, last_s) in epoch seconds, on the slot grid."""

    first_s: int
    last_s: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle and what is in it."""

    data: bytes
    records: int
    streams: int
    points: int


def build(
    connection: Connection,
    site_id: str,
    period: Period,
    key: SigningKey,
    registrar: dict[str, VerifyKey],
    *,
    tool: str,
    now_ms: int,
) -> Bundle:
    """A bundle of one site and period from what is stored.

    Raises:
        CentralError: no register, a site it does not know, a period off the slot grid, or nothing stored.
    """
    envelope, site, witnesses = stored_register(connection, site_id, registrar)
    if period.first_s >= period.last_s or period.first_s % site.slot_s or period.last_s % site.slot_s:
        raise CentralError(
            f"period {period.first_s}/{period.last_s}: expected begin before end, both on the grid of {site.slot_s} s"
        )
    found = _streams(connection, site_id, period)
    if not found:
        raise CentralError(f"site {site_id} has no evidence before the end of the period; nothing to put in a bundle")
    points: dict[str, _Sum] = {}
    files = {"keys.json": envelope}
    total = 0
    named: dict[str, bytes] = {}
    logs = {epoch: logbook.read_log(connection, site_id, epoch) for epoch in {epoch for epoch, *_ in found}}
    for epoch, stream, lines in found:
        name = f"records/{epoch}/{stream.replace(':', '_')}"
        named[f"{name}.tzr"] = b"".join(line + b"\n" for line in lines)
        log = logs[epoch]
        if log is not None:
            named[f"{name}.idx"] = log.places(lines)
        total += len(lines)
        if stream.startswith("mp:"):
            points.setdefault(stream.removeprefix("mp:"), _Sum()).add_all(lines, period)
    for epoch, log in logs.items():
        if log is not None:
            named |= {f"log/{epoch}.leaves": log.leaves, f"log/{epoch}.notes": log.notes}
    named |= carried(connection, site_id, period.first_s, period.last_s, key.public, witnesses)
    files["report.json"] = _report(site_id, site.slot_s, period, points)
    files |= dict(sorted(named.items()))
    manifest = {
        "v": 1,
        "site": site_id,
        "period": {"from": period.first_s, "to": period.last_s},
        "made_at": now_ms,
        "tool": tool,
        "files": {
            f"f{i:04d}": {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for i, (name, data) in enumerate(files.items())
        },
    }
    whole = sum(len(data) for data in files.values())
    if whole > MAX_BYTES:
        raise CentralError(f"{whole} bytes do not fit a bundle of at most {MAX_BYTES}: ask for a shorter period")
    signed = seal(MANIFEST_TYPE, canonical.encode(manifest), key).encode()
    return Bundle(_zip({"manifest.json": signed} | files), total, len(found), len(points))


def _streams(connection: Connection, site_id: str, period: Period) -> list[tuple[str, str, list[bytes]]]:
    """(epoch, stream, lines): each stream from its number 0 to its last record before the end of the period."""
    names = connection.execute(
        sa.select(records.c.epoch, records.c.stream)
        .where(records.c.site == site_id)
        .distinct()
        .order_by(records.c.epoch, records.c.stream)
    ).all()
    found = []
    for epoch, stream in names:
        query = (
            sa.select(records.c.n, records.c.line)
            .where(records.c.site == site_id, records.c.epoch == epoch, records.c.stream == stream)
            .order_by(records.c.n)
        )
        rows = connection.execute(query).all()
        lines = [bytes(row.line) for row in rows]
        keep = _prefix(lines, period.last_s)
        if keep and rows[keep - 1].n != keep - 1:
            lacking = next(i for i, row in enumerate(rows) if row.n != i)
            raise CentralError(
                f"stream {stream} of epoch {epoch} lacks record {lacking}: wait until the site has sent it again"
            )
        if keep:
            found.append((epoch, stream, lines[:keep]))
    return found


def _prefix(lines: Sequence[bytes], end_s: int) -> int:
    """How many lines belong: up to the last whose slot, or time where it has none, begins before the end.

    A change of key belongs in any case: checkpoints and the period's last slots may be signed by the new key.
    """
    keep = 0
    for i, line in enumerate(lines):
        doc = parse_line(line)[1]
        if _begins(doc) < end_s or doc["ty"] == "key_rotate":
            keep = i + 1
    return keep


def _begins(doc: canonical.Json) -> float:
    """When what a record tells of began, epoch s."""
    if doc["ty"] in {"interval", "gap", "archive", "balance"} and isinstance(doc.get("t0"), int):
        return float(doc["t0"])
    moment = doc.get("rt") if doc["ty"] == "spot" else None
    return float(moment if isinstance(moment, int) else doc["at"]) / 1000


@dataclass(slots=True)
class _Sum:
    wh: int = 0
    exp_wh: int | None = None
    intervals: int = 0
    gaps: int = 0

    def add_all(self, lines: Sequence[bytes], period: Period) -> None:
        for line in lines:
            doc = parse_line(line)[1]
            if doc["ty"] not in {"interval", "gap"} or not (period.first_s <= doc["t0"] and doc["t1"] <= period.last_s):
                continue
            if doc["ty"] == "gap":
                self.gaps += 1
                continue
            self.intervals += 1
            self.wh += doc["wh"]
            if doc["exp_wh"] is not None:
                self.exp_wh = (self.exp_wh or 0) + doc["exp_wh"]


def _report(site_id: str, slot_s: int, period: Period, points: dict[str, _Sum]) -> bytes:
    return canonical.encode(
        {
            "v": 1,
            "site": site_id,
            "period": {"from": period.first_s, "to": period.last_s},
            "slot_s": slot_s,
            "points": {
                f"p{i:04d}": {
                    "id": name,
                    "wh": points[name].wh,
                    "exp_wh": points[name].exp_wh,
                    "intervals": points[name].intervals,
                    "gaps": points[name].gaps,
                }
                for i, name in enumerate(sorted(points))
            },
        }
    )


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, DATE)
            info.create_system = 3
            info.external_attr = ATTRIBUTES
            archive.writestr(info, data)
    return buffer.getvalue()


def write(path: Path, bundle: Bundle) -> None:
    """The file, whole or not at all."""
    write_public(path, bundle.data)
