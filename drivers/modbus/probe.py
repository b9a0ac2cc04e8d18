"""Look at one address: does a meter answer there, which profile fits it, what does it say. Nothing is written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.capabilities import Sample
from drivers.modbus.guess import Candidate, fit, guess
from drivers.modbus.link import ModbusLink
from drivers.modbus.looking import NobodyThere, Registers
from drivers.modbus.meter import MeterDevice
from drivers.modbus.polling import read_settled
from drivers.modbus.relay import RelayDevice
from drivers.modbus.sunspec import PROFILES as SUNSPEC
from drivers.modbus.sunspec import Layout, NotSunSpec, bind, walk
from drivers.modbus.url import LinkUrl, parse_url
from drivers.profiles.loader import load_profile, load_profiles
from drivers.profiles.model import MeterProfile, RelayProfile
from drivers.profiles.plan import Span
from wire.quality import Quality

UNSURE = 0.5
"""At most this confident in a relay board: it has no identity registers to compare."""
DEADLINE_S = 30.0
LEAST = 0.3
"""Confidence under which a guess is none."""
SHOWN = 5
"""Candidates told in full."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at one unit gave."""

    ranking: tuple[Candidate, ...] = ()
    layout: Layout | None = None
    sample: Sample | None = None
    latency_ms: float = 0.0


async def probe(url: str, profile: str | None = None, *, timeout_s: float = 1.0) -> dict[str, Any]:
    """Ask one unit, in the shape of ``tizgin probe --json``.

    Without ``profile`` all meter profiles are tried, and ``candidates`` tells how well each fits and why. Registers
    alone are read then: no coil and no input of a relay board.

    Raises:
        ValueError: the address is wrong or names no unit.
        ProfileError: there is no such profile.
    """
    link_url, unit = parse_url(url)
    if unit is None:
        raise ValueError(f"{url}: which unit? Put it at the end, as in {link_url}/1")
    given = load_profile(profile) if profile is not None else None
    async with running(link_url, timeout_s) as link:
        if isinstance(given, RelayProfile):
            return await _relay(url, RelayDevice("probe", unit, given, link))
        registers = Registers(link, unit)
        try:
            if given is not None:
                return await _told(url, registers, given)
            return guessed(url, await look(registers, known_meters()))
        except NobodyThere as nobody:
            return {"url": url, "responds": False, "reason": str(nobody)}


@contextlib.asynccontextmanager
async def running(url: LinkUrl, timeout_s: float) -> AsyncIterator[ModbusLink]:
    """A link with its worker, for as long as the context lasts. Silent units may use all of its time."""
    link = ModbusLink(url, name="probe", timeout_s=timeout_s, probe_share=1.0)
    worker = asyncio.create_task(link.run(), name="modbus probe")
    try:
        yield link
    finally:
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker


def known_meters() -> tuple[MeterProfile, ...]:
    """All shipped meters that do not describe themselves.

    Raises:
        ProfileError: one of the files is wrong.
    """
    return tuple(p for p in load_profiles().values() if isinstance(p, MeterProfile) and p.id not in SUNSPEC)


async def look(registers: Registers, meters: Sequence[MeterProfile]) -> Found:
    """Find out what a unit is: by its own directory, its identity registers, or by what its numbers say.

    Raises:
        NobodyThere: it does not answer.
    """
    try:
        layout = await walk(registers)
    except NotSunSpec:
        if not registers.answered:
            await registers.fetch([Span("input", 0, 0)])  # some know no holding registers at all
        return Found(await guess(registers, meters), latency_ms=registers.latency_ms)
    bound, fixed = bind(layout)
    device = MeterDevice("probe", registers.unit, bound, fixed=fixed)
    sample = await read_settled(registers.link, device, bound.point_ids, deadline_s=DEADLINE_S)
    return Found((), layout, sample, registers.latency_ms)


