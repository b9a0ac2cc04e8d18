"""First version: registry, evidence, orders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _text(name: str, size: int, *, key: bool = False, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(size), primary_key=key, nullable=null)


def _big(name: str, *, key: bool = False, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=key, nullable=null, autoincrement=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "records",
        _text("site", 41, key=True),
        _text("epoch", 20, key=True),
        _text("stream", 70, key=True),
        _big("n", key=True),
        _text("ty", 16),
        _big("at"),
        _text("hash", 64),
        _text("prev", 64, null=True),
        _bytes("line"),
        sa.Column("verified", sa.Boolean),
        _big("received_at"),
    )
    op.create_index("records_unverified", "records", ["site", "verified"])
    op.create_table(
        "forks",
        sa.Column("id", _BIG_ID, primary_key=True, autoincrement=True),
        _text("site", 41),
        _text("epoch", 20),
        _text("stream", 70),
        _big("n"),
        _text("line_sha256", 64),
        _bytes("line"),
        sa.Column("verified", sa.Boolean),
        _big("received_at"),
        sa.UniqueConstraint("site", "epoch", "stream", "n", "line_sha256", name="forks_once"),
    )
    op.create_table(
        "streams",
        _text("site", 41, key=True),
        _text("epoch", 20, key=True),
        _text("stream", 70, key=True),
        _big("next_n"),
        _text("last_hash", 64, null=True),
    )
    op.create_table(
        "intervals",
        _text("site", 41, key=True),
        _text("epoch", 20, key=True),
        _text("mp", 62, key=True),
        _big("n", key=True),
        _big("t0_s"),
        _big("t1_s"),
        _text("kind", 8),
        _big("wh", null=True),
        _big("exp_wh", null=True),
        _text("why", 32, null=True),
        _text("flags", 120),
        sa.Column("verified", sa.Boolean),
    )
    op.create_index("intervals_by_time", "intervals", ["site", "t0_s"])
    op.create_table(
        "order_answers",
        _text("site", 41, key=True),
        _text("epoch", 20, key=True),
        _big("n", key=True),
        _text("order_id", 36, null=True),
        _text("ty", 16),
        _big("at"),
        _big("received_at"),
        _text("state", 20, null=True),
        _text("code", 40, null=True),
        sa.Column("text", sa.Text),
        _big("power_w", null=True),
        _big("target_w", null=True),
        sa.Column("verified", sa.Boolean),
    )
    op.create_index("order_answers_by_order", "order_answers", ["order_id"])
    op.create_table(
        "orders",
        _text("id", 36, key=True),
        _text("site", 41),
        _text("epoch", 20),
        _text("action", 20),
        _text("digest", 64),
        _bytes("raw"),
        _big("posted_at"),
        _big("execute_by"),
    )
    op.create_index("orders_by_time", "orders", ["posted_at"])
    op.create_table(
        "proposals",
        _text("id", 36, key=True),
        _text("site", 41),
        _big("made_at"),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table("registers", _big("version", key=True), _bytes("envelope"), _big("received_at"))
    op.create_table("inventories", _text("site", 41, key=True), _big("at"), _bytes("body"))
    op.create_table(
        "checkpoints", _text("site", 41, key=True), _text("sha256", 64, key=True), _bytes("body"), _big("received_at")
    )
    op.create_table(
        "quarantine",
        sa.Column("id", _BIG_ID, primary_key=True, autoincrement=True),
        _text("site", 41),
        _text("topic", 20),
        _text("reason", 20),
        _text("detail", 300),
        sa.Column("size", sa.Integer, nullable=False),
        _bytes("body"),
        _big("received_at"),
    )
    op.create_table("tallies", _text("site", 41, key=True), _text("name", 40, key=True), _big("count"))


def downgrade() -> None:
    """There is nothing before the first version."""
    raise NotImplementedError("version 0001 is the first; restore a backup instead")
