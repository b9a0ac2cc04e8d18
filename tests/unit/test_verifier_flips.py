"""No byte of a bundle can be changed unseen: a seeded sample always, every byte among the long tests.

Two attackers: one without any key; and the collector, who signs the manifest anew over what he changed.
"""

from __future__ import annotations

import multiprocessing
import random
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from bundle_kit import SLOT, START, Site, good_site, judged
from verdict_kit import LEAVES, LINES, NOTES, VerdictLog, finding

SAMPLE = 400
"""Flips of each kind in the sample."""
Flip = tuple[str, int, int]
"""File of the bundle (empty: the archive itself), position, mask."""


@pytest.fixture(scope="module")
def small() -> Site:
    """Two slots of one metering point and what the collector says of them, witnessed."""
    site = good_site(witnessed=True, slots=range(2))
    del site.streams["mp:M2"]
    site.register["sites"][0]["points"].pop()
    site.last = START + 2 * SLOT
    log = VerdictLog(site)
    log.run(START, site.last, [finding(START, START + SLOT, severity="warn")])
    log.checkpoint(site.last + 1000)
    site.beside = lambda _: log.files()
    return site


def survivors(site: Site, flips: list[Flip]) -> list[Flip]:
    """Flips after which the verifier is content."""
    files, data = site.files(), b""
    whole = site.pack(files)
    found: list[Flip] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for flip in flips:
            changed, position, mask = flip
            content = bytearray(files[changed] if changed else whole)
            content[position] ^= mask
            data = site.pack(files | {changed: bytes(content)}) if changed else bytes(content)
            if judged(folder, site, data=data).exit not in {2, 3}:
                found.append(flip)
    return found


def every_byte(site: Site, rng: random.Random) -> list[Flip]:
    """One flip per byte of the archive, and one per byte of each file in it."""
    files = site.files()
    sizes = {"": len(site.pack(files))} | {name: len(data) for name, data in files.items()}
    return [(name, at, 1 << rng.randrange(8)) for name, size in sizes.items() for at in range(size)]


def test_the_small_bundle_is_intact_and_complete(small: Site, tmp_path: Path) -> None:
    report = judged(tmp_path, small)
    assert (report.errors, report.doubts, report.exit) == ([], [], 0)


def test_a_flipped_byte_of_the_archive_is_seen(small: Site) -> None:
    rng = random.Random(7)  # seeded: the same every time
    size = len(small.pack())
    positions = [*range(40), *range(size - 40, size), *(rng.randrange(size) for _ in range(SAMPLE))]
    assert survivors(small, [("", at, 1 << rng.randrange(8)) for at in positions]) == []


def test_a_flipped_byte_under_a_manifest_that_fits_is_seen(small: Site) -> None:
    rng = random.Random(11)  # seeded: the same every time
    inside = [flip for flip in every_byte(small, rng) if flip[0]]
    assert survivors(small, rng.sample(inside, SAMPLE)) == []


def test_a_flipped_byte_of_the_verdicts_is_seen(small: Site) -> None:
    rng = random.Random(17)  # seeded: the same every time
    inside = [flip for flip in every_byte(small, rng) if flip[0] in {LEAVES, LINES, NOTES}]
    assert survivors(small, rng.sample(inside, SAMPLE // 3)) == []


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_every_flipped_byte_is_seen(small: Site) -> None:
    flips = every_byte(small, random.Random(13))
    assert len(flips) > 20_000
    # Forked, because private keys do not travel: each child inherits the site and sends back what survived.
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    children = [
        context.Process(target=_report, args=(small, flips[number::2], pipes[number][1])) for number in range(2)
    ]
    for child, (_, writer) in zip(children, pipes, strict=True):
        child.start()
        writer.close()
    found = [flip for reader, _ in pipes for flip in reader.recv()]
    for child in children:
        child.join()
    assert found == []


def _report(site: Site, flips: list[Flip], writer: Connection) -> None:
    writer.send(survivors(site, flips))
