"""Other people's pollers: installed by the measurement itself, each in a folder of its own, and configured alike.

Versions are pinned. Nothing of them is part of the product; what cannot be installed is reported and left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PROFILE = Path(__file__).with_name("benchmark_32_floats.yaml")
BLOCKS = ((0, 60), (342, 4))
TIMEOUT_S = 0.5
INSTALL_S = 300


class PeerError(Exception):
    """A peer cannot be had here; for the result."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a peer is to do. ``period_s`` 0: as fast as it can."""

    port: int
    units: int
    period_s: float
    folder: Path


@dataclass(frozen=True, slots=True)
class Command:
    """How to start it."""

    argv: list[str]
    env: dict[str, str]
    folder: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer: its version, how it is installed (returns its folder), how it is started."""

    name: str
    version: str
    install: Callable[[Path], Path]
    command: Callable[[Path, Task], Command]


def _run(argv: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"{argv[0]}: {error}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise PeerError(f"{Path(argv[0]).name} ended with {done.returncode}: {' '.join(last)[:300]}")


def _from_pypi(name: str, *packages: str) -> Callable[[Path], Path]:
    def install(cache: Path) -> Path:
        home = cache / name
        if (home / "installed").exists():
            return home
        shutil.rmtree(home, ignore_errors=True)
        cache.mkdir(parents=True, exist_ok=True)
        uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        python = home / "bin" / "python"
        if uv is not None:
            _run([uv, "venv", "-q", "--python", sys.executable, str(home)], cache)
            _run([uv, "pip", "install", "-q", "--python", str(python), *packages], cache)
        else:
            _run([sys.executable, "-m", "venv", str(home)], cache)
            _run([str(python), "-m", "pip", "install", "-q", *packages], cache)
        (home / "installed").touch()
        return home

    return install


def _collectd(cache: Path) -> Path:
    home = cache / "collectd"
    if (home / "installed").exists():
        return home
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise PeerError(f"{tool} is not on this machine: the package is Debian's")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    _run(["apt-get", "download", "collectd-core", "libmodbus5"], home)
    for package in sorted(home.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(home)], home)
    (home / "installed").touch()
    return home


def _points() -> list[tuple[str, int]]:
    document = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    return [(point["id"], point["addr"]) for point in document["points"]]


def _modpoll(home: Path, task: Task) -> Command:
    rows: list[str] = []
    for unit in range(1, task.units + 1):
        rows.append(f"device,m{unit},{unit},,")
        for start, count in BLOCKS:
            rows.append(f"poll,input_register,{start},{count},BE_BE")
            rows += [f"ref,{name},{addr},float32,r" for name, addr in _points() if start <= addr < start + count]
    config = task.folder / "modpoll.csv"
    config.write_text("\n".join(rows) + "\n", encoding="utf-8")
    # Without a broker: polling and decoding alone, as ours is measured.
    quiet = "-d" if home.name == "modpoll" else "--no-output"
    argv = [str(home / "bin" / "modpoll"), "-f", str(config), "--tcp", "127.0.0.1", "--tcp-port", str(task.port), quiet]
    argv += ["-r", str(task.period_s or 0.001), "--interval", "0", "--timeout", str(TIMEOUT_S), "--loglevel", "ERROR"]
    return Command(argv, {}, task.folder)


def _thingsboard(home: Path, task: Task) -> Command:
    series = [
        {"tag": name, "type": "32float", "functionCode": 4, "objectsCount": 2, "address": addr}
        for name, addr in _points()
    ]
    slaves = [
        {
            "host": "127.0.0.1", "port": task.port, "type": "tcp", "method": "socket", "unitId": unit,
            "deviceName": f"m{unit}", "timeout": TIMEOUT_S, "byteOrder": "BIG", "wordOrder": "BIG", "retries": 0,
            "pollPeriod": max(1, round(1000 * task.period_s)), "timeseries": series, "attributes": [], "rpc": [],
            "attributeUpdates": [],
        }
        for unit in range(1, task.units + 1)
    ]  # fmt: skip
    config = task.folder / "thingsboard"
    config.mkdir(exist_ok=True)
    package = next((home / "lib").glob("python3*/site-packages/thingsboard_gateway"))
    gateway: dict[str, Any] = json.loads((package / "config" / "tb_gateway.json").read_text(encoding="utf-8"))
    # No broker: it reads devices all the same, and its delivery is not what is measured here.
    gateway["thingsboard"] |= {"host": "127.0.0.1", "port": 1, "remoteConfiguration": False}
    gateway["connectors"] = [{"type": "modbus", "name": "modbus", "configuration": "modbus.json"}]
    shutil.copy(package / "config" / "logs.json", config / "logs.json")
    for name, document in (("tb_gateway.json", gateway), ("modbus.json", {"master": {"slaves": slaves}})):
        (config / name).write_text(json.dumps(document), encoding="utf-8")
    return Command([str(home / "bin" / "thingsboard-gateway")], {"TB_GW_CONFIG_DIR": str(config)}, task.folder)


def _collectd_command(home: Path, task: Task) -> Command:
    period = task.period_s or 0.001
    rows = [
        'Hostname "benchmark"', "FQDNLookup false", f"Interval {period}", f'BaseDir "{task.folder}"',
        f'PIDFile "{task.folder}/collectd.pid"', f'PluginDir "{home}/usr/lib/collectd"',
        f'TypesDB "{home}/usr/share/collectd/types.db"', "LoadPlugin modbus", "<Plugin modbus>",
    ]  # fmt: skip
    names = [name for name, _ in _points()]
    for name, addr in _points():
        rows += [f'<Data "{name}">', f"RegisterBase {addr}", "RegisterType Float", "RegisterCmd ReadInput"]
        rows += ["Type gauge", f'Instance "{name}"', "</Data>"]
    rows += ['<Host "device">', 'Address "127.0.0.1"', f'Port "{task.port}"', f"Interval {period}"]
    for unit in range(1, task.units + 1):
        rows += [f"<Slave {unit}>", f'Instance "m{unit}"', *(f'Collect "{name}"' for name in names), "</Slave>"]
    rows += ["</Host>", "</Plugin>"]
    config = task.folder / "collectd.conf"
    config.write_text("\n".join(rows) + "\n", encoding="utf-8")
    libraries = ":".join(str(p.parent) for p in home.glob("usr/lib/*/libmodbus.so.5"))
    argv = [str(home / "usr" / "sbin" / "collectd"), "-f", "-C", str(config)]
    return Command(argv, {"LD_LIBRARY_PATH": libraries}, task.folder)


PEERS = (
    Peer("modpoll2mqtt", "2.4.1", _from_pypi("modpoll2mqtt", "modpoll2mqtt==2.4.1"), _modpoll),
    Peer("modpoll", "1.6.0", _from_pypi("modpoll", "modpoll==1.6.0"), _modpoll),
    Peer(
        "thingsboard-gateway",
        "3.8.5",
        _from_pypi("thingsboard-gateway", "thingsboard-gateway==3.8.5", "pymodbus==3.9.2", "pyserial==3.5",
                   "pyserial-asyncio==0.6"),
        _thingsboard,
    ),
    Peer("collectd", "5.12 (Debian)", _collectd, _collectd_command),
)  # fmt: skip


def cache_folder() -> Path:
    """Where peers are installed once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tizgin-benchmarks"
