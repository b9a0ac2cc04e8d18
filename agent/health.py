"""Prometheus metrics and ``/healthz`` on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = structlog.get_logger()

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class _Snapshot(Collector):
    """Metrics computed when asked for."""

    def __init__(self, figures: Callable[[], dict[str, float]]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """One gauge per figure; ``name{label}`` keys carry one label."""
        for name, value in self._figures().items():
            yield GaugeMetricFamily(f"tizgin_agent_{name}", name.replace("_", " "), value=value)


class HealthServer:
    """Two pages: /metrics and /healthz."""

    def __init__(
        self, host: str, port: int, status: Callable[[], dict[str, Any]], figures: Callable[[], dict[str, float]]
    ) -> None:
        if host not in LOOPBACK:
            raise ValueError(f"metrics_host {host}: only loopback is allowed, there is no log-in")
        self._host, self._port = host, port
        self._status = status
        self._registry = CollectorRegistry()
        self._registry.register(_Snapshot(figures))
        self._runner: web.AppRunner | None = None
        self.port = port

    async def start(self) -> None:
        """Listen; a port that is taken is logged, the agent goes on without."""
        app = web.Application()
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, self._host, self._port)
            await site.start()
        except OSError as error:
            log.error("metrics_not_served", port=self._port, error=str(error))
            return
        server = site._server  # aiohttp gives no other way to learn a port chosen by the system
        sockets = getattr(server, "sockets", None) or ()
        self.port = next((s.getsockname()[1] for s in sockets), self._port)

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _request: web.Request) -> web.Response:
        status = self._status()
        return web.Response(
            text=json.dumps(status), content_type="application/json", status=200 if status.get("ok") else 503
        )

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), content_type="text/plain")
