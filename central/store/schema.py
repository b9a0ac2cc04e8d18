"""Tables. Times are ms since the Unix epoch (UTC) unless the name ends in ``_s``; energy is whole Wh."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()
_BIG_ID = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up only a column declared INTEGER."""

records = Table(
    "records",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("epoch", String(20), primary_key=True),
    Column("stream", String(70), primary_key=True),
    Column("n", BigInteger, primary_key=True),
    Column("ty", String(16), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("prev", String(64)),
    Column("line", LargeBinary, nullable=False),
    Column("verified", Boolean),
    Column("received_at", BigInteger, nullable=False),
)
"""Record lines byte for byte. ``verified``: true or false against the register's key, null where it has none yet."""

Index("records_unverified", records.c.site, records.c.verified)
BESIDE_SLOTS = text("ty IN ('archive', 'balance', 'spot')")
"""Records that are judged with the slots of a time. In these very words, or the index is not used."""
Index(
    "records_beside_slots",
    records.c.site,
    records.c.received_at,
    sqlite_where=BESIDE_SLOTS,
    postgresql_where=BESIDE_SLOTS,
)

forks = Table(
    "forks",
    metadata,
    Column("id", _BIG_ID, primary_key=True, autoincrement=True),
    Column("site", String(41), nullable=False),
    Column("epoch", String(20), nullable=False),
    Column("stream", String(70), nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("line_sha256", String(64), nullable=False),
    Column("line", LargeBinary, nullable=False),
    Column("verified", Boolean),
    Column("received_at", BigInteger, nullable=False),
    UniqueConstraint("site", "epoch", "stream", "n", "line_sha256", name="forks_once"),
)
"""The same identity with other bytes: evidence that a site tells two stories."""

streams = Table(
    "streams",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("epoch", String(20), primary_key=True),
    Column("stream", String(70), primary_key=True),
    Column("next_n", BigInteger, nullable=False),
    Column("last_hash", String(64)),
)
"""How far each stream is stored without a hole: ``next_n`` is the first number that is missing."""

intervals = Table(
    "intervals",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("epoch", String(20), primary_key=True),
    Column("mp", String(62), primary_key=True),
    Column("n", BigInteger, primary_key=True),
    Column("t0_s", BigInteger, nullable=False),
    Column("t1_s", BigInteger, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("wh", BigInteger),
    Column("exp_wh", BigInteger),
    Column("why", String(32)),
    Column("flags", String(120), nullable=False),
    Column("verified", Boolean),
)
"""Projection of ``interval`` and ``gap`` records, for pages and reports. The record line stays the truth."""

Index("intervals_by_time", intervals.c.site, intervals.c.t0_s)

order_answers = Table(
    "order_answers",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("epoch", String(20), primary_key=True),
    Column("n", BigInteger, primary_key=True),
    Column("order_id", String(36)),
    Column("ty", String(16), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("state", String(20)),
    Column("code", String(40)),
    Column("text", Text),
    Column("power_w", BigInteger),
    Column("target_w", BigInteger),
    Column("verified", Boolean),
)
"""Projection of ``cmd_*`` records by order."""

Index("order_answers_by_order", order_answers.c.order_id)

order_events = Table(
    "order_events",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("epoch", String(20), primary_key=True),
    Column("n", BigInteger, primary_key=True),
    Column("order_id", String(36), nullable=False),
    Column("ev", String(20), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("verified", Boolean),
)
"""Projection of ``event`` records of people on site about an order: ``order_ack``, ``spoken_order``."""

Index("order_events_by_order", order_events.c.order_id)

spoken_notes = Table(
    "spoken_notes",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("order_id", String(36), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("received_at", BigInteger, nullable=False),
)
"""Dispatchers' signed notes about spoken orders, byte for byte; ``digest`` is that of the payload."""

Index("spoken_notes_by_order", spoken_notes.c.order_id)

orders = Table(
    "orders",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("site", String(41), nullable=False),
    Column("epoch", String(20), nullable=False),
    Column("action", String(20), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("posted_at", BigInteger, nullable=False),
    Column("execute_by", BigInteger, nullable=False),
)
"""Envelopes exactly as posted."""

Index("orders_by_time", orders.c.posted_at)

proposals = Table(
    "proposals",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("site", String(41), nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
"""Unsigned suggestions for a desk to look at."""

registers = Table(
    "registers",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("received_at", BigInteger, nullable=False),
)
"""Every register the registrar signed, byte for byte."""

inventories = Table(
    "inventories",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""The newest claim of each site about what it has."""

leaves = Table(
    "leaves",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("epoch", String(20), primary_key=True),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)
"""Leaf hashes of a site's log by their place in it: the root can be computed although records are elsewhere."""

notes = Table(
    "notes",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("epoch", String(20), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("note", LargeBinary, nullable=False),
    Column("received_at", BigInteger, nullable=False),
)
"""Checkpoints byte for byte, signed by the log; those with cosignatures are notes of their own."""

Index("notes_by_size", notes.c.site, notes.c.epoch, notes.c.size)

witnessed = Table(
    "witnessed",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("epoch", String(20), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False),
)
"""The newest checkpoint of each log that central cosigned; written before the cosignature leaves."""

splits = Table(
    "splits",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("epoch", String(20), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("why", String(300), nullable=False),
    Column("note", LargeBinary, nullable=False),
    Column("held", LargeBinary, nullable=False),
    Column("received_at", BigInteger, nullable=False),
)
"""Two checkpoints of one log that do not fit, both signed by it: proof of two histories."""

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", _BIG_ID, primary_key=True, autoincrement=True),
    Column("site", String(41), nullable=False),
    Column("topic", String(20), nullable=False),
    Column("reason", String(20), nullable=False),
    Column("detail", String(300), nullable=False),
    Column("size", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("received_at", BigInteger, nullable=False),
)
"""What could not be taken, up to a bound; what went over it is only counted."""

tallies = Table(
    "tallies",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("name", String(40), primary_key=True),
    Column("count", BigInteger, nullable=False),
)
"""Counters that survive a restart."""

verdicts = Table(
    "verdicts",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("ty", String(16), nullable=False),
    Column("run", BigInteger, nullable=False),
    Column("rule", String(8)),
    Column("severity", String(8)),
    Column("point", String(62)),
    Column("t0_s", BigInteger, nullable=False),
    Column("t1_s", BigInteger, nullable=False),
    Column("thresholds", Integer, nullable=False),
    Column("slots_n", BigInteger),
    Column("at", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("line", LargeBinary, nullable=False),
)
"""Central's own log of plausibility: lines byte for byte, only ever added to. ``run`` is the number of the run's line;
of a run ``t0_s`` and ``t1_s`` are the judged time, ``at`` when its records were read, and ``slots_n`` how many slots
were stored then, also those that no rule could read."""

Index("verdicts_by_time", verdicts.c.site, verdicts.c.t1_s)

verdict_logs = Table(
    "verdict_logs",
    metadata,
    Column("site", String(41), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("last_hash", String(64)),
    Column("note", LargeBinary, nullable=False),
)
"""Where each log of verdicts stands, and its newest checkpoint, signed by central."""

outside_readings = Table(
    "outside_readings",
    metadata,
    Column("id", _BIG_ID, primary_key=True, autoincrement=True),
    Column("site", String(41), nullable=False),
    Column("point", String(62), nullable=False),
    Column("from_s", BigInteger, nullable=False),
    Column("to_s", BigInteger, nullable=False),
    Column("wh", BigInteger, nullable=False),
    Column("source", String(40), nullable=False),
    Column("act", String(100), nullable=False),
    Column("entered_by", String(100), nullable=False),
    Column("entered_at", BigInteger, nullable=False),
)
"""Readings of the same meters by others, as a person entered them; a wrong one is answered by a new one."""

Index("outside_readings_by_site", outside_readings.c.site, outside_readings.c.point)
