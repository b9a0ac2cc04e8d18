"""The command line's promises: lazy imports, exit codes, one clear line per error."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from tizgin import __version__
from tizgin.cli import COMMANDS, CommandSpec, run
from tizgin.errors import UserError

HEAVY = (
    "agent",
    "central",
    "config",
    "drivers",
    "grid",
    "simulator",
    "wire",
    "nicegui",
    "fastapi",
    "sqlalchemy",
    "aiohttp",
)

SAMPLE = '''
"""A sub-command of the tests."""
import typer
from tizgin.errors import UserError

app = typer.Typer()

@app.command()
def sample(what: str = typer.Option(...)) -> int | None:
    """Does what it is told."""
    match what:
        case "ok": print("done"); return None
        case "three": return 3
        case "exit": raise typer.Exit(5)
        case "wrong": raise UserError("site.yaml: 'meterz' is not a key, expected 'meters'", exit_code=2)
        case "problem": raise UserError("meter M1 does not answer")
        case "interrupt": raise KeyboardInterrupt
        case "crash": raise RuntimeError("first line\\nsecond line")
        case "chatter": print("x"); raise SystemExit(9)
'''


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, CommandSpec]:
    """A table of two loadable commands, one that may never be imported, and one whose module is absent."""
    (tmp_path / "house_sample.py").write_text(SAMPLE)
    (tmp_path / "house_mine.py").write_text("raise AssertionError('imported')\n")
    (tmp_path / "house_extra.py").write_text("import a_library_nobody_installed\n")
    (tmp_path / "house_bare.py").write_text("app = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("house_sample", "house_mine", "house_extra", "house_bare"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return {
        "sample": CommandSpec("house_sample", "A sample."),
        "verdict": CommandSpec("house_sample", "A sample with verdicts.", wrong_use=4, failure=4),
        "mine": CommandSpec("house_mine", "Explodes when imported."),
        "extra": CommandSpec("house_extra", "Needs a library."),
        "bare": CommandSpec("house_bare", "Exposes no app."),
        "absent": CommandSpec("house_absent", "Not written."),
    }


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )


IMPORTED_AFTER = """
    import sys
    from tizgin.cli import run
    code = run(sys.argv[1:])
    print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
    sys.exit(code)
"""


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("no-such-command",)])
def test_top_level_loads_no_package_of_the_product(arguments: tuple[str, ...]) -> None:
    outcome = python(IMPORTED_AFTER, *arguments)
    loaded = set(outcome.stdout.rpartition("LOADED")[2].split())
    assert "typer" in loaded, outcome.stderr
    assert loaded.isdisjoint({*HEAVY, "verifier"})


def test_verify_loads_only_the_verifier() -> None:
    outcome = python(IMPORTED_AFTER, "verify", "--help")
    loaded = set(outcome.stdout.rpartition("LOADED")[2].split())
    assert outcome.returncode == 0, outcome.stderr
    assert loaded.isdisjoint(HEAVY)


def test_help_lists_what_exists_without_importing_it(
    commands: Mapping[str, CommandSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--help"], commands) == 0
    shown = capsys.readouterr().out
    assert "mine" in shown
    assert "Explodes when imported." in shown
    assert "absent" not in shown
    assert "house_mine" not in sys.modules


def test_running_one_command_imports_no_other(
    commands: Mapping[str, CommandSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sample", "--what", "ok"], commands) == 0
    assert capsys.readouterr().out == "done\n"
    assert "house_mine" not in sys.modules


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("sample", "--what", "three"), 3, ""),
        (("sample", "--what", "exit"), 5, ""),
        (("sample", "--what", "interrupt"), 130, ""),
        (("sample", "--what", "wrong"), 2, "tizgin: site.yaml: 'meterz' is not a key, expected 'meters'\n"),
        (("sample", "--what", "problem"), 1, "tizgin: meter M1 does not answer\n"),
        (
            ("sample", "--what", "crash"),
            1,
            "tizgin: unexpected RuntimeError: first line second line (TIZGIN_DEBUG=1 shows where)\n",
        ),
        (("bare",), 1, "tizgin: unexpected TypeError: house_bare.app is int, expected typer.Typer"),
        (("extra",), 1, "tizgin: the library 'a_library_nobody_installed' is not installed"),
        (("sample",), 2, "tizgin sample: Missing option '--what'"),
        (("sample", "--whta", "ok"), 2, "tizgin sample: No such option: --whta"),
        (("smaple",), 2, "tizgin: there is no command 'smaple', did you mean 'sample'?"),
        (("absent",), 2, "tizgin: there is no command 'absent'"),
        (("--nope",), 2, "tizgin: No such option: --nope"),
        (("verdict", "--what", "three"), 3, ""),
        (("verdict",), 4, "tizgin verdict: Missing option '--what'"),
        (("verdict", "--what", "crash"), 4, "tizgin: unexpected RuntimeError"),
    ],
)
def test_exit_codes_and_the_one_line_of_an_error(
    arguments: tuple[str, ...],
    code: int,
    error: str,
    commands: Mapping[str, CommandSpec],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TIZGIN_DEBUG", raising=False)
    assert run(arguments, commands) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(error)
    assert captured.err.count("\n") == (1 if error else 0)


def test_debug_shows_where_an_unexpected_error_came_from(
    commands: Mapping[str, CommandSpec], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIZGIN_DEBUG", "1")
    assert run(["sample", "--what", "crash"], commands) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "house_sample.py" in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"tizgin {__version__}\n"


def test_every_command_of_the_table_is_named_like_its_module() -> None:
    assert {name: spec.module for name, spec in COMMANDS.items()} == {
        name: f"tizgin.commands.{name}" for name in COMMANDS
    }


def test_an_error_cannot_claim_success() -> None:
    with pytest.raises(ValueError, match="cannot exit with 0"):
        UserError("nothing", exit_code=0)
