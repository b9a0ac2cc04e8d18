"""Commissioning of a simulated site's outputs, as an engineer does it with a laptop before the agent is armed.

Each output is really opened and closed over Modbus, one after the other, and read at the meters: its own meter falls by
the power behind it, no other branch moves, it stays open longer than any automatic re-closing, and the load returns.
Only what was measured is written into the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from config.graph import Graph
from config.nodes import Switch as SwitchNode
from config.site import Site
from drivers.capabilities import Position
from drivers.modbus import InputRef, MeterDevice, ModbusLink, RelayDevice, RelaySwitch
from drivers.profiles import MeterProfile, RelayProfile, load_profile
from tizgin.demo.errors import DemoError

MOVED_SHARE = 0.1
"""Another branch counts as moved when its power changes by this share of what was switched."""
OPEN_WITHIN_S = 2.0
READ_EVERY_S = 0.05
WATCH_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Tested:
    """What was seen at one output; the fields are those of :class:`wire.acts.OutputTest`."""

    output: str
    fingerprint: str
    expected_w: int
    seen_w: int
    open_ms: int
    stayed_open_s: int
    meter: str
    others_moved: tuple[str, ...]

    def doc(self) -> dict[str, Any]:
        """For the protocol."""
        return asdict(self) | {"others_moved": list(self.others_moved)}


class Laptop:
    """The commissioning engineer's Modbus master at one site. Use as an async context manager."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._graph = Graph(site)
        self._links = {
            link.id: ModbusLink(link.url, name=f"laptop-{link.id}", timeout_s=link.timeout_s)
            for link in site.links
            if link.url.startswith("modbus:")
        }
        self._meters: dict[str, tuple[ModbusLink, MeterDevice]] = {}
        self._relays: dict[str, RelayDevice] = {}
        for device in site.devices:
            if device.link not in self._links:
                continue
            profile, link = load_profile(device.profile), self._links[device.link]
            if isinstance(profile, MeterProfile):
                self._meters[device.id] = link, MeterDevice(device.id, device.unit, profile)
            elif isinstance(profile, RelayProfile):
                self._relays[device.id] = RelayDevice(device.id, device.unit, profile, link)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Laptop:
        self._tasks = [asyncio.create_task(link.run(), name=link.name) for link in self._links.values()]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def switch(self, output: str) -> RelaySwitch:
        """Driver of an output, wired as the site file says.

        Raises:
            DemoError: no such output on a relay.
        """
        node = next((n for n in self._site.nodes if isinstance(n, SwitchNode) and n.id == output), None)
        if node is None or node.control is None or node.position is None or node.actuator is None:
            raise DemoError(f"{self._site.site.id}: {output} is no output with control and position")
        opened, closed = node.position.open, node.position.closed
        return RelaySwitch(
            self._relays[node.control.device],
            node.control.output,
            node.actuator,
            InputRef(self._relays[opened.device], opened.input, opened.inverted),
            InputRef(self._relays[closed.device], closed.input, closed.inverted),
        )

    async def powers(self) -> dict[str, float]:
        """Power at every metering point now, W.

        Raises:
            DemoError: a meter does not say; nothing can be proven then.
        """

        async def one(point: str, device: str) -> tuple[str, float]:
            link, meter = self._meters[device]
            reading = (await link.read(meter, ("power_w",))).readings["power_w"]
            if not reading.quality.usable or not isinstance(reading.value, int | float):
                raise DemoError(f"{self._site.site.id}: meter {device} of {point} answers {reading.quality}")
            return point, float(reading.value)

        return dict(await asyncio.gather(*(one(p.id, p.device) for p in self._site.metering_points)))

    async def exercise(self, output: str, *, fingerprint: str, meter: str, expected_w: int) -> Tested:
        """Open one output, watch, close it.

        Raises:
            DemoError: it did not open, did not stay open, or did not close.
        """
        where = f"{self._site.site.id} {output}"
        node = next(n for n in self._site.nodes if isinstance(n, SwitchNode) and n.id == output)
        switch, before = self.switch(output), await self.powers()
        began = time.monotonic()
        await switch.open()
        try:
            await _until(switch, Position.OPEN, where)
            opened = time.monotonic()
            after = await self.powers()
            while (stayed := time.monotonic() - opened) < node.reclose_guard_s:
                if (await switch.read()).position is not Position.OPEN:
                    raise DemoError(f"{where}: opened, and was closed by something else {stayed:.1f} s later")
                await asyncio.sleep(WATCH_EVERY_S)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OPEN_WITHIN_S):
                    await switch.close()
        await _until(switch, Position.CLOSED, where)
        return Tested(
            output=output,
            fingerprint=fingerprint,
            expected_w=expected_w,
            seen_w=max(0, round(before[meter] - after[meter])),
            open_ms=round((opened - began) * 1000),
            stayed_open_s=int(stayed),
            meter=meter,
            others_moved=self._others(output, meter, before, after, expected_w),
        )

    def _others(
        self, output: str, meter: str, before: Mapping[str, float], after: Mapping[str, float], expected_w: int
    ) -> tuple[str, ...]:
        """Metering points that moved and are neither the output's own nor above it."""
        nodes = {p.id: p.node for p in self._site.metering_points}
        above = {output, *self._graph.upstream_path(output, self._graph.normal_positions())}
        return tuple(
            point
            for point in sorted(nodes)
            if point != meter and nodes[point] not in above
            and abs(before[point] - after[point]) > MOVED_SHARE * expected_w
        )  # fmt: skip


async def _until(switch: RelaySwitch, wanted: Position, where: str) -> None:
    deadline = time.monotonic() + OPEN_WITHIN_S
    while (state := await switch.read()).position is not wanted:
        if time.monotonic() > deadline:
            raise DemoError(f"{where}: position {state.position} {OPEN_WITHIN_S:g} s after the command, not {wanted}")
        await asyncio.sleep(READ_EVERY_S)


async def commission(site: Site, outputs: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> list[Tested]:
    """Exercise outputs one after the other: only then can it be seen that no other branch moves with each.

    Args:
        site: whose devices answer.
        outputs: rows of ``tizgin agent outputs --json``.
        wanted: outputs to exercise.

    Raises:
        DemoError: an output cannot be proven.
    """
    known = {str(row["output"]): row for row in outputs}
    tested: list[Tested] = []
    async with Laptop(site) as laptop:
        for name in wanted:
            row = known.get(name)
            if row is None or not row.get("usable", True) or not row.get("meter"):
                raise DemoError(f"{site.site.id} {name}: not a usable output with a meter: {row}")
            tested.append(
                await laptop.exercise(
                    name,
                    fingerprint=str(row["fingerprint"]),
                    meter=str(row["meter"]),
                    expected_w=int(row["expected_w"]),
                )
            )
    return tested
