"""The command line of the verifier: ``python -m verifier BUNDLE --trust FILE --period A/B``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from verifier.errors import UsageError
from verifier.metering import Period
from verifier.verify import verify

WRONG_USE = 4
CANNOT_VERIFY = 3
LATEST_S = 9_999_999_999


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        sys.stderr.write(f"verify: {message}\n")
        raise SystemExit(WRONG_USE)


def parse_period(text: str) -> Period:
    """``A/B``: each an ISO 8601 time (UTC where it has no offset) or seconds since the epoch.

    Raises:
        UsageError: not such a period.
    """
    first, slash, second = text.partition("/")
    if not slash:
        raise UsageError(f"period {text[:80]!r}: expected A/B, for example 2026-10-01T00:00Z/2026-11-01T00:00Z")
    start, end = _seconds(first), _seconds(second)
    if not 0 <= start < end <= LATEST_S:
        raise UsageError(f"period {text[:80]!r}: the end is not after the beginning")
    return Period(start, end)


def _seconds(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,10}", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"time {text[:40]!r}: expected ISO 8601 or whole seconds since the epoch") from None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if seconds != int(seconds):
        raise UsageError(f"time {text[:40]!r}: expected whole seconds")
    return int(seconds)


def run(
    bundle: Path,
    trust: Path,
    period: str,
    site: str | None,
    json_to: str | None,
    head: Path | None = None,
    jobs: int = 1,
    independent: Sequence[Path] = (),
) -> int:
    """Verify, print, return the exit code (0 to 4)."""
    try:
        span = parse_period(period)
    except UsageError as error:
        sys.stderr.write(f"verify: {error}\n")
        return WRONG_USE
    try:
        report = verify(
            bundle, trust_path=trust, period=span, site=site, head_path=head, jobs=jobs, independent=independent
        )
    except Exception as error:  # a fault of this program must never look like a verdict: Python's own code would be 1
        sys.stderr.write(f"verify: unexpected {type(error).__name__}: {error}\n")
        return CANNOT_VERIFY
    try:
        if json_to == "-":
            sys.stdout.write(report.to_json() + "\n")
        else:
            sys.stdout.write(report.to_text() + "\n")
            if json_to is not None:
                Path(json_to).write_text(report.to_json() + "\n", encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"verify: {json_to}: cannot be written: {error.strerror or error}\n")
        return WRONG_USE
    return report.exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = _Parser(prog="verify", description="Check an evidence bundle off line, trusting nobody.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--trust", type=Path, required=True, help="registrar's and collector's public keys")
    parser.add_argument("--head", type=Path, help="the log's newest checkpoint, as a witness gave it to you")
    parser.add_argument(
        "--independent",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="the system operator's own reading of a meter, signed; again for each",
    )
    parser.add_argument("--period", required=True, help="A/B, ISO 8601 UTC or seconds since the epoch")
    parser.add_argument("--site", help="the site that the bundle must be of")
    parser.add_argument("--json", dest="json_to", metavar="FILE", help="report as JSON; - is standard output")
    parser.add_argument("--jobs", type=int, choices=range(1, 65), default=1, metavar="N", help="processes, 1 to 64")
    given = parser.parse_args(arguments)
    return run(
        given.bundle, given.trust, given.period, given.site, given.json_to, given.head, given.jobs, given.independent
    )
