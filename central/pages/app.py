"""The pages on the same FastAPI application as the API."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from nicegui import ui

from central.pages import overview, parts
from central.pages.board import Board
from central.pages.site import SitePage
from central.pages.texts import LANGUAGES, Texts, load_all
from central.service import CentralService

COOKIE = "tizgin_language"
YEAR_S = 31_536_000


def install_pages(app: FastAPI, service: CentralService) -> None:
    """Add ``/``, ``/site/{id}`` and the switch of language."""
    catalogues = load_all()
    board = Board(service)

    def texts_of(request: Request) -> Texts:
        asked = request.cookies.get(COOKIE, "")
        return catalogues[asked if asked in LANGUAGES else service.settings.default_language]

    @app.get("/lang/{code}", include_in_schema=False)
    async def language(code: str, to: str = "/") -> RedirectResponse:
        # Only a path of this server: anything else could lead a person to another one.
        known = to == "/" or (to.startswith("/site/") and to.removeprefix("/site/") in service.sites)
        answer = RedirectResponse(to if known else "/", status_code=303)
        if code in LANGUAGES:
            answer.set_cookie(COOKIE, code, max_age=YEAR_S, httponly=True, samesite="strict")
        return answer

    @ui.page("/", favicon=parts.FAVICON)
    async def all_sites(request: Request) -> None:
        overview.build(board, texts_of(request))

    @ui.page("/site/{site}", favicon=parts.FAVICON)
    async def one_site(request: Request, site: str) -> None:
        texts = texts_of(request)
        if site not in service.sites:
            parts.head(texts, texts("Unknown site"), "/")
            with parts.box("tz-main", tag="main"):
                parts.text(texts("No such site is registered"), "tz-headline")
            return
        SitePage(board, texts, site).build()

    ui.run_with(app, title="Tizgin", favicon=parts.FAVICON, tailwind=False, show_welcome_message=False)