async def _told(url: str, registers: Registers, profile: MeterProfile) -> dict[str, Any]:
    if profile.id in SUNSPEC:
        try:
            layout = await walk(registers)
        except NotSunSpec as error:
            if not registers.answered:
                return {"url": url, "responds": False, "reason": str(error)}
            return _shape(url, None, 0.0, None, registers.latency_ms) | {"reason": str(error)}
        bound, fixed = bind(layout)
        device = MeterDevice("probe", registers.unit, bound, fixed=fixed)
        sample = await read_settled(registers.link, device, bound.point_ids, deadline_s=DEADLINE_S)
        return _sunspec(url, Found((), layout, sample, registers.latency_ms))
    candidate = await fit(registers, profile)
    shape = _shape(url, profile.id, candidate.confidence, candidate.sample, registers.latency_ms)
    return shape | {"candidates": [_row(candidate)], "indistinguishable": []}


def guessed(url: str, found: Found) -> dict[str, Any]:
    """A look at one unit in the shape of ``tizgin probe --json``."""
    if found.layout is not None:
        return _sunspec(url, found)
    ranking = found.ranking
    best = ranking[0] if ranking else None
    if best is None or best.confidence < LEAST:
        shape = _shape(url, None, 0.0, None, found.latency_ms)
        rows = [_row(c) for c in ranking[:SHOWN]]
        return shape | {"candidates": rows, "indistinguishable": [], "reason": "it answers, and no profile fits"}
    shape = _shape(url, best.profile.id, best.confidence, best.sample, found.latency_ms)
    # A profile that fits only when it is read in another way does not describe the device as it is.
    return shape | {
        "candidates": [_row(c) for c in ranking[:SHOWN]],
        "indistinguishable": list(best.same_as),
        "word_order": _order(best),
        "address_shift": best.shift,
    }


def _sunspec(url: str, found: Found) -> dict[str, Any]:
    layout, sample = found.layout, found.sample
    good = 0 if sample is None else sum(r.quality is Quality.GOOD for r in sample.readings.values())
    shape = _shape(url, None if layout is None else layout.profile_id, 0.99 if good else 0.5, sample, found.latency_ms)
    models = [] if layout is None else [{"model": m, "address": a, "length": n} for m, a, n in layout.chain]
    return shape | {"candidates": [], "indistinguishable": [], "sunspec": models}


def _order(candidate: Candidate) -> str | None:
    if candidate.either_order:
        return None
    first = candidate.profile.points[0].word_order
    return {"big": "little", "little": "big"}[first] if candidate.swapped else first


def _row(candidate: Candidate) -> dict[str, Any]:
    return {
        "profile": candidate.profile.id,
        "confidence": round(candidate.confidence, 2),
        "word_order": _order(candidate),
        "swapped": candidate.swapped,
        "address_shift": candidate.shift,
        "identified": candidate.identified,
        "reasons": list(candidate.reasons),
        "against": list(candidate.against),
        "same_as": list(candidate.same_as),
        "also": list(candidate.also),
    }


def _shape(
    url: str, profile: str | None, confidence: float, sample: Sample | None, latency_ms: float
) -> dict[str, Any]:
    readings = {} if sample is None or profile is None else sample.readings
    return {
        "url": url,
        "responds": True,
        "profile": profile,
        "confidence": round(confidence, 2),
        "points": {name: {"value": r.value, "quality": r.quality.value} for name, r in readings.items()},
        "latency_ms": round(latency_ms, 1),
    }


async def _relay(url: str, relay: RelayDevice) -> dict[str, Any]:
    image = await relay.read(deadline_s=10.0)
    seen = [*image.coils.values(), *image.inputs.values(), *image.temperatures.values()]
    if all(value is None for value in seen):
        return {"url": url, "responds": False, "reason": image.error or "no answer"}
    return {
        "url": url,
        "responds": True,
        "profile": relay.profile.id,
        "confidence": round(min(UNSURE, sum(value is not None for value in seen) / len(seen)), 2),
        "points": {},
        "outputs": dict(image.coils),
        "inputs": dict(image.inputs),
        "temperatures_c": dict(image.temperatures),
        "latency_ms": None,
    }
