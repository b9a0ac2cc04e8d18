"""What simulated miners say: the shapes and quirks of real answers, filled from the machine behind. Pure functions."""

from __future__ import annotations

from typing import Any

from simulator.devices.models import MachineModel, Mode

Json = dict[str, Any]
COMPILED = "Fri Nov 17 17:37:21 CST 2023"
LUX_VERSION = "2025.4.8.220305"
INVALID_COMMAND = 14
ACCESS_DENIED = 45


def status(letter: str, code: int, message: str, description: str, when_s: float) -> list[Json]:
    """The ``STATUS`` list at the head of each answer."""
    return [{"STATUS": letter, "When": int(when_s), "Code": code, "Msg": message, "Description": description}]


def error(code: int, message: str, description: str, when_s: float) -> Json:
    """An error answer."""
    return {"STATUS": status("E", code, message, description, when_s), "id": 1}


def _ghs(machine: MachineModel) -> float:
    return round(machine.hashrate_ths() * 1000, 2)


def _load(machine: MachineModel) -> float:
    return machine.hashrate_ths() / machine.nameplate.hashrate_ths if machine.nameplate.hashrate_ths else 0.0


def _degrees(machine: MachineModel) -> int:
    return round(25 + 45 * _load(machine))


def _rpm(machine: MachineModel) -> int:
    return round(900 + 4800 * _load(machine))


def summary(machine: MachineModel, description: str, when_s: float) -> Json:
    """``summary``: hash rates in GH/s."""
    rate, uptime = _ghs(machine), int(machine.uptime_s())
    row = {
        "Elapsed": uptime,
        "GHS 5s": rate,
        "GHS av": rate,
        "Found Blocks": 0,
        "Accepted": uptime // 4,
        "Rejected": uptime // 4000,
        "Hardware Errors": 12,
        "Utility": 14.35,
        "Stale": 3,
        "Pool Rejected%": 0.04,
    }
    return {"STATUS": status("S", 11, "Summary", description, when_s), "SUMMARY": [row], "id": 1}


def pools(machine: MachineModel, description: str, when_s: float) -> Json:
    """``pools``: the first is the active one while the machine mines."""
    uptime, mining = int(machine.uptime_s()), machine.mode != Mode.SLEEP
    rows = [
        {
            "POOL": number,
            "URL": pool.url,
            "Status": "Alive" if mining and pool.alive and number == 0 else "Dead",
            "Priority": number,
            "Accepted": uptime // 4 if number == 0 else 0,
            "Rejected": uptime // 4000 if number == 0 else 0,
            "Stale": 0,
            "User": pool.user,
            "Stratum Active": mining and pool.alive and number == 0,
            "Stratum URL": pool.url.partition("//")[2],
        }
        for number, pool in enumerate(machine.pools)
    ]
    return {"STATUS": status("S", 7, f"{len(rows)} Pool(s)", description, when_s), "POOLS": rows, "id": 1}


