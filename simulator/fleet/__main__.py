"""``python -m simulator.fleet --machines 10000 --mix antminer-stock=60,luxos=40``: see :mod:`simulator.fleet.serve`."""

from __future__ import annotations

import argparse
import sys

from simulator.fleet.serve import FleetOptions, serve
from simulator.loopback import SimulationError


def main() -> int:
    """Command line."""
    usual = FleetOptions()
    made = argparse.ArgumentParser(
        prog="python -m simulator.fleet",
        description="Simulated miners on loopback addresses, one JSON line when they listen, until SIGTERM or SIGINT.",
    )
    made.add_argument("--machines", type=int, default=usual.machines, help="how many (default %(default)s)")
    made.add_argument("--mix", default=usual.mix, help=f"families and shares (default {usual.mix})")
    made.add_argument("--first-host", default=usual.first_host, help="address of the first machine")
    made.add_argument("--rpc-port", type=int, default=0, help="JSON socket of all machines; 0 takes a free port")
    made.add_argument("--web-port", type=int, default=0, help="web interface of all machines; 0 takes a free port")
    made.add_argument("--control-port", type=int, help="loopback port for faults and state; 0 takes a free one")
    made.add_argument("--time-scale", type=float, default=1.0, help="machines change this many times faster")
    made.add_argument("--seed", type=int, default=0, help="of faults by share")
    made.add_argument("--until-eof", action="store_true", help="end also when standard input is closed")
    given = vars(made.parse_args())
    try:
        serve(FleetOptions(**given))
    except (SimulationError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
