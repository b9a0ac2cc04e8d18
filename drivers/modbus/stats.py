"""Counters of one link."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class LinkStats:
    """Counters since the link was made."""

    polls: int = 0
    """Polls that came due."""
    on_time: int = 0
    """Polls complete before their next was due."""
    late: int = 0
    skipped: int = 0
    """Polls dropped because the one before was still waiting."""
    not_asked: int = 0
    """Polls of silent units that were answered without asking."""
    requests: int = 0
    answers: int = 0
    timeouts: int = 0
    exceptions: int = 0
    bad_frames: int = 0
    late_answers: int = 0
    """Answers that came after their question was given up; thrown away."""
    foreign_frames: int = 0
    """Whole frames that answer nothing we asked: a second master, or a gateway that mixes up its callers."""
    echoes: int = 0
    """Our own questions given back by the line's adapter."""
    noise_bytes: int = 0
    second_master: bool = False
    """Somebody else asks on this link."""
    connects: int = 0
    busy_s: float = 0.0
    probing_s: float = 0.0
    """Time spent waiting for units that did not answer."""
    since_s: float = 0.0
    connections: int = 1
    connected: bool = False
    lateness_ms: deque[float] = field(default_factory=lambda: deque(maxlen=4096))

    def busy_share(self, now_s: float) -> float:
        """Share of the link's life in which a request was under way, all its connections together."""
        life = (now_s - self.since_s) * self.connections
        return self.busy_s / life if life > 0 else 0.0
