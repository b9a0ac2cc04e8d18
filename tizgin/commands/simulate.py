"""``tizgin simulate site.yaml`` (or ``--fleet N``): devices as real servers on loopback, until told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tizgin.errors import EXIT_WRONG_USE, UserError

if TYPE_CHECKING:
    from simulator.latencies import Latencies
    from simulator.site import SimulatedSite

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Examples: tizgin simulate site.yaml --time-scale 10 --control-port 8099; "
    "tizgin simulate --fleet 5000 --mix antminer-stock=60,luxos=40 --rpc-port 4028"
)
def simulate(
    site_file: Annotated[
        Path | None, typer.Argument(metavar="[SITE.YAML]", help="A site file whose addresses are on 127.0.0.1.")
    ] = None,
    fleet: Annotated[
        int | None, typer.Option(help="Instead of a site: so many miners, each at its own address 127.x.y.z.")
    ] = None,
    mix: Annotated[
        str | None, typer.Option(help="Firmware families of the fleet and their shares, FAMILY=SHARE,…")
    ] = None,
    rpc_port: Annotated[
        int, typer.Option(min=0, max=65535, help="JSON socket of all machines of a fleet; 0 takes a free port.")
    ] = 0,
    web_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Web interface of all machines of a fleet; 0 takes a free port.")
    ] = 0,
    time_scale: Annotated[
        float, typer.Option(help="Machines sleep, wake and boot this many times faster. Nothing else is scaled.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of all randomness: equal seeds give equal plants.")] = 0,
    latencies: Annotated[
        Path | None,
        typer.Option(help="Delays of a site's machines and switches, in the shape of simulator/data/latencies.yaml."),
    ] = None,
    control_port: Annotated[
        int | None, typer.Option(help="Loopback port for faults and state as JSON; 0 takes a free one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line when everything is bound.")] = False,
) -> None:
    """Serve every meter, relay, PDU and miner of a site file from one physical plant, until SIGINT or SIGTERM."""
    if fleet is not None and latencies is not None:
        raise UserError("--latencies belongs to a site", exit_code=EXIT_WRONG_USE)
    if fleet is not None and site_file is None:
        _fleet(fleet, mix, rpc_port, web_port, time_scale, seed, control_port)
        return
    if site_file is None or fleet is not None:
        raise UserError("give either a site file or --fleet N", exit_code=EXIT_WRONG_USE)
    if mix is not None or rpc_port or web_port:
        raise UserError("--mix, --rpc-port and --web-port belong to --fleet", exit_code=EXIT_WRONG_USE)
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
            load_site(site_file),
            time_scale=time_scale,
            seed=seed,
            latencies=_delays(latencies),
            base_dir=site_file.resolve().parent,
        )
        asyncio.run(_serve(simulated, control_port, as_json))
    except (ConfigError, SimulationError, ProfileError) as error:
        raise UserError(str(error)) from error


def _delays(path: Path | None) -> Latencies | None:
    import yaml

    from simulator.latencies import load_latencies

    if path is None:
        return None
    try:
        return load_latencies(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--latencies {path}: {error}") from error


def _fleet(
    machines: int,
    mix: str | None,
    rpc_port: int,
    web_port: int,
    time_scale: float,
    seed: int,
    control_port: int | None,
) -> None:
    from simulator.fleet.serve import FleetOptions, serve
    from simulator.loopback import SimulationError

    options = FleetOptions(
        machines=machines,
        rpc_port=rpc_port,
        web_port=web_port,
        control_port=control_port,
        time_scale=time_scale,
        seed=seed,
    )
    try:
        serve(options if mix is None else replace(options, mix=mix))
    except ValueError as error:
        raise UserError(str(error), exit_code=EXIT_WRONG_USE) from error
    except SimulationError as error:
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
