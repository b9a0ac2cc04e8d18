"""What ``tizgin agent check`` and ``run`` say of a site not in order: one clear line, no traceback, no guess."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from site_kit import SITE, SiteKit

from agent.clock import SystemClock
from agent.identity import load_keys
from agent.ledger import Ledger
from central.pki import Authority, sign_csr
from tizgin.cli import run

Change = Callable[[SiteKit], None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> SiteKit:
    return SiteKit(tmp_path_factory.mktemp("site"))


@pytest.fixture
def kit(prepared: SiteKit) -> Iterator[SiteKit]:
    """The site as enrolled; whatever a case did to its files is undone."""
    folder = prepared.site_dir
    before = {
        p: (p.read_bytes(), p.stat().st_mode) for p in folder.rglob("*") if p.is_file() and p.suffix != ".ballast"
    }
    yield prepared
    for path in folder.rglob("*"):
        if path.is_file() and path not in before:
            path.unlink()
    for path, (data, mode) in before.items():
        path.write_bytes(data)
        path.chmod(mode & 0o777)


def rewrite(old: str, new: str) -> Change:
    def change(kit: SiteKit) -> None:
        text = kit.site_file.read_text()
        assert old in text
        kit.site_file.write_text(text.replace(old, new, 1))

    return change


def whole(data: bytes) -> Change:
    return lambda kit: kit.site_file.write_bytes(data) and None


def gone(name: str) -> Change:
    return lambda kit: (kit.site_dir / name).unlink()


def filled(name: str, data: bytes) -> Change:
    return lambda kit: (kit.site_dir / name).write_bytes(data) and None


def open_to_all(name: str) -> Change:
    return lambda kit: (kit.site_dir / name).chmod(0o644)


def certificate_of(site: str, csr: str | None = None) -> Change:
    def change(kit: SiteKit) -> None:
        authority = Authority.load(kit.paths)
        cert = sign_csr(authority, kit.enrolment["csr"].encode(), site, datetime.now(UTC))
        (kit.site_dir / "site.pem").write_bytes(cert)

    return change


def ledger_of_another(kit: SiteKit) -> None:
    path = kit.site_dir / "state" / "ledger.db"
    for part in path.parent.glob("ledger.db*"):
        part.unlink()
    keys = load_keys(path.parent)
    ledger = Ledger.open(path, site="kz-other-09", key=keys.rec, clock=SystemClock("host"), fw="test")
    asyncio.run(ledger.close())


BROKEN_FILES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "not YAML": (whole(b"site: [unclosed"), ("site.yaml:2:", "expected YAML", "check quotes")),
    "not text": (whole(b"\x00\x01\x02"), ("site.yaml:1:", "expected printable text", "remove the character")),
    "not UTF-8": (whole("name: Площадка".encode("cp1251")), ("site.yaml:1:", "expected UTF-8", "save the file")),
    "a list": (whole(b"- 1\n- 2\n"), ("site.yaml", "saw a list of 2", "expected a mapping", "config/examples")),
    "empty": (whole(b""), ("site.yaml", "saw nothing", "expected a mapping")),
    "an alias bomb": (
        whole(b"a: &a [1]\nb: [*a, *a]\n"),
        ("site.yaml:1:", "an anchor or alias", "write the value out"),
    ),
    "an unknown key": (
        rewrite("zone: north", "zone: north\n  zonee: x"),
        ("site.zonee", "saw the unknown key 'zonee'", "did you mean zone?"),
    ),
    "a wrong type": (rewrite("slot_s: 10", "slot_s: ten"), ("agent.slot_s", "saw 'ten'", "expected")),
    "an unknown profile": (
        rewrite("eastron-sdm630", "eastron-sdm999"),
        ("devices[1].profile", "saw 'eastron-sdm999'", "expected a known profile", "tizgin profile list"),
    ),
    "a dangling device": (
        rewrite("device: em-0", "device: em-9"),
        ("metering_points[0].device", "saw 'em-9'", "expected the id of a meter", "correct the name"),
    ),
    "a dangling node": (
        rewrite("node: KM1", "node: KM9"),
        ("metering_points[1].node", "saw 'KM9'", "expected the id of a node", "correct the name"),
    ),
}


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("case", BROKEN_FILES)
def test_a_broken_site_file_is_named_with_its_place(
    kit: SiteKit, capsys: pytest.CaptureFixture[str], case: str, command: str
) -> None:
    change, words = BROKEN_FILES[case]
    change(kit)
    assert run(["agent", command, "--config", str(kit.site_file)]) == 1
    said = capsys.readouterr()
    text = said.err if command == "run" else said.out
    for word in words:
        assert word in text
    assert "Traceback" not in said.err + said.out
    assert "unexpected" not in said.err


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_site_file_that_is_not_there_is_wrong_use(
    kit: SiteKit, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    missing = kit.site_dir / "nope.yaml"
    assert run(["agent", command, "--config", str(missing)]) == 2
    said = capsys.readouterr().err
    assert f"'{missing}' does not exist" in said
    assert said.count("\n") == 1


BROKEN_STATE: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no authority": (gone("ca.pem"), ("ca.pem: cannot be read (No such file", "central's authority", "put it there")),
    "no certificate": (gone("site.pem"), ("site.pem: cannot be read (No such file", "this site's certificate")),
    "no TLS key": (gone("state/tls.key"), ("tls.key: no such key", "tizgin agent enroll")),
    "no record key": (gone("state/rec.key"), ("rec.key: no such key", "tizgin agent enroll")),
    "an open TLS key": (open_to_all("state/tls.key"), ("tls.key: readable by others (mode 644)", "chmod 600")),
    "an open record key": (open_to_all("state/rec.key"), ("rec.key: readable by others (mode 644)", "chmod 600")),
    "an authority that is none": (filled("ca.pem", b"junk"), ("ca.pem: no certificate in PEM", "put it there")),
    "a key that is none": (filled("state/tls.key", b"junk"), ("tls.key: not a private key", "enrol")),
    "a record key that is none": (filled("state/rec.key", b"junk"), ("rec.key:",)),
    "the certificate of another site": (
        certificate_of("kz-other-09"),
        ("site.pem: issued to kz-other-09", f"expected {SITE}"),
    ),
    "another authority's file as certificate": (
        lambda kit: (kit.site_dir / "site.pem").write_bytes((kit.site_dir / "ca.pem").read_bytes()) and None,
        ("site.pem: belongs to another key than", "tls.key"),
    ),
    "no password file": (
        gone("miners.secret"),
        ("credentials miners: password file", "miners.secret cannot be read (No such file", "put the password there"),
    ),
    "an empty password file": (filled("miners.secret", b""), ("credentials miners: the password is empty",)),
    "the ledger of another site": (
        ledger_of_another,
        ("ledger.db: belongs to site 'kz-other-09'", f"the configuration says site '{SITE}'", "begin a new epoch"),
    ),
    "a ledger that is none": (
        filled("state/ledger.db", b"not a database" * 400),
        ("ledger.db: the ledger cannot be opened: file is not a database", "moved away"),
    ),
}


@pytest.mark.parametrize("case", BROKEN_STATE)
def test_what_the_agent_needs_and_does_not_find_is_named(
    kit: SiteKit, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, words = BROKEN_STATE[case]
    change(kit)
    assert run(["agent", "run", "--config", str(kit.site_file)]) == 1
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("tizgin: ")]
    assert len(lines) == 1
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in said
    assert "unexpected" not in said
    assert "agent_started" not in said, "nothing began that could not go on"


def test_the_site_that_every_case_spoils_is_in_order(kit: SiteKit, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "check", "--config", str(kit.site_file)]) == 0
    assert "can be used: 0 errors" in capsys.readouterr().out
