"""States of an order, the transitions that exist, and the published reasons of refusal."""

from __future__ import annotations

from enum import StrEnum


class OrderState(StrEnum):
    """One enum for agent, central, desk and reports."""

    RECEIVED = "received"
    VALIDATED = "validated"
    SCHEDULED = "scheduled"
    ARMED = "armed"
    EXECUTING = "executing"
    VERIFYING = "verifying"
    HOLDING = "holding"
    RESTORING = "restoring"
    DONE = "done"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    RESTORE_BLOCKED = "restore_blocked"


class Flag(StrEnum):
    """What stands beside the state."""

    DEGRADED = "degraded"
    BLIND = "blind"
    ORPHANED = "orphaned"
    SAON_LOCK = "saon_lock"
    LOCAL_OVERRIDE = "local_override"
    CLOCK_SUSPECT = "clock_suspect"
    DRILL = "drill"


S = OrderState
_END: frozenset[OrderState] = frozenset({S.DONE, S.REJECTED, S.EXPIRED, S.CANCELLED})

TRANSITIONS: dict[OrderState, frozenset[OrderState]] = {
    S.RECEIVED: frozenset({S.VALIDATED, S.REJECTED}),
    S.VALIDATED: frozenset({S.SCHEDULED, S.ARMED, S.DONE, S.REJECTED, S.EXPIRED, S.CANCELLED, S.SUPERSEDED}),
    S.SCHEDULED: frozenset({S.ARMED, S.EXPIRED, S.CANCELLED, S.SUPERSEDED}),
    S.ARMED: frozenset({S.EXECUTING, S.VALIDATED, S.EXPIRED, S.CANCELLED, S.SUPERSEDED, S.FAILED}),
    S.EXECUTING: frozenset({S.VERIFYING, S.FAILED, S.RESTORING, S.SUPERSEDED}),
    S.VERIFYING: frozenset({S.HOLDING, S.EXECUTING, S.FAILED, S.RESTORING, S.SUPERSEDED}),
    S.HOLDING: frozenset({S.RESTORING, S.EXECUTING, S.SUPERSEDED}),
    S.FAILED: frozenset({S.RESTORING, S.EXECUTING, S.SUPERSEDED}),
    S.SUPERSEDED: frozenset({S.RESTORING}),
    S.RESTORING: frozenset({S.DONE, S.RESTORE_BLOCKED, S.EXECUTING}),
    S.RESTORE_BLOCKED: frozenset({S.RESTORING, S.EXECUTING}),
    S.DONE: frozenset(),
    S.REJECTED: frozenset(),
    S.EXPIRED: frozenset(),
    S.CANCELLED: frozenset(),
}
"""Every transition there is. ``failed`` keeps what is shed until a release."""


def ended(state: OrderState) -> bool:
    """True where nothing further can happen to the order."""
    return state in _END


class Phase(StrEnum):
    """What pages and reports show: the published mapping of :class:`OrderState`."""

    SENT = "sent"
    ACCEPTED = "accepted"
    ACTING = "acting"
    CONFIRMING = "confirming"
    HELD = "held"
    RETURNING = "returning"
    DONE = "done"
    REFUSED = "refused"
    NEEDS_ATTENTION = "needs_attention"


PHASE: dict[OrderState, Phase] = {
    S.RECEIVED: Phase.SENT,
    S.VALIDATED: Phase.ACCEPTED,
    S.SCHEDULED: Phase.ACCEPTED,
    S.ARMED: Phase.ACCEPTED,
    S.EXECUTING: Phase.ACTING,
    S.VERIFYING: Phase.CONFIRMING,
    S.HOLDING: Phase.HELD,
    S.RESTORING: Phase.RETURNING,
    S.DONE: Phase.DONE,
    S.REJECTED: Phase.REFUSED,
    S.EXPIRED: Phase.REFUSED,
    S.CANCELLED: Phase.DONE,
    S.SUPERSEDED: Phase.DONE,
    S.FAILED: Phase.NEEDS_ATTENTION,
    S.RESTORE_BLOCKED: Phase.NEEDS_ATTENTION,
}


class Reason(StrEnum):
    """Published reasons in answers."""

    FORMAT = "format"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_KEY = "unknown_key"
    REVOKED_KEY = "revoked_key"
    NO_RIGHT = "no_right"
    WRONG_SITE = "wrong_site"
    WRONG_EPOCH = "wrong_epoch"
    REPLAY = "replay"
    ID_REUSE = "id_reuse"
    OLD_SEQ = "old_seq"
    RETAINED = "retained"
    EXPIRED = "expired"
    FUTURE = "future"
    STALE_RELEASE = "stale_release"
    BEFORE_GENESIS = "before_genesis"
    CLOCK = "clock"
    SOLO_LIMIT = "solo_limit"
    TWO_PERSONS = "two_persons"
    NO_POWER = "no_power"
    """The declaration or mandate it comes with does not hold here and now, or one is needed and missing."""
    MODE = "mode"
    NOT_COMMISSIONED = "not_commissioned"
    NO_METER = "no_meter"
    BELOW_RESERVATION = "below_reservation"
    UNSUPPORTED = "unsupported"
    UNKNOWN_ORDER = "unknown_order"
    NO_JOURNAL = "no_journal"
    LOCKED = "locked"
    SHORTFALL = "shortfall"
