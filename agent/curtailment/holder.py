"""Whatever puts load down under its own id and gives it back: an order, or the standing limits of the site."""

from __future__ import annotations

import asyncio
from typing import Protocol

from agent.curtailment.journal import OrderDoc
from wire.orders import Restore


class Holder(Protocol):
    """What :mod:`agent.curtailment.shed` and :mod:`agent.curtailment.restore` need to know of it."""

    doc: OrderDoc
    rx_mono: int
    """When it entered the agent, or last began to act (monotonic)."""
    wave_ns: int
    """When its last wave or stage was fully answered (monotonic)."""
    tasks: set[asyncio.Task[None]]

    @property
    def id(self) -> str:
        """What its intents and what it holds stand under in the journal."""
        ...

    @property
    def restore(self) -> Restore:
        """How the load comes back."""
        ...

    @property
    def aim_w(self) -> int | None:
        """What load is taken down to now, W."""
        ...

    @property
    def sheds_now(self) -> bool:
        """False once nothing further goes down under it."""
        ...
