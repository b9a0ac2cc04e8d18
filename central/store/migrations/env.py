"""Runs the steps inside the connection that :func:`central.store.database.migrate` hands over."""

from __future__ import annotations

from alembic import context

from central.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transaction_per_migration=False
)
with context.begin_transaction():
    context.run_migrations()
