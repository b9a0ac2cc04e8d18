"""``tizgin profile show --plan``: which requests read a meter, and why there are so many."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from drivers.profiles.model import MeterProfile
from drivers.profiles.plan import holes_in, plan, plan_classes
from tizgin.errors import EXIT_WRONG_USE, UserError


def plan_rows(profile: MeterProfile, points: str | None) -> list[dict[str, Any]]:
    """One row for each request. ``points`` are names with commas between; ``None``: all.

    Raises:
        UserError: a name that the profile does not have.
    """
    asked = profile.point_ids if points is None else tuple(name.strip() for name in points.split(",") if name.strip())
    unknown = [name for name in asked if name not in profile.point_ids]
    if unknown or not asked:
        raise UserError(
            f"--points: seen {', '.join(unknown) or 'nothing'}, expected names among {', '.join(profile.point_ids)}",
            exit_code=EXIT_WRONG_USE,
        )
    by_class = {name: sum(block.count for block in blocks) for name, blocks in plan_classes(profile, asked).items()}
    rows = []
    for block in plan(profile, asked):
        wanted = {profile.point(name).poll for name in block.points}
        rows.append(
            {
                "fc": block.fc,
                "table": block.table,
                "addr": block.addr,
                "count": block.count,
                "points": list(block.points),
                "holes": [[hole.first, hole.last] for hole in holes_in(profile, block)],
                "poll": [name for name in by_class if name in wanted],
                "why": block.why,
            }
        )
    return rows


def print_plan(rows: list[dict[str, Any]]) -> None:
    """The same for people."""
    words = sum(row["count"] for row in rows)
    holes = sum(last - first + 1 for row in rows for first, last in row["holes"])
    table = Table(title=f"{len(rows)} requests, {words} registers, {holes} of them read along unwanted")
    for name in ("function", "address", "words", "read along", "polled", "points", "why a request of its own"):
        table.add_column(name, justify="right" if name in {"function", "address", "words"} else "left", overflow="fold")
    for row in rows:
        along = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in row["holes"])
        table.add_row(
            str(row["fc"]),
            str(row["addr"]),
            str(row["count"]),
            along,
            ", ".join(row["poll"]),
            escape(", ".join(row["points"])),
            escape(row["why"]),
        )
    Console(highlight=False).print(table)
