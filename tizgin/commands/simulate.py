"""``tizgin simulate site.yaml``: the site's devices as real servers on loopback, until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tizgin.errors import EXIT_WRONG_USE, UserError

if TYPE_CHECKING:
    from simulator.site import SimulatedSite

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: tizgin simulate site.yaml --time-scale 10 --control-port 8099")
def simulate(
    site_file: Annotated[
        Path, typer.Argument(metavar="SITE.YAML", help="A site file whose addresses are on 127.0.0.1.")
    ],
    time_scale: Annotated[
        float, typer.Option(help="Machines sleep, wake and boot this many times faster. Nothing else is scaled.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of all randomness: equal seeds give equal plants.")] = 0,
    control_port: Annotated[
        int | None, typer.Option(help="Loopback port for faults and state as JSON; 0 takes a free one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line when everything is bound.")] = False,
) -> None:
    """Serve every meter, relay, PDU and miner of a site file from one physical plant, until SIGINT or SIGTERM."""
    import structlog

    from config.loader import load_site
    from config.problems import ConfigError
    from drivers.errors import ProfileError
    from simulator.site import SimulatedSite, SimulationError

    if not 0.001 <= time_scale <= 10_000:
        raise UserError(f"--time-scale: saw {time_scale:g}, expected 0.001 to 10000", exit_code=EXIT_WRONG_USE)
    if control_port is not None and not 0 <= control_port <= 65535:
        raise UserError(f"--control-port: saw {control_port}, expected 0 to 65535", exit_code=EXIT_WRONG_USE)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is for results
    try:
        simulated = SimulatedSite(
            load_site(site_file), time_scale=time_scale, seed=seed, base_dir=site_file.resolve().parent
        )
        asyncio.run(_serve(simulated, control_port, as_json))
    except (ConfigError, SimulationError, ProfileError) as error:
        raise UserError(str(error)) from error


async def _serve(simulated: SimulatedSite, control_port: int | None, as_json: bool) -> None:
    from simulator.control import ControlServer

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    control = ControlServer(simulated)
    bound: int | None = None
    await simulated.start()
    try:
        if control_port is not None:
            try:
                bound = await control.start(control_port)
            except OSError as error:
                raise UserError(f"--control-port {control_port}: cannot be bound ({error.strerror})") from error
        _say(simulated, bound, as_json)
        await _until(stop, simulated)
    finally:
        await control.stop()
        await simulated.stop()


async def _until(stop: asyncio.Event, simulated: SimulatedSite) -> None:
    """Wait for the signal; a plant that fails ends the program, it never goes on with frozen meters."""
    asked, failed = asyncio.create_task(stop.wait()), asyncio.create_task(simulated.wait())
    done, pending = await asyncio.wait({asked, failed}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    if failed in done:
        failed.result()


def _say(simulated: SimulatedSite, control_port: int | None, as_json: bool) -> None:
    site = simulated.site
    if as_json:
        ready = {
            "site": site.site.id,
            "time_scale": simulated.time_scale,
            "control_port": control_port,
            "addresses": {name: f"{host}:{port}" for name, (host, port) in simulated.addresses.items()},
        }
        typer.echo(json.dumps(ready, ensure_ascii=False))
        return
    typer.echo(f"{site.site.id}: simulated, machine delays divided by {simulated.time_scale:g}; Ctrl-C ends it")
    for link in site.links:
        host, port = simulated.addresses[link.id]
        names = ", ".join(f"{d.id} (unit {d.unit}, {d.profile})" for d in site.devices if d.link == link.id)
        typer.echo(f"  {link.id:<16} {host}:{port:<6} {names}")
    for group in site.miners:
        web = f", http {group.http}" if group.http else ""
        count = len(simulated.plant.machines_of_group[group.id])
        typer.echo(f"  {group.id:<16} {group.rpc}{web}: {count} machines, {group.family}")
    if control_port is not None:
        typer.echo(f"  control          http://127.0.0.1:{control_port}/state and /faults")
