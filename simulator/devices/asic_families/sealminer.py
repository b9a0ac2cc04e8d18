"""A Sealminer, simulated: cgminer's JSON with one wide ``stats`` row, suspend and restart on the same socket."""

from __future__ import annotations

from simulator.devices import asic_answers as say
from simulator.devices.asic_answers import Json
from simulator.devices.asic_server import JsonServer
from simulator.devices.models import MachineModel


def stats_row(machine: MachineModel, *, suspended_word: str = "Suspended") -> Json:
    """The row of ``stats``."""
    plate, rate = machine.nameplate, machine.hashrate_ths() * 1e6
    state = suspended_word if machine.asleep() else "Running"
    row: Json = {
        "STATS": 0,
        "ID": "A20",
        "ASIC": "Seal02-V1",
        "Model": "A2",
        "Firmware": "2025091001",
        "MAC": plate.mac,
        "Ctrl Board SN": plate.serial,
        "Elapsed": int(machine.uptime_s()),
        "PM State": state,
        "Mining Mode": "Normal",
        "MHS(30s)": rate,
        "MHS(1m)": rate,
        "MHS(Avg)": plate.hashrate_ths * 0.99e6,
        "MHS(Rated)": plate.hashrate_ths * 1e6,
        "PSU Input Power": round(machine.power_w()),
        "PSU Error": "0x00000000",
        "Power Limit": 3500,
        "Temp": 70 if rate else 25,
        "Error Code": "",
        "Error Chip": "",
        "Board Count": plate.boards,
        "Fan Count": plate.fans,
    }
    for fan in range(plate.fans):
        row[f"{fan} Speed"] = 3700
    for board in range(plate.boards):
        row[f"{board} Online"] = True
        row[f"{board} Chip Count"] = plate.chips_per_board
        row[f"{board} Bad Chip Count"] = 0
        row[f"{board} MHS(Sample)"] = rate / plate.boards
        for sensor in range(4):
            row[f"{board} Temp {sensor}"] = 50 + 5 * sensor if rate else 25
    return row


class SealminerMiner(JsonServer):
    """Bitdeer's firmware on one machine. ``suspended_word`` is what it calls itself while suspended."""

    description = "bdminer 4.11.1"
    suspended_word = "Suspended"

    def answer(self, command: str, parameter: str) -> Json:
        """See :class:`JsonServer`."""
        if "+" in command:
            return {**{name: [self.answer(name, "")] for name in command.split("+")[:16]}, "id": 1}
        match command:
            case "version":
                return self.ok(22, "BDMiner versions", "VERSION", [{"API": "3.7", "BDMiner": "4.11.1"}])
            case "stats":
                row = stats_row(self.machine, suspended_word=self.suspended_word)
                return self.ok(70, "BDMiner stats", "STATS", [row])
            case "ascset" if parameter == "0,suspend":
                self.go_to_sleep()
                return self.ok(119, "ASC 0 set OK", "ASC", [])
            case "restart":
                self.machine.request_wake()
                return {"STATUS": "RESTART"}
            case _:
                return self.common_reading(command, {}) or self.error(say.INVALID_COMMAND, "Invalid command")
