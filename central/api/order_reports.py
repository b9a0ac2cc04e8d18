"""Routes of an order's report: the signed record as JSON, and the same on paper."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Query, Response

from central.api.problems import Problem
from central.errors import CentralError
from central.pages.texts import load_all
from central.papers.order_report import OrderReport, as_dict, nothing, read_report
from central.papers.pdf import render
from central.service import CentralService
from central.store import orders
from central.store.orders import StoredOrder


async def read(service: CentralService, order_id: str) -> tuple[StoredOrder, OrderReport | None]:
    """An order and its report.

    Raises:
        Problem: there is no such order.
    """

    def look(connection: sa.Connection) -> tuple[StoredOrder, OrderReport | None] | None:
        stored = orders.find(connection, order_id[:36])
        return None if stored is None else (stored, read_report(connection, stored))

    found = await service.database.read(look)
    if found is None:
        raise Problem(404, "unknown_order", "Unknown order", f"no order {order_id[:60]!r} was posted here")
    return found


def add(router: APIRouter, service: CentralService) -> None:
    """Both routes over one central."""

    @router.get("/orders/{order_id}/report")
    async def order_report(order_id: str) -> dict[str, Any]:
        """How the order was obeyed, by the site's signed record; ``report`` is null where there is none (yet)."""
        stored, found = await read(service, order_id)
        return as_dict(found) if found is not None else nothing(stored)

    @router.get("/orders/{order_id}/report.pdf")
    async def order_paper(order_id: str, language: Annotated[Literal["kk", "ru", "en"], Query()] = "ru") -> Response:
        """The same on paper."""
        stored, found = await read(service, order_id)
        if found is None:
            raise Problem(404, "no_report", "No report", "the site has not reported this order yet")
        settings = service.sites.get(stored.site)
        name = getattr(settings.name, language) if settings else stored.site
        texts = load_all()[language]
        try:
            made = await asyncio.to_thread(render, found, service.registers.document, texts, name)
        except CentralError as error:
            raise Problem(501, "no_pdf", "No PDF here", str(error)) from None
        return Response(made[0], media_type="application/pdf")
