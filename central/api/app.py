"""The FastAPI application over one central."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from central.api import problems
from central.api.guard import Guard
from central.api.routes import make_router
from central.service import CentralService


def make_app(service: CentralService, version: str = "0") -> FastAPI:
    """Routes and the guard. The documentation page of FastAPI loads from elsewhere, so it is not offered."""
    app = FastAPI(title="Tizgin central", version=version, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    problems.install(app)
    app.include_router(make_router(service))

    @app.get("/healthz")
    async def health() -> JSONResponse:
        """200 while the stores take what comes and the broker is connected, else 503 with what is missing."""
        well = service.link.up and service.collector.store_up
        body = {
            "ok": well,
            "broker": service.link.up,
            "store": service.collector.store_up,
            "sites": len(service.sites),
            "register": service.registers.document.version if service.registers.document else None,
        }
        return JSONResponse(body, 200 if well else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    app.add_middleware(Guard)
    return app
