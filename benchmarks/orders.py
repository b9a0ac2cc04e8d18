"""From a signed order on the broker to the site's signed answer, to the contact read back, to the meter, to the kW.

Everything is a process of its own and speaks its own protocol: Mosquitto with TLS, Modbus meters and relays, machines
on sockets, agents armed by signed acts. Orders come at random moments that are fixed beforehand; each is timed from
its moment until its signed answer is heard again at the broker, so the broker's way there and back is in ``accepted``,
and so is an order that waits behind another. ``accepted_in_agent``, ``first_output``, ``readback`` and ``confirmed``
are the agent's own signed figures, from the order's bytes entering it (``readback`` is their sum: ``first_output`` and
what the signed word counts from the switch's command). ``kw95_s``: LuxOS machines as slow as real ones,
a limit at half the power, until 95 % of what was ordered is off by the simulation's own power; the slowest of all.

The floor is an MQTT echo with one Ed25519 verification and one ``synchronous=FULL`` commit of two signed records: the
same bytes, broker, moments and disk, while the same machines are being polled.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import log_file, parser, percentile, report
from benchmarks.order_sides.broker import Identity, connected
from benchmarks.order_sides.dispatcher import Dispatcher, collector
from benchmarks.order_sides.measures import Accepted, cuts, floor_ms, kw95_s, many_orders
from benchmarks.order_sides.plant import Plant
from tizgin.demo.folder import make_fresh
from tizgin.demo.processes import Processes
from tizgin.demo.start import Size
from wire.names import topic

RATE_PER_S = 15.0
SOCKETS_SPARE = 500


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    machines: int
    period_s: int
    orders: int
    rate_per_s: float
    cuts: int
    """Half of them named feeders, half limits."""
    fast: int
    """LuxOS machines of the second site."""
    fast_cuts: int


FULL = Sizes(machines=5000, period_s=30, orders=1000, rate_per_s=RATE_PER_S, cuts=24, fast=400, fast_cuts=1)
QUICK = Sizes(machines=400, period_s=10, orders=120, rate_per_s=RATE_PER_S, cuts=2, fast=100, fast_cuts=1)


@dataclass(frozen=True, slots=True)
class Found:
    """Raw results."""

    accepted: Accepted
    cuts: list[dict[str, int]]
    kw95_s: list[float]
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
        size = Size(sites=2, asics=sizes.machines, port=0, time_scale=1.0)
        plant = Plant(size, root, processes, say, period_s=sizes.period_s, fast=sizes.fast)
        await plant.start()
        start_s = time.monotonic() - began
        polled, fast = (Dispatcher(plant, plan) for plan in plant.plans)
        by_site = {desk.plan.id: desk for desk in (polled, fast)}

        def hear(name: str, payload: bytes, at_ns: int) -> None:
            by_site[name.split("/")[2]].hear(name, payload, at_ns)

        topics = [topic(site, "answer") for site in by_site]
        with connected(collector(plant), topics, hear) as client:
            polled.client = fast.client = client
            accepted = await asyncio.to_thread(many_orders, polled, sizes.orders, sizes.rate_per_s)
            say(f"{len(accepted.outside_ms)} orders accepted")
            cut = await asyncio.to_thread(cuts, polled, sizes.cuts)
            say(f"{len(cut)} cuts by contactors held and given back")
            kw95 = await asyncio.to_thread(kw95_s, fast, sizes.fast_cuts)
            say(f"{len(kw95)} cuts by sleep held and given back")
            spare_plan = plant.plans[1]
            await plant.agents[spare_plan.id].stop()
        files = root.site(spare_plan.id)
        spare = Identity(
            plant.broker_port, str(files.tls / "ca.pem"), str(files.tls / "site.pem"), str(files.state / "tls.key")
        )
        with connected(collector(plant), [topic(spare_plan.id, "progress")], fast.hear) as client:
            least = await asyncio.to_thread(
                floor_ms, fast, spare, client, accepted, folder, sizes.orders, sizes.rate_per_s
            )
        return Found(accepted, cut, kw95, least, plant.rss_mb(plant.plans[0]), start_s, (load, os.getloadavg()[0]))


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
        "kw95_s": round(max(found.kw95_s), 2),
        "kw95_runs": len(found.kw95_s),
        "fast_machines": sizes.fast,
        "machines": sizes.machines,
        "polls_per_s": found.accepted.polls_per_s,
        "cpu_share": found.accepted.cpu_share,
        "rss_mb": found.rss_mb,
        "orders_per_s": sizes.rate_per_s,
        "start_s": round(found.start_s, 1),
        "load_before": round(found.load[0], 2),
        "load_after": round(found.load[1], 2),
    }


def main() -> int:
    """Command line."""
    commands = parser(str(__doc__).partition("\n")[0])
    commands.add_argument("--orders", type=int, help="how many orders (at least 500 for a 99th percentile)")
    commands.add_argument("--machines", type=int, help="how many machines are polled meanwhile")
    commands.add_argument("--rate-per-s", type=float, help=f"orders a second (default {RATE_PER_S:g})")
    commands.add_argument("--cuts", type=int, help="how many cuts by contactors")
    options = commands.parse_args()
    given = {
        name: value
        for name in ("orders", "machines", "rate_per_s", "cuts")
        if (value := getattr(options, name)) is not None
    }
    sizes = Sizes(**asdict(QUICK if options.quick else FULL) | given)
    if not (4 <= sizes.machines <= 5000 and sizes.orders >= 1 and sizes.cuts >= 1 and sizes.rate_per_s > 0):
        commands.error("expected 4 to 5000 machines, and at least one order and one cut, and a rate above 0")

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    with tempfile.TemporaryDirectory(prefix="bench-orders-", dir=options.folder) as name:
        folder = Path(name).resolve()
        with log_file(folder / "laptop.log"):
            found = asyncio.run(measure(folder, sizes, say))
        accepted, least = found.accepted.outside_ms, found.floor_ms
        report(
            "orders",
            folder=options.folder,
            ours=figures(found, sizes),
            floor={
                "echo_commit_p50_ms": round(percentile(least, 0.5), 2),
                "echo_commit_p99_ms": round(percentile(least, 0.99), 2),
                "via_mqtt": True,
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
