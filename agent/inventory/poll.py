"""One fresh look at every machine of a site, for people; the running agent uses its poller's answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from config.addresses import MachineAddress, machines
from config.devices import MinerGroup
from config.site import Site
from drivers.asic.credentials import load_credentials
from drivers.asic.descriptors import descriptors_for
from drivers.asic.foreign.process import ForeignProcess
from drivers.asic.foreign.reader import FAMILY as FOREIGN
from drivers.asic.foreign.reader import ForeignMiner
from drivers.asic.identify import driver_for
from drivers.capabilities import MinerReader, MinerStatus
from drivers.errors import DriverError

CONCURRENCY = 128
DEADLINE_S = 8.0


async def poll_all(
    site: Site,
    *,
    base: Path,
    deadline_s: float = DEADLINE_S,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, MinerStatus | str]:
    """Ask every machine once; nothing is written to any of them.

    Args:
        site: the site.
        base: folder that relative password files are relative to.
        deadline_s: of one machine.
        progress: called with (done, all) after each machine.

    Returns:
        Machine → status, or the reason why there is none.

    Raises:
        CredentialError: a group's log-in cannot be loaded.
        ValueError: a group's family or address range cannot be used.
    """
    used = {group.credentials for group in site.miners}
    logins = load_credentials({name: c for name, c in site.credentials.items() if name in used}, base=base)
    work = [(group, at) for group in site.miners for at in machines(group)]
    found: dict[str, MinerStatus | str] = {}
    todo = iter(work)

    def driver_of(group: MinerGroup, at: MachineAddress) -> MinerReader:
        if group.family == FOREIGN:
            return ForeignMiner(foreign, at.rpc_host, deadline_s=deadline_s)
        return driver_for(
            group.family,
            at.rpc_host,
            rpc_port=at.rpc_port,
            http_host=at.http_host,
            http_port=at.http_port,
            credentials=logins.get(group.credentials or ""),
        )

    async def ask(group: MinerGroup, at: MachineAddress) -> MinerStatus | str:
        driver = driver_of(group, at)
        limit_s = deadline_s if group.family != FOREIGN else None  # it keeps the deadline itself, once it has a place
        try:
            async with asyncio.timeout(limit_s):
                return await driver.status()
        except TimeoutError:
            return f"no status within {deadline_s:g} s"
        except DriverError as error:
            return str(error)

    async def worker() -> None:
        for group, at in todo:
            found[at.id] = await ask(group, at)
            progress(len(found), len(work))

    # Its process is started when the first machine needs it.
    async with ForeignProcess() as foreign, asyncio.TaskGroup() as tasks:
        for _ in range(max(1, min(CONCURRENCY, len(work), descriptors_for(CONCURRENCY)))):
            tasks.create_task(worker(), name="inventory-poll")
    return {at.id: found[at.id] for _, at in work}
