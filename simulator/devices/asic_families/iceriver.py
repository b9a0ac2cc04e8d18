"""An IceRiver, simulated: a line socket that stays open after an answer, and no way to sleep."""

from __future__ import annotations

import asyncio
import json

from simulator.devices.asic_answers import Json
from simulator.devices.asic_server import GARBAGE, AsicServer
from simulator.devices.models import MachineModel

IDLE_S = 60.0
MAX_LINE_BYTES = 4096


def returned(machine: MachineModel, question: str) -> Json | None:
    """The ``ret`` of one question; ``None`` where there is no such question."""
    plate, rate = machine.nameplate, machine.hashrate_ths() * 1000
    uptime = int(machine.uptime_s())
    match question:
        case "boardpow":
            days, rest = divmod(uptime, 86400)
            runtime = f"{days:02}:{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
            return {"rtpow": f"{rate:.0f}G", "avgpow": f"{rate:.0f}G", "reject": 0, "runtime": runtime, "unit": "G"}
        case "board":
            per_board = rate / plate.boards
            rows = [
                {
                    "no": at + 1,
                    "chipnum": plate.chips_per_board,
                    "rtpow": f"{per_board:.2f}G",
                    "idealpow": f"{plate.hashrate_ths * 1000 / plate.boards:.2f}G",
                    "intmp": 34,
                    "outtmp": 52,
                    "state": True,
                }
                for at in range(plate.boards)
            ]
            return {"boards": rows}
        case "fan":
            return {"fans": [3000] * plate.fans}
        case "getpool":
            rows = [
                {"no": at + 1, "connect": at == 0, "addr": pool.url, "user": pool.user, "accepted": 20, "rejected": 0}
                for at, pool in enumerate(machine.pools)
            ]
            return {"pools": rows}
        case "state":
            return {"pow": True, "net": True, "fan": True, "temp": True}
        case "info":
            return {"softver1": "v1.0", "softver2": "v1.0", "model": plate.model}
        case "getnet":
            return {"nic": "eth0", "mac": plate.mac.replace(":", "-").upper()}
        case _:
            return None


class IceRiverMiner(AsicServer):
    """IceRiver's firmware on one machine; it cannot sleep, whatever it is told."""

    async def start(self, host: str = "127.0.0.1", rpc_port: int = 0, http_port: int = 0) -> None:
        """Listen; port 0 takes any free one.

        Raises:
            OSError: the port is taken.
        """
        del http_port
        self._talks: set[asyncio.Task[None]] = set()
        self._lines = await asyncio.start_server(self._talk, host, rpc_port, backlog=64)

    async def stop(self) -> None:
        """Close the listener and every open connection."""
        self._lines.close()
        for talk in tuple(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await super().stop()

    @property
    def rpc_port(self) -> int:
        """The port it listens on."""
        return int(self._lines.sockets[0].getsockname()[1])

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            async with asyncio.timeout(IDLE_S):
                while self.machine.powered() and await self._line(reader, writer):
                    pass
        except (ConnectionError, TimeoutError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            self._talks.discard(task)
            writer.transport.abort()

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One question and its answer; False at the end of the connection."""
        line = await reader.readline()
        if not line:
            return False
        try:
            question = json.loads(line[:MAX_LINE_BYTES])["id"]
        except (ValueError, KeyError, TypeError):
            return False  # another protocol: it hangs up
        self.commands[str(question)] = self.commands.get(str(question), 0) + 1
        ret = returned(self.machine, str(question))
        answer = {"id": question, "ret": {"code": 1} if ret is None else {"code": 0, **ret}}
        if self.faults.silent:
            return True
        if self.faults.slow_s:
            await asyncio.sleep(self.faults.slow_s)
        said = GARBAGE if self.faults.garbage else json.dumps(answer).encode()
        writer.write(said[: len(said) // 2] if self.faults.half_open else said)
        await writer.drain()
        return True
