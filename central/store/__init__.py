"""Registry, orders and evidence in a relational database: SQLite by default, PostgreSQL by URL.

Lives here: tables, migrations, and functions that run inside one transaction the caller owns.
May not live here: telemetry (:mod:`central.telemetry`), threads, the network. SQL that only one database understands
stands in :mod:`central.store.database` and :mod:`central.store.postgres` alone.
"""
