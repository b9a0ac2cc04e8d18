"""``tizgin read``: one device of the site file, read once: values, units, quality, and the registers behind them."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tizgin.errors import EXIT_PROBLEM, EXIT_WRONG_USE, UserError

if TYPE_CHECKING:
    from config.devices import Device
    from config.site import Site
    from drivers.modbus.link import ModbusLink
    from drivers.profiles.model import MeterProfile

app = typer.Typer(help="Read one device of the site file once.")

DEADLINE_S = 15.0


@app.command(epilog="Example: tizgin read --config site.yaml m-1")
def read(
    device_id: Annotated[str, typer.Argument(metavar="DEVICE", help="Its id in the site file.", show_default=False)],
    config: Annotated[Path, typer.Option("--config", metavar="SITE.YAML", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int | None:
    """Read every value of a meter, relay board or PDU once; nothing is written. Exit 1 where it does not answer.

    On an RS-485 line nobody else may ask meanwhile: stop the agent first.
    """
    import structlog

    from config.loader import load_site
    from config.problems import ConfigError
    from drivers.errors import ProfileError

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        site = load_site(config)
    except ConfigError as error:
        raise UserError(str(error)) from error
    device = next((d for d in site.devices if d.id == device_id), None)
    if device is None:
        known = ", ".join(d.id for d in site.devices) or "none"
        raise UserError(
            f"{config.name}: there is no device {device_id!r}, expected one of {known}", exit_code=EXIT_WRONG_USE
        )
    try:
        result = asyncio.run(_read(site, device, config.resolve().parent))
    except (ProfileError, ValueError, OSError) as error:
        raise UserError(f"device {device.id}: {error}") from error
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else _text(result))
    return None if result["responds"] else EXIT_PROBLEM


async def _read(site: Site, device: Device, base: Path) -> dict[str, Any]:
    link = next((x for x in site.links if x.id == device.link), None)
    if link is None:
        raise ValueError(f"link: seen {device.link!r}, expected the id of one of the file's links")
    shape = {"device": device.id, "kind": device.kind, "profile": device.profile, "url": link.url, "unit": device.unit}
    if device.kind == "pdu":
        return shape | await _pdu(site, device, link.url, base)
    from drivers.modbus.link import ModbusLink
    from drivers.profiles.loader import load_profile
    from drivers.profiles.model import MeterProfile, RelayProfile

    profile = load_profile(device.profile)
    modbus = ModbusLink.from_config(link, base=base)
    worker = asyncio.create_task(modbus.run(), name="read")
    try:
        if isinstance(profile, MeterProfile):
            return shape | await _meter(device, profile, modbus)
        if isinstance(profile, RelayProfile):
            from drivers.modbus.relay import RelayDevice

            image = await RelayDevice(device.id, device.unit, profile, modbus).read(deadline_s=DEADLINE_S)
            told: dict[str, dict[str, Any]] = {"outputs": dict(image.coils), "inputs": dict(image.inputs)}
            if image.temperatures:
                told["temperatures_c"] = dict(image.temperatures)
            answered = any(seen is not None for values in told.values() for seen in values.values())
            return shape | {"responds": answered, **told, "error": image.error}
        raise ValueError(f"profile {device.profile}: seen kind {profile.kind}, expected {device.kind}")
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


async def _meter(device: Device, profile: MeterProfile, link: ModbusLink) -> dict[str, Any]:
    from drivers.modbus.looking import NobodyThere, Registers
    from drivers.modbus.meter import MeterDevice
    from drivers.modbus.polling import read_settled
    from drivers.modbus.sunspec import PROFILES, NotSunSpec, bind, walk
    from tizgin.commands._meter_reading import points_of

    meter = MeterDevice(device.id, device.unit, profile)
    if profile.id in PROFILES:
        try:
            bound, fixed = bind(await walk(Registers(link, device.unit)))
        except (NobodyThere, NotSunSpec) as error:
            return {"responds": False, "points": {}, "latency_ms": None, "error": str(error)}
        meter = MeterDevice(device.id, device.unit, bound, fixed=fixed)
    sample = await read_settled(link, meter, meter.profile.point_ids, deadline_s=DEADLINE_S)
    return {
        "responds": any(answer for _, answer in sample.frames),
        "points": points_of(meter.profile, sample),
        "latency_ms": round(sample.latency_ms, 1),
        "error": sample.error,
    }


async def _pdu(site: Site, device: Device, url: str, base: Path) -> dict[str, Any]:
    import os
    from urllib.parse import urlsplit

    from drivers.snmp.credentials import Credentials, credentials_from_text
    from drivers.snmp.pdu import SnmpPdu
    from drivers.snmp.profile import load_pdu_profile
    from drivers.snmp.session import SnmpSession
    from wire.points import unit_of

    source = site.credentials.get(device.credentials or "")
    if source is None:
        raise ValueError("credentials: seen none, expected the id of the file's entry with the SNMP secret")
    if source.password_env is not None:
        secret = os.environ.get(source.password_env, "")
    else:
        secret = (base / (source.password_file or "")).read_text(encoding="utf-8")
    host = urlsplit(url)
    async with SnmpSession() as session:
        reader = Credentials(credentials_from_text(secret).read)  # never the one that switches
        profile = load_pdu_profile(device.profile).placed(device.options)
        pdu = SnmpPdu(device.id, host.hostname or "", host.port or 161, profile, reader, session)
        sample = await pdu.sample()
        table = await pdu.outlets()
    return {
        "responds": sample.error is None,
        "points": {
            name: {"value": r.value, "unit": unit_of(name), "quality": r.quality.value}
            for name, r in sample.readings.items()
        },
        "outlets": {
            str(n): {"state": o.state.value, "power_w": o.power_w.value, "quality": o.power_w.quality.value}
            for n, o in table.outlets.items()
        },
        "latency_ms": round(sample.latency_ms, 1),
        "error": sample.error,
    }


def _text(result: dict[str, Any]) -> str:
    lines = [f"{result['device']}: {result['profile']} at {result['url']}, unit {result['unit']}"]
    for name, point in result.get("points", {}).items():
        value = "-" if point["value"] is None else f"{point['value']:,}" if _number(point) else str(point["value"])
        where = ""
        if "address" in point:
            where = f"{point['table']} {point['address']}+{point['registers']}  {point['raw'] or ''}"
        lines.append(f"  {name:30}{value:>22} {point['unit']:5} {point['quality']:10} {where}".rstrip())
    for kind in ("outputs", "inputs"):
        for name, level in result.get(kind, {}).items():
            lines.append(f"  {name:30}{'-' if level is None else 'on' if level else 'off':>22}")
    for name, celsius in result.get("temperatures_c", {}).items():
        lines.append(f"  {name:30}{'-' if celsius is None else f'{celsius:.1f}':>22} °C")
    for number, outlet in result.get("outlets", {}).items():
        power = "-" if outlet["power_w"] is None else f"{outlet['power_w']:,.0f} W"
        lines.append(f"  outlet {number:23}{outlet['state']:>22} {power}")
    if result["error"]:
        lines.append(f"  {'no answer' if not result['responds'] else 'not everything was read'}: {result['error']}")
    return "\n".join(lines)


def _number(point: dict[str, Any]) -> bool:
    return isinstance(point["value"], int | float) and not isinstance(point["value"], bool)
