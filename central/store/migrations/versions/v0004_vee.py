"""Verdicts of plausibility in a log of central's own, and readings that others took of the same meters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003_dispatch"
branch_labels = None
depends_on = None


def _text(name: str, size: int, *, key: bool = False, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(size), primary_key=key, nullable=null)


def _big(name: str, *, key: bool = False, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=key, nullable=null, autoincrement=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "verdicts",
        _text("site", 41, key=True),
        _big("n", key=True),
        _text("ty", 16),
        _big("run"),
        _text("rule", 8, null=True),
        _text("severity", 8, null=True),
        _text("point", 62, null=True),
        _big("t0_s"),
        _big("t1_s"),
        sa.Column("thresholds", sa.Integer, nullable=False),
        _big("slots_n", null=True),
        _big("at"),
        _bytes("hash"),
        _bytes("line"),
    )
    op.create_index("verdicts_by_time", "verdicts", ["site", "t1_s"])
    op.create_table(
        "verdict_logs",
        _text("site", 41, key=True),
        _big("size"),
        _bytes("frontier"),
        _text("last_hash", 64, null=True),
        _bytes("note"),
    )
    op.create_table(
        "outside_readings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        _text("site", 41),
        _text("point", 62),
        _big("from_s"),
        _big("to_s"),
        _big("wh"),
        _text("source", 40),
        _text("act", 100),
        _text("entered_by", 100),
        _big("entered_at"),
    )
    op.create_index("outside_readings_by_site", "outside_readings", ["site", "point"])
