"""Simulated miners of the families with a log-in, and drivers for them; for tests of all of them alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

from drivers.asic.auradine import Auradine
from drivers.asic.braiins import Braiins
from drivers.asic.credentials import Credentials
from drivers.asic.family import Address
from drivers.asic.given import Given
from drivers.asic.repair import parse_answer
from drivers.asic.timing import Timeouts
from drivers.asic.vnish import Vnish
from drivers.asic.whatsminer_v2 import WhatsminerV2
from drivers.asic.whatsminer_v3 import WhatsminerV3
from drivers.capabilities import MinerStatus
from simulator.devices.asic_families.auradine import SimulatedAuradine
from simulator.devices.asic_families.braiins import SimulatedBraiins
from simulator.devices.asic_families.vnish import SimulatedVnish
from simulator.devices.asic_families.whatsminer_v2 import SimulatedWhatsminerV2
from simulator.devices.asic_families.whatsminer_v3 import SimulatedWhatsminerV3
from simulator.devices.models import StandaloneMachine

SPEED = 10_000.0
"""Time scale: ramps end at once."""
PATIENT = Timeouts(rpc_s=10.0, http_s=10.0, write_s=10.0, status_s=30.0, read_back_s=(0.0, 0.0))
"""For what is going to be answered."""
BRIEF = Timeouts(rpc_s=0.06, http_s=0.06, write_s=0.06, status_s=0.2, read_back_s=(0.0,))
"""For what is never answered."""
LOSING = Timeouts(rpc_s=10.0, http_s=10.0, write_s=0.2, status_s=30.0, read_back_s=())
"""For readings that are answered and writes that are not."""
PASSWORD = "s3cret-Pa55"

VECTORS = Path(__file__).parents[1] / "vectors" / "asic"
RECORDED = Path(__file__).parents[2].parent / "shared" / "data" / "asic"


@dataclass(frozen=True)
class Subject:
    """One family, as its simulated machine and its driver are made."""

    name: str
    server: Callable[..., Any]
    driver: Callable[..., Any]
    user: str
    server_options: dict[str, Any] = field(default_factory=dict)
    login_in_name: bool = True
    """Whether the simulated machine takes a user name."""
    ports: tuple[str, ...] = ("rpc_port", "http_port")

    def make_server(self, machine: StandaloneMachine | None = None, **options: Any) -> Any:
        options = {"password": PASSWORD, "time_scale": SPEED, **self.server_options, **options}
        if self.login_in_name:
            options.setdefault("user", self.user)
        return self.server(machine or StandaloneMachine(time_scale=SPEED), **options)

    def make_driver(self, server: Any, **options: Any) -> Any:
        ports = {name: getattr(server, name) for name in self.ports}
        options = {
            "credentials": Credentials(self.user, PASSWORD),
            "timeouts": PATIENT,
            "writes_allowed": True,
            **options,
        }
        return made(self.driver, **ports, **options)


SUBJECTS = (
    Subject("whatsminer-v2", SimulatedWhatsminerV2, WhatsminerV2, "admin", login_in_name=False, ports=("rpc_port",)),
    Subject("whatsminer-v3", SimulatedWhatsminerV3, WhatsminerV3, "super", login_in_name=False, ports=("rpc_port",)),
    Subject("braiins-rest", SimulatedBraiins, Braiins, "root"),
    Subject("braiins-graphql", SimulatedBraiins, Braiins, "root", {"rest": False}),
    Subject("vnish", SimulatedVnish, Vnish, "admin", login_in_name=False, ports=("http_port",)),
    Subject("auradine", SimulatedAuradine, Auradine, "admin"),
)
BY_NAME = {subject.name: subject for subject in SUBJECTS}


def made(driver: Callable[..., Any], rpc_port: int | None = None, http_port: int | None = None, **options: Any) -> Any:
    """A driver of a machine on this host; ``options`` are fields of :class:`Given` or the driver's own."""
    given = {name: options.pop(name) for name in [field.name for field in fields(Given)] if name in options}
    return driver(Address("127.0.0.1", rpc_port, http_port=http_port), Given(**given), **options)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event of its own."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the machine watched has no events
            await asyncio.sleep(0.005)


def recorded(folder: str) -> Path:
    """A folder of recorded answers, or the test is left out."""
    path = RECORDED / folder
    if not path.is_dir():
        pytest.skip("left out: ../shared/data is not beside this checkout")
    return path


def answers_of(folder: Path, prefix: str = "") -> dict[str, Any]:
    """Answers of a folder by file name; lists and single values as they are, objects as the drivers read them."""
    found: dict[str, Any] = {}
    for file in sorted(folder.glob(f"{prefix}*.json")):
        if file.stem in {"expected", "manifest"}:
            continue
        try:
            value = json.loads(file.read_bytes())
        except ValueError:
            value = {}
        found[file.stem.removeprefix(prefix)] = parse_answer(file.read_bytes()) if isinstance(value, dict) else value
    return found


def own_cases(family: str) -> list[Any]:
    """The cases of a family under ``tests/vectors/asic``, as parameters of a test."""
    return [pytest.param(folder, id=folder.name) for folder in sorted((VECTORS / family).iterdir())]


def assert_says(status: MinerStatus, folder: Path) -> None:
    """Every value that ``expected.json`` of a case names has to be the status's, and unknown is ``null`` there."""
    expected = json.loads((folder / "expected.json").read_bytes())
    said = json.loads(json.dumps(asdict(status)))
    differing = {name: said[name] for name, wanted in expected.items() if not _same(said[name], wanted)}
    assert differing == {}, f"expected { ({name: expected[name] for name in differing}) }"


def _same(said: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict) and isinstance(said, dict):
        return said.keys() == wanted.keys() and all(_same(said[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list) and isinstance(said, list):
        return len(said) == len(wanted) and all(map(_same, said, wanted))
    if isinstance(wanted, float) and isinstance(said, int | float):
        return bool(said == pytest.approx(wanted))
    return type(said) is type(wanted) and bool(said == wanted)
