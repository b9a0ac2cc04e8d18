"""Writes the bundles of this folder anew: ``python tests/conformance/make.py``.

Everything follows from fixed seeds, so that the bytes are always the same. The keys are for these files alone; their
seeds are public and they must never sign anything else.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "tests" / "support")]

from bundle_kit import EPOCH, SLOT, START, Site, framed, gap, good_site, joined, ordered, signed_line  # noqa: E402 - path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402 - path set above
from order_kit import make_order, with_order  # noqa: E402 - path set above
from verdict_kit import LINES, VerdictLog, finding  # noqa: E402 - path set above
from verdict_kit import NOTES as VERDICT_NOTES  # noqa: E402 - path set above
from vouch_kit import balance, enrol, papers, spot  # noqa: E402 - path set above

from verifier.metering import Period  # noqa: E402 - path set above
from verifier.verify import verify  # noqa: E402 - path set above
from wire.keys import SigningKey  # noqa: E402 - path set above

SLOTS = 4
M1, NOTES = f"records/{EPOCH}/mp_M1.tzr", f"log/{EPOCH}.notes"
Files = dict[str, bytes]


class Case(NamedTuple):
    """A bundle, what it is asked, and perhaps a head from a witness."""

    data: bytes
    trust: bytes
    period: Period
    head: bytes | None = None


def seeded() -> Callable[[], SigningKey]:
    """Keys in a fixed order: the seed of the i-th is SHA-256 of its public name."""
    numbers = itertools.count()

    def make() -> SigningKey:
        seed = hashlib.sha256(f"tizgin conformance key {next(numbers)}".encode()).digest()
        return SigningKey(Ed25519PrivateKey.from_private_bytes(seed))

    return make


def fresh(slots: range = range(SLOTS)) -> Site:
    """A witnessed site of four slots; the same each time."""
    site = good_site(witnessed=True, slots=slots, make_key=seeded())
    site.last = START + SLOTS * SLOT
    return site


def case(site: Site, files: Files | None = None, head: bytes | None = None) -> Case:
    """The bundle of a site, of these files where given."""
    return Case(site.pack(files), site.trust(), Period(site.first, site.last), head)


def whole() -> Case:
    return case(fresh())


def bridged() -> Case:
    site = fresh()
    gap(site, "mp:M1", range(1, 3))
    return case(site)


def wrong_energy() -> Case:
    site = fresh()
    site.streams["mp:M2"][2]["wh"] += 1
    return case(site)


def edited() -> Case:
    site = fresh()
    files = site.files()
    return case(site, ordered(files | {M1: files[M1].replace(b'"mto":12', b'"mto":13', 1)}))


def forked() -> Case:
    site = fresh()
    head = site.signed().notes[2]
    site.streams["site"][1]["mode"] = "monitor"
    return case(site, head=head)


def unwitnessed() -> Case:
    site = fresh()
    site.anchored = False
    notes = [note.rsplit("\u2014 so".encode(), 1)[0] for note in site.signed().notes]
    return case(site, ordered(site.files() | {NOTES: framed(notes)}))


def installed_again() -> Case:
    first = fresh(range(2))
    second = good_site(before=first, slots=range(2, SLOTS))
    second.last = first.last
    return case(first, joined(first, second))


def deep() -> Case:
    site = fresh()
    files = site.files()
    line = signed_line(site, b'{"a":' + b"[" * 100 + b"]" * 100 + b"}")
    return case(site, ordered(files | {M1: files[M1] + line}))


def vouched() -> Case:
    """An inspector's reading, papers that end in the middle, and balances, one of which lacks a meter."""
    site = fresh()
    inspector = seeded_after(site)
    enrol(site, inspector)
    papers(site, "M1")
    papers(site, "M2", expires="2026-01-01")
    gap(site, "mp:M2", range(1, 2))
    spot(site, inspector, after=2)
    for slot in range(SLOTS):
        balance(site, slot)
    return case(site)


