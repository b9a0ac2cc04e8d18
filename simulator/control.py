"""A small loopback JSON door to a running simulation, for the demo and for tests in another process.

``GET /state`` tells what is true in the plant. ``GET /faults`` lists what is on. ``POST /faults`` with
``{"kind", "target", "on": true|false, …parameters}`` switches one (see :mod:`simulator.faults`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from simulator.faults import FaultError
from simulator.site import SimulatedSite, SimulationError

MAX_BODY_BYTES = 16 * 1024


class ControlServer:
    """The door of one simulated site."""

    def __init__(self, site: SimulatedSite) -> None:
        self._site = site
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> int:
        """Listen on 127.0.0.1; returns the port.

        Raises:
            OSError: the port cannot be had.
        """
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[refuse_browsers])
        app.add_routes(
            [web.get("/state", self._state), web.get("/faults", self._faults), web.post("/faults", self._switch)]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port)
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Close it; harmless when it is closed already."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _state(self, _request: web.Request) -> web.Response:
        self._site.now()
        return web.json_response(self._site.state())

    async def _faults(self, _request: web.Request) -> web.Response:
        return web.json_response(self._site.state()["faults"])

    async def _switch(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            return _bad("the body is not JSON")
        if not isinstance(body, dict):
            return _bad(f"saw {type(body).__name__}, expected an object with kind and target")
        kind, target, on = body.pop("kind", None), body.pop("target", None), body.pop("on", True)
        if not isinstance(kind, str) or not isinstance(target, str) or not isinstance(on, bool):
            return _bad("expected kind and target as text, and on as true or false")
        wrong = [name for name, value in body.items() if not isinstance(value, float | int | str | bool | None)]
        if wrong:
            return _bad(f"parameter {wrong[0]}: expected a number, a text, true or false")
        self._site.now()
        try:
            if on:
                self._site.faults.set(kind, target, **body)
            else:
                self._site.faults.clear(kind, target)
        except (FaultError, SimulationError) as error:
            return _bad(str(error))
        return web.json_response({"ok": True})


@web.middleware
async def refuse_browsers(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A page of some web site must not be able to black out a simulation: browsers name their origin, tools do not."""
    if "Origin" in request.headers:
        raise web.HTTPForbidden(text="not for browsers")
    return await handler(request)


def _bad(message: str) -> web.Response:
    return web.json_response({"ok": False, "error": message}, status=400)
