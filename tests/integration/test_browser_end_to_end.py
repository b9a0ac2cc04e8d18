"""From the dispatcher's page to the contactors and back, in a real browser: central, agent and desk as processes of
their own, a real broker, a simulated plant behind its real protocols."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from process_kit import Process, ProcessKit
from site_kit import SITE, until

from wire.keys import SigningKey

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(150),
    pytest.mark.skipif(not CHROMIUM.exists(), reason="left out: /usr/bin/chromium is not installed"),
]
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SHOTS = os.environ.get("TIZGIN_TEST_SCREENSHOTS")
KAZAKH = frozenset("әғқңөұүһі")
DESK = {
    "kk": ("Нысандар", "Жаңа өкім", "Құрастыру"),
    "ru": ("Объекты", "Новое распоряжение", "Составить"),
    "en": ("Sites", "New order", "Compose"),
}
CENTRAL = {
    "kk": ("Барлық алаңдар", "Ажыратқыштар", "Сынақ"),
    "ru": ("Все площадки", "Выключатели", "Тест"),
    "en": ("All sites", "Switches", "Test"),
}


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[ProcessKit]:
    made = await asyncio.to_thread(ProcessKit, tmp_path)
    try:
        await made.start_all()
        yield made
    finally:
        await made.stop_all()


@pytest.fixture
async def desk_url(kit: ProcessKit, tmp_path: Path) -> AsyncIterator[str]:
    """A desk of its own, with the dispatcher's key in a file as ``tizgin order keygen`` leaves it."""
    key, register, registrar = tmp_path / "me.pem", tmp_path / "keys.json", tmp_path / "registrar.pub"
    key.touch(mode=0o600)
    key.write_bytes(kit.dispatcher.to_pem())
    register.write_bytes(kit.register())
    registrar.write_text(kit.registrar.public.text)
    assert SigningKey.from_pem(key.read_bytes()).kid == kit.dispatcher.kid
    ready = tmp_path / "desk.json"
    central = kit.api.removesuffix("/api/v1")
    options = {"--central": central, "--key": key, "--keys": register, "--registrar": registrar, "--ready-file": ready}
    process = Process(
        "desk", ["order", "desk", *(str(x) for pair in options.items() for x in pair)], tmp_path / "desk.log"
    )
    process.start()
    try:
        await until(ready.exists, 30, process.tail)
        yield str(json.loads(ready.read_text())["url"])
    finally:
        process.stop()


def kilowatt(text: str | None) -> float:
    """The number a page shows → kW."""
    found = re.search(r"[\d\u202f\u00a0]+(?:[.,]\d+)?", text or "")
    assert found is not None, f"no number in {text!r}"
    return float(found[0].replace("\u202f", "").replace("\u00a0", "").replace(",", "."))


async def check_language(page: Any, language: str, expected: tuple[str, ...]) -> None:
    await until_text(page.locator("body"), *expected)
    text = await page.inner_text(".tz-main, body > main")
    # The word for a drill stands in both languages of the country, whatever the page's own is.
    text = text.replace("УЧЕНИЕ / ОҚУ-ЖАТТЫҒУ", "")
    letters = KAZAKH & set(text.lower())
    assert (len(letters) >= 3) == (language == "kk"), f"{language}: Kazakh letters {sorted(letters)}"
    assert not (language == "en" and re.search("[а-яё]", text.lower())), f"not English: {text[:600]}"


async def until_text(locator: Any, *expected: str, within_s: float = 10) -> None:
    from playwright.async_api import expect

    for words in expected:
        await expect(locator).to_contain_text(words, timeout=within_s * 1000)


async def until_kw(locator: Any, check: Any, within_s: float, what: str) -> float:
    """Wait until the number on a page fulfils a condition."""
    end = asyncio.get_running_loop().time() + within_s
    while True:
        shown = kilowatt(await locator.inner_text())
        if check(shown):
            return shown
        assert asyncio.get_running_loop().time() < end, f"{what}: {shown} kW after {within_s} s"
        await asyncio.sleep(0.1)


