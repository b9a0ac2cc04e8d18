"""Reports of orders at central: from the site's signed records to JSON, the command line and paper."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typst  # type: ignore[import-not-found, unused-ignore]  # in the extra 'central'
from obedience_kit import Point, part

from central.pages.texts import load_all
from central.papers.curve import Marks, draw, lines_of
from central.papers.order_report import OrderReport, read_report
from central.papers.pdf import content, render
from central.store import orders
from central.store.database import make_engine
from tests.integration.central_site import (
    RunningCentral,
    Site,
    make_order,
    make_register,
    make_settings,
    now_ms,
    wait_for,
)
from wire.dsse import ORDER_TYPE, open_envelope
from wire.keys import SigningKey
from wire.obedience import Facts, report
from wire.orders import parse_order
from wire.records import parse_line
from wire.registry import open_keys

SITE = "ekb-1"
JSON = {"content-type": "application/json"}
LANGUAGES = ("kk", "ru", "en")


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCentral]:
    registrar = SigningKey.generate()
    folder = tmp_path_factory.mktemp("reports")
    running = RunningCentral(folder, make_settings(folder / "data", registrar, (SITE,)), registrar)
    running.start()
    yield running
    running.stop()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="module")
def site(central: RunningCentral) -> Iterator[Site]:
    made = central.site(SITE)
    made.come_online()
    register = make_register(central.registrar, {SITE: made.ledger.key})
    assert httpx.put(central.url + "/api/v1/keys", content=register, headers=JSON).status_code == 200
    yield made
    made.close()


def posted(central: RunningCentral) -> tuple[str, bytes]:
    order_id, raw = make_order(SITE, SigningKey.generate(), limit_w=1_500_000)
    answer = httpx.post(central.url + "/api/v1/orders", content=raw, headers=JSON, trust_env=False)
    assert answer.status_code == 202, answer.text
    return order_id, raw


def carried_out(site: Site, order_id: str, raw: bytes, key: SigningKey | None = None) -> dict[str, Any]:
    """The site's records of an order that came 22 minutes ago: down in 25 s, three minutes of it not measured."""
    rx = now_ms() - 22 * 60_000
    own = site.ledger.key
    digest = hashlib.sha256(open_envelope(raw, expected_type=ORDER_TYPE).payload).hexdigest()
    add, sent = site.ledger.add, list[bytes]()
    sent.append(add("cmd", "cmd_rx", at=rx, id=order_id, digest=digest, raw=base64.b64encode(raw).decode(), rx=rx))
    ack = {"state": "validated", "code": None, "text": "ok", "order_mode": "live", "agent_mode": "armed", "kids": []}
    powers = {"before_w": 4_800_000, "target_w": 1_500_000}
    sent.append(add("cmd", "cmd_ack", at=rx, id=order_id, seq=1, **ack, **powers))
    falling: list[Point] = [(s, 4_800_000 - 132_000 * s) for s in range(25)]
    before = [(s, 4_800_000 + s % 7 * 9_000) for s in range(-900, 0, 5)]
    held = [(s, 1_480_000 + s % 11 * 1_500) for s in range(25, 1201, 5) if not 420 < s < 600]
    back = [(s, min(4_850_000, 1_500_000 + (s - 1200) * 60_000)) for s in range(1202, 1290, 2)]
    states = [(0, "validated"), (0, "executing"), (20, "verifying"), (30, "holding")]
    ends = [(1200, "restoring"), (1290, "done")]
    parts = [
        part(before, base=rx),
        part(falling + held, states, number=1, base=rx),
        part([], number=2, base=rx),
        part(back, ends, number=3, reasons=[(1, "KM1", "tag")], base=rx),
    ]
    parts = [one | {"id": order_id, "point": "main"} for one in parts]
    voltage = {"mp": "main", "of": "line", "dt": [0, 15_000], "lo": [10_250_000, None], "hi": [10_912_000, None]}
    parts[0]["bat"] = [{"mp": "m-bess", "dt": [840_000] + [5000] * 11, "w": [600_000] * 12}]
    parts[1]["bat"] = [{"mp": "m-bess", "dt": [0] + [5000] * 239, "w": [-900_000] * 240}]
    parts[1]["uq"] = [voltage | {"qlo": [None, -4_000_000], "qhi": [None, -3_950_500]}]
    for one in parts:
        sent.append(add("cmd", "cmd_trace", at=rx + 1_290_000, **one))
    known = Facts(
        order=parse_order(raw).order,
        received_ms=rx,
        point="main",
        contracted_w=5_000_000,
        slot_s=900,
        technological_s=0,
        **powers,
    )
    said = dict(report(known, parts, [], ()))
    site.ledger.key = key or own
    sent.append(add("cmd", "cmd_report", at=rx + 1_291_000, **said))
    site.ledger.key = own
    site.send_lines(*sent, name="answer")
    return said


