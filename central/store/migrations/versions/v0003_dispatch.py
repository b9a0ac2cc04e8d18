"""Words about orders: what people on site said, and dispatchers' signed notes of what was spoken."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_dispatch"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "order_events",
        sa.Column("site", sa.String(41), primary_key=True, nullable=False),
        sa.Column("epoch", sa.String(20), primary_key=True, nullable=False),
        sa.Column("n", sa.BigInteger, primary_key=True, nullable=False, autoincrement=False),
        sa.Column("order_id", sa.String(36), nullable=False),
        sa.Column("ev", sa.String(20), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("verified", sa.Boolean),
    )
    op.create_index("order_events_by_order", "order_events", ["order_id"])
    op.create_table(
        "spoken_notes",
        sa.Column("digest", sa.String(64), primary_key=True, nullable=False),
        sa.Column("order_id", sa.String(36), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
    )
    op.create_index("spoken_notes_by_order", "spoken_notes", ["order_id"])
