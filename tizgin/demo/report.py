"""The report of an unattended demo, in the shape of the command line's contract, and whether it is a success."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tizgin.demo.count import Count

MUST_REFUSE = frozenset({"bad_signature", "unknown_key", "replay", "expired"})


@dataclass(frozen=True, slots=True)
class Verified:
    """One run of the verifier."""

    site: str
    exit: int
    records: int
    bundle: Path
    trust: Path
    period: str
    independent: tuple[Path, ...] = ()
    """The grid operator's own readings that the verifier was given."""
    grade_a: int = 0
    """Slots that these lift to grade A."""

    def doc(self) -> dict[str, Any]:
        """For the report."""
        return {
            "exit": self.exit,
            "records": self.records,
            "bundle": str(self.bundle),
            "trust": str(self.trust),
            "period": self.period,
            "site": self.site,
            "independent": [str(path) for path in self.independent],
            "grade_a": self.grade_a,
        }


@dataclass(frozen=True, slots=True)
class Figures:
    """Sizes and times of the run."""

    sites: int
    asics: int
    meters: int
    duration_s: float
    time_scale: float
    slot_s: int
    restore_stage_s: int


def build_report(
    figures: Figures,
    orders: Sequence[Mapping[str, Any]],
    refused: Sequence[Mapping[str, Any]],
    counted: Count | None,
    verified: Sequence[Verified],
    problems: Sequence[str],
) -> dict[str, Any]:
    """The report as JSON data. What was not found out is null, never 0.

    ``verifier`` is the first bundle's run that was not content, else the first; ``verifiers`` has them all.
    """
    first = next((v for v in verified if v.exit != 0), verified[0] if verified else None)
    body: dict[str, Any] = {
        "sites": figures.sites,
        "asics": figures.asics,
        "meters": figures.meters,
        "duration_s": round(figures.duration_s, 1),
        "readings": counted.readings if counted else None,
        "telemetry_rows": counted.telemetry_rows if counted else None,
        "lost": counted.lost if counted else None,
        "duplicated": counted.duplicated if counted else None,
        "simulation": {
            "time_scale": figures.time_scale,
            "slot_s": figures.slot_s,
            "restore_stage_s": figures.restore_stage_s,
        },
        "evidence": {
            "records": counted.evidence.central if counted else None,
            "checkpoints": counted.checkpoints if counted else None,
            "cosigned": counted.cosigned if counted else None,
        },
        "orders": [dict(order) for order in orders],
        "refused": [dict(entry) for entry in refused],
        "verifier": first.doc() if first else None,
        "verifiers": [v.doc() for v in verified],
        "counts": _counts(counted),
        "problems": list(problems),
    }
    return body | {"ok": succeeded(body)}


def _counts(counted: Count | None) -> dict[str, Any] | None:
    if counted is None:
        return None
    return {
        name: {field: getattr(part, field) for field in part.__slots__}
        for name, part in (
            ("evidence", counted.evidence),
            ("answers", counted.answers),
            ("telemetry", counted.telemetry),
        )
    }


def succeeded(report: Mapping[str, Any]) -> bool:
    """True where every order reached ``done`` at or below its limit and the load came back, every bad order was
    refused, nothing was lost or doubled, and the verifier was content with every bundle."""
    orders, verified, counts = report["orders"], report["verifiers"], report["counts"] or {}
    return bool(
        not report["problems"]
        and orders
        and all(_obeyed(order) for order in orders)
        and {entry["why"] for entry in report["refused"]} >= MUST_REFUSE
        and report["evidence"]["cosigned"]
        and report["lost"] == 0
        and report["duplicated"] == 0
        and all(part["altered"] == 0 and part["unexplained"] == 0 for part in counts.values())
        and len(verified) == report["sites"]
        and all(v["exit"] == 0 for v in verified)
    )


def _obeyed(order: Mapping[str, Any]) -> bool:
    after = order["after_kw"]
    return (
        order["state"] == "done"
        and order["restored"] is True
        and after is not None
        and after <= order["limit_kw"]
        and not order["answers_refused"]
    )


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write it, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
