"""Routes of the desk."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse

from grid.desk import pages
from grid.desk.assets import SCRIPT, STYLE
from grid.desk.desk import Desk
from grid.desk.html import el, join
from grid.desk.security import COOKIE, Session, read_form
from grid.errors import GridError
from grid.texts import LANGUAGES, Texts, load_texts


def make_app(desk: Desk, session: Session) -> FastAPI:
    """The desk's application. It must stand behind :class:`grid.desk.security.Guard`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    texts = {language: load_texts(language) for language in LANGUAGES}

    def t() -> Texts:
        return texts[desk.language]

    @app.get("/enter")
    async def enter(token: str = "") -> Response:
        cookie = session.enter(token)
        if cookie is None:
            return PlainTextResponse("this address was used already, or is wrong: start the desk again", 403)
        # A page rather than a redirect: browsers withhold a strict cookie on a redirect that began elsewhere.
        page = join(el("meta", http_equiv="refresh", content="0;url=/"), el("a", "→", href="/"))
        response = HTMLResponse(page)
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", path="/")
        return response

    @app.get("/desk.css")
    async def style() -> Response:
        return Response(STYLE, media_type="text/css")

    @app.get("/desk.js")
    async def script() -> Response:
        return Response(SCRIPT, media_type="text/javascript")

    @app.post("/language")
    async def language(request: Request) -> Response:
        form = await read_form(request.receive)
        if form.get("language") in LANGUAGES:
            desk.language = form["language"]
        back = form.get("back", "/")
        return RedirectResponse(back if back.startswith("/") and not back.startswith("//") else "/", 303)

    @app.get("/")
    async def home() -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.home, desk, t(), None))

    @app.get("/part/sites")
    async def sites() -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.sites_part, desk, t()))

    @app.get("/part/proposals")
    async def proposals() -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.proposals_part, desk, t()))

    @app.get("/part/orders")
    async def orders() -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.orders_part, desk, t()))

    async def compose(fields: Mapping[str, str]) -> Response:
        try:
            draft = await asyncio.to_thread(desk.compose, fields)
        except GridError as error:
            return HTMLResponse(await asyncio.to_thread(pages.home, desk, t(), str(error)), 422)
        return RedirectResponse(f"/draft/{draft}", 303)

    @app.post("/compose")
    async def compose_form(request: Request) -> Response:
        return await compose(form_fields(await read_form(request.receive)))

    @app.get("/draft/{draft}")
    async def show_draft(draft: str) -> Response:
        order = desk.draft(draft)
        if order is None:
            return RedirectResponse("/", 303)
        return HTMLResponse(await asyncio.to_thread(pages.draft_page, desk, t(), draft, order))

    @app.post("/draft/{draft}/sign")
    async def sign(draft: str) -> Response:
        order_id = await asyncio.to_thread(desk.sign, draft)
        return RedirectResponse(f"/order/{order_id}", 303)

    @app.get("/order/{order_id}")
    async def show_order(order_id: str) -> Response:
        found = await asyncio.to_thread(desk.order, order_id)
        return HTMLResponse(await asyncio.to_thread(pages.order_page, desk, t(), found))

    @app.get("/part/order/{order_id}")
    async def part_order(order_id: str) -> Response:
        found = await asyncio.to_thread(desk.order, order_id)
        return HTMLResponse(pages.order_part(desk, t(), found))

    @app.get("/part/target/{order_id}")
    async def part_target(order_id: str) -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.target_part, desk, t(), order_id))

    @app.post("/order/{order_id}/again")
    async def again(order_id: str) -> Response:
        await asyncio.to_thread(desk.post, order_id)
        return RedirectResponse(f"/order/{order_id}", 303)

    @app.post("/order/{order_id}/spoken")
    async def spoken(order_id: str, request: Request) -> Response:
        form = await read_form(request.receive)
        await asyncio.to_thread(desk.note, order_id, form)
        return RedirectResponse(f"/order/{order_id}", 303)

    @app.post("/order/{order_id}/spoken/again")
    async def spoken_again(order_id: str) -> Response:
        await asyncio.to_thread(desk.post_notes, order_id)
        return RedirectResponse(f"/order/{order_id}", 303)

    @app.get("/order/{order_id}/envelope")
    async def envelope(order_id: str) -> Response:
        found = await asyncio.to_thread(desk.order, order_id)
        kept = {"content-disposition": f'attachment; filename="order-{found.signed.order.id}.json"'}
        return Response(found.signed.raw, media_type="application/json", headers=kept)

    @app.post("/order/{order_id}/release")
    async def release(order_id: str) -> Response:
        found = await asyncio.to_thread(desk.order, order_id)
        return await compose(desk.release_fields(found))

    @app.exception_handler(GridError)
    async def refused(_request: Request, error: GridError) -> Response:
        return HTMLResponse(await asyncio.to_thread(pages.home, desk, t(), str(error)), 422)

    @app.exception_handler(ValueError)
    async def malformed(_request: Request, error: ValueError) -> Response:
        return PlainTextResponse(f"the form cannot be read: {error}", 400)

    return app


def form_fields(form: Mapping[str, str]) -> dict[str, str]:
    """Fields of the page's form → fields of a request: the one amount goes to its action, empty ones are left out."""
    amounts = ("limit_kw", "reduce_kw", "hold_minutes", "after_s", "restore_stage_delay_s")
    names = ("site", "action", "mode", "escalation", "dispatch_no", "given_by", "text", *amounts)
    found = {name: form[name].strip() for name in names if form.get(name, "").strip()}
    amount = form.get("kw", "").strip().replace("\u00a0", "").replace("\u202f", "").replace(" ", "").replace(",", ".")
    if amount and found.get("action") in {"limit", "reduce"}:
        found[f"{found['action']}_kw"] = amount
    share = form.get("restore_percent", "").strip().replace(",", ".")
    if share:
        found["restore_stage_permille"] = _permille(share)
    return found


def _permille(percent: str) -> str:
    """Per cent → per mille; what is no such number is left for the order's own check to refuse by name."""
    try:
        value = Decimal(percent) * 10
        return str(int(value)) if value == value.to_integral_value() else percent
    except (ArithmeticError, ValueError):
        return percent
