"""Reading a meter once for a person: every point with the registers behind it."""

from __future__ import annotations

from typing import Any

from drivers.capabilities import Sample
from drivers.modbus.guess import fit
from drivers.modbus.looking import NobodyThere, Registers
from drivers.modbus.meter import MeterDevice
from drivers.modbus.polling import read_settled
from drivers.modbus.probe import DEADLINE_S, running
from drivers.modbus.sunspec import PROFILES, NotSunSpec, bind, walk
from drivers.modbus.url import parse_url
from drivers.profiles.fields import READ_FUNCTION
from drivers.profiles.model import MeterProfile
from wire.quality import Quality


async def read_device(profile: MeterProfile, url: str) -> dict[str, Any]:
    """Read all points of a meter with a profile; what is odd becomes a problem.

    Raises:
        ValueError: the address is wrong or names no unit.
    """

    link_url, unit = parse_url(url)
    if unit is None:
        raise ValueError(f"{url}: which unit? Put it at the end, as in {link_url}/1")
    against: tuple[str, ...] = ()
    async with running(link_url, 1.0) as link:
        registers = Registers(link, unit)
        try:
            if profile.id in PROFILES:
                bound, fixed = bind(await walk(registers))
                device = MeterDevice("test", unit, bound, fixed=fixed)
            else:
                against = (await fit(registers, profile)).against
                device = MeterDevice("test", unit, profile)
        except (NobodyThere, NotSunSpec) as error:
            return {"ok": False, "points": {}, "problems": [f"{url}: {error}"]}
        sample = await read_settled(link, device, device.profile.point_ids, deadline_s=DEADLINE_S)
    odd = {name: r.quality for name, r in sample.readings.items() if r.quality not in {Quality.GOOD, Quality.NO_VALUE}}
    problems = [
        f"{n}: {q.value}, expected a good value; are its address, type and order right?" for n, q in odd.items()
    ]
    problems += [f"speaks against this profile: {text}" for text in against]
    return {"ok": not problems, "points": points_of(device.profile, sample), "problems": problems}


def points_of(profile: MeterProfile, sample: Sample) -> dict[str, dict[str, Any]]:
    """Each point with its value, unit, quality, registers and raw contents (hexadecimal, as on the wire)."""
    words: dict[tuple[int, int], bytes] = {}
    for request, answer in sample.frames:
        function, first = request[1], int.from_bytes(request[2:4], "big")
        for index in range((len(answer) - 3) // 2):
            words[function, first + index] = answer[3 + 2 * index : 5 + 2 * index]
    out: dict[str, dict[str, Any]] = {}
    for point in profile.points:
        reading = sample.readings.get(point.id)
        if reading is None:
            continue
        own = [words.get((READ_FUNCTION[point.table], register)) for register in point.span]
        raw = [word for word in own if word is not None]
        out[point.id] = {
            "value": reading.value,
            "unit": point.unit,
            "quality": reading.quality.value,
            "raw": " ".join(word.hex() for word in raw) if len(raw) == len(own) else None,
            "table": point.table,
            "address": point.addr,
            "registers": point.words,
        }
    return out
