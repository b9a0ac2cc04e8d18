"""What the sites say right now: kept in memory, never stored, never shown as newer than it is."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from wire.messages import Heads, Inventory, Live, Progress, State

FRESH_MS = 15_000
"""Live arrives every few seconds; older than this it is marked stale."""
FORGET_MS = 300_000
"""Older than this the number is not shown at all."""
MAX_ORDERS = 50
MAX_STEPS = 300
HISTORY_MS = 3_600_000


class Freshness(StrEnum):
    """How far a live value may be believed."""

    FRESH = "fresh"
    STALE = "stale"
    UNKNOWN = "unknown"


class Presence(StrEnum):
    """Whether a site is connected. ``unknown`` while central itself has no broker."""

    ONLINE = "online"
    OFFLINE = "offline"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LiveValue:
    """Power with its age."""

    power_w: int | None
    age_ms: int | None
    freshness: Freshness


@dataclass(slots=True)
class LiveSite:
    """One site now."""

    id: str
    state: State | None = None
    state_seen_ms: int | None = None
    live: Live | None = None
    live_seen_ms: int | None = None
    heads: Heads | None = None
    heads_seen_ms: int | None = None
    inventory: Inventory | None = None
    alarms: set[str] = field(default_factory=set)
    """What central itself found: ``fork``, ``tail_lost``, ``other_hash``, ``unknown_keys``."""
    history: deque[tuple[int, int | None, int | None]] = field(default_factory=lambda: deque(maxlen=4000))
    """(seen ms, net W, limit W)."""
    progress: OrderedDict[str, deque[Progress]] = field(default_factory=OrderedDict)

    def take_state(self, state: State, now_ms: int) -> None:
        """A presence message."""
        self.state, self.state_seen_ms = state, now_ms

    def take_live(self, live: Live, now_ms: int) -> bool:
        """A live message; false where it is older than the one held."""
        old = self.live
        if old is not None and old.boot == live.boot and live.at < old.at:
            return False
        self.live, self.live_seen_ms = live, now_ms
        self.history.append((now_ms, live.net_w, live.limit_w))
        while self.history and self.history[0][0] < now_ms - HISTORY_MS:
            self.history.popleft()
        return True

    def take_progress(self, progress: Progress) -> None:
        """A step of an order."""
        steps = self.progress.get(progress.order)
        if steps is None:
            steps = self.progress[progress.order] = deque(maxlen=MAX_STEPS)
            while len(self.progress) > MAX_ORDERS:
                self.progress.popitem(last=False)
        last = steps[-1] if steps else None
        if last is not None and last.model_copy(update={"at": progress.at, "power_w": progress.power_w}) == progress:
            steps[-1] = progress  # the same step with a newer power
        else:
            steps.append(progress)

    def presence(self, *, broker_up: bool) -> Presence:
        """Whether the site is connected, as far as central can know."""
        if not broker_up or self.state is None:
            return Presence.UNKNOWN
        return Presence.ONLINE if self.state.online else Presence.OFFLINE

    def net(self, now_ms: int) -> LiveValue:
        """Net power now, with its age. Silence is unknown, never 0."""
        if self.live is None or self.live_seen_ms is None:
            return LiveValue(None, None, Freshness.UNKNOWN)
        own_age = self.live.ages_ms.get("net_w", 0)
        age = max(0, now_ms - self.live_seen_ms) + own_age
        if self.live.net_w is None or age > FORGET_MS:
            return LiveValue(None, age, Freshness.UNKNOWN)
        return LiveValue(self.live.net_w, age, Freshness.FRESH if age <= FRESH_MS else Freshness.STALE)


class LiveState:
    """All registered sites now. One event loop reads and writes it."""

    def __init__(self, sites: Iterable[str]) -> None:
        self.sites: dict[str, LiveSite] = {site: LiveSite(site) for site in sites}
        self.broker_up = False

    def set_sites(self, sites: Iterable[str]) -> None:
        """Follow a changed list of sites; those that stay keep what is known."""
        self.sites = {site: self.sites.get(site) or LiveSite(site) for site in sites}
