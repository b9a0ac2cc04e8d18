"""All streams of one metering point, epoch after epoch; in this process or, with several jobs, in others.

What a point needs from elsewhere (register, periods, positions of switches, the logs' cosigned checkpoints) is in a
:class:`Case`, which travels. Every process reads the bundle itself and gives back what the report needs; the order of
the results is that of the points, so that the report is the same whatever the number of jobs.
"""

from __future__ import annotations

import multiprocessing
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from verifier.archive import Bundle
from verifier.balance import Balances
from verifier.errors import InputLimit, VerifyError
from verifier.independent import Independent
from verifier.log import MAX_LEAVES, Cosigned, EpochLog, places_of
from verifier.metering import MeteringPoint, Period, Totals
from verifier.plausible.around import Context
from verifier.plausible.kept import Kept
from verifier.records import Record, read_stream
from verifier.register import Register
from verifier.report import PointReport
from verifier.switches import Switches


@dataclass(frozen=True, slots=True)
class Case:
    """What is known before the metering points are judged."""

    path: Path
    register: Register
    asked: Period
    made: Period
    switches: Switches
    epochs: tuple[str, ...]
    """In their order."""
    logs: Mapping[str, tuple[tuple[Cosigned, ...], int]]
    """Epoch → cosigned checkpoints, and how many there are in all; for epochs with a log."""
    independent: Mapping[str, tuple[Independent, ...]] = field(default_factory=dict)
    """The system operator's own readings, by metering point."""
    context: Context | None = None
    """What the streams of the site tell of plausibility."""
    judging: frozenset[str] = frozenset()
    """Points that orders are judged by: their slots are kept."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What a record says of its slot: [t0, t1) epoch s, import minus export; ``wh`` null where it is not known.

    ``t0`` is null for records that tell of no slot.
    """

    at: int
    t0: int | None = None
    t1: int = 0
    wh: int | None = None


@dataclass(slots=True)
class Judged:
    """One metering point, judged."""

    id: str
    report: PointReport
    reported_totals: Totals
    asked_intervals: int
    errors: list[VerifyError]
    doubts: list[str]
    late: int
    records: dict[str, int] = field(default_factory=dict)
    """Records read, by epoch."""
    kids: dict[str, set[str]] = field(default_factory=dict)
    """Keys that signed, by epoch."""
    net: array[int] = field(default_factory=lambda: array("q"))
    """Net energy of each slot of the asked period, see :class:`verifier.standing.Standing`."""
    slots: dict[str, list[Slot]] = field(default_factory=dict)
    """By epoch, for points that orders are judged by: one for every record of the stream."""
    kept: Kept | None = None
    """For the rules that look at several points."""
    broken: set[str] = field(default_factory=set)
    """Epochs in which the stream could not be read to its end."""


@dataclass(frozen=True, slots=True)
class _Done:
    points: list[Judged]
    used: dict[str, bytes]


def judge_points(
    case: Case, bundle: Bundle, logs: Mapping[str, EpochLog], points: Sequence[str], jobs: int
) -> Iterator[Judged]:
    """Judge metering points in ``jobs`` processes; the results come in the order of ``points``.

    Raises:
        InputLimit: a stream holds what no honest writer makes.
    """
    parts = _parts(bundle, case, points, jobs)
    if len(parts) < 2:
        for point in points:
            yield judge_point(case, bundle, logs, point)
        return
    found: dict[str, Judged] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(parts), mp_context=context) as pool:
        for done in pool.map(_elsewhere, [(case, part) for part in parts]):
            found |= {judged.id: judged for judged in done.points}
            for epoch, used in done.used.items():
                logs[epoch].use(used)
    for point in points:
        yield found[point]


def _parts(bundle: Bundle, case: Case, points: Sequence[str], jobs: int) -> list[list[str]]:
    """Points divided so that each part has about as many bytes: the largest first, each to the smallest part."""
    sizes = {
        point: sum(entry.size for epoch in case.epochs if (entry := bundle.entries.get(_name(epoch, point)))) + 1
        for point in points
    }
    parts: list[tuple[int, list[str]]] = [(0, []) for _ in range(max(1, jobs))]
    for point in sorted(points, key=lambda p: -sizes[p]):
        least = min(range(len(parts)), key=lambda i: parts[i][0])
        parts[least] = (parts[least][0] + sizes[point], [*parts[least][1], point])
    return [part for _, part in parts if part]


