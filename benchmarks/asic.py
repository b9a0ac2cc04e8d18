"""Polling ASIC miners and telling them to sleep, beside a bare asyncio loop, pyasic and pyasic-rs.

Machines are simulated in a process of their own, three fifths stock Antminers (three connections a poll) and two fifths
LuxOS (one). Every client has a process to itself, and CPU is that process's. Polling is paced as in service: 500
machines a second, which is 30,000 a minute. ``on_time_share_10pct_dead``: the polls of living machines that were begun
within a tenth of the period and answered, while every tenth machine falls silent at the beginning of the measuring.
``sleep_fanout_s``: until the last machine was told; ``sleep_acknowledged_s``: until the last had read back as asleep
(simulated stock Antminers take 2.1 s to answer a write, real ones about 21 s).

The floor exchanges the same bytes at the same rate and understands nothing. Peers poll stock Antminers alone, as fast
as they go; ``pyasic_socket_only`` is told to read only what the JSON socket gives. They look at ports 4028 and 80,
which have to be free, and 80 has to be allowed; else they are left out, with the reason on standard error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.common import parser, report
from benchmarks.fleet.peers import PYASIC, PYASIC_RS, PeerMissing, measured
from benchmarks.fleet.simulated import PEER_RPC_PORT, PEER_WEB_PORT, Fleet, simulated_fleet

MIX = "antminer-stock=60,luxos=40"
RATE_PER_S = 500.0
TIME_SCALE = "10"
CLIENT_LIMIT_S = 900
FEWEST = 500


def client(fleet: Fleet, task: str, **options: Any) -> dict[str, Any]:
    """Run one measured client.

    Raises:
        RuntimeError: it failed; its own message is on standard error.
    """
    asked = {"task": task, "groups": fleet.groups, "control_port": fleet.control_port, **options}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fleet.client"],
        input=json.dumps(asked),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=CLIENT_LIMIT_S,
    )
    if done.returncode:
        raise RuntimeError(f"the measured client ({task}) failed; its message is above")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def polling(machines: int, periods: float) -> dict[str, Any]:
    """Steady polling with none, one and ten of a hundred machines silent, each on a fresh fleet; and the floor."""
    period_s = machines / RATE_PER_S
    window_s = period_s * periods
    found: dict[str, Any] = {}
    for percent in (0, 1, 10):
        with simulated_fleet(machines, MIX) as fleet:
            found[f"dead_{percent}"] = client(
                fleet, "poll", period_s=period_s, window_s=window_s, dead_share=percent / 100
            )
    with simulated_fleet(machines, MIX) as fleet:
        found["floor"] = client(fleet, "floor", period_s=period_s, window_s=window_s)
    return found


def stock_only(machines: int, rounds: int, window_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ours and the peers against stock Antminers alone, as fast as each goes."""
    peers: dict[str, Any] = {}
    ports = ("--rpc-port", str(PEER_RPC_PORT), "--web-port", str(PEER_WEB_PORT))
    try:
        with simulated_fleet(machines, "antminer-stock=1", *ports) as fleet:
            ours = client(fleet, "fill", window_s=window_s)
            for requirement in (PYASIC, PYASIC_RS):
                try:
                    peers |= measured(requirement, (str(machines), str(rounds)))
                except PeerMissing as error:
                    sys.stderr.write(f"left out: {error}\n")
    except RuntimeError as error:
        sys.stderr.write(f"peers left out: ports {PEER_RPC_PORT} and {PEER_WEB_PORT} are needed: {error}\n")
        with simulated_fleet(machines, "antminer-stock=1") as fleet:
            ours = client(fleet, "fill", window_s=window_s)
    return ours, peers


def main() -> int:
    """Command line."""
    commands = parser(str(__doc__).partition("\n")[0])
    commands.add_argument("--machines", type=int, help="how many (default 10000; 1000 with --quick)")
    options = commands.parse_args()
    machines = options.machines or (1000 if options.quick else 10_000)
    if not FEWEST <= machines <= 60_000:
        commands.error(f"--machines {machines}: expected {FEWEST} to 60000")
    sizes = [machines] if options.quick or options.machines else [1000, machines]
    by_size = {size: polling(size, 2.5 if options.quick else max(2.0, 20_000 / size)) for size in sizes}
    largest = by_size[machines]
    with simulated_fleet(machines, MIX) as fleet:
        full = client(fleet, "fill", window_s=3 if options.quick else 15)
    with simulated_fleet(machines, MIX, "--time-scale", TIME_SCALE) as fleet:
        asleep = client(fleet, "sleep", period_s=machines / RATE_PER_S)
    ours_stock, peers = stock_only(100 if options.quick else 300, 2 if options.quick else 5, 3.0)
    steady = largest["dead_0"]
    ours: dict[str, Any] = {
        "machines": machines,
        "polls_per_s": full["polls_per_s"],
        "cpu_ms_per_machine": steady["cpu_ms_per_machine"],
        "cpu_share_30000_per_60_s": round(steady["cpu_ms_per_machine"] / 1000 * RATE_PER_S, 3),
        "cpu_ms_per_machine_unpaced": full["cpu_ms_per_machine"],
        "rss_mb": max(run["rss_mb"] for name, run in largest.items() if name != "floor"),
        "on_time_share_0_dead": steady["on_time_share"],
        "on_time_share_1pct_dead": largest["dead_1"]["on_time_share"],
        "on_time_share_10pct_dead": largest["dead_10"]["on_time_share"],
        "cpu_share_10pct_dead": largest["dead_10"]["cpu_share"],
        **asleep,
        "stock_cpu_ms_per_machine": ours_stock["cpu_ms_per_machine"],
        "by_size": {
            str(size): {name: run for name, run in runs.items() if name != "floor"} for size, runs in by_size.items()
        },
    }
    stock_ms = ours_stock["cpu_ms_per_machine"]
    report(
        "asic",
        folder=options.folder,
        ours=ours,
        peers=peers,
        floor=largest["floor"],
        ratios={
            "cpu_to_floor": round(steady["cpu_ms_per_machine"] / largest["floor"]["cpu_ms_per_machine"], 2),
            **{
                f"polls_per_cpu_s_to_{name}": round(peer["cpu_ms_per_machine"] / stock_ms, 1)
                for name, peer in peers.items()
            },
        },
        as_json=options.json,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