class Watched:
    """Two pages of one browser; keeps every request and every complaint."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []

    async def page(self, browser: Any, **options: Any) -> Any:
        context = await browser.new_context(locale="en-US", timezone_id="America/New_York", **options)
        page = await context.new_page()
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def check(self) -> None:
        local = re.compile(r"(https?|wss?)://127\.0\.0\.1:\d+/|data:|blob:http://127\.0\.0\.1:")
        assert [url for url in self.asked if not local.match(url)] == []
        assert any(url.startswith("ws://127.0.0.1") for url in self.asked), "central's page is live"
        assert self.complaints == []


async def shot(page: Any, name: str, *, full_page: bool = True) -> None:
    if SHOTS:
        await page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=full_page)


async def test_a_dispatcher_limits_a_site_and_gives_it_back(kit: ProcessKit, desk_url: str) -> None:
    from playwright.async_api import async_playwright

    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        try:
            watched = Watched()
            central = await watched.page(browser, viewport={"width": 1280, "height": 900})
            desk = await watched.page(browser, viewport={"width": 1280, "height": 900})
            await in_every_language(kit, central, desk, desk_url)
            await order_and_release(kit, central, desk)
            watched.check()
        finally:
            await browser.close()


async def in_every_language(kit: ProcessKit, central: Any, desk: Any, desk_url: str) -> None:
    from playwright.async_api import expect

    home = kit.api.removesuffix("/api/v1")
    number = central.get_by_test_id(f"site-{SITE}-kw")
    await desk.goto(desk_url)
    await desk.wait_for_selector("[data-testid=desk-compose]")
    for language in ("kk", "en", "ru"):
        await desk.get_by_test_id(f"lang-{language}").click()
        await check_language(desk, language, DESK[language])
        await shot(desk, f"desk-home-{language}")
        await central.goto(f"{home}/lang/{language}?to=/")
        await expect(number).not_to_have_text("—")
        await check_language(central, language, CENTRAL[language][:1])
        await shot(central, f"central-{language}")
        await central.get_by_test_id(f"site-{SITE}").click()
        await expect(central.get_by_test_id("miners")).to_contain_text(str(kit.luxos + kit.stock))
        await check_language(central, language, CENTRAL[language][1:])
        await shot(central, f"site-{language}")


async def order_and_release(kit: ProcessKit, central: Any, desk: Any) -> None:
    from playwright.async_api import expect

    shown = central.get_by_test_id(f"site-{SITE}-kw")
    before_w = kit.plant_net_w()
    await until_kw(shown, lambda kw: kw == pytest.approx(kit.plant_net_w() / 1000, rel=0.03), 10, "as the plant")
    limit_kw = round(before_w * 0.6 / 1000, 1)

    await desk.get_by_test_id("desk-limit-kw").fill(f"{limit_kw:.1f}".replace(".", ","))
    await desk.locator("[name=restore_percent]").fill("50")
    await desk.locator("[name=restore_stage_delay_s]").fill("2")
    await desk.get_by_test_id("desk-compose").click()
    said = f"{limit_kw:g}".replace(".", ",") + " кВт"
    await expect(desk.get_by_test_id("desk-headline")).to_have_text(f"Ограничить нагрузку до {said}")
    await until_text(desk.locator("table"), "ступенями по 50", "A. Dispatcher, KEGOC", SITE)
    assert not kit.central_rows("SELECT id FROM orders"), "nothing leaves before it is signed"
    await shot(desk, "desk-draft")
    await desk.get_by_test_id("desk-sign").click()

    state = desk.get_by_test_id("desk-state")
    await expect(state).to_have_attribute("data-state", "holding", timeout=30_000)
    rec = SigningKey.from_pem((kit.site_dir / "state" / "rec.key").read_bytes())
    await until_text(desk.get_by_test_id("desk-verified"), f"проверено ключом объекта {rec.kid}")
    await expect(desk.get_by_test_id("desk-verified")).to_have_attribute("data-ok", "true")
    await expect(desk.get_by_test_id("desk-completion")).to_have_text(
        re.compile(r"^Выполнено \d\d:\d\d, нагрузка \d+ кВт$")
    )
    order = desk.url.rpartition("/")[2]
    assert kit.order_state(order) == "holding"
    assert kit.plant_net_w() <= limit_kw * 1000

    await expect(central.get_by_test_id("order-state")).to_have_attribute("data-state", "holding", timeout=10_000)
    for step in ("received", "accepted", "outputs", "readback", "confirmed", "held"):
        await until_text(central.get_by_test_id(f"step-{step}"), "подписано площадкой")
    assert kilowatt(await central.get_by_test_id("fact-limit").inner_text()) == pytest.approx(limit_kw, abs=0.06)
    # The machines may still be running down when the page first shows less than the limit.
    await until_kw(
        shown,
        lambda kw: kw <= limit_kw and kw == pytest.approx(kit.plant_net_w() / 1000, rel=0.03),
        10,
        "below the limit, and the load of the plant",
    )
    await shot(central, "site-order")
    await shot(desk, "desk-order")

    await desk.get_by_test_id("desk-release").click()
    await expect(desk.get_by_test_id("desk-headline")).to_have_text(re.compile(order))
    await desk.get_by_test_id("desk-sign").click()
    await expect(desk.get_by_test_id("desk-target-state")).to_have_attribute("data-state", "done", timeout=40_000)
    await until_text(desk.get_by_test_id("desk-target-returned"), "Возврат завершён")
    await until_kw(shown, lambda kw: kw > before_w / 1000 * 0.95, 20, "the load is back")
    await until_kw(shown, lambda kw: kw == pytest.approx(kit.plant_net_w() / 1000, rel=0.03), 10, "as the plant")
    await shot(desk, "desk-release")
    await desk.goto(desk.url.rpartition("/")[0] + f"/{order}")
    await until_text(desk.get_by_test_id("desk-completion"), "Выполнено")
    await until_text(desk.get_by_test_id("desk-returned"), "Возврат завершён")
    await expect(desk.get_by_test_id("desk-release")).to_have_count(0)
    for page in (desk, central):
        await page.set_viewport_size({"width": 390, "height": 844})
        await page.wait_for_function("document.documentElement.scrollWidth <= innerWidth", timeout=5000)
    await shot(desk, "desk-phone")
    await shot(central, "site-phone")
