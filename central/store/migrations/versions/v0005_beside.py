"""Records that are judged with slots and are none, by when they came."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BESIDE = "ty IN ('archive', 'balance', 'spot')"


def upgrade() -> None:
    """Make the index."""
    op.create_index(
        "records_beside_slots",
        "records",
        ["site", "received_at"],
        sqlite_where=sa.text(BESIDE),
        postgresql_where=sa.text(BESIDE),
    )
