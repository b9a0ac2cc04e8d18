"""The sites' logs: leaf hashes, checkpoints, what central cosigned, and proofs of two histories."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _text(name: str, size: int, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(size), primary_key=key, nullable=False)


def _big(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=key, nullable=False, autoincrement=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def upgrade() -> None:
    """Make the tables; the table of unread checkpoints goes, nothing ever wrote to it."""
    op.drop_table("checkpoints")
    op.create_table(
        "leaves", _text("site", 41, key=True), _text("epoch", 20, key=True), _big("idx", key=True), _bytes("hash")
    )
    op.create_table(
        "notes",
        _text("site", 41, key=True),
        _text("epoch", 20, key=True),
        _text("sha256", 64, key=True),
        _big("size"),
        _bytes("note"),
        _big("received_at"),
    )
    op.create_index("notes_by_size", "notes", ["site", "epoch", "size"])
    op.create_table(
        "witnessed",
        _text("site", 41, key=True),
        _text("epoch", 20, key=True),
        _big("size"),
        _bytes("root"),
        _bytes("note"),
        _big("at"),
    )
    op.create_table(
        "splits",
        _text("site", 41, key=True),
        _text("epoch", 20, key=True),
        _text("sha256", 64, key=True),
        _text("why", 300),
        _bytes("note"),
        _bytes("held"),
        _big("received_at"),
    )