def _elsewhere(task: tuple[Case, list[str]]) -> _Done:
    case, points = task
    with Bundle(case.path) as bundle:
        logs = {}
        for epoch, (cosigned, checkpoints) in case.logs.items():
            leaves = bundle.read(bundle.entries[f"log/{epoch}.leaves"], MAX_LEAVES * 32)
            logs[epoch] = EpochLog(epoch, case.register.slot_s, leaves, list(cosigned), checkpoints)
        judged = [judge_point(case, bundle, logs, point) for point in points]
        return _Done(judged, {epoch: log.used() for epoch, log in logs.items()})


def _name(epoch: str, point: str) -> str:
    return f"records/{epoch}/mp_{point}.tzr"


def judge_point(case: Case, bundle: Bundle, logs: Mapping[str, EpochLog], point: str) -> Judged:
    """One metering point through all epochs.

    Raises:
        InputLimit: a stream holds what no honest writer makes.
    """
    register = case.register
    walk = MeteringPoint(
        point,
        register.slot_s,
        case.asked,
        case.made,
        register.points.get(point),
        case.switches,
        register.contracted_w,
        register,
        case.independent.get(point, ()),
        case.context,
    )
    found = Judged(point, PointReport.of(walk), walk.reported_totals, 0, walk.errors, walk.doubts, 0)
    broken: list[VerifyError] = []
    for epoch in case.epochs:
        entry = bundle.entries.get(_name(epoch, point))
        if entry is not None:
            log = logs.get(epoch)
            try:
                index = bundle.entries.get(f"{entry.name.removesuffix('.tzr')}.idx")
                places = places_of(bundle, index, entry.name) if log is not None else None
                stream = read_stream(
                    bundle,
                    entry,
                    site=register.site,
                    keys=register.epochs[epoch],
                    log=log,
                    places=places,
                    revoked=register.revoked,
                )
                counted = _counted(stream, found, epoch)
                walk.feed(_kept(counted, found.slots.setdefault(epoch, [])) if point in case.judging else counted)
            except InputLimit:
                raise
            except VerifyError as error:
                broken.append(error)
                found.broken.add(epoch)
                walk.broken()
        walk.end_epoch(last=epoch == case.epochs[-1])
    walk.finish()
    found.report = PointReport.of(walk)
    found.net = walk.standing.net
    found.kept = walk.kept()
    found.asked_intervals = walk.asked_totals.intervals
    found.errors = broken + walk.errors
    if case.logs:
        found.late = walk.late(case.made.end_s)
    return found


def _counted(records: Iterable[Record], found: Judged, epoch: str) -> Iterator[Record]:
    kids = found.kids.setdefault(epoch, set())
    count = 0
    try:
        for record in records:
            count += 1
            if record.kid not in kids:
                kids.add(record.kid)
            yield record
    finally:
        found.records[epoch] = count


def _kept(records: Iterable[Record], slots: list[Slot]) -> Iterator[Record]:
    inverted = False
    for record in records:
        doc, ty = record.doc, record.ty
        slot = Slot(record.at)
        if ty == "bind":
            inverted = doc.get("inverted") is True
        elif ty in {"interval", "gap"} and type(doc.get("t0")) is int and type(doc.get("t1")) is int:
            wh, exported, flags = doc.get("wh"), doc.get("exp_wh"), doc.get("q")
            net = None
            if ty == "interval" and type(wh) is int and isinstance(flags, list) and "frozen" not in flags:
                net = wh - (exported if type(exported) is int else 0)
            slot = Slot(record.at, doc["t0"], doc["t1"], -net if inverted and net is not None else net)
        slots.append(slot)
        yield record


def check_balances(balances: Balances, points: Mapping[str, Judged], start_s: int) -> None:
    """Hold the sums of balances against the metering points, as far as these are here and whole."""
    net = {name: point.net for name, point in points.items() if point.records}
    broken = frozenset(name for name, point in points.items() if point.errors)
    balances.check(net, start_s, broken)
