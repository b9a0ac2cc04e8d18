"""An installer's afternoon: scan, probe, read, a new profile, against a simulated site that runs as a process."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ports import free_ports, port_run
from typer.testing import CliRunner

from tizgin.cli import run
from tizgin.commands.profile import app as profile_app
from tizgin.commands.read import app as read_app
from tizgin.commands.scan import app as scan_app
from tizgin.commands.scan import remarks

RUN = CliRunner()
TIZGIN = [sys.executable, "-c", "from tizgin.cli import main; main()"]
EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "small.yaml"
MINERS = 2


@dataclass(frozen=True)
class Plant:
    """A running simulated site."""

    file: Path
    meters: int
    relay: int
    rpc: int

    @property
    def meter_line(self) -> str:
        return f"modbus://127.0.0.1:{self.meters}"

    @property
    def relay_line(self) -> str:
        return f"modbus://127.0.0.1:{self.relay}"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """The small example site on loopback; its first feeder has a meter that describes itself."""
    folder = tmp_path_factory.mktemp("plant")
    meters, relay = free_ports(2)
    rpc = port_run(4 * MINERS)
    text = EXAMPLE.read_text(encoding="utf-8")
    text = text.replace("10.1.1.2:502", f"127.0.0.1:{relay}").replace("10.1.2.2:502", f"127.0.0.1:{meters}")
    text = text.replace(
        "id: em-1, kind: meter, profile: eastron-sdm630", "id: em-1, kind: meter, profile: sunspec-meter"
    )
    for rack, first in (("16", rpc), ("17", rpc + 2 * MINERS)):
        last = first + MINERS - 1
        text = re.sub(rf"rpc: 10\.1\.{rack}\.\S+", f"rpc: 127.0.0.1:{first}-{last}", text)
        text = re.sub(rf"http: 10\.1\.{rack}\.\S+", f"http: 127.0.0.1:{first + MINERS}-{last + MINERS}", text)
    secret = folder / "miners"
    secret.write_text("secret", encoding="utf-8")
    text = text.replace("/etc/tizgin/secrets/miners", str(secret))
    file = folder / "small.yaml"
    file.write_text(text, encoding="utf-8")
    with (folder / "simulate.log").open("w") as log:
        process = subprocess.Popen(
            [*TIZGIN, "simulate", str(file), "--json"], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (folder / "simulate.log").read_text()
            yield Plant(file, meters, relay, rpc)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
            if process.stdout is not None:
                process.stdout.close()


def tizgin(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TIZGIN, *arguments], capture_output=True, text=True, check=False, timeout=110)


def inside(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in this process: starting an interpreter for each look takes longer than the look."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(list(arguments))
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())


# -- scan ------------------------------------------------------------------------------------------------------------


def test_scan_finds_the_meters_of_a_line_and_says_what_they_are(plant: Plant) -> None:
    found = tizgin("scan", f"{plant.meter_line}/1-5", "--timeout", "0.3", "--json")
    assert found.returncode == 0, found.stderr
    rows = {row["url"].rpartition("/")[2]: row for row in json.loads(found.stdout)}
    assert {unit: row["profile"] for unit, row in rows.items()} == {
        "1": "eastron-sdm630",
        "2": "sunspec-meter",
        "3": "eastron-sdm630",
        "4": "eastron-sdm630",
        "5": "eastron-sdm630",
    }
    assert all(row["confidence"] > 0.8 for row in rows.values())
    assert rows["1"]["points"]["power_w"]["quality"] == "good"
    assert "asking" not in found.stderr, "no progress bar in a pipe"


def test_scan_leaves_relay_outputs_alone_and_says_that_something_is_there(plant: Plant) -> None:
    before = json.loads(inside("read", "--config", str(plant.file), "io-1", "--json").stdout)
    result = RUN.invoke(scan_app, [f"{plant.relay_line}/1-2", "--timeout", "0.3", "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert row["profile"] is None
    assert row["reason"]
    after = json.loads(inside("read", "--config", str(plant.file), "io-1", "--json").stdout)
    assert after["outputs"] == before["outputs"]


def test_scan_finds_miners_by_their_own_interface(plant: Plant) -> None:
    result = RUN.invoke(scan_app, [f"asic://127.0.0.1-2:{plant.rpc}?http={plant.rpc + MINERS}", "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert row["family"] == "antminer-stock"


def test_scan_of_nothing_exits_1_with_advice(plant: Plant) -> None:
    (nobody,) = free_ports(1)
    result = inside("scan", f"modbus://127.0.0.1-3:{nobody}/1", "--timeout", "0.1")
    assert result.returncode == 1
    assert result.stdout == ""
    assert "check power, wiring, address" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://127.0.0.1"], "expected modbus, rtu, rtutcp, asic or snmp"),
        (["modbus://10.0.0.9-1/1"], "the lower end first"),
        (["modbus://10.0.0.1-10.9.0.1/1"], "expected 1 to 1024"),
        (["modbus://10.0.0.1/0-300"], "units"),
        (["modbus://10.0.0.1-200/1-247"], "at most 16384"),
        (["asic://user:secret@10.0.0.1"], "never stands in an address"),
        (["snmp://10.0.0.1-3"], "which secret"),
        (["modbus://10.0.0.1/1", "--timeout", "900"], "0.02 to 30"),
    ],
)
def test_scan_called_wrongly_says_so_and_exits_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["scan", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "secret@" not in err


def test_remarks_name_what_an_installer_must_know() -> None:
    row = {
        "profile": "a",
        "indistinguishable": ["b"],
        "address_shift": -1,
        "candidates": [{"swapped": True}],
        "reason": None,
    }
    assert remarks(row) == (
        "or b: cannot be told apart; addresses -1 against the profile; word order against the profile"
    )


# -- probe -----------------------------------------------------------------------------------------------------------


def test_probe_guesses_with_reasons(plant: Plant) -> None:
    found = tizgin("probe", f"{plant.meter_line}/1", "--guess", "--json")
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["profile"] == "eastron-sdm630"
    assert told["candidates"][0]["identified"] is True
    assert told["candidates"][0]["reasons"]
    assert told["indistinguishable"] == []
    text = inside("probe", f"{plant.meter_line}/1", "--guess")
    assert "guess 1: eastron-sdm630, confidence" in text.stdout
    assert "for      its identity registers hold what the profile says" in text.stdout


def test_probe_reads_a_meter_by_its_own_directory(plant: Plant) -> None:
    for how in (["--guess"], ["--profile", "sunspec-meter"]):
        told = json.loads(inside("probe", f"{plant.meter_line}/2", *how, "--json").stdout)
        assert told["profile"] == "sunspec-meter"
        assert [model["model"] for model in told["sunspec"]] == [1, 203]
        assert told["points"]["energy_import_wh"]["quality"] == "good"
        assert 45 < told["points"]["frequency_hz"]["value"] < 65


def test_probe_of_a_silent_unit_exits_1(plant: Plant) -> None:
    found = inside("probe", f"{plant.meter_line}/9", "--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["responds"] is False


# -- read ------------------------------------------------------------------------------------------------------------


def test_read_shows_value_unit_quality_and_the_registers_behind(plant: Plant) -> None:
    result = RUN.invoke(read_app, ["--config", str(plant.file), "em-0", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    volts = told["points"]["voltage_l1_n_v"]
    assert (volts["unit"], volts["quality"], volts["table"], volts["address"]) == ("V", "good", "input", 0)
    assert re.fullmatch(r"[0-9a-f]{4} [0-9a-f]{4}", volts["raw"])
    words = volts["raw"].replace(" ", "")
    decoded = RUN.invoke(
        profile_app, ["decode", "eastron-sdm630", "--table", "input", "--address", "0", "--hex", words, "--json"]
    )
    assert json.loads(decoded.stdout) == {"voltage_l1_n_v": volts["value"]}
    text = inside("read", "--config", str(plant.file), "em-0")
    assert text.returncode == 0
    assert re.search(r"power_w +[\d,.]+ W +good +input 52\+2", text.stdout)


def test_read_follows_the_directory_of_a_sunspec_meter(plant: Plant) -> None:
    told = json.loads(inside("read", "--config", str(plant.file), "em-1", "--json").stdout)
    assert told["responds"] is True
    assert told["points"]["power_w"]["address"] == 40088
    assert told["points"]["energy_import_wh"]["quality"] == "good"


def test_read_shows_outputs_and_inputs_of_a_relay_board(plant: Plant) -> None:
    told = json.loads(inside("read", "--config", str(plant.file), "io-1", "--json").stdout)
    assert told["kind"] == "relay"
    assert {"relay_1", "relay_2"} <= set(told["outputs"])
    assert None not in told["inputs"].values()


def test_read_of_what_is_not_there_says_what_there_is(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["read", "--config", str(plant.file), "em-9"]) == 2
    assert "expected one of io-1, em-0, em-1, em-2" in capsys.readouterr().err
    assert run(["read", "--config", str(plant.file.parent / "absent.yaml"), "em-0"]) == 1


# -- profile ---------------------------------------------------------------------------------------------------------


def test_a_new_profile_loads_is_never_overwritten_and_can_be_tried_on_a_meter(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my_meter.yaml"
    assert run(["profile", "new", str(file)]) == 0
    assert run(["profile", "test", str(file)]) == 0
    written = file.read_text(encoding="utf-8")
    assert run(["profile", "new", str(file)]) == 1
    assert file.read_text(encoding="utf-8") == written
    assert run(["profile", "new", str(tmp_path / "My Meter.yaml")]) == 2
    capsys.readouterr()
    assert run(["profile", "test", str(file), "--url", f"{plant.meter_line}/1", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row["vectors"] == 3
    assert any("power_w" in problem for problem in row["problems"])


def test_a_profile_that_fits_passes_on_the_meter(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "test", "eastron-sdm630", "--url", f"{plant.meter_line}/3"]) == 0
    assert "power_w" in capsys.readouterr().out
    assert run(["profile", "test", "sunspec-meter", "--url", f"{plant.meter_line}/2"]) == 0
    assert run(["profile", "test", "--url", f"{plant.meter_line}/2"]) == 2
    assert run(["profile", "test", "eastron-sdm630", "--url", f"{plant.meter_line}/9"]) == 1


def test_the_plan_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "show", "eastron-sdm630", "--plan", "--points", "power_w,energy_import_wh", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert [(b["fc"], b["addr"], b["count"], b["points"]) for b in plan] == [
        (4, 52, 2, ["power_w"]),
        (4, 72, 2, ["energy_import_wh"]),
    ]
    assert "hole of 18 registers" in plan[1]["why"]
    assert run(["profile", "show", "eastron-sdm630", "--plan"]) == 0
    assert "requests" in capsys.readouterr().out
    assert run(["profile", "show", "eastron-sdm630", "--plan", "--points", "colour"]) == 2
    assert run(["profile", "show", "eastron-sdm630", "--points", "power_w"]) == 2


# -- another master's eyes -------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("mbpoll") is None, reason="left out: mbpoll is not installed (apt install mbpoll)")
def test_mbpoll_sees_the_same_directory(plant: Plant) -> None:
    def poll(address: int, kind: str) -> str:
        where = ["-p", str(plant.meters), "-a", "2", "-0", "-r", str(address), "-c", "2", "-t", kind]
        command = ["mbpoll", "-m", "tcp", *where, "-1", "127.0.0.1"]
        seen = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        assert seen.returncode == 0, seen.stdout + seen.stderr
        return seen.stdout

    assert re.findall(r"0x([0-9A-F]{4})", poll(40000, "4:hex")) == ["5375", "6E53"]
    assert re.findall(r"\[\d+\]:\s+(\d+)", poll(40070, "4")) == ["203", "105"]
