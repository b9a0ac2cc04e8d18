"""An Avalon, simulated: one string of fields per machine module, soft off and on at a time of its own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time

from simulator.devices import asic_answers as say
from simulator.devices.asic_answers import Json
from simulator.devices.asic_server import JsonServer
from simulator.devices.models import MachineModel

MAX_LEAD_S = 3600.0
COMPILED = "23042501_6d4cd98_d3a493a"


def module_fields(machine: MachineModel, *, power_limit_w: int = 3515) -> str:
    """The string under ``MM ID0``."""
    plate, asleep = machine.nameplate, machine.asleep()
    rate = machine.hashrate_ths()
    share = rate / plate.hashrate_ths
    hot = round(30 + 50 * share)
    work = "In Idle" if asleep and rate < 0.1 else "In Work"
    per_board = " ".join(f"{rate * 1000 / plate.boards:.2f}" for _ in range(plate.boards))
    hottest = " ".join(str(hot - at) for at in range(plate.boards))
    fans = " ".join(f"Fan{at}[{round(900 + 4500 * share)}]" for at in range(1, plate.fans + 1))
    chips = " ".join(f"PVT_T{at}[{' '.join([str(hot - 5)] * plate.chips_per_board)}]" for at in range(plate.boards))
    return (
        f"Ver[1346-116-{COMPILED}] DNA[{plate.serial}] MEMFREE[2059656.2059656] NETFAIL[0 0 0 0 0 0 0 0] "
        f"SYSTEMSTATU[Work: {work}, Hash Board: {plate.boards} ] Elapsed[{int(machine.uptime_s())}] "
        f"Temp[30] TMax[{hot}] TAvg[{hot - 10}] {fans} FanR[{round(20 + 60 * share)}%] "
        f"PS[0 1205 2353 113 {round(machine.power_w())} 2345] GHSspd[{rate * 1000:.2f}] DHspd[1.000%] "
        f"GHSmm[{plate.hashrate_ths * 1000:.2f}] GHSavg[{plate.hashrate_ths * 990:.2f}] Freq[571.27] "
        f"MGHS[{per_board}] MTmax[{hottest}] TA[{plate.boards * plate.chips_per_board}] Core[A3200C] "
        f"SoftOFF[{1 if asleep else 0}] ECHU[{' '.join(['0'] * plate.boards)}] ECMM[0] {chips} "
        f"CRC[{' '.join(['0'] * plate.boards)}] MPO[{power_limit_w}] WORKMODE[1]"
    )


class AvalonMiner(JsonServer):
    """Canaan's firmware on one machine.

    Args:
        machine: the machine behind.
        clock_ahead_s: how far its own clock is ahead of true time; machines without a time server count from their
            start, which is a large negative one.
        time_scale: delays of the firmware are divided by it.
        wall: UTC clock in seconds.
    """

    description = "cgminer 4.11.1"

    def __init__(
        self,
        machine: MachineModel,
        *,
        clock_ahead_s: float = 0.0,
        time_scale: float = 1.0,
        wall: Callable[[], float] = time,
    ) -> None:
        self.clock_ahead_s = clock_ahead_s
        super().__init__(machine, time_scale=time_scale, wall=lambda: wall() + self.clock_ahead_s)
        self._scale = time_scale
        self._clock = wall
        self._pending: asyncio.TimerHandle | None = None

    async def stop(self) -> None:
        """See :class:`JsonServer`."""
        if self._pending is not None:
            self._pending.cancel()
        await super().stop()

    def answer(self, command: str, parameter: str) -> Json:
        """See :class:`JsonServer`."""
        if "+" in command:
            return {**{name: [self.answer(name, "")] for name in command.split("+")[:16]}, "id": 1}
        machine, plate = self.machine, self.machine.nameplate
        match command:
            case "version":
                row = {
                    "CGMiner": "4.11.1",
                    "API": "3.7",
                    "PROD": f"AvalonMiner {plate.model}",
                    "MODEL": "1346-116",
                    "VERSION": COMPILED,
                    "DNA": plate.serial,
                    "MAC": plate.mac.replace(":", ""),
                }
                return self.ok(22, "CGMiner versions", "VERSION", [row])
            case "summary":
                return self._summary()
            case "estats" | "stats":
                stats: Json = {
                    "STATS": 0,
                    "ID": "AVA100",
                    "Elapsed": int(machine.uptime_s()),
                    "MM ID0": module_fields(machine),
                }
                return self.ok(70, "CGMiner stats", "STATS", [stats])
            case "pools":
                return say.pools(machine, self.description, self._clock() + self.clock_ahead_s)
            case "ascset":
                return self._ascset(parameter)
            case _:
                return self.error(say.INVALID_COMMAND, "Invalid command")

    def _summary(self) -> Json:
        # The average since the start stays high, as it does on real ones after they fell asleep.
        average = self.machine.nameplate.hashrate_ths * 1e6
        row = {"Elapsed": int(self.machine.uptime_s()), "MHS av": average, "Accepted": 1200, "Rejected": 3}
        row["MHS 5s"] = self.machine.hashrate_ths() * 1e6
        return self.ok(11, "Summary", "SUMMARY", [row])

    def _ascset(self, parameter: str) -> Json:
        parts = parameter.split(",")
        verb = parts[1] if len(parts) > 1 else ""
        if verb not in ("softoff", "softon") or len(parts) != 3 or not parts[2].startswith("1:"):
            return self.error(120, "ASC 0 set failed: unknown option")
        at = parts[2].removeprefix("1:")
        lead_s = int(at) - (self._clock() + self.clock_ahead_s) if at.isdecimal() else MAX_LEAD_S + 1
        if lead_s > 0 and lead_s <= MAX_LEAD_S:
            act = self.go_to_sleep if verb == "softoff" else self.machine.request_wake
            self._pending = asyncio.get_running_loop().call_later(lead_s / self._scale, act)
        elif lead_s <= 0:
            (self.go_to_sleep if verb == "softoff" else self.machine.request_wake)()
        message = f"ASC 0 set info: success {verb}:{at}"
        status = say.status("I", 118, message, self.description, self._clock() + self.clock_ahead_s)
        return {"STATUS": status, "id": 1}
