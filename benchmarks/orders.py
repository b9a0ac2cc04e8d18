"""From a signed order on the broker to the site's signed answer, to the contact read back, to the meter, to the kW.

Everything is a process of its own and speaks its own protocol: Mosquitto with TLS, Modbus meters and relays, machines
on sockets, agents armed by signed acts. Orders come at random moments that are fixed beforehand; each is timed from
its moment until its signed answer is heard again at the broker, so the broker's way there and back is in ``accepted``,
and so is an order that waits behind another. ``accepted_in_agent``, ``first_output``, ``readback`` and ``confirmed``
are the agent's own signed figures, from the order's bytes entering it (``readback`` is their sum: ``first_output`` and
what the signed word counts from the switch's command).

``kw95``, for each firmware family at a site of its own, several at once: machines as slow as real ones
(``simulator/data/latencies.yaml``) whose every answer takes 0.2 s, a limit at half the power, from the order's arrival
until 95 % of what was ordered is off by the simulation's own power; held, and given back whole before the next cut.
``back``: from the release's arrival until all mine at full power, in the two stages that the orders ask for. Where
machines take minutes to wake, waking is shortened and not told. The agents' times are the product's own.

The floor is an MQTT echo with one Ed25519 verification and one ``synchronous=FULL`` commit of two signed records: the
same bytes, broker, moments and disk, while the same machines are being polled. The floor of ``kw95`` is one machine by
itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.common import log_file, parser, percentile, report
from benchmarks.order_sides.broker import Identity, connected
from benchmarks.order_sides.dispatcher import Dispatcher, collector
from benchmarks.order_sides.families import STOCK, SleepingSite, alone_s
from benchmarks.order_sides.measures import Accepted, cuts, floor_ms, many_orders
from benchmarks.order_sides.plant import Plant
from benchmarks.order_sides.sleep import Cut, by_family, cuts_by_sleep
from simulator.fleet.kinds import KINDS
from simulator.latencies import load_latencies
from tizgin.demo.folder import make_fresh
from tizgin.demo.processes import Processes
from tizgin.demo.start import Size
from wire.names import topic

RATE_PER_S = 15.0
METER_PERIOD_MS = 1000.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    machines: int
    period_s: int
    orders: int
    rate_per_s: float
    cuts: int
    """Half of them named feeders, half limits."""
    sleeping: tuple[SleepingSite, ...]
    """The further sites."""


# Stock firmware takes so long that two sites share its cuts.
FULL = Sizes(
    machines=5000,
    period_s=30,
    orders=1000,
    rate_per_s=RATE_PER_S,
    cuts=24,
    sleeping=(
        SleepingSite("luxos", 400, 5),
        SleepingSite("braiins", 400, 5),
        SleepingSite(STOCK, 200, 3),
        SleepingSite(STOCK, 200, 2),
    ),
)
QUICK = Sizes(
    machines=400,
    period_s=10,
    orders=120,
    rate_per_s=RATE_PER_S,
    cuts=2,
    sleeping=(SleepingSite("luxos", 60, 1), SleepingSite("braiins", 60, 1)),
)
OTHER_FAMILY = {True: (60, 1), False: (200, 5)}
"""Machines and cuts of a family that is measured only when it is named; quick or not."""


@dataclass(frozen=True, slots=True)
class Found:
    """Raw results."""

    accepted: Accepted
    cuts: list[dict[str, int]]
    by_sleep: list[tuple[SleepingSite, list[Cut]]]
    floor_ms: list[float]
    rss_mb: float
    start_s: float
    load: tuple[float, float]
    """One-minute load of the computer before and after."""


async def measure(folder: Path, sizes: Sizes, say: Callable[[str], None]) -> Found:
    """One run.

    Raises:
        DemoError: the plant did not start.
        RuntimeError: something was not obeyed, or an answer does not verify: then there is nothing to report.
    """
    began, load = time.monotonic(), os.getloadavg()[0]
    root = make_fresh(folder / "plant")
    async with Processes(root.logs) as processes:
        size = Size(sites=1 + len(sizes.sleeping), asics=sizes.machines, port=0, time_scale=1.0)
        plant = Plant(size, root, processes, say, period_s=sizes.period_s, sleeping=sizes.sleeping)
        await plant.start()
        start_s = time.monotonic() - began
        desks = [Dispatcher(plant, plan) for plan in plant.plans]
        by_site = {desk.plan.id: desk for desk in desks}
        polled, spare_desk = desks[0], desks[1]

        def hear(name: str, payload: bytes, at_ns: int) -> None:
            by_site[name.split("/")[2]].hear(name, payload, at_ns)

        def sleep(desk: Dispatcher, site: SleepingSite) -> tuple[SleepingSite, list[Cut]]:
            found = cuts_by_sleep(desk, site)
            say(f"{desk.plan.id}: {len(found)} cuts by sleep ({site.family}) held and given back")
            return site, found

        def begin(*, slow: bool) -> list[asyncio.Task[tuple[SleepingSite, list[Cut]]]]:
            chosen = [pair for pair in zip(desks[1:], sizes.sleeping, strict=True) if (pair[1].family == STOCK) is slow]
            return [asyncio.create_task(asyncio.to_thread(sleep, *pair)) for pair in chosen]

        topics = [topic(site, "answer") for site in by_site]
        with connected(collector(plant), topics, hear) as client:
            for desk in desks:
                desk.client = client
            accepted = await asyncio.to_thread(many_orders, polled, sizes.orders, sizes.rate_per_s)
            say(f"{len(accepted.outside_ms)} orders accepted")
            slow = begin(slow=True)
            cut = await asyncio.to_thread(cuts, polled, sizes.cuts)
            say(f"{len(cut)} cuts by contactors held and given back")
            by_sleep = await asyncio.gather(*begin(slow=False), *slow)
            spare_plan = spare_desk.plan
            await plant.agents[spare_plan.id].stop()
        files = root.site(spare_plan.id)
        spare = Identity(
            plant.broker_port, str(files.tls / "ca.pem"), str(files.tls / "site.pem"), str(files.state / "tls.key")
        )
        with connected(collector(plant), [topic(spare_plan.id, "progress")], spare_desk.hear) as client:
            least = await asyncio.to_thread(
                floor_ms, spare_desk, spare, client, accepted, folder, sizes.orders, sizes.rate_per_s
            )
        return Found(accepted, cut, by_sleep, least, plant.rss_mb(plant.plans[0]), start_s, (load, os.getloadavg()[0]))


def figures(found: Found, sizes: Sizes) -> dict[str, Any]:
    """The fields of ``ours``."""
    accepted, inside = found.accepted.outside_ms, found.accepted.inside_ms
    by_name = {
        name: [float(cut[name]) for cut in found.cuts if name in cut]
        for name in ("first_output", "readback", "confirmed")
    }
    return {
        "orders": len(accepted),
        "accepted_p50_ms": round(percentile(accepted, 0.5), 2),
        "accepted_p99_ms": round(percentile(accepted, 0.99), 2),
        "accepted_max_ms": round(max(accepted), 2),
        "accepted_in_agent_p50_ms": percentile(inside, 0.5),
        "accepted_in_agent_p99_ms": percentile(inside, 0.99),
        **{f"{name}_p50_ms": percentile(values, 0.5) for name, values in by_name.items()},
        **{f"{name}_p99_ms": percentile(values, 0.99) for name, values in by_name.items()},
        "cuts": len(found.cuts),
        "cuts_confirmed_by_meter": len(by_name["confirmed"]),
        "bars": _bars(found, by_name),
        "kw95": by_family(found.by_sleep),
        "machines": sizes.machines,
        "polls_per_s": found.accepted.polls_per_s,
        "cpu_share": found.accepted.cpu_share,
        "rss_mb": found.rss_mb,
        "orders_per_s": sizes.rate_per_s,
        "start_s": round(found.start_s, 1),
        "load_before": round(found.load[0], 2),
        "load_after": round(found.load[1], 2),
    }


def _bars(found: Found, by_name: dict[str, list[float]]) -> dict[str, Any]:
    """What was measured against its bar, ms: each is measured from further off than its bar asks."""
    floor_ms = percentile(found.floor_ms, 0.99)
    seen = {
        "accepted_p99": (percentile(found.accepted.outside_ms, 0.99), max(100.0, 3 * floor_ms)),
        "readback_p99": (percentile(by_name["readback"], 0.99), 1000.0),
        "confirmed_max": (max(by_name["confirmed"]), 2000.0 + 2 * METER_PERIOD_MS),
    }
    return {
        name: {"ms": round(ms, 2), "bar_ms": round(bar_ms, 2), "met": ms <= bar_ms}
        for name, (ms, bar_ms) in seen.items()
    }


def _sleeping(
    usual: tuple[SleepingSite, ...], names: tuple[str, ...] | None, count: int | None, *, quick: bool
) -> tuple[SleepingSite, ...]:
    """The usual sites, or those of named families; with so many cuts each where that is said."""
    chosen = usual
    if names is not None:
        machines, cuts = OTHER_FAMILY[quick]
        sites = ([s for s in usual if s.family == name] or [SleepingSite(name, machines, cuts)] for name in names)
        chosen = tuple(site for several in sites for site in several)
    return chosen if count is None else tuple(replace(site, cuts=count) for site in chosen)


def main() -> int:
    """Command line."""
    commands = parser(str(__doc__).partition("\n")[0])
    commands.add_argument("--orders", type=int, help="how many orders (at least 500 for a 99th percentile)")
    commands.add_argument("--machines", type=int, help="how many machines are polled meanwhile")
    commands.add_argument("--rate-per-s", type=float, help=f"orders a second (default {RATE_PER_S:g})")
    commands.add_argument("--cuts", type=int, help="how many cuts by contactors")
    commands.add_argument("--families", help=f"whose sleep is timed, with commas between: {', '.join(KINDS)}")
    commands.add_argument("--sleep-cuts", type=int, help="how many cuts by sleep at each site")
    options = commands.parse_args()
    sizes = QUICK if options.quick else FULL
    for name in ("orders", "machines", "rate_per_s", "cuts"):
        if (value := getattr(options, name)) is not None:
            sizes = replace(sizes, **{name: value})
    names = tuple(dict.fromkeys(options.families.split(","))) if options.families is not None else None
    if names is not None and (wrong := sorted(set(names) - set(KINDS))):
        commands.error(f"--families: saw {wrong[0]!r}, expected some of {', '.join(KINDS)}")
    sizes = replace(sizes, sleeping=_sleeping(sizes.sleeping, names, options.sleep_cuts, quick=options.quick))
    if options.sleep_cuts is not None and options.sleep_cuts < 1:
        commands.error(f"--sleep-cuts: saw {options.sleep_cuts}, expected at least 1")
    if not (4 <= sizes.machines <= 5000 and sizes.orders >= 1 and sizes.cuts >= 1 and sizes.rate_per_s > 0):
        commands.error("expected 4 to 5000 machines, and at least one order and one cut, and a rate above 0")

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    with tempfile.TemporaryDirectory(prefix="bench-orders-", dir=options.folder) as name:
        folder = Path(name).resolve()
        with log_file(folder / "laptop.log"):
            found = asyncio.run(measure(folder, sizes, say))
        accepted, least = found.accepted.outside_ms, found.floor_ms
        ours, latencies = figures(found, sizes), load_latencies()
        alone = {family: round(alone_s(family, latencies.family(family)), 2) for family in ours["kw95"]}
        report(
            "orders",
            folder=options.folder,
            ours=ours,
            floor={
                "echo_commit_p50_ms": round(percentile(least, 0.5), 2),
                "echo_commit_p99_ms": round(percentile(least, 0.99), 2),
                "via_mqtt": True,
                "kw95_machine_alone_s": alone,
            },
            ratios={
                "accepted_p50_to_floor": round(percentile(accepted, 0.5) / percentile(least, 0.5), 2),
                "accepted_p99_to_floor": round(percentile(accepted, 0.99) / percentile(least, 0.99), 2),
            },
            as_json=options.json,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
