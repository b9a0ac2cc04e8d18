"""The pages in a real browser: live, true about age and silence, in three languages, with nothing from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from central.store.database import make_engine
from central.vee.book import append
from central.vee.judge import Verdict
from central.vee.limits import load
from central.vee.model import Finding, SiteSlots
from tests.integration.central_site import (
    RunningCentral,
    Site,
    make_order,
    make_register,
    make_settings,
    now_ms,
)
from wire.keys import SigningKey

pytestmark = pytest.mark.browser

CHROMIUM = Path("/usr/bin/chromium")
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
JSON = {"content-type": "application/json"}
SITES = ("ekibastuz-1", "pavlodar-2", "silent-3")
SHOTS = os.environ.get("TIZGIN_TEST_SCREENSHOTS")


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCentral]:
    registrar = SigningKey.generate()
    folder = tmp_path_factory.mktemp("pages")
    running = RunningCentral(folder, make_settings(folder / "data", registrar, SITES), registrar)
    running.start()
    yield running
    running.stop()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="module")
def site(central: RunningCentral) -> Iterator[Site]:
    made = central.site("ekibastuz-1")
    made.come_online()
    register = make_register(central.registrar, {"ekibastuz-1": made.ledger.key})
    assert httpx.put(central.url + "/api/v1/keys", content=register, headers=JSON).status_code == 200
    t0 = now_ms() // 1000 // 900 * 900 - 900
    for back in range(6, 0, -1):
        if back == 3:
            made.ledger.gap("main", t0 - back * 900, "TIMEOUT")
        else:
            made.ledger.interval("main", t0 - back * 900, 1_187_345 + back)
    made.send_lines(*made.ledger.lines["mp:main"])
    made.wait_committed("mp:main", 6)
    begin = now_ms() - 3_500_000
    made.batches[0] = made.batch(0, rows=1200, at=begin + 1_200_000)
    made.send_batch(0)
    made.batches[1] = made.batch(1, rows=1200, at=begin + 2_600_000)
    made.send_batch(1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("left out: /usr/bin/chromium is not installed")
    with sync_playwright() as play:
        launched = play.chromium.launch(executable_path=str(CHROMIUM), args=ARGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, central: RunningCentral) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, locale="en-US", timezone_id="America/New_York"
    )
    made = context.new_page()
    outside: list[str] = []
    errors: list[str] = []
    made.on(
        "request",
        lambda r: (
            outside.append(r.url) if not r.url.startswith((central.url, "data:", "ws://127.0.0.1", "blob:")) else None
        ),
    )
    made.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    made.on("pageerror", lambda e: errors.append(str(e)))
    yield made
    context.close()
    assert outside == []
    assert errors == []


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)


def send_live(site: Site, net_w: int | None, **fields: object) -> None:
    site.send_live(
        net_w,
        points={"main": net_w, "feeder-1": 2_400_000, "feeder-2": None},
        switches={"QF1": "closed", "QF2": "open"},
        asics_total=500,
        asics_hashing=380,
        asics_sleeping=100,
        **fields,
    )


def test_the_first_page_shows_every_site_and_unknown_is_a_dash(page: Page, central: RunningCentral, site: Site) -> None:
    send_live(site, 4_812_345)
    page.goto(central.url + "/")
    expect(page.get_by_test_id("site-ekibastuz-1-kw")).to_have_text("4\u202f812")
    expect(page.get_by_test_id("site-silent-3-kw")).to_have_text("—")
    expect(page.get_by_test_id("headline")).to_contain_text("4\u202f812")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    send_live(site, 3_000_000)
    expect(page.get_by_test_id("site-ekibastuz-1-kw")).to_have_text("3\u202f000", timeout=3000)
    expect(page.get_by_test_id("banner-simulation")).to_be_visible()
    shot(page, "overview-kk")
    page.get_by_test_id("site-ekibastuz-1").click()
    page.wait_for_url("**/site/ekibastuz-1")


WORDS = {
    "kk": ("Барлық алаңдар", "СИМУЛЯЦИЯ — нақты", "қәғңөұүһі"),
    "ru": ("Все площадки", "СИМУЛЯЦИЯ — это", "время Казахстана"),
    "en": ("All sites", "SIMULATION", "Kazakhstan time"),
}


@pytest.mark.parametrize("language", WORDS)
def test_three_languages_with_one_press(page: Page, central: RunningCentral, site: Site, language: str) -> None:
    send_live(site, 4_812_345, limit_w=5_000_000)
    page.goto(central.url + "/")
    page.get_by_test_id(f"lang-{language}").click()
    expect(page.get_by_text(WORDS[language][0])).to_be_visible()
    expect(page.get_by_test_id("banner-simulation")).to_contain_text(WORDS[language][1])
    page.goto(central.url + "/site/ekibastuz-1")
    expect(page.get_by_test_id(f"lang-{language}")).to_have_attribute("aria-current", "true")
    expect(page.get_by_test_id("interval-row").first).to_be_visible()
    shot(page, f"site-{language}")


def test_an_order_is_followed_step_by_step(page: Page, central: RunningCentral, site: Site) -> None:
    send_live(site, 4_812_345)
    page.goto(central.url + "/lang/en?to=/site/ekibastuz-1")
    expect(page.get_by_test_id("site-ekibastuz-1-kw")).to_have_text("4\u202f812")
    order_id, raw = make_order("ekibastuz-1", SigningKey.generate())
    assert httpx.post(central.url + "/api/v1/orders", content=raw, headers=JSON).status_code == 202
    expect(page.get_by_test_id("order-state")).to_have_text("sent", timeout=4000)
    entered = now_ms()
    site.send_lines(
        site.ledger.add("cmd", "cmd_rx", id=order_id, digest="0" * 64, raw=None, rx=entered, at=entered),
        site.ledger.add(
            "cmd", "cmd_ack", id=order_id, state="armed", code=None, text="plan of 2 steps", kids=[], seq=1
        ),
        name="answer",
    )
    expect(page.get_by_test_id("step-accepted")).to_contain_text("signed by the site", timeout=4000)
    site.send_progress(order_id, "executing", power_w=3_900_000, target_w=1_500_000, steps_done=1, steps_total=2)
    send_live(site, 3_900_000, limit_w=1_500_000)
    expect(page.get_by_test_id("step-outputs")).to_contain_text("unsigned message", timeout=4000)
    ms = {"accepted": 12, "first_output": 240, "readback": 900, "confirmed": 2100}
    effect = {"flags": [], "power_w": 1_400_000, "target_w": 1_500_000, "ms": ms, "text": ""}
    site.send_lines(site.ledger.add("cmd", "cmd_eff", id=order_id, state="holding", **effect), name="answer")
    send_live(site, 1_400_000, limit_w=1_500_000)
    expect(page.get_by_test_id("order-state")).to_have_text("held", timeout=4000)
    for name in ("outputs", "readback", "confirmed"):
        expect(page.get_by_test_id(f"step-{name}")).to_contain_text("signed by the site", timeout=4000)
    expect(page.get_by_test_id("site-ekibastuz-1-kw")).to_have_text("1\u202f400")
    expect(page.get_by_test_id("order-report")).to_be_hidden()
    site.send_lines(site.ledger.add("cmd", "cmd_report", id=order_id, verdict="obeyed"), name="answer")
    expect(page.get_by_test_id("order-report")).to_be_visible(timeout=4000)
    paper = f"/api/v1/orders/{order_id}/report.pdf?language=en"
    expect(page.get_by_test_id("order-report")).to_have_attribute("href", paper)
    expect(page.get_by_test_id("order-state")).to_have_text("held")
    shot(page, "site-order")
    page.goto(central.url + "/lang/en?to=/")
    send_live(site, 1_400_000, limit_w=1_500_000)
    for name, count in (("sent", "1"), ("met", "1"), ("back", "0")):
        expect(page.get_by_test_id(f"funnel-{name}")).to_contain_text(count, timeout=4000)
    expect(page.get_by_test_id("funnel-row")).to_contain_text("target met")
    expect(page.get_by_test_id("funnel-row")).to_contain_text("1\u202f400")
    shot(page, "funnel")
    page.goto(central.url + "/site/ekibastuz-1")
    gap = page.get_by_test_id("interval-row").filter(has_text="GAP")
    expect(gap).to_have_count(1)
    expect(gap).to_contain_text("meter did not answer")
    expect(gap.locator("td").nth(2)).to_have_text("—")
    expect(page.get_by_test_id("interval-row").first).to_contain_text("1\u202f187.346")
    page.set_viewport_size({"width": 390, "height": 844})
    shot(page, "site-phone")
    page.wait_for_function("document.documentElement.scrollWidth <= innerWidth", timeout=3000)


def test_what_is_curtailable_is_the_site_s_word_with_reasons(page: Page, central: RunningCentral, site: Site) -> None:
    told = {"sleep_w": 2_100_000, "switch_w": 2_400_000, "floor_sleep_w": 2_712_345, "floor_switch_w": 400_000}
    outputs: dict[str, Any] = {
        "outputs_w": {"QF1": 2_400_000, "QF2": None},
        "outputs_why": {"QF2": "tagged by A. Serik: permit 12"},
        "unavailable": {"QF3": 800_000, "rack7": None},
    }
    send_live(site, 4_812_345, curtailable=told, alarms=["maintenance:QF3"], **outputs)
    page.goto(central.url + "/lang/en?to=/site/ekibastuz-1")
    card = page.get_by_test_id("curtailable")
    expect(card).to_contain_text("2\u202f100 kW", timeout=4000)
    for words in (
        "lowest with switches",
        "400 kW",
        "declared unavailable: QF3",
        "800 kW",
        "declared unavailable: rack7",
    ):
        expect(card).to_contain_text(words)
    expect(page.get_by_test_id("curtailable-why")).to_contain_text("QF2 · —")
    expect(page.get_by_test_id("curtailable-why")).to_contain_text("permit 12")
    expect(page.get_by_test_id("banner-alarms")).to_contain_text("in maintenance: QF3")
    shot(page, "site-curtailable")
    page.goto(central.url + "/")
    expect(page.get_by_test_id("headline")).to_contain_text("curtailable: 2\u202f100 kW by sleep", timeout=4000)
    expect(page.get_by_test_id("headline")).to_contain_text("from 1 sites")
    expect(page.get_by_test_id("site-silent-3-curtailable")).to_contain_text("— by sleep, — by switches")
    shot(page, "overview-curtailable")


def test_a_drill_and_words_of_people_stand_beside_the_steps(page: Page, central: RunningCentral, site: Site) -> None:
    send_live(site, 4_812_345)
    order_id, raw = make_order("ekibastuz-1", SigningKey.generate(), mode="drill")
    assert httpx.post(central.url + "/api/v1/orders", content=raw, headers=JSON).status_code == 202
    spoken = {"who": "A. Serik", "given_by": "B. Omarov", "at": now_ms(), "recording": "4711", "text": "<b>drill</b>"}
    accepted = {"state": "validated", "code": None, "text": "", "kids": [], "seq": 1}
    modes = {"agent_mode": "armed", "order_mode": "drill"}
    site.send_lines(
        site.ledger.add("cmd", "cmd_rx", id=order_id, digest="0" * 64, raw=None, rx=now_ms()),
        site.ledger.add("cmd", "cmd_ack", id=order_id, **accepted, **modes),
        site.ledger.add("site", "event", ev="spoken_order", obj=order_id, now="entered", detail=spoken),
        site.ledger.add("site", "event", ev="order_ack", obj=order_id, now="overdue", detail={"ack_s": 300}),
    )
    page.goto(central.url + "/lang/ru?to=/site/ekibastuz-1")
    expect(page.get_by_test_id("banner-drill")).to_have_text("УЧЕНИЕ / ОҚУ-ЖАТТЫҒУ", timeout=4000)
    expect(page.get_by_test_id("word-spoken_on_site")).to_contain_text(
        "передал B. Omarov, принял A. Serik · запись № 4711"
    )
    expect(page.get_by_test_id("word-spoken_on_site")).to_contain_text("<b>drill</b>")
    expect(page.get_by_test_id("word-unacknowledged")).to_contain_text("никто не подтвердил")
    expect(page.get_by_test_id("order-completion")).to_have_count(0)
    shot(page, "site-drill-ru")
    page.goto(central.url + "/")
    expect(page.get_by_test_id("banner-drill")).to_be_visible(timeout=4000)


def test_what_is_fulfilled_can_be_read_aloud(page: Page, central: RunningCentral, site: Site) -> None:
    send_live(site, 4_812_345)
    order_id, raw = make_order("ekibastuz-1", SigningKey.generate())
    assert httpx.post(central.url + "/api/v1/orders", content=raw, headers=JSON).status_code == 202
    accepted = {"state": "validated", "code": None, "text": "", "kids": [], "seq": 1}
    effect = {"flags": [], "power_w": 1_400_000, "target_w": 1_500_000, "ms": {}, "text": ""}
    site.send_lines(
        site.ledger.add("cmd", "cmd_rx", id=order_id, digest="0" * 64, raw=None, rx=now_ms()),
        site.ledger.add("cmd", "cmd_ack", id=order_id, agent_mode="armed", order_mode="live", **accepted),
        site.ledger.add("cmd", "cmd_eff", id=order_id, state="holding", **effect),
    )
    page.goto(central.url + "/lang/ru?to=/site/ekibastuz-1")
    expect(page.get_by_test_id("order-completion")).to_contain_text("Выполнено", timeout=4000)
    expect(page.get_by_test_id("order-completion")).to_contain_text("нагрузка 1,4 МВт")
    late = effect | {"power_w": 1_600_000}
    site.send_lines(site.ledger.add("cmd", "cmd_eff", id=order_id, state="failed", **late))
    expect(page.get_by_test_id("order-completion")).to_have_count(0, timeout=4000)


def test_stale_and_unknown_never_look_fresh(page: Page, central: RunningCentral, site: Site) -> None:
    page.goto(central.url + "/lang/en?to=/site/ekibastuz-1")
    send_live(site, 2_000_000, ages_ms={"net_w": 40_000})
    expect(page.get_by_test_id("live-age")).to_contain_text("stale", timeout=4000)
    send_live(site, None)
    expect(page.get_by_test_id("site-ekibastuz-1-kw")).to_have_text("—", timeout=4000)
    expect(page.get_by_test_id("live-age")).to_contain_text("no live data")
    send_live(site, 0)
    expect(page.get_by_test_id("site-ekibastuz-1-kw")).to_have_text("0.0", timeout=4000)


def test_open_findings_are_explained_in_the_readers_language(page: Page, central: RunningCentral, site: Site) -> None:
    t0 = now_ms() // 1000 // 900 * 900 - 86_400
    slots = SiteSlots("ekibastuz-1", 900, t0, t0, t0 + 86_400, {})
    found = Finding(
        "V21", "suspect", "feeder-1", t0, t0 + 86_400, 309_219, 208_454, "w", "ratio_up", {"slots": 96}, ("ab" * 32,)
    )
    failed = Finding("V10", "fail", "main", t0, t0 + 900, 1_187_350, 1_187_346, "wh", "sum", {}, ("cd" * 32,))
    key = SigningKey.from_pem(central.paths.k_col.read_bytes())
    engine = make_engine(f"sqlite:///{central.paths.database}")
    with engine.begin() as connection:
        append(connection, slots, Verdict((found, failed), (), {}), load(), key, now_ms())
    engine.dispose()
    for language, words in (
        ("en", "The feeder draws more against its machines' own figures"),
        ("ru", "Фидер потребляет больше относительно данных машин"),
        ("kk", "Фидер машиналардың өз деректеріне қарағанда бұрынғыдан көп тұтынады"),
    ):
        page.goto(f"{central.url}/lang/{language}?to=/site/ekibastuz-1")
        card = page.get_by_test_id("findings")
        expect(card.get_by_test_id("finding-row")).to_have_count(2, timeout=15_000)
        expect(card).to_contain_text(words)
        row = card.get_by_test_id("finding-row").filter(has_text="V21")
        expect(row).to_contain_text("309 kW" if language == "en" else "309 кВт")
        expect(row).to_contain_text("feeder-1")
        shot(page, f"findings-{language}")


def test_an_order_that_does_not_arrive_says_whom_to_call(page: Page, central: RunningCentral, site: Site) -> None:
    _, raw = make_order("pavlodar-2", SigningKey.generate())
    assert httpx.post(central.url + "/api/v1/orders", content=raw, headers=JSON).status_code == 202
    page.goto(central.url + "/lang/kk?to=/site/pavlodar-2")
    expect(page.get_by_test_id("banner-not-delivered")).to_be_hidden()
    expect(page.get_by_test_id("banner-not-delivered")).to_be_visible(timeout=14_000)
    expect(page.get_by_test_id("banner-not-delivered")).to_contain_text("ЖЕТКІЗІЛМЕДІ — ҚОҢЫРАУ ШАЛЫҢЫЗ")
    expect(page.get_by_test_id("banner-not-delivered").get_by_role("link")).to_have_attribute(
        "href", "tel:+77000000001"
    )
    script = page.get_by_test_id("call-script")
    expect(script).to_contain_text("Жүктемені 1,5 МВт дейін шектеңіз.")
    expect(script).to_contain_text("Қайталаңыз.")
    shot(page, "not-delivered-kk")
    page.goto(central.url + "/")
    expect(page.get_by_test_id("call-script")).to_contain_text("pavlodar-2 алаңы, диспетчер сөйлеп тұр.", timeout=4000)
    expect(page.get_by_test_id("banner-not-delivered")).to_be_visible(timeout=4000)
    expect(page.get_by_test_id("banner-not-delivered")).to_contain_text("+7 700 000 00 01")
    shot(page, "overview-not-delivered-kk")


def test_what_a_site_sends_is_text_and_never_markup(page: Page, central: RunningCentral, site: Site) -> None:
    order_id, raw = make_order("ekibastuz-1", SigningKey.generate())
    httpx.post(central.url + "/api/v1/orders", content=raw, headers=JSON)
    evil = "<img src=x onerror=document.title='owned'>"
    site.send_progress(order_id, "executing", text=evil)
    site.send_live(1_000, switches={evil: evil}, points={evil: 5}, alarms=[evil])
    page.goto(central.url + "/lang/en?to=/site/ekibastuz-1")
    expect(page.get_by_test_id("switches")).to_contain_text("<img", timeout=4000)
    expect(page.get_by_test_id("step-outputs")).to_contain_text("<img", timeout=4000)
    assert page.locator("img").count() == 0
    assert page.title() != "owned"


def test_the_switch_of_language_leads_nowhere_else(central: RunningCentral) -> None:
    for target in ("//evil.example", "https://evil.example", "/\\evil.example", "/site/none", "/site/../x"):
        answer = httpx.get(central.url + "/lang/ru", params={"to": target})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "SameSite=strict" in httpx.get(central.url + "/lang/ru").headers["set-cookie"]
