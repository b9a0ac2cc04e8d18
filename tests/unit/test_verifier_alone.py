"""The verifier in one file, and in several processes: the same verdict, to the byte."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_kit import EPOCH, SLOTS, Site, framed, gap, good_site, judged, ordered, signed_line

from verifier.build import archive, main, sources

M1 = f"records/{EPOCH}/mp_M1.tzr"


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site(witnessed=True)


@pytest.fixture
def site(template: Site) -> Site:
    again = copy.copy(template)
    again.streams, again.register = copy.deepcopy(template.streams), copy.deepcopy(template.register)
    return again


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pyz") / "verifier.pyz"
    assert main([str(out)]) == 0
    return out


def run(pyz: Path, folder: Path, site: Site, *more: str) -> subprocess.CompletedProcess[bytes]:
    words = ["b.zip", "--trust", "trust.json", "--period", f"{site.first}/{site.last}", *more]
    return subprocess.run(
        [sys.executable, "-I", str(pyz), *words], capture_output=True, cwd=folder, env={}, check=False, timeout=120
    )


def test_the_one_file_has_the_same_bytes_at_any_time_and_line_end(
    pyz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 4_102_444_800.0)
    assert main([str(tmp_path / "other.pyz")]) == 0
    assert (tmp_path / "other.pyz").read_bytes() == pyz.read_bytes()
    foreign = {name: data.replace(b"\n", b"\r\n") for name, data in reversed(sources().items())}
    assert archive(foreign) == pyz.read_bytes()


def test_the_one_file_holds_the_verifier_and_nothing_else(pyz: Path, repository: Path) -> None:
    with zipfile.ZipFile(pyz) as made:
        names = set(made.namelist())
    own = {path.relative_to(repository).as_posix() for path in (repository / "verifier").rglob("*.py")}
    assert names == {"__main__.py"} | own
    assert "verifier/plausible/rules.py" in names


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_one_file_alone_verifies_a_bundle(pyz: Path, site: Site, tmp_path: Path, jobs: str) -> None:
    expected = judged(tmp_path, site).to_json() + "\n"
    done = run(pyz, tmp_path, site, "--json", "-", "--jobs", jobs)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == expected


def test_the_one_file_refuses_what_is_to_be_refused(pyz: Path, site: Site, tmp_path: Path) -> None:
    site.streams["mp:M1"][4]["wh"] += 1
    judged(tmp_path, site)
    done = run(pyz, tmp_path, site)
    assert done.returncode == 2
    assert b"DELTA" in done.stdout
    assert run(pyz, tmp_path, site, "--jobs", "0").returncode == 4


@pytest.mark.parametrize("words", [[], ["--help"], ["a", "b"], ["/nowhere/at/all.pyz"]])
def test_building_says_what_is_wrong(words: list[str]) -> None:
    assert main(words) == 4


def wrong_energy(site: Site) -> bytes:
    site.streams["mp:M2"][5]["wh"] += 1
    return site.pack()


def gaps(site: Site) -> bytes:
    gap(site, "mp:M1", range(3, 5))
    return site.pack()


def other_key(site: Site) -> bytes:
    files = site.files()
    files[M1] = files[M1][:-20] + b"A" * 19 + b"\n"
    return site.pack(ordered(files))


def kept_back(site: Site) -> bytes:
    files = site.files()
    lines = files[M1].splitlines(keepends=True)
    name = f"records/{EPOCH}/mp_M1.idx"
    return site.pack(ordered(files | {M1: b"".join(lines[:-2]), name: files[name][:-16]}))


def hostile(site: Site) -> bytes:
    files = site.files()
    return site.pack(ordered(files | {M1: files[M1] + signed_line(site, b'{"a":' + b"[" * 9000 + b"]" * 9000 + b"}")}))


def unwitnessed(site: Site) -> bytes:
    site.anchored = False
    return site.pack(ordered(site.files() | {f"log/{EPOCH}.notes": framed(site.signed().notes[-1:])}))


CASES: list[tuple[Callable[[Site], bytes], int]] = [
    (wrong_energy, 2),
    (gaps, 1),
    (other_key, 2),
    (kept_back, 2),
    (hostile, 3),
    (unwitnessed, 1),
]


@pytest.mark.parametrize(("make", "exit_code"), CASES)
def test_the_report_does_not_depend_on_the_number_of_processes(
    site: Site, tmp_path: Path, make: Callable[[Site], bytes], exit_code: int
) -> None:
    data = make(site)
    alone = judged(tmp_path, site, data=data)
    three = judged(tmp_path, site, data=data, jobs=3)
    assert (alone.to_json(), alone.to_text()) == (three.to_json(), three.to_text())
    assert alone.exit == exit_code, alone.to_text()
    assert sum(p.slots for p in alone.points.values()) in {0, 2 * SLOTS}