def command(central: RunningCentral, *words: str) -> subprocess.CompletedProcess[str]:
    base = [sys.executable, "-m", "tizgin.cli", "central", "report", "--config", str(central.config)]
    return subprocess.run([*base, *words], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def obeyed(central: RunningCentral, site: Site) -> tuple[str, dict[str, Any]]:
    order_id, raw = posted(central)
    said = carried_out(site, order_id, raw)
    wait_for(lambda: central.get(f"/api/v1/orders/{order_id}/report")["report"], "the report")
    return order_id, said


def loaded(central: RunningCentral, order_id: str) -> OrderReport:
    with make_engine(f"sqlite:///{central.paths.database}").connect() as connection:
        stored = orders.find(connection, order_id)
        assert stored is not None
        found = read_report(connection, stored)
    assert found is not None
    return found


def test_there_is_no_report_before_the_site_wrote_one(central: RunningCentral, site: Site) -> None:
    order_id, _ = posted(central)
    assert central.get(f"/api/v1/orders/{order_id}/report")["report"] is None
    assert httpx.get(f"{central.url}/api/v1/orders/{order_id}/report.pdf", trust_env=False).status_code == 404
    assert httpx.get(f"{central.url}/api/v1/orders/nobody/report", trust_env=False).status_code == 404
    done = command(central, "--order", order_id)
    assert (done.returncode, "not reported" in done.stdout) == (1, True), done.stderr
    done = command(central, "--order", "nobody")
    assert (done.returncode, "no order 'nobody'" in done.stderr) == (1, True)


def test_the_report_is_the_signed_record_and_says_where_it_is(
    central: RunningCentral, site: Site, obeyed: tuple[str, dict[str, Any]]
) -> None:
    order_id, said = obeyed
    found = central.get(f"/api/v1/orders/{order_id}/report")
    assert found["report"] == said
    assert said["verdict"] in {"unknown", "short", "obeyed"}
    record, doc = parse_line(found["line"].encode())
    assert record.verified_by(site.ledger.key.public)
    assert found["record"] == {
        "stream": "cmd",
        "n": doc["n"],
        "kid": site.ledger.key.kid,
        "leaf": record.hash.hex(),
        "verified": True,
    }
    assert [e["ty"] for e in found["evidence"]] == ["cmd_rx", "cmd_ack", *["cmd_trace"] * 4, "cmd_report"]
    lines = site.ledger.lines["cmd"]
    assert all(parse_line(lines[e["n"]])[0].hash.hex() == e["leaf"] for e in found["evidence"])
    detail = central.get(f"/api/v1/orders/{order_id}")
    assert detail["state"] == "validated", "a verdict is no state"
    assert [json.loads(line.split("|")[1])["ty"] for line in detail["answers"]] == ["cmd_rx", "cmd_ack", "cmd_report"]


def test_a_report_by_another_key_is_none(central: RunningCentral, site: Site) -> None:
    order_id, raw = posted(central)
    carried_out(site, order_id, raw, SigningKey.generate())
    path = f"/api/v1/orders/{order_id}"
    wait_for(lambda: len(central.get(path)["answers"]) == 3, "all answers")
    assert central.get(path + "/report")["report"] is None


def test_a_signed_record_that_is_no_report_is_none(central: RunningCentral, site: Site) -> None:
    order_id, raw = posted(central)
    said = carried_out(site, order_id, raw)
    path = f"/api/v1/orders/{order_id}"
    wait_for(lambda: central.get(path + "/report")["report"], "the report")
    odd = {"uq": [said["uq"][0] | {"during": {"lo_mv": "10"}}]}
    stored = said["storage"]["points"][0] | {"more_discharge_wh": "1"}
    changes: list[dict[str, Any]] = [{"begin": "now"}, {"end": 10**15}, {"mw": {"m1_w": 1}}, odd]
    changes.append({"storage": said["storage"] | {"points": [stored]}})
    for wrong in ({"verdict": "obeyed"}, *(said | change for change in changes)):
        site.send_lines(site.ledger.add("cmd", "cmd_report", **({"id": order_id} | wrong)), name="answer")
    wait_for(lambda: len(central.get(path)["answers"]) == 9, "all answers")
    assert central.get(path + "/report")["report"] == said


def test_the_command_line_prints_it_and_writes_the_paper(
    central: RunningCentral, obeyed: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    order_id, said = obeyed
    pdf = tmp_path / "report.pdf"
    done = command(central, "--order", order_id, "--pdf", str(pdf), "--language", "kk", "--json")
    assert done.returncode == (0 if said["verdict"] == "obeyed" else 1), done.stderr
    assert json.loads(done.stdout)["report"] == said
    assert pdf.read_bytes().startswith(b"%PDF-")
    served = httpx.get(f"{central.url}/api/v1/orders/{order_id}/report.pdf?language=kk", trust_env=False)
    assert served.headers["content-type"] == "application/pdf"
    assert served.content == pdf.read_bytes(), "the same paper whoever makes it"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_paper_has_every_letter_and_every_figure(
    central: RunningCentral, obeyed: tuple[str, dict[str, Any]], language: str, tmp_path: Path
) -> None:
    found = loaded(central, obeyed[0])
    register = open_keys(
        httpx.get(central.url + "/api/v1/keys", trust_env=False).content,
        {central.registrar.public.kid: central.registrar.public},
    )[0]
    texts = load_all()[language]
    pages = render(found, register, texts, f"Алаң {language}", form="png")
    assert all(page.startswith(b"\x89PNG") for page in pages)
    for number, page in enumerate(pages):
        (tmp_path / f"{language}-{number}.png").write_bytes(page)
    svg = draw(found.samples, Marks(1_500_000, 4_800_000, found.fields["begin"], found.fields["end"], "kW", "b", "e"))
    assert svg.count("<polyline") == len(lines_of(found.samples)) == 2, "three minutes not measured are a hole"


@pytest.mark.parametrize(
    ("language", "volts", "kvar"),
    [
        ("en", "main, line voltage", "during it: −4000.0 … −3950.5 kvar"),
        ("ru", "main, линейное напряжение", "во время: −4000,0 … −3950,5 квар"),
        ("kk", "main, желілік кернеу", "барысында: −4000,0 … −3950,5 квар"),
    ],
)
def test_the_paper_tells_voltage_and_reactive_power(
    central: RunningCentral, obeyed: tuple[str, dict[str, Any]], language: str, volts: str, kvar: str
) -> None:
    order_id, said = obeyed
    assert said["uq"][0]["during"] == {"lo_mv": None, "hi_mv": None, "lo_var": -4_000_000, "hi_var": -3_950_500}
    assert central.get(f"/api/v1/orders/{order_id}/report")["report"]["uq"] == said["uq"]
    shown = content(loaded(central, order_id), None, load_all()[language], "x")["supply"]
    assert shown[0][0] == volts
    assert kvar in shown[1][1]
    assert "10" in shown[0][1]
    found = loaded(central, order_id)
    found.fields = {name: value for name, value in found.fields.items() if name != "uq"}
    assert len(content(found, None, load_all()[language], "x")["supply"]) == 1, "an older report"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_paper_tells_what_was_a_battery(
    central: RunningCentral, obeyed: tuple[str, dict[str, Any]], language: str
) -> None:
    order_id, said = obeyed
    (battery,) = said["storage"]["points"]
    assert battery["more_discharge_wh"] == battery["less_charge_wh"] * 3 // 2 > 200_000
    texts = load_all()[language]
    found = loaded(central, order_id)
    rows = dict(content(found, None, texts, "x")["figures"])
    words = rows[texts("of it battery {point}, no machine", point="m-bess")]
    told = f"{battery['more_discharge_wh'] / 1000:.1f}"
    assert (told if language == "en" else told.replace(".", ",")) in words
    found.fields = {name: value for name, value in found.fields.items() if name != "storage"}
    assert len(content(found, None, texts, "x")["figures"]) == len(rows) - 2, "an older report"


def test_the_papers_font_has_the_kazakh_letters() -> None:
    families = typst.Fonts(include_system_fonts=False).families()
    assert {"Libertinus Serif", "DejaVu Sans Mono"} <= set(families)
    letters = "әғқңөұүһіӘҒҚҢӨҰҮҺІ№"
    for font in ("Libertinus Serif", "DejaVu Sans Mono"):
        source = f'#set text(font: "{font}", fallback: false)\n{letters}'
        _, warnings = typst.compile_with_warnings(source.encode(), format="png", ignore_system_fonts=True)
        assert not warnings, [w.message for w in warnings]


def test_a_curve_is_cut_where_nothing_was_read() -> None:
    assert lines_of([(0, 1), (5_000, 2), (10_000, None), (15_000, 3), (30_000, 4), (45_001, 5)]) == [
        [(0, 1), (5_000, 2)],
        [(15_000, 3), (30_000, 4)],
        [(45_001, 5)],
    ]
    assert lines_of([]) == []
    assert "<polyline" not in draw([], Marks(None, None, 0, 60_000, "kW", "b", "e"))


def test_what_strangers_wrote_is_text_on_the_paper(central: RunningCentral, obeyed: tuple[str, dict[str, Any]]) -> None:
    """Neither a site's name nor a reason can be markup of the typesetter."""
    found = loaded(central, obeyed[0])
    hostile = '#read("/etc/passwd") $x$ *b* ]] " \\ <svg>'
    found.fields = found.fields | {"point": hostile, "excuses": [hostile]}
    assert render(found, None, load_all()["en"], hostile)[0].startswith(b"%PDF-")
