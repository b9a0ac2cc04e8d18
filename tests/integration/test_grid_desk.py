"""The order desk as a process of its own, in a real Chromium, beside a small stand-in for central's API."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from grid.keystore import create_key
from wire.keys import SigningKey
from wire.names import origin
from wire.orders import SignedOrder, parse_order
from wire.records import RecordLine
from wire.registry import KeysDocument, sign_keys
from wire.spoken import open_note

SITE, EPOCH = "ekb-01", "e2-0a1b2c3d"
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@dataclass
class StandIn:
    """Keeps orders and answers them with record lines of the site's key, as central would relay them."""

    rec: SigningKey
    answering: SigningKey | None
    orders: dict[str, SignedOrder] = field(default_factory=dict)
    notes: list[bytes] = field(default_factory=list)
    count: int = 0
    port: int = 0
    page: str | None = None
    """What it serves in place of every page, script, style and picture of central's."""

    def line(self, signed: SignedOrder, ty: str, fields: dict[str, Any]) -> str:
        common = {"v": 1, "log": origin(SITE, EPOCH), "st": "cmd", "n": self.count, "a": None, "ty": ty}
        common |= {"p": "00" * 32 if self.count else None, "at": time.time_ns() // 1_000_000, "mono": 1, "boot": "b"}
        self.count += 1
        assert self.answering is not None
        body = common | {"clk": {"s": "S"}, "fw": "1", "id": signed.order.id} | fields
        return RecordLine.sign(body, self.answering).encode().decode()

    def answers(self, signed: SignedOrder) -> list[str]:
        if self.answering is None:
            return []
        self.count = 0
        accepted = {"state": "validated", "code": None, "text": EVIL, "kids": [], "agent_mode": "armed"}
        state = "done" if signed.order.action == "release" else "holding"
        report = {"verdict": "short", "hold_permille": 900, "excuses": [EVIL]}
        return [
            self.line(signed, "cmd_rx", {"digest": signed.digest, "raw": None, "rx": 1}),
            self.line(signed, "cmd_ack", accepted),
            self.line(signed, "cmd_eff", {"state": state, "power_w": 37_960_000, "flags": [], "text": "", "ms": {}}),
            *([self.line(signed, "cmd_report", report)] if state == "holding" else []),
        ]

    def get(self, path: str) -> Any:
        if path == "/api/v1/sites":
            names = {"kk": f"Екібастұз {EVIL}", "ru": "Экибастуз-1", "en": "Ekibastuz-1"}
            row = {"id": SITE, "name": names, "power_w": 81_250_000, "age_ms": 1200, "freshness": "fresh"}
            return [row | {"mode": "armed", "presence": "online", "epoch": EPOCH, "limit_w": None, "phone": "+7 700"}]
        if path == "/api/v1/proposals":
            return [{"site": SITE, "action": "limit", "limit_w": 50_000_000, "minutes": 60, "note": EVIL}]
        if path.startswith("/api/v1/orders/"):
            signed = self.orders.get(path.rpartition("/")[2])
            if signed is None:
                return None
            shown = {"id": signed.order.id, "envelope": base64.b64encode(signed.raw).decode(), "phone": "+7 700"}
            return shown | {"answers": self.answers(signed), "progress": [{"power_w": 40_000_000}]}
        return [{"id": s.order.id, "site": SITE, "action": s.order.action} for s in self.orders.values()]


def serve(stand_in: StandIn) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if stand_in.page is not None and not self.path.startswith("/api/"):
                self.serve_page(stand_in.page.encode())
                return
            self.answer(stand_in.get(self.path.partition("?")[0]))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path.endswith("/spoken"):
                stand_in.notes.append(body)
                self.answer({"new": True})
                return
            signed = parse_order(body)
            stand_in.orders[signed.order.id] = signed
            self.answer({"id": signed.order.id})

        def answer(self, doc: Any) -> None:
            body = json.dumps({"title": "unknown"} if doc is None else doc).encode()
            self.send_response(404 if doc is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def serve_page(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/javascript" if ".js" in self.path else "text/html; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.send_header("set-cookie", "central=1; path=/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@dataclass
class Running:
    """A desk process."""

    url: str
    stand_in: StandIn
    signer: SigningKey

    @property
    def base(self) -> str:
        return self.url.partition("/enter")[0]


@pytest.fixture
def running(tmp_path: Path, repository: Path) -> Iterator[Running]:
    registrar, rec = SigningKey.generate(), SigningKey.generate()
    signer = create_key(tmp_path / "me.pem", None)
    document = KeysDocument.model_validate_json(
        json.dumps(
            {
                "v": 1,
                "version": 1,
                "issued_at": 1_790_000_000_000,
                "persons": [{"id": "a", "name": "А. Серіков", "organisation": "KEGOC", "role": "system_operator"}],
                "issuers": [
                    {
                        "kid": signer.kid,
                        "key": signer.public.text,
                        "person": "a",
                        "rights": ["limit", "release"],
                        "sites": [SITE],
                        "valid_from": 1_700_000_000_000,
                        "valid_to": 1_900_000_000_000,
                    }
                ],
                "sites": [
                    {
                        "id": SITE,
                        "zone": "north",
                        "contracted_w": 100_000_000,
                        "emergency_w": 1_500_000,
                        "slot_s": 900,
                        "epochs": [
                            {"epoch": EPOCH, "k_rec": rec.public.text, "k_log": SigningKey.generate().public.text}
                        ],
                    }
                ],
            }
        )
    )
    (tmp_path / "keys.json").write_bytes(sign_keys(document, registrar))
    stand_in = StandIn(rec, rec)
    server = serve(stand_in)
    stand_in.port = server.server_port
    threading.Thread(target=server.serve_forever, name="stand-in", daemon=True).start()
    ready = tmp_path / "ready.json"
    words = ["order", "desk", "--central", f"http://127.0.0.1:{server.server_port}", "--key", str(tmp_path / "me.pem")]
    words += ["--keys", str(tmp_path / "keys.json"), "--registrar", registrar.public.text, "--ready-file", str(ready)]
    process = subprocess.Popen([sys.executable, "-m", "tizgin.cli", *words], cwd=repository, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None, "the desk ended by itself"
            assert time.monotonic() < deadline, "the desk did not start"
            time.sleep(0.05)
        yield Running(json.loads(ready.read_text())["url"], stand_in, signer)
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(10)
        server.shutdown()
        server.server_close()


def test_only_the_one_browser_may_use_the_desk(running: Running) -> None:
    base = running.base
    port = base.rpartition(":")[2]
    with httpx.Client(trust_env=False) as web:
        assert web.get(base).status_code == 401
        assert web.get(base, headers={"host": f"evil.example:{port}"}).status_code == 421
        assert web.get(base + "/enter?token=wrong").status_code == 403
        entered = web.get(running.url)
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert web.get(base).status_code == 200
        assert web.get(running.url).status_code == 403, "the token works once"
        good = {"origin": base}
        form = {"site": SITE, "action": "limit", "kw": "38000"}
        assert web.post(base + "/compose", data=form).status_code == 403, "no origin"
        assert web.post(base + "/compose", data=form, headers={"origin": "http://evil"}).status_code == 403
        assert (
            web.post(base + "/compose", data=form, headers=good | {"sec-fetch-site": "cross-site"}).status_code == 403
        )
        assert web.put(base, headers=good).status_code == 405
        answer = web.post(base + "/compose", data=form, headers=good)
        assert answer.status_code == 303
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert web.post(base + "/compose", content=b"x" * 40_000, headers=good).status_code == 400
        wrong = web.post(base + "/compose", data=form | {"kw": "many"}, headers=good)
        assert wrong.status_code == 422
        assert "limit_kw" in wrong.text
    assert running.stand_in.orders == {}, "nothing was signed"


@pytest.mark.browser
def test_a_dispatcher_limits_sees_it_proven_and_releases(running: Running, tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip("left out: Chromium is not installed at /usr/bin/chromium")
    from playwright.sync_api import expect, sync_playwright

    shots = Path(os.environ.get("TIZGIN_SCREENSHOTS", tmp_path))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            asked: list[str] = []
            problems: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            page.goto(running.url)
            site = page.get_by_test_id(f"desk-site-{SITE}")
            expect(site).to_contain_text("81\u202f250 кВт")
            expect(site).to_contain_text("<script>", use_inner_text=True)
            page.screenshot(path=str(shots / "desk-kk.png"), full_page=True)

            page.get_by_test_id("lang-ru").click()
            expect(page.get_by_test_id("desk-compose")).to_have_text("Составить")
            page.get_by_test_id("desk-limit-kw").fill("38 000")
            page.get_by_test_id("desk-compose").click()
            expect(page.get_by_test_id("desk-headline")).to_have_text("Ограничить нагрузку до 38\u202f000 кВт")
            expect(page.locator("table")).to_contain_text(f"Экибастуз-1 ({SITE})")
            expect(page.locator("table")).to_contain_text("А. Серіков, KEGOC")
            assert running.stand_in.orders == {}, "nothing leaves before it is signed"
            page.screenshot(path=str(shots / "desk-draft-ru.png"), full_page=True)
            page.get_by_test_id("desk-sign").click()

            expect(page.get_by_test_id("desk-state")).to_have_attribute("data-state", "holding")
            expect(page.get_by_test_id("desk-verified")).to_contain_text(running.stand_in.rec.kid)
            expect(page.get_by_test_id("desk-completion")).to_contain_text("Выполнено")
            expect(page.get_by_test_id("desk-completion")).to_contain_text("нагрузка 38 МВт")
            said = "Отчёт площадки: ИСПОЛНЕНА НЕ ПОЛНОСТЬЮ; цель соблюдена в 90\u00a0% измеренного"
            expect(page.get_by_test_id("desk-report")).to_contain_text(said)
            page.screenshot(path=str(shots / "desk-order-ru.png"), full_page=True)
            (order,) = running.stand_in.orders.values()
            assert order.order.limit_w == 38_000_000
            assert order.envelope.verify({running.signer.kid: running.signer.public}) == (running.signer.kid,)

            # Central now relays lines of a key that the register does not know.
            running.stand_in.answering = SigningKey.generate()
            refused = page.get_by_test_id("desk-refused").first
            expect(refused).to_contain_text("which the register does not name")
            expect(page.get_by_test_id("desk-verified")).to_have_attribute("data-ok", "false")
            expect(page.get_by_test_id("desk-completion")).to_have_count(0)
            expect(page.get_by_test_id("desk-report")).to_have_count(0)
            page.screenshot(path=str(shots / "desk-refused-ru.png"), full_page=True)
            running.stand_in.answering = running.stand_in.rec

            # A call is noted under the same id, with central's copy or without.
            page.get_by_test_id("desk-spoken-taken_by").fill("А. Серік")
            page.get_by_test_id("desk-spoken-recording_no").fill("4711")
            page.get_by_test_id("desk-spoken-sign").click()
            expect(page.get_by_test_id("desk-history")).to_contain_text("принял А. Серік; запись № 4711")
            (note,) = running.stand_in.notes
            said, envelope = open_note(note)
            assert (said.order, said.taken_by) == (order.order.id, "А. Серік")
            assert envelope.verify({running.signer.kid: running.signer.public}) == (running.signer.kid,)
            page.get_by_text("Передать подписанное распоряжение другим путём").click()
            code = base64.b64decode(page.get_by_test_id("desk-code").input_value())
            assert code == order.raw, "what is sent another way is the same order"
            page.screenshot(path=str(shots / "desk-spoken-ru.png"), full_page=True)

            page.get_by_test_id("lang-en").click()
            page.get_by_test_id("desk-release").click()
            expect(page.get_by_test_id("desk-headline")).to_have_text(f"Release: {order.order.id}")
            page.get_by_test_id("desk-sign").click()
            expect(page.get_by_test_id("desk-state")).to_have_text("done")
            page.get_by_test_id("lang-kk").click()
            expect(page.get_by_test_id("desk-completion")).to_contain_text("Орындалды")

            page.set_viewport_size({"width": 390, "height": 800})
            page.goto(running.base)
            expect(page.get_by_test_id(f"desk-site-{SITE}")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            page.screenshot(path=str(shots / "desk-phone-kk.png"), full_page=True)
            assert page.title() != "owned"
            assert all(url.startswith((running.base, "data:")) for url in asked)
            assert problems == []
        finally:
            browser.close()


HOSTILE_PAGE = """<!doctype html><title>central</title><body><script>
const asked = new URLSearchParams(location.search);
const desk = asked.get("desk"), draft = asked.get("draft");
window.seen = []; window.done = false;
const told = (what, value) => window.seen.push([what, String(value)]);
const sign = desk + '/draft/' + draft + '/sign';
const form = new URLSearchParams({site: 'ekb-01', action: 'limit', kw: '1'});
async function tries() {
  for (const mode of ['cors', 'no-cors', 'same-origin'])
    for (const [url, options] of [[desk + '/', {}], [desk + '/part/sites', {}], [sign, {method: 'POST', body: form}],
                                  [desk + '/compose', {method: 'POST', body: form}]])
      try {
        const answer = await fetch(url, {...options, mode, credentials: 'include'});
        told(mode + ' ' + url, answer.type === 'opaque' ? 'opaque' : await answer.text());
      } catch { told(mode + ' ' + url, 'refused'); }
  navigator.sendBeacon(sign, form);
  for (const tag of ['img', 'script', 'iframe', 'embed', 'object', 'link']) {
    const part = document.createElement(tag);
    part.rel = 'stylesheet'; part.name = 'inside-' + tag;
    part.src = part.data = part.href = tag === 'script' ? desk + '/desk.js' : desk + '/';
    document.body.append(part);
  }
  const frame = document.createElement('iframe'); frame.name = 'target'; document.body.append(frame);
  const post = document.createElement('form');
  post.method = 'post'; post.action = sign; post.target = 'target'; document.body.append(post); post.submit();
  await new Promise(next => setTimeout(next, 1500));
  window.done = true;
}
tries();
</script>"""


@pytest.mark.browser
def test_no_page_that_central_serves_drives_or_reads_the_desk(running: Running) -> None:
    """In the dispatcher's own browser, beside his open draft, whose number it knows: nothing is signed or read."""
    if not CHROMIUM.exists():
        pytest.skip("left out: Chromium is not installed at /usr/bin/chromium")
    from playwright.sync_api import expect, sync_playwright

    running.stand_in.page = HOSTILE_PAGE
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        try:
            context = browser.new_context()
            page = context.new_page()
            page.goto(running.url)
            page.get_by_test_id("desk-limit-kw").fill("38 000")
            page.get_by_test_id("desk-compose").click()
            expect(page.get_by_test_id("desk-sign")).to_be_visible()
            draft = page.url.rpartition("/")[2]
            central = context.new_page()
            where = f"http://127.0.0.1:{running.stand_in.port}/?desk={running.base}&draft={draft}"
            central.goto(where)
            central.wait_for_function("window.done", timeout=30_000)
            seen = central.evaluate("window.seen")
            assert len(seen) == 12
            assert {value for _, value in seen} <= {"refused", "opaque"}
            for frame in central.frames[1:]:
                assert frame.locator("[data-testid]").count() == 0
            for path in ("/", f"/draft/{draft}"):  # a link, or a window, of central's to the desk
                central.goto(where)
                with context.expect_page() as opened:
                    central.evaluate("url => { window.open(url) }", running.base + path)
                opened.value.wait_for_load_state()
                assert opened.value.get_by_test_id("desk-sign").count() == 0
                assert opened.value.get_by_test_id("desk-compose").count() == 0
            assert running.stand_in.orders == {}, "nothing was signed"
            page.get_by_test_id("desk-sign").click()
            expect(page.get_by_test_id("desk-state")).to_have_attribute("data-state", "holding")
            (order,) = running.stand_in.orders.values()
            assert order.order.limit_w == 38_000_000, "the draft is the one that was read"
        finally:
            browser.close()
