"""The verification of a bundle, as one straight line of numbered checks. Read this file to know what is checked.

The first four checks decide whether anything can be believed; a failure there ends the run. From the fifth on every
stream is judged by itself, so that one broken meter does not hide what the others say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from verifier.archive import Bundle, Entry
from verifier.balance import Balances
from verifier.claims import judge_claims
from verifier.compared import compare
from verifier.epochs import EpochWalk, judge_link
from verifier.errors import (
    ArchiveError,
    CannotVerify,
    GenesisError,
    InputLimit,
    LineError,
    ManifestError,
    RecordKeyError,
    TruncatedError,
    UsageError,
    VerifyError,
)
from verifier.independent import read_all
from verifier.judgement import judge
from verifier.log import SLACK_S, EpochLog, read_log
from verifier.manifest import MAX_MANIFEST, check_files, open_bundle, read_manifest
from verifier.metering import Period
from verifier.notes import MAX_NOTE, Note, read_note
from verifier.plausible.around import Around
from verifier.plausible.conclude import conclude
from verifier.points import Case, Judged, check_balances, judge_points
from verifier.records import stream_of
from verifier.register import Register, read_register, read_trust
from verifier.report import Report
from verifier.sitestreams import SiteStreams
from verifier.switches import Switches
from verifier.totals import check_totals
from verifier.verdicts import FILES as VERDICTS
from verifier.verdicts import origin_of, read_verdicts

HEAD = ("manifest.json", "keys.json", "report.json")
MAX_SLOTS = 4_000_000
Logs = dict[str, EpochLog]


def verify(
    path: Path,
    *,
    trust_path: Path,
    period: Period,
    site: str | None = None,
    head_path: Path | None = None,
    jobs: int = 1,
    independent: Sequence[Path] = (),
) -> Report:
    """Judge one bundle. Never raises for what is in the files: everything is in the report.

    Args:
        path: the bundle.
        trust_path: the trust file: the registrar's and the collector's public keys.
        period: the period to be shown, chosen by who asks. Without it a cut of the end could not be seen.
        site: the site to be shown; default: the one the manifest names.
        head_path: newest checkpoint of the log as a witness gave it: with it a cut of log and checkpoints is seen.
        jobs: processes that judge the metering points. The report does not depend on it.
        independent: readings of the same meters by the system operator, each in an envelope of its own.
    """
    report = Report(path=path, period=period)
    try:
        head = _head(head_path)
        # 1  The trust file holds sane keys: canonical points, none of low order.
        trust = read_trust(trust_path)
        report.passed(1, "trust file", f"{len(trust.registrar)} registrar, {len(trust.collector)} collector keys")

        # 2  The archive is the one canonical zip of its entries.
        with open_bundle(path) as bundle:
            report.sha256 = bundle.whole_digest()
            names = list(bundle.entries)
            if tuple(names[:3]) != HEAD or names[3:] != sorted(names[3:]):
                raise ArchiveError(f"entries {names[:4]}…, expected {', '.join(HEAD)} and then the others by name")
            report.passed(2, "archive", f"{len(names)} entries")

            # 3  The collector signed the manifest, and every file is what it says.
            manifest = read_manifest(bundle, trust)
            check_files(bundle, manifest)
            report.site = str(manifest["site"])
            if site is not None and report.site != site:
                raise CannotVerify(f"the bundle is of site {report.site}, asked for is {site}")
            made = Period(manifest["period"]["from"], manifest["period"]["to"])
            if not made.holds(period.start_s, period.end_s):
                raise CannotVerify(
                    f"the bundle covers {made.start_s}/{made.end_s}, asked for is {period.start_s}/{period.end_s}"
                )
            report.passed(3, "manifest", f"{len(manifest['files'])} files by {manifest['tool']}")

            # 4  The registrar signed the register; slot length and ratios come from there.
            register = read_register(bundle.read(bundle.entries["keys.json"], MAX_MANIFEST), trust, report.site)
            _grid(period, made, register.slot_s)
            report.register_version = register.version
            report.passed(4, "register", f"version {register.version}, slots of {register.slot_s} s")

            # 5  The log: leaves give the roots that the log signed and the quorum of witnesses cosigned; no two
            #    histories, nothing cut off. The collector's log of verdicts likewise: no run, no finding left out.
            verdicts = read_verdicts(bundle, trust, register, made, head, report.errors)
            if head is not None and head.origin == origin_of(register.site) and VERDICTS[0] in bundle.entries:
                head = None
            # 6  Every line: form, canonical bytes, key valid in its epoch and place, signature.
            # 7  Every stream: numbers from 0 without holes, each record chained to the one before.
            #    (Both happen in read_stream, for every record that the checks below are given.)
            # 8  Epochs and slots: genesis, and every slot of a bound point is one interval or one gap.
            # 9  Registers: continuity, energy from raw bits, raw frames, ratios, bridges; spot readings lie between
            #    the readings around them, balances are the sums of the slots they name.
            # 10 De-energised slots: the switch was open throughout and the registers did not move.
            # 11 Orders: every answer has its order, every order is what its record says, and the figures of every
            #    report follow from its trace and the meter's slots.
            # 12 Time: every record's clock lies between the cosignatures before and after it.
            # Beside them: are the readings plausible? V01 to V26, judged here, give doubts and lower grades, no errors.
            points = _streams(bundle, register, period, made, report, head, jobs, independent)
            # What the collector's verdicts say, whether of these records, and what of it was found here too.
            if verdicts is not None:
                broken = any(error.check in {5, 6, 7} for error in report.errors)
                report.verdicts = judge(verdicts, bundle, period, made, report.records, whole=not broken)
                report.doubts.extend(report.verdicts.doubts)
                report.compared = None if report.plausibility is None else compare(report.verdicts, report.plausibility)

            # 13 The totals in the bundle are those recomputed.
            check_totals(bundle, made, register, points, report)
    except VerifyError as error:
        report.failed(error)
    return report


def _grid(period: Period, made: Period, slot_s: int) -> None:
    if period.start_s % slot_s or period.end_s % slot_s:
        raise UsageError(f"period {period.start_s}/{period.end_s}: not on the grid of {slot_s} s slots")
    if made.start_s % slot_s or made.end_s % slot_s:
        raise ManifestError(f"the manifest's period is not on the grid of {slot_s} s slots")
    if (period.end_s - period.start_s) // slot_s > MAX_SLOTS:
        raise UsageError(f"the period has more than {MAX_SLOTS} slots; ask for a shorter one")


def _head(path: Path | None) -> Note | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return read_note(file.read(MAX_NOTE + 1))
    except OSError as error:
        raise CannotVerify(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise CannotVerify(f"{path}: {error}") from None


def _logs(bundle: Bundle, register: Register, epochs: Iterable[str], report: Report, head: Note | None) -> Logs:
    """The log of each epoch that the bundle has one of."""
    found: Logs = {}
    for epoch in epochs:
        held = {f"log/{epoch}.leaves", f"log/{epoch}.notes"} & bundle.entries.keys()
        if register.policy is None or register.policy.quorum is None:
            if held:
                report.doubts.append(f"{epoch} has a log, but the register's policy asks for no witness")
            continue
        if len(held) != 2:
            report.doubts.append(f"{epoch} has no log in this bundle: nothing shows when its records were made")
            continue
        origin = f"tizgin/{register.site}/{epoch}"
        try:
            log = read_log(bundle, epoch, origin, register.slot_s, register.logs[epoch], register.policy, head)
        except InputLimit:
            raise
        except VerifyError as error:
            report.errors.append(error)
            continue
        found[epoch] = log
        report.checkpoints += log.checkpoints
        report.cosigned += len(log.cosigned)
        if not log.cosigned:
            report.doubts.append(f"UNWITNESSED {epoch}: no checkpoint of its log was cosigned as the policy asks")
    if head is not None and head.origin not in {f"tizgin/{register.site}/{epoch}" for epoch in found}:
        report.errors.append(TruncatedError(f"--head is of {head.origin[:80]}, of which the bundle has no log"))
    report.judge(5, "log", f"{report.checkpoints} checkpoints, {report.cosigned} cosigned by the quorum")
    return found


def _streams(
    bundle: Bundle,
    register: Register,
    period: Period,
    made: Period,
    report: Report,
    head: Note | None,
    jobs: int,
    independent: Sequence[Path],
) -> dict[str, Judged]:
    epochs = _epochs(bundle)
    ordered = sorted(epochs, key=_epoch_number)
    for epoch in ordered:
        if epoch not in register.epochs:
            raise RecordKeyError(f"epoch {epoch} is not in the register, so no key is valid in it")
        if "site" not in epochs[epoch]:
            raise GenesisError(f"epoch {epoch} has no stream 'site', so no genesis")
    logs = _logs(bundle, register, ordered, report, head)
    switches, balances = Switches(), Balances(register.slot_s)
    walks = {epoch: EpochWalk(epoch, register.epochs[epoch], register.logs[epoch]) for epoch in ordered}
    ids = {stream[3:] for streams in epochs.values() for stream in streams if stream.startswith("mp:")}
    names = sorted(ids | set(register.points))
    around = Around(register.slot_s, period.start_s, period.end_s, frozenset(names), register.contracted_w)
    beside = SiteStreams(bundle, register, report, switches, balances, around)
    records = {epoch: beside.read(walks[epoch], epochs[epoch], logs.get(epoch)) for epoch in ordered}
    if not names:
        raise CannotVerify("neither the register nor the bundle has a metering point")
    known = {epoch: (tuple(log.cosigned), log.checkpoints) for epoch, log in logs.items()}
    own, judging = read_all(independent, register), frozenset(claim.point for claim in beside.claims)
    context = around.context(len(names))
    case = Case(bundle.path, register, period, made, switches, tuple(ordered), known, own, context, judging)
    points: dict[str, Judged] = {}
    for point in judge_points(case, bundle, logs, names, jobs):
        points[point.id] = point
        _take(point, report, register)
        for epoch in ordered:
            records[epoch] += point.records.get(epoch, 0)
            walks[epoch].used |= point.kids.get(epoch, set())
    report.records = sum(records.values())
    report.errors.extend(switches.errors)
    check_balances(balances, points, period.start_s)
    report.balance = balances.summary(period.start_s, period.end_s)
    report.errors.extend(balances.errors)
    report.doubts.extend(balances.doubts())
    report.errors.extend(around.errors)
    report.plausibility, implausible = conclude(points, around, register)
    report.doubts.extend(implausible)
    report.points.update((name, point.report) for name, point in points.items())
    report.reports, wrong, asked = judge_claims(beside.claims, register, points)
    report.errors.extend(wrong)
    report.doubts.extend(asked)
    _epoch_ends(register, ordered, walks, logs, records, report)
    _withheld(logs, made, report)
    report.judge(6, "records", f"{report.records} lines, each signed by a key of its epoch")
    report.judge(7, "streams", f"{sum(len(e) for e in epochs.values())} chains without holes")
    report.judge(8, "calendar", f"{sum(p.report.slots for p in points.values())} slots of {len(points)} points")
    report.judge(9, "registers", f"{sum(p.asked_intervals for p in points.values())} intervals recomputed")
    dead = sum(p.report.grades.get("Z", 0) for p in points.values())
    report.judge(10, "de-energised", f"{dead} slots proven")
    told = f", {report.reports} reports recomputed" if beside.claims else ""
    report.judge(11, "orders", f"{report.orders} received, {report.answers} answers{told}")
    report.judge(12, "time", f"{report.cosigned} cosigned checkpoints, clocks within {SLACK_S} s of them")
    return points


def _epochs(bundle: Bundle) -> dict[str, dict[str, Entry]]:
    """Streams by epoch; nothing else may be in the bundle."""
    epochs: dict[str, dict[str, Entry]] = {}
    for name, entry in bundle.entries.items():
        if name.endswith(".tzr") and name not in VERDICTS:
            epoch, stream = stream_of(name)
            epochs.setdefault(epoch, {})[stream] = entry
    expected = {f"log/{epoch}.{kind}" for epoch in epochs for kind in ("leaves", "notes")} | {*HEAD, *VERDICTS}
    for name in bundle.entries:
        beside = f"{name.removesuffix('.idx')}.tzr" in bundle.entries
        if not name.endswith(".tzr") and name not in expected and not beside:
            raise ArchiveError(f"{name}: no file of a bundle")
    return epochs


def _take(point: Judged, report: Report, register: Register) -> None:
    report.points[point.id] = point.report
    report.errors.extend(point.errors)
    report.doubts.extend(point.doubts)
    if point.late:
        report.doubts.append(f"LATE {point.id}: {point.late} slots were not witnessed in time")
    if point.id not in register.points:
        report.doubts.append(f"{point.id} is not in the register: its ratios and serial number are unconfirmed")


def _epoch_ends(
    register: Register,
    ordered: Sequence[str],
    walks: Mapping[str, EpochWalk],
    logs: Logs,
    records: Mapping[str, int],
    report: Report,
) -> None:
    """Changes of keys, ends of epochs, and what each new epoch says about the one before."""
    for number, epoch in enumerate(ordered):
        try:
            walks[epoch].check_keys()
            walks[epoch].check_log_keys(logs[epoch].signers if epoch in logs else frozenset())
        except VerifyError as error:
            report.errors.append(error)
        end = register.ends[epoch]
        if end is not None and records[epoch] > end + 1:
            text = f"epoch {epoch} ended at index {end}, the bundle has {records[epoch]} records"
            report.errors.append(RecordKeyError(text))
        if number:
            before = ordered[number - 1]
            wrong, doubt = judge_link(walks[epoch], before, logs, records[before])
            report.errors.extend([] if wrong is None else [wrong])
            report.doubts.extend([] if doubt is None else [doubt])


def _withheld(logs: Logs, made: Period, report: Report) -> None:
    for epoch, log in logs.items():
        report.withheld += log.withheld()
        lacking = log.withheld_before(made.end_s)
        # Where a stream broke, what follows in it is here and was not read.
        if lacking and not any(error.check in {5, 6, 7} for error in report.errors):
            report.doubts.append(f"WITHHELD {epoch}: {lacking} records made before the period's end are not here")


def _epoch_number(epoch: str) -> tuple[int, str]:
    number, _, rest = epoch[1:].partition("-")
    if not epoch.startswith("e") or not number.isdecimal() or len(number) > 6 or len(rest) != 8:
        raise LineError(f"{epoch!r} is no epoch")
    return int(number), epoch
