"""A machine read through the library, as any other miner: it reports, and can do nothing else."""

from __future__ import annotations

from drivers.asic.foreign.answers import PREFIX
from drivers.asic.foreign.process import ForeignProcess
from drivers.capabilities import MinerStatus

FAMILY = "pyasic"
"""As a site file writes it; a status says ``pyasic:<firmware>``."""


class ForeignMiner:
    """One machine. Its process is shared by all of them and belongs to somebody else."""

    def __init__(self, process: ForeignProcess, host: str, *, deadline_s: float = 10.0) -> None:
        self.family = FAMILY
        self._process = process
        self._host = host
        self._deadline_s = deadline_s

    async def status(self) -> MinerStatus:
        """Read the machine within its deadline.

        Raises:
            DriverError: see :meth:`drivers.asic.foreign.process.ForeignProcess.read`.
        """
        status = await self._process.read(self._host, deadline_s=self._deadline_s)
        self.family = status.family if status.family.startswith(PREFIX) else FAMILY
        return status
