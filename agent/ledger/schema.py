"""Tables of ``ledger.db``. Records can be added and marked as committed by central; nothing else."""

from __future__ import annotations

VERSION = 1

DDL = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE record (
  idx INTEGER PRIMARY KEY,
  stream TEXT NOT NULL,
  n INTEGER NOT NULL,
  ty TEXT NOT NULL,
  at INTEGER NOT NULL,
  payload BLOB NOT NULL,
  kid TEXT NOT NULL,
  sig BLOB NOT NULL,
  hash BLOB NOT NULL,
  committed INTEGER NOT NULL DEFAULT 0,
  UNIQUE (stream, n)
);
CREATE INDEX record_open ON record (idx) WHERE committed = 0;
CREATE TRIGGER record_keep BEFORE DELETE ON record
  BEGIN SELECT RAISE(ABORT, 'evidence is never deleted'); END;
CREATE TRIGGER record_fixed BEFORE UPDATE OF idx, stream, n, ty, at, payload, kid, sig, hash ON record
  BEGIN SELECT RAISE(ABORT, 'evidence is never changed'); END;

CREATE TABLE stream (name TEXT PRIMARY KEY, count INTEGER NOT NULL, last BLOB) WITHOUT ROWID;

CREATE TABLE boundary (
  mp TEXT NOT NULL, t INTEGER NOT NULL, rt INTEGER NOT NULL, doc TEXT NOT NULL, PRIMARY KEY (mp, t)
) WITHOUT ROWID;

CREATE TABLE orders (
  id TEXT PRIMARY KEY, kid TEXT NOT NULL, seq INTEGER NOT NULL, digest TEXT NOT NULL, raw BLOB NOT NULL,
  state TEXT NOT NULL, flags TEXT NOT NULL DEFAULT '', received_ms INTEGER NOT NULL, rx_mono INTEGER NOT NULL,
  rx_boot TEXT NOT NULL, doc TEXT NOT NULL DEFAULT '{}', answer BLOB
);
CREATE TABLE seq (kid TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE step (
  order_id TEXT NOT NULL, n INTEGER NOT NULL, kind TEXT NOT NULL, target TEXT NOT NULL,
  expected_w INTEGER NOT NULL, prior TEXT, intent_ms INTEGER NOT NULL,
  outcome_ms INTEGER, status TEXT, detail TEXT, PRIMARY KEY (order_id, n)
) WITHOUT ROWID;
CREATE INDEX step_open ON step (order_id) WHERE outcome_ms IS NULL;

CREATE TABLE held (
  target TEXT PRIMARY KEY, kind TEXT NOT NULL, order_id TEXT NOT NULL, prior TEXT, expected_w INTEGER NOT NULL,
  since_ms INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE transition (
  order_id TEXT NOT NULL, at INTEGER NOT NULL, mono INTEGER NOT NULL, boot TEXT NOT NULL,
  was TEXT, now TEXT NOT NULL, cause TEXT NOT NULL
);

CREATE TABLE act (id TEXT PRIMARY KEY, ty TEXT NOT NULL, at INTEGER NOT NULL, doc BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE commissioned (
  output TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, at INTEGER NOT NULL, act_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE tag (
  object TEXT PRIMARY KEY, who TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL
) WITHOUT ROWID;
"""

LATER = """
CREATE TABLE IF NOT EXISTS maintenance (
  object TEXT PRIMARY KEY, who TEXT NOT NULL, permit TEXT NOT NULL, reason TEXT NOT NULL,
  from_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL, unhealthy TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS order_word (
  order_id TEXT NOT NULL, word TEXT NOT NULL, who TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (order_id, word)
) WITHOUT ROWID;
"""
"""Tables without evidence that older ledgers of the same version lack; made at every opening."""
