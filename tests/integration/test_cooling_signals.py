"""Flow and supply temperature of cooling loops, read over the wire by our drivers and by a foreign client."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

import simulator
from config.site import Site
from drivers.modbus.link import ModbusLink
from drivers.modbus.relay import RelayDevice, RelayImage
from drivers.modbus.relay.image import image_of, requests_of
from drivers.modbus.scheduler import Answer
from drivers.profiles.loader import load_profile
from drivers.profiles.model import RelayProfile
from simulator.site import SimulatedSite
from wire.quality import Quality

RAW: dict[str, Any] = yaml.safe_load(
    (Path(simulator.__file__).parent / "data" / "two-incomers.yaml").read_text(encoding="utf-8")
)
SITE = Site.model_validate({**RAW, "miners": [], "cooling_loops": [{**RAW["cooling_loops"][0], "type": "hydro"}]})


class Signals:
    """The loop as the agent reads it: one input, one temperature."""

    def __init__(self, simulated: SimulatedSite, link: ModbusLink) -> None:
        self.simulated = simulated
        self._modules = {
            device.id: RelayDevice(device.id, device.unit, _relay(device.profile), link)
            for device in SITE.devices
            if device.link == "cooling"
        }

    async def image(self, device: str) -> RelayImage:
        return await self._modules[device].read()

    async def flow_ok(self) -> bool | None:
        wire = SITE.cooling_loops[0].flow_ok
        assert wire is not None
        return (await self.image(wire.device)).inputs[wire.input]

    async def supply_c(self) -> float | None:
        wire = SITE.cooling_loops[0].supply_temp
        assert wire is not None
        return (await self.image(wire.device)).temperatures[wire.point]


def _relay(name: str) -> RelayProfile:
    profile = load_profile(name)
    assert isinstance(profile, RelayProfile)
    return profile


@asynccontextmanager
async def running() -> AsyncIterator[Signals]:
    simulated = SimulatedSite(SITE, seed=3, step_s=0.02, ephemeral=True)
    await simulated.start()
    host, port = simulated.addresses["cooling"]
    link = ModbusLink(f"modbus://{host}:{port}", name="cooling", timeout_s=1.0)
    worker = asyncio.create_task(link.run())
    try:
        yield Signals(simulated, link)
    finally:
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker
        await simulated.stop()


async def test_flow_and_temperature_are_read_as_the_site_file_names_them() -> None:
    async with running() as signals:
        assert await signals.flow_ok() is True
        assert await signals.supply_c() == pytest.approx(35.0, abs=0.1)
        signals.simulated.faults.set("supply_temp", "AIR", temp_c=-3.25)
        assert await signals.supply_c() == pytest.approx(-3.25, abs=0.2)
        signals.simulated.faults.set("no_flow", "AIR")
        assert await signals.flow_ok() is False


async def test_what_cannot_be_known_is_none_and_never_zero() -> None:
    async with running() as signals:
        image = await signals.image("ti-1")
        assert image.error is None
        assert image.temperatures["ti_2"] is None, "nothing is wired to it"
        signals.simulated.faults.set("sensor_broken", "AIR")
        assert await signals.supply_c() is None
        signals.simulated.faults.clear_all()
        signals.simulated.faults.set("dead", "ti-1")
        image = await signals.image("ti-1")
        assert image.error is not None
        assert set(image.temperatures.values()) == {None}
        assert await signals.flow_ok() is True, "a dead module takes no other with it"


@pytest.mark.skipif(shutil.which("mbpoll") is None, reason="left out: mbpoll is not installed")
async def test_mbpoll_reads_the_same_temperature() -> None:
    async with running() as signals:
        signals.simulated.faults.set("supply_temp", "AIR", temp_c=21.5)
        host, port = signals.simulated.addresses["cooling"]
        words = f"mbpoll -m tcp -p {port} -a 2 -0 -1 -t 4:float -r 4000 -c 1 {host}".split()
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        shown = [line.split()[-1] for line in out.decode().splitlines() if line.startswith("[4000]")]
        assert shown, out.decode()
        assert float(shown[0]) == pytest.approx(21.5, abs=0.3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("0000 41ac", 21.5),
        ("0000 c148", -12.5),
        ("0000 0000", 0.0),
        ("0000 7fc0", None),
        ("0000 7f80", None),
        ("0000 c348", None),
        ("0000 f000", None),
        ("ffff ffff", None),
    ],
)
def test_a_number_that_no_sensor_shows_is_no_temperature(words: str, expected: float | None) -> None:
    profile = _relay("owen-mv210-101")
    requests = requests_of(profile, frozenset())
    assert [request.pdu.hex() for request in requests] == ["030fa00017"], "all eight in one request"
    data = bytes.fromhex(words.replace(" ", "")) + bytes(2 * 0x17 - 4)
    frame = bytes((1, 3, len(data))) + data
    answer = Answer(Quality.GOOD, 1, 1, request=b"\x01" + requests[0].pdu, answer=frame, sent=True)
    image = image_of(profile, requests, (answer,))
    assert image.temperatures["ti_1"] == expected
    assert image.temperatures["ti_2"] == 0.0
