"""A whole year of 50 meters, 15 minutes a slot, verified from its bundle by one process and by two.

What ``benchmarks.evidence`` calculates from a smaller bundle is run here: 1,752,000 intervals and 35,040 checkpoints.
The bundle is made first, which takes some ten minutes and 3 GB on disk, and kept in ``--folder`` for the next run.
``verified_s`` and ``jobs2_s``: the verifier's own command from its start to the last total. ``rss_mb``: the largest
process of either. The floor is a bare Ed25519 verification, as often.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.common import parser, report
from benchmarks.evidence import SLOT_S, START_S, Evidence, ed25519_verify_per_s, judged

POINTS, SLOTS, QUICK_SLOTS = 50, 35_040, 240
PAYLOAD = 700
"""Bytes of a typical interval record, for the floor."""


def made(folder: Path, slots: int) -> list[str]:
    """The verifier's arguments for the bundle in this folder, which is made where it is not there."""
    path, trust = folder / f"year-{slots}.zip", folder / f"year-{slots}.trust.json"
    if not (path.exists() and trust.exists()):
        evidence = Evidence(POINTS, slots)
        evidence.make()
        evidence.bundle(path)
        trust.write_bytes(evidence.trust())
    return [str(path), "--trust", str(trust), "--period", f"{START_S}/{START_S + slots * SLOT_S}"]


def main() -> int:
    """Command line."""
    options = parser(str(__doc__).partition("\n")[0]).parse_args()
    slots = QUICK_SLOTS if options.quick else SLOTS
    words = made(options.folder, slots)
    alone_s, alone_mb, cpu_s = judged(words, options.folder)
    two_s, two_mb, _ = judged([*words, "--jobs", "2"], options.folder)
    bare, _ = ed25519_verify_per_s(PAYLOAD, 20_000)
    records = POINTS * slots
    report(
        "year",
        folder=options.folder,
        ours={
            "intervals": records,
            "bundle_mb": round(Path(words[0]).stat().st_size / 1e6),
            "verified_s": round(alone_s, 1),
            "cpu_s": round(cpu_s, 1),
            "jobs2_s": round(two_s, 1),
            "rss_mb": round(max(alone_mb, two_mb), 1),
        },
        floor={"ed25519_s": round(records / bare, 1)},
        ratios={"to_floor": round(alone_s * bare / records, 2), "jobs2_to_floor": round(two_s * bare / records, 2)},
        as_json=options.json,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
