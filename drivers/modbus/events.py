"""What a link has to tell that no sample says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """``second_master`` begins (``now``) or has not been heard for long (``not now``)."""

    name: Literal["second_master"]
    link: str
    now: bool
    foreign_frames: int
    """Counted since the link was made."""
    frame: bytes = b""
    """The frame that gave it away: unit, function, data."""
