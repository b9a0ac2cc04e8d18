"""Errors as RFC 9457 problem documents that say what to do."""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from central.store.database import reason, unavailable

log = structlog.get_logger(__name__)


class Problem(Exception):
    """A refusal of a request."""

    def __init__(self, status: int, code: str, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.title, self.detail = status, code, title, detail


def answer(status: int, code: str, title: str, detail: str) -> JSONResponse:
    """A problem document."""
    body = {"type": "about:blank", "status": status, "code": code, "title": title, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body, at most so many bytes.

    Raises:
        Problem: it is larger.
    """
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_bytes:
            raise Problem(413, "size", "Too large", f"the body is larger than {max_bytes} bytes")
    return bytes(data)


def install(app: FastAPI) -> None:
    """Every error of the API in one shape."""

    @app.exception_handler(Problem)
    async def of_problem(_request: Request, error: Problem) -> JSONResponse:
        return answer(error.status, error.code, error.title, error.detail)

    @app.exception_handler(RequestValidationError)
    async def of_parameters(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer(422, "parameter", "A parameter is wrong", f"{where}: {first['msg']}; see /openapi.json")

    @app.exception_handler(DBAPIError)
    @app.exception_handler(PoolTimeout)
    async def of_store(_request: Request, error: Exception) -> JSONResponse:
        log.error("store_failed", error=reason(error))
        if not unavailable(error):
            return answer(500, "store", "The database refused it", "nothing was stored; central's log says why")
        return answer(
            503, "store", "The database is not reachable", "ask again when it is back: what is signed is taken once"
        )

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        detail = f"{request.method} {request.url.path[:200]}: {error.detail}; the paths stand in /openapi.json"
        return answer(error.status_code, "http", str(error.detail), detail)