def stats(machine: MachineModel, head: Json, description: str, when_s: float) -> Json:
    """``stats``: one wide object, chain rates as strings, an empty string for a slot without a board."""
    plate, rate, degrees = machine.nameplate, _ghs(machine), _degrees(machine)
    row: Json = {
        "STATS": 0,
        "ID": "BTM_SOC0",
        "Elapsed": int(machine.uptime_s()),
        "GHS 5s": str(rate),  # a string here and a number in summary, as real ones do
        "GHS av": rate,
        "rate_30m": rate,
        "rate_unit": "GH",
        "Mode": 2,
        "miner_count": plate.boards,
        "frequency": 675,
        "fan_num": plate.fans,
        "temp_num": plate.boards,
        "total_rateideal": plate.hashrate_ths * 1000,
        "total_acn": plate.boards * plate.chips_per_board,
        "temp_max": degrees,
    }
    for fan in range(1, plate.fans + 1):
        row[f"fan{fan}"] = _rpm(machine) + 30 * fan
    for board in range(1, 5):
        present = board <= plate.boards
        chips = plate.chips_per_board if present else 0
        sensors = f"{degrees}-{degrees - 8}-{degrees}-{degrees - 8}" if present else "0-0-0-0"
        row[f"chain_acn{board}"] = chips
        row[f"chain_acs{board}"] = "".join(f" {'o' * 8}" for _ in range(chips // 8)) + " " + "o" * (chips % 8)
        row[f"chain_hw{board}"] = 0
        row[f"chain_rate{board}"] = f"{rate / plate.boards:.2f}" if present else ""
        row[f"temp_pcb{board}"] = row[f"temp_chip{board}"] = sensors
    return {"STATUS": status("S", 70, "stats", description, when_s), "STATS": [head, row], "id": 1}


def stock_head(machine: MachineModel) -> Json:
    """What Bitmain's firmware says of itself."""
    return {
        "BMMiner": "1.0.0",
        "Miner": "49.0.1.3",
        "CompileTime": COMPILED,
        "Type": machine.nameplate.model,
    }


def stock_system_info(machine: MachineModel) -> Json:
    """``get_system_info.cgi``."""
    return {
        "minertype": machine.nameplate.model,
        "nettype": "DHCP",
        "netdevice": "eth0",
        "macaddr": machine.nameplate.mac.upper(),
        "hostname": "Antminer",
        "system_mode": "GNU/Linux",
        "system_filesystem_version": COMPILED,
        "firmware_type": "release",
        "serinum": machine.nameplate.serial,
    }


def stock_conf(machine: MachineModel, kept: Json) -> Json:
    """``get_miner_conf.cgi``: the mode as a string under the old name and a number under the new one."""
    pools_ = [{"url": pool.url, "user": pool.user, "pass": "x"} for pool in machine.pools]
    return {
        "pools": pools_,
        "api-listen": True,
        "api-network": True,
        "api-groups": "A:stats:pools:devs:summary:version",
        "api-allow": "A:0/0,W:*",
        "bitmain-fan-ctrl": False,
        "bitmain-fan-pwm": "100",
        "bitmain-use-vil": True,
        "bitmain-freq": "675",
        "bitmain-voltage": "1400",
        "bitmain-ccdelay": "0",
        "bitmain-pwth": "0",
        "bitmain-freq-level": "100",
        **kept,
        "bitmain-work-mode": str(int(machine.mode)),
        "miner-mode": int(machine.mode),
    }


def stock_web_stats(machine: MachineModel, when_s: float) -> Json:
    """``stats.cgi``: empty ``STATS`` while asleep."""
    plate, rate = machine.nameplate, _ghs(machine)
    listed = []
    if machine.mode != Mode.SLEEP:
        degrees = _degrees(machine)
        chains = [
            {
                "index": board,
                "rate_real": rate / plate.boards,
                "asic_num": plate.chips_per_board,
                "temp_pcb": [degrees - 8, degrees],
                "temp_chip": [degrees - 8, degrees],
                "hw": 0,
            }
            for board in range(plate.boards)
        ]
        listed = [
            {
                "elapsed": int(machine.uptime_s()),
                "rate_5s": rate,
                "rate_ideal": plate.hashrate_ths * 1000,
                "rate_unit": "GH/s",
                "chain_num": plate.boards,
                "fan_num": plate.fans,
                "fan": [_rpm(machine)] * plate.fans,
                "chain": chains,
            }
        ]
    info = {"miner_version": "49.0.1.3", "CompileTime": COMPILED, "type": plate.model}
    head = {"STATUS": "S", "when": int(when_s), "Msg": "stats", "api_version": "1.0.0"}
    return {"STATUS": head, "INFO": info, "STATS": listed}


def lux_head(machine: MachineModel) -> Json:
    """What LuxOS says of itself."""
    return {"CompileTime": "Tue Apr  8 22:05:35 UTC 2025", "Miner": LUX_VERSION, "Type": machine.nameplate.model}


def lux_config(machine: MachineModel) -> Json:
    """One ``CONFIG`` row."""
    plate, asleep = machine.nameplate, machine.mode == Mode.SLEEP
    return {
        "ASC Count": plate.boards,
        "CurtailMode": "Sleep" if asleep else "None",
        "Hostname": "miner",
        "IsAtmEnabled": True,
        "IsPowerSupplyOn": not asleep,
        "MACAddr": plate.mac,
        "Model": plate.model,
        "NameplateTHS": plate.hashrate_ths,
        "OS": "LuxOS",
        "SerialNumber": plate.serial,
        "SystemStatus": "Normal",
    }
