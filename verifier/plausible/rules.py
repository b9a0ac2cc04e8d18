"""The rules and their constants: one frozen table with a version that every report prints.

A finding is ``fail`` (cannot be), ``suspect`` (a reader should ask: a doubt, exit 1) or ``warn`` (shown, changes
nothing). Where ``lowers``, a slot with a finding that is no ``warn`` is at most of grade ``C``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VERSION = 1
Severity = Literal["fail", "suspect", "warn"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    name: str
    lowers: bool = False
    codes: tuple[str, ...] = ()
    """Errors of the other checks that are findings of this rule."""


RULES: dict[str, Rule] = {
    "V01": Rule("gap"),
    "V02 V03": Rule("slot twice, length", codes=("SLOT",)),
    "V04 V05": Rule("negative, rollover", codes=("DELTA",)),
    "V06": Rule("high", lowers=True),
    "V07": Rule("zero", lowers=True),
    "V08": Rule("spike", lowers=True),
    "V09": Rule("frozen", lowers=True),
    "V10": Rule("sum", codes=("REGISTER_DISCONTINUITY",)),
    "V11": Rule("integral", lowers=True),
    "V12": Rule("profile", lowers=True, codes=("PROFILE",)),
    "V13": Rule("clock"),
    "V14 V15": Rule("serial, ratios", codes=("RATIO",)),
    "V16": Rule("decode map", lowers=True, codes=("DECODE",)),
    "V17": Rule("phases", lowers=True),
    "V18": Rule("export", lowers=True),
    "V19": Rule("check meter", lowers=True),
    "V20": Rule("balance", lowers=True),
    "V21": Rule("machines", lowers=True),
    "V22": Rule("orders", lowers=True),
    "V23": Rule("events", lowers=True),
    "V24": Rule("sibling"),
    "V25": Rule("bridged"),
    "V26": Rule("independent"),
}
SITE_WIDE = frozenset({"V20"})
"""Judged for the balance as a whole; told at, and held against, the meters of its boundary."""
WORDS = {"V09": "FROZEN", "V11": "INTEGRAL"}
"""First words of doubts that have one of their own; the others begin with the rule."""


@dataclass(frozen=True, slots=True)
class Window:
    """A mean over ``width_s``: how many times the spread of such means it may lie off, and the least spread."""

    width_s: int
    sigmas: int
    floor: float


# Single slots. Shares are fractions of one.
OVER_CONTRACT = (11, 10)
"""V06: of the contracted energy of a slot, at the boundary."""
OVER_RATING = (12, 10)
"""V06: of what the transformers are rated for."""
STILL_COUNTS = 3
"""V07: what must have flowed, in counts of the register, before a zero is held against it."""
AROUND = 8
"""V08: neighbours on each side; half of them must be known on either."""
SPIKE_Z = 6
SPIKE_FLOOR = 0.03
"""V08: least spread of neighbours that is believed."""
EXPLAINED_S = 1_800
"""V08: an order, switch or start so near explains a step."""
EQUAL_RUN = 4
"""V09: equal energies one after the other."""
FEWEST_INTEGRALS = 3
"""V11: slots that differ before anything is said: one may hold a step of the load."""
CLOCK_WARN_MS, CLOCK_MS, HOUR_MS = 5_000, 60_000, 3_600_000
FEWEST_POLLS = 3
"""V17: slots with fewer polls by phase are not judged."""
LOST_PHASE = (1, 2)
"""V17: a phase whose least voltage lies below so much of the others' is lost."""
LOST_SLOTS = 2
"""V17: for so many slots in a row; one may hold a fault somewhere in the grid."""
CURRENT_ALONE = (1, 10)
"""V17: share of the polls with current and without voltage."""
BACKWARDS, BACKWARDS_POWER = (1, 2), (2, 100)
"""V17: share of the polls in which a phase runs against the sum, and its least share of the power."""
LOADED = (1, 10)
"""V17: direction is not judged below so much of the largest slot before."""
ALARMING = frozenset({"clock_set", "programmed", "cover_open", "reset"})
"""V23: counters whose rise is a doubt; that of the others is shown."""
READ_AFTER_MS = 60_000
"""V23: counters are read after the registers: what happened so long after a slot may be in them."""
BRIDGED_S, BRIDGED_PERMILLE = 3_600, 30
"""V25: the longest run known from registers alone, and the greatest share of a month."""

# Against each other
CLASS = 0.01
"""V19: limit of error of a meter whose classes are not written down."""
CHECK_SLOTS = 96
JITTER_S = 3
"""V12, V19: what boundary readings may be off by."""
PROFILE_COUNTS = 2

# Against the past
DAY_S = 86_400
HISTORY_DAYS, LEAST_DAYS = 30, 10
KNOWN = 0.8
"""Share of a window's slots that must be known."""
LEAST_W = 150_000
"""V20, V21: smallest change that counts."""
BALANCE_LOAD = 0.8
"""V20: slots below this share of the usual load are not judged: losses and errors differ."""
BALANCE_WINDOWS = (Window(3_600, 5, 0.002), Window(86_400, 4, 0.0005))
ANSWERED = (98, 100)
"""V21, V22: share of the machines that must have answered."""
MACHINES_LOAD = 0.5
"""V21: as above by the machines' own figures; the slots beside are left out too, and the newest."""
MACHINES_WINDOWS = (Window(3_600, 5, 0.04), Window(86_400, 4, 0.0135), Window(259_200, 4, 0.008))
PEERS = 4
"""V21: from so many other feeders on, what all of them do together is taken off."""

# Orders
ASLEEP = 0.15
"""V22: machines below this share of the feeder's usual energy sleep."""
BASE_SLOTS = 4
"""V22: earlier slots asleep that make a base load known."""
UNKNOWN_BASE = 0.25
"""V22: without them, what may stay beyond what the feeder draws besides its machines, as a share of its usual load."""
ORDER_W = 30_000
ORDER_SHARE = 0.01

# Bounds of what is kept of hostile input
LISTED = 20
"""Findings that are listed of each rule and point; the rest is counted."""
MOST_LISTED = 500
MOST_FEEDERS = 512
MOST_BALANCES = 16
MOST_SLOTS = 64_000_000
"""Points times slots."""
NAMED = 50
"""Points that are named under each reason for which they were not judged."""
