"""A small loopback JSON door to a running fleet, for a person and for measurements in another process.

``GET /state`` tells what is true. ``POST /faults`` with ``{"kind", "on", "seconds"}`` and the machines as
``"share": 0.1`` (by chance), ``"family": "luxos"``, ``"first": 0, "count": 100`` or ``"numbers": [3, 7]`` switches one
(see :mod:`simulator.fleet.fleet`) and answers which machines it hit.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from simulator.control import MAX_BODY_BYTES, refuse_browsers
from simulator.fleet.fleet import SimulatedFleet
from simulator.loopback import SimulationError

KNOWN = ("kind", "on", "seconds", "share", "family", "first", "count", "numbers")


class FleetControl:
    """The door of one fleet."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        self._fleet = fleet
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> int:
        """Listen on 127.0.0.1; returns the port.

        Raises:
            OSError: the port cannot be had.
        """
        app = web.Application(client_max_size=MAX_BODY_BYTES * 64, middlewares=[refuse_browsers])
        app.add_routes([web.get("/state", self._state), web.post("/faults", self._switch)])
        self._runner = runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError:
            await self.stop()
            raise
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Close it; harmless when it is closed already."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _state(self, _request: web.Request) -> web.Response:
        return web.json_response(dict(self._fleet.state()))

    async def _switch(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
            if not isinstance(body, dict):
                raise SimulationError(f"saw {type(body).__name__}, expected an object with kind")
            if unknown := sorted(set(body) - set(KNOWN)):
                raise SimulationError(f"saw {unknown[0]!r}, expected only {', '.join(KNOWN)}")
            kind, on, seconds = body.get("kind"), body.get("on", True), body.get("seconds", 5.0)
            if not isinstance(kind, str) or not isinstance(on, bool) or not _is_number(seconds):
                raise SimulationError("expected kind as text, on as true or false, seconds as a number")
            numbers = chosen(self._fleet, body)
            self._fleet.fault(kind, numbers, on=on, seconds=float(seconds))
        except (SimulationError, ValueError) as error:
            return web.json_response({"ok": False, "error": str(error)[:500]}, status=400)
        return web.json_response({"ok": True, "numbers": numbers})


def chosen(fleet: SimulatedFleet, body: dict[str, Any]) -> list[int]:
    """The machines that a request speaks of: all, unless it says fewer.

    Raises:
        SimulationError: it says so in a way that cannot be understood.
    """
    numbers: list[int] = list(range(len(fleet.machines)))
    if "numbers" in body:
        listed = body["numbers"]
        if not isinstance(listed, list) or not all(type(number) is int for number in listed):
            raise SimulationError("numbers: expected a list of whole numbers")
        return listed
    if "family" in body:
        groups = [group for group in fleet.groups if group.kind.family == body["family"]]
        numbers = [at for group in groups for at in range(group.first, group.first + group.count)]
        if not numbers:
            raise SimulationError(f"family: saw {str(body['family'])[:40]!r}, of which this fleet has no machine")
    first, count = body.get("first", 0), body.get("count", len(numbers))
    if type(first) is not int or type(count) is not int or first < 0 or count < 0:
        raise SimulationError("first and count: expected whole numbers from 0")
    numbers = numbers[first : first + count]
    share = body.get("share", 1.0)
    if not _is_number(share) or not 0 <= share <= 1:
        raise SimulationError("share: expected a number from 0 to 1")
    return numbers if share == 1 else fleet.choose(float(share), numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)
