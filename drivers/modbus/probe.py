"""Look at one address: does a meter answer there, which profile fits it, what does it say. Nothing is written."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from drivers.capabilities import Sample
from drivers.errors import BadAnswer, BadFrame
from drivers.modbus.link import ModbusLink
from drivers.modbus.meter import MeterDevice
from drivers.modbus.pdu import read_request, require_words
from drivers.modbus.relay import RelayDevice
from drivers.modbus.scheduler import Klass
from drivers.modbus.url import parse_url
from drivers.profiles.codec import decode_bits, failed_checks, field_bits
from drivers.profiles.fields import READ_FUNCTION
from drivers.profiles.loader import load_profile, load_profiles
from drivers.profiles.model import Identify, MeterProfile, RelayProfile
from wire.quality import Quality

UNSURE = 0.5
"""At most this confident in a profile that has no identity registers to compare."""


async def probe(url: str, profile: str | None = None, *, timeout_s: float = 1.0) -> dict[str, Any]:
    """Ask one unit, in the shape of ``tizgin probe --json``.

    Without ``profile`` the meter profiles are tried and the best fit is named; ``confidence`` is the share of points
    that gave a plausible value, lowered where identity registers do not agree or a profile has none.

    Raises:
        ValueError: the address is wrong or names no unit.
        ProfileError: there is no such profile.
    """
    link_url, unit = parse_url(url)
    if unit is None:
        raise ValueError(f"{url}: which unit? Put it at the end, as in {link_url}/1")
    given = load_profile(profile) if profile is not None else None
    link = ModbusLink(link_url, name="probe", timeout_s=timeout_s)
    worker = asyncio.create_task(link.run(), name="modbus probe")
    try:
        if isinstance(given, RelayProfile):
            return await _relay(url, RelayDevice("probe", unit, given, link))
        meters = [given] if given is not None else [p for p in load_profiles().values() if isinstance(p, MeterProfile)]
        return await _meters(url, link, unit, meters, fixed=given is not None)
    finally:
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker


async def _meters(
    url: str, link: ModbusLink, unit: int, profiles: list[MeterProfile], *, fixed: bool
) -> dict[str, Any]:
    best: tuple[float, MeterProfile, Sample] | None = None
    reason = "no answer"
    heard = False
    for profile in profiles:
        device = MeterDevice("probe", unit, profile)
        sample = await link.read(device, profile.point_ids, deadline_s=30.0)
        answered = any(r.quality not in _MUTE for r in sample.readings.values())
        if not answered:
            reason = sample.error or reason
            if not heard:
                break  # nobody there: the other profiles would only repeat the wait
            continue
        heard = True
        score = await _confidence(link, device, sample)
        if best is None or score > best[0]:
            best = (score, profile, sample)
    if best is None:
        return {"url": url, "responds": False, "reason": reason}
    confidence, profile, sample = best
    named = profile.id if fixed or confidence > 0 else None
    points = {name: {"value": r.value, "quality": r.quality.value} for name, r in sample.readings.items()}
    return {
        "url": url,
        "responds": True,
        "profile": named,
        "confidence": round(confidence, 2),
        "points": points if named else {},
        "latency_ms": round(sample.latency_ms, 1),
    }


_MUTE = frozenset({Quality.TIMEOUT, Quality.NO_CONNECTION, Quality.NOT_READ, Quality.CRC})


async def _confidence(link: ModbusLink, device: MeterDevice, sample: Sample) -> float:
    profile = device.profile
    readings = sample.readings
    good = sum(r.quality is Quality.GOOD for r in readings.values())
    score = good / len(readings)
    # Nothing of a live meter reads as exactly 0 V and 0 Hz; empty registers of another device do.
    live = [readings[n].value for n in ("frequency_hz", "voltage_l1_n_v") if n in readings]
    if live and not any(isinstance(v, float) and v > 1 for v in live):
        score *= 0.1
    if failed_checks(profile, {n: r.value for n, r in readings.items()}):
        score *= 0.5
    if not profile.identify:
        return min(score, UNSURE)
    agreed = [await _agrees(link, device, identify) for identify in profile.identify]
    return score * (sum(agreed) / len(agreed) if any(agreed) else 0.1)


async def _agrees(link: ModbusLink, device: MeterDevice, identify: Identify) -> bool:
    pdu = read_request(READ_FUNCTION[identify.table], identify.addr, identify.words)
    (answer,) = await link.exchange(device, (pdu,), klass=Klass.VERIFICATION, deadline_s=5.0)
    if not answer.ok:
        return False
    try:
        number = decode_bits(identify, field_bits(identify, require_words(answer.request, answer.answer)))
    except (BadAnswer, BadFrame):
        return False
    if isinstance(number, str):
        return identify.text is not None and number.startswith(identify.text)
    return number is not None and number in identify.expect


async def _relay(url: str, relay: RelayDevice) -> dict[str, Any]:
    image = await relay.read(deadline_s=10.0)
    bits = [*image.coils.values(), *image.inputs.values()]
    if all(b is None for b in bits):
        return {"url": url, "responds": False, "reason": image.error or "no answer"}
    return {
        "url": url,
        "responds": True,
        "profile": relay.profile.id,
        "confidence": round(min(UNSURE, sum(b is not None for b in bits) / len(bits)), 2),
        "points": {},
        "outputs": dict(image.coils),
        "inputs": dict(image.inputs),
        "latency_ms": None,
    }