def scheduled() -> Case:
    """A schedule that was not kept in its second hour, with the report that says so."""
    site, rx = fresh(), START + 700
    now, hour = rx * 1000, (START + 18_000) // 3600 % 24
    limits = [40_000 if at == hour else 20_000 for at in range(24)]
    order = make_order(
        action="schedule",
        limit_w=None,
        hours=limits,
        limit_basis="instant_1min",
        issued_at=now - 500,
        execute_by=now + 60_000,
        expires_at=now + 7_200_000,
    )
    return case(with_order(site, order=order, rx=rx, end=START + SLOT * SLOTS - 100))


def plausible() -> Case:
    """A bundle with the collector's verdicts: one run before the period, and two over it, the second with a finding."""
    site = fresh()
    log = VerdictLog(site)
    log.run(START - 86_400, START, [finding(START - SLOT, START)])
    log.run(START, site.last)
    log.checkpoint(site.last + 1000)
    log.run(START, site.last, [finding(START, START + SLOT)], at_s=site.last + 1100)
    log.checkpoint(site.last + 2000, "so")
    site.beside = lambda _: log.files()
    return case(site)


def _verdicts(site: Site, severity: str = "suspect") -> VerdictLog:
    """Two runs over the two halves of the period, the first with a finding; cosigned."""
    log = VerdictLog(site)
    half = (START + site.last) // 2
    log.run(START, half, [finding(START, START + SLOT, severity=severity)])
    log.run(half, site.last)
    log.checkpoint(site.last + 1000)
    return log


def verdict_dropped() -> Case:
    """The finding is left out."""
    site = fresh()
    files = _verdicts(site).files()
    first, *rest = files[LINES].splitlines(keepends=True)
    site.beside = lambda _: files | {LINES: first + rest[1]}
    return case(site)


def verdict_forked() -> Case:
    """Two checkpoints of one size, both signed by the collector and cosigned by the quorum."""
    site = fresh()
    log, other = _verdicts(site), _verdicts(site, "warn")
    site.beside = lambda _: log.files() | {VERDICT_NOTES: framed([*log.notes, *other.notes])}
    return case(site)


def implausible() -> Case:
    """More than the contract and a register that stood still; the collector tells of one of them, and of two others."""
    site = fresh()
    papers(site, "M1")
    papers(site, "M2")
    site.register["sites"][0]["contracted_w"] = 30_000
    site.streams["mp:M2"][2]["q"] = ["frozen"]
    log = VerdictLog(site)
    told = [finding(START, site.last, rule=rule) for rule in ("V06", "V13", "V21")]
    log.run(START, site.last, told)
    log.checkpoint(site.last + 1000)
    site.beside = lambda _: log.files()
    return case(site)


def seeded_after(site: Site) -> SigningKey:
    """One more key, of a fixed seed too."""
    seed = hashlib.sha256(f"tizgin conformance inspector {site.epoch}".encode()).digest()
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed))


CASES: dict[str, Callable[[], Case]] = {
    made.__name__: made
    for made in (
        whole,
        bridged,
        wrong_energy,
        edited,
        forked,
        unwitnessed,
        installed_again,
        deep,
        vouched,
        plausible,
        implausible,
        scheduled,
        verdict_dropped,
        verdict_forked,
    )
}


def write(folder: Path, name: str) -> None:
    """The files of one case: bundle, trust file, head, and what the verifier says of them."""
    made = CASES[name]()
    (folder / f"{name}.zip").write_bytes(made.data)
    (folder / f"{name}.trust.json").write_bytes(made.trust)
    head = folder / f"{name}.head" if made.head is not None else None
    if head is not None and made.head is not None:
        head.write_bytes(made.head)
    report = verify(
        folder / f"{name}.zip", trust_path=folder / f"{name}.trust.json", period=made.period, head_path=head
    )
    (folder / f"{name}.report.json").write_text(report.to_json() + "\n", encoding="utf-8")


if __name__ == "__main__":
    for each in CASES:
        write(HERE, each)
