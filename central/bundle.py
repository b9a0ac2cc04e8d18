"""Evidence bundles: a canonical zip that a verifier can rebuild byte for byte.

``manifest.json`` is signed by central's own key; the records inside are signed by the site, the register by the
registrar. What is read from the database goes to disk line by line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from central import logbook
from central.archive import Part, Parts, write_zip, zipped
from central.errors import CentralError
from central.registers import stored_register
from central.store.schema import records
from central.vee.carried import carried
from wire import canonical
from wire.dsse import MANIFEST_TYPE, seal
from wire.keys import SigningKey, VerifyKey
from wire.records import parse_line

FIRST = ("keys.json", "report.json")
AT_ONCE = 500
"""Lines that are fetched together."""


@dataclass(frozen=True, slots=True)
class Period:
    """[first_s, last_s) in epoch seconds, on the slot grid."""

    first_s: int
    last_s: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle and what is in it; its parts are on disk until it is closed. A context of its own."""

    manifest: bytes
    files: Parts
    order: tuple[Part, ...]
    records: int
    streams: int
    points: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.files.close()

    @property
    def data(self) -> bytes:
        """The archive, for those who have room for it."""
        return zipped(self.files, self.manifest, self.order)


def build(
    connection: Connection,
    site_id: str,
    period: Period,
    key: SigningKey,
    registrar: dict[str, VerifyKey],
    *,
    tool: str,
    now_ms: int,
    folder: Path | None = None,
) -> Bundle:
    """A bundle of one site and period from what is stored.

    Args:
        folder: where its parts lie until it is closed.

    Raises:
        CentralError: no register, a site it does not know, a period off the slot grid, or nothing stored.
    """
    envelope, site, witnesses = stored_register(connection, site_id, registrar)
    if period.first_s >= period.last_s or period.first_s % site.slot_s or period.last_s % site.slot_s:
        raise CentralError(
            f"period {period.first_s}/{period.last_s}: expected begin before end, both on the grid of {site.slot_s} s"
        )
    files = Parts(folder)
    try:
        files.add(FIRST[0], [envelope])
        told = _Told()
        for epoch, names in _streams(connection, site_id).items():
            log = logbook.read_log(connection, site_id, epoch)
            taken = [_stream(connection, files, site_id, epoch, name, log, period, told) for name in names]
            if log is not None and any(taken):
                files.add(f"log/{epoch}.leaves", [log.leaves])
                files.add(f"log/{epoch}.notes", [log.notes])
        if not told.streams:
            raise CentralError(
                f"site {site_id} has no evidence before the end of the period; nothing to put in a bundle"
            )
        for name, chunks in carried(connection, site_id, period.first_s, period.last_s, key, witnesses).items():
            files.add(name, chunks)
        files.add(FIRST[1], [_report(site_id, site.slot_s, period, told.points)])
        order = tuple(files.parts(FIRST))
        manifest = {
            "v": 1,
            "site": site_id,
            "period": {"from": period.first_s, "to": period.last_s},
            "made_at": now_ms,
            "tool": tool,
            "files": {
                f"f{i:04d}": {"name": part.name, "sha256": part.sha256, "bytes": part.size}
                for i, part in enumerate(order)
            },
        }
        signed = seal(MANIFEST_TYPE, canonical.encode(manifest), key).encode()
    except BaseException:
        files.close()
        raise
    return Bundle(signed, files, order, told.records, told.streams, len(told.points))


@dataclass(slots=True)
class _Told:
    """What the bundle holds so far."""

    records: int = 0
    streams: int = 0
    points: dict[str, _Sum] = field(default_factory=dict)


def _streams(connection: Connection, site_id: str) -> dict[str, list[str]]:
    """Epoch → its streams."""
    names = connection.execute(
        sa.select(records.c.epoch, records.c.stream)
        .where(records.c.site == site_id)
        .distinct()
        .order_by(records.c.epoch, records.c.stream)
    ).all()
    found: dict[str, list[str]] = {}
    for epoch, stream in names:
        found.setdefault(epoch, []).append(stream)
    return found


def _stream(
    connection: Connection,
    files: Parts,
    site_id: str,
    epoch: str,
    stream: str,
    log: logbook.Log | None,
    period: Period,
    told: _Told,
) -> bool:
    """Write a stream from its number 0 up to its last record that begins before the end of the period.

    A change of key belongs in any case: checkpoints and the period's last slots may be signed by the new key.

    Returns:
        False where nothing of it belongs.

    Raises:
        CentralError: a number before the last is missing.
    """
    name = f"records/{epoch}/{stream.replace(':', '_')}"
    sums = _Sum()
    places = bytearray()
    count = keep = 0
    lacking: int | None = None
    with files.writing(f"{name}.tzr") as writer:
        for n, line in _lines(connection, site_id, epoch, stream):
            record, doc = parse_line(line)
            writer.write(line + b"\n")
            if log is not None:
                places += log.place(record.hash)
            if lacking is None and n != count:
                lacking = count
            count += 1
            if _begins(doc) < period.last_s or doc["ty"] == "key_rotate":
                keep = count
                writer.keep()
                sums.add(doc, period)
            if lacking is not None and keep > lacking:
                raise CentralError(
                    f"stream {stream} of epoch {epoch} lacks record {lacking}: wait until the site has sent it again"
                )
        if not keep:
            writer.drop()
    if not keep:
        return False
    if log is not None:
        files.add(f"{name}.idx", [bytes(places[: keep * logbook.PLACE_BYTES])])
    told.records += keep
    told.streams += 1
    if stream.startswith("mp:"):
        told.points[stream.removeprefix("mp:")] = told.points.get(stream.removeprefix("mp:"), _Sum()).plus(sums)
    return True


def _lines(connection: Connection, site_id: str, epoch: str, stream: str) -> Iterator[tuple[int, bytes]]:
    query = (
        sa.select(records.c.n, records.c.line)
        .where(records.c.site == site_id, records.c.epoch == epoch, records.c.stream == stream)
        .order_by(records.c.n)
        .execution_options(yield_per=AT_ONCE)
    )
    for row in connection.execute(query):
        yield int(row.n), bytes(row.line)


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

    def add(self, doc: canonical.Json, period: Period) -> None:
        """A record of a metering point; what is no slot wholly inside the period counts for nothing."""
        if doc["ty"] not in {"interval", "gap"} or not (period.first_s <= doc["t0"] and doc["t1"] <= period.last_s):
            return
        if doc["ty"] == "gap":
            self.gaps += 1
            return
        self.intervals += 1
        self.wh += doc["wh"]
        if doc["exp_wh"] is not None:
            self.exp_wh = (self.exp_wh or 0) + doc["exp_wh"]

    def plus(self, other: _Sum) -> _Sum:
        """The point's sums over another epoch, too."""
        exports = [e for e in (self.exp_wh, other.exp_wh) if e is not None]
        exp_wh = sum(exports) if exports else None
        return _Sum(self.wh + other.wh, exp_wh, self.intervals + other.intervals, self.gaps + other.gaps)


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


def write(path: Path, bundle: Bundle) -> int:
    """The file, whole or not at all.

    Returns:
        Its bytes.
    """
    return write_zip(path, bundle.files, bundle.manifest, bundle.order)
