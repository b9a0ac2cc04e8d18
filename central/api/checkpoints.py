"""What central holds of a site's log, for whoever signs orders: he compares it with what the site itself says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query

from central.logbook import newest_cosigned, note_of_size
from central.service import CentralService


def add(router: APIRouter, service: CentralService, known: Callable[[CentralService, str], str]) -> None:
    """Add the routes."""

    @router.get("/sites/{site}/checkpoint")
    async def checkpoint(
        site: str,
        epoch: Annotated[str, Query(max_length=20)],
        size: Annotated[int | None, Query(ge=1, le=2**53 - 1)] = None,
    ) -> dict[str, Any]:
        """The newest cosigned checkpoint of a site's log; with ``size``, one of that size. ``note`` null: none."""
        known(service, site)

        if size is None:
            raw = await service.database.read(lambda c: newest_cosigned(c, site, epoch))
        else:
            raw = await service.database.read(lambda c: note_of_size(c, site, epoch, size))
        return {"site": site, "epoch": epoch, "note": None if raw is None else raw.decode("utf-8", "replace")}
