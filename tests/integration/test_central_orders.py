"""Orders through central: exact bytes, sent again until answered, loud when they do not arrive; and who may ask."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

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

SITES = ("ekb-1", "deaf-2", "off-3", "liar-4")
JSON = {"content-type": "application/json"}
DISPATCHER = SigningKey.generate()


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCentral]:
    registrar = SigningKey.generate()
    folder = tmp_path_factory.mktemp("orders")
    running = RunningCentral(folder, make_settings(folder / "data", registrar, SITES), registrar)
    running.start()
    yield running
    running.stop()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture
def online(central: RunningCentral) -> Iterator[object]:
    made: list[Site] = []

    def make(name: str) -> Site:
        site = central.site(name)
        site.ledger.epoch = f"e1-{time.monotonic_ns() % 16**8:08x}"
        site.come_online()
        made.append(site)
        return site

    yield make
    for site in made:
        site.close()


def post(central: RunningCentral, raw: bytes, **headers: str) -> httpx.Response:
    return httpx.post(central.url + "/api/v1/orders", content=raw, headers=JSON | headers, trust_env=False)


def answer(site: Site, order_id: str, raw: bytes, ty: str, **fields: object) -> bytes:
    digest = hashlib.sha256(open_envelope(raw, expected_type=ORDER_TYPE).payload).hexdigest()
    base: dict[str, object] = {"id": order_id}
    if ty == "cmd_rx":
        base |= {"digest": digest, "raw": base64.b64encode(raw).decode(), "rx": now_ms()}
    line = site.ledger.add("cmd", ty, **(base | fields))
    site.send_lines(line, name="answer")
    return line


def test_an_order_arrives_byte_for_byte_and_its_story_is_told(central: RunningCentral, online) -> None:
    site = online("ekb-1")
    order_id, raw = make_order("ekb-1", DISPATCHER, epoch=site.ledger.epoch)
    posted = post(central, raw)
    assert posted.status_code == 202, posted.text
    assert posted.json()["state"] is None
    wait_for(lambda: site.orders, "the order at the site")
    assert site.orders[0] == raw
    path = f"/api/v1/orders/{order_id}"
    rx = answer(site, order_id, raw, "cmd_rx")
    wait_for(lambda: central.get(path)["state"] == "received", "received")
    ack = answer(site, order_id, raw, "cmd_ack", state="validated", code=None, text="ok", before_w=4_800_000)
    wait_for(lambda: central.get(path)["state"] == "validated", "accepted")
    site.send_progress(order_id, "executing", power_w=4_000_000, target_w=1_500_000, steps_done=1, steps_total=5)
    wait_for(lambda: central.get(path)["state"] == "executing", "unsigned progress shows")
    assert central.get(path)["signed_state"] == "validated"
    eff = answer(site, order_id, raw, "cmd_eff", state="holding", power_w=1_400_000, target_w=1_500_000, text="")
    wait_for(lambda: central.get(path)["state"] == "holding", "held")
    found = central.get(path)
    assert base64.b64decode(found["envelope"]) == raw
    assert [line.encode() for line in found["answers"]] == [rx, ack, eff]
    assert [p["state"] for p in found["progress"]] == ["executing"]
    assert (found["phase"], found["not_delivered"], found["phone"]) == ("held", False, "+7 700 000 00 01")
    assert found["delivered"] >= found["posted_at"]
    again = post(central, raw)
    assert again.status_code == 200
    answer(site, order_id, raw, "cmd_ack", state="rejected", code="replay", text="seen before")
    wait_for(lambda: len(central.get(path)["answers"]) == 4, "the refusal of the copy")
    assert central.get(path)["state"] == "holding", "a refused copy does not undo the order"
    assert central.get("/api/v1/sites/ekb-1")["latest_order"]["id"] == order_id


def test_the_same_id_with_other_bytes_is_refused(central: RunningCentral, online) -> None:
    order_id, raw = make_order("off-3", DISPATCHER)
    assert post(central, raw).status_code == 202
    _, other = make_order("off-3", DISPATCHER, id=order_id, limit_w=1)
    refused = post(central, other)
    assert (refused.status_code, refused.json()["code"]) == (409, "id_reuse")
    assert refused.headers["content-type"] == "application/problem+json"


def test_what_is_no_order_is_refused_with_the_reason(central: RunningCentral) -> None:
    _, unknown = make_order("nobody-9", DISPATCHER)
    assert post(central, unknown).status_code == 404
    for raw, word in ((b"{}", "envelope needs"), (b"x" * 100, "not JSON"), (b"[" * 30_000, "JSON")):
        refused = post(central, raw)
        assert (refused.status_code, refused.json()["code"]) == (422, "format"), refused.text
        assert word in refused.json()["detail"]
    assert post(central, b"x" * 33_000).status_code == 413
    assert httpx.get(central.url + "/api/v1/orders/nothing").status_code == 404
    assert httpx.get(central.url + "/api/v1/sites/nobody-9").status_code == 404
    assert httpx.get(central.url + "/api/v1/orders?limit=9999").status_code == 422


def test_an_unanswered_order_is_sent_again_and_called_out(central: RunningCentral, online) -> None:
    site = online("deaf-2")
    order_id, raw = make_order("deaf-2", DISPATCHER, epoch=site.ledger.epoch)
    post(central, raw)
    path = f"/api/v1/orders/{order_id}"
    assert central.get(path)["not_delivered"] is False
    wait_for(lambda: len(site.orders) >= 3, "sent three times", 14)
    assert set(site.orders) == {raw}
    wait_for(lambda: central.get(path)["not_delivered"], "called out after ten seconds", 6)
    answer(site, order_id, raw, "cmd_rx")
    answer(site, order_id, raw, "cmd_ack", state="rejected", code="mode", text="the agent is in monitor")
    wait_for(lambda: central.get(path)["phase"] == "refused", "refused")
    assert central.get(path)["not_delivered"] is False
    site.orders.clear()
    time.sleep(5.5)  # longer than the pause between two sendings: there is no event to wait for
    assert site.orders == []


def test_an_order_for_a_site_that_is_off_goes_when_it_comes(central: RunningCentral, online) -> None:
    order_id, raw = make_order("off-3", DISPATCHER)
    post(central, raw)
    site = online("off-3")
    wait_for(lambda: raw in site.orders, "the order right after the state", 3)
    assert central.get(f"/api/v1/orders/{order_id}")["state"] is None


def test_a_site_cannot_answer_for_another(central: RunningCentral, online) -> None:
    site, liar = online("ekb-1"), online("liar-4")
    order_id, raw = make_order("ekb-1", DISPATCHER, epoch=site.ledger.epoch)
    post(central, raw)
    answer(liar, order_id, raw, "cmd_ack", state="done", code=None, text="")
    liar.wait_committed("cmd", 1)
    found = central.get(f"/api/v1/orders/{order_id}")
    assert (found["state"], found["answers"]) == (None, [])
    liar.send_progress(order_id, "done")
    liar.send("state", liar.state())
    assert central.get(f"/api/v1/orders/{order_id}")["state"] is None


def test_an_answer_under_a_key_the_register_denies_proves_nothing(central: RunningCentral, online) -> None:
    site = online("ekb-1")
    register = make_register(central.registrar, {"ekb-1": SigningKey.generate()}, epoch=site.ledger.epoch)
    assert httpx.put(central.url + "/api/v1/keys", content=register, headers=JSON).status_code == 200
    order_id, raw = make_order("ekb-1", DISPATCHER, epoch=site.ledger.epoch)
    post(central, raw)
    answer(site, order_id, raw, "cmd_ack", state="done", code=None, text="")
    wait_for(lambda: central.get(f"/api/v1/orders/{order_id}")["answers_verified"] == [False], "judged false")
    found = central.get(f"/api/v1/orders/{order_id}")
    assert (found["state"], found["delivered"]) == (None, None)


def test_proposals_are_carried_as_data(central: RunningCentral) -> None:
    body = {"site": "ekb-1", "action": "limit", "limit_w": 2_000_000, "note": "<script>alert(1)</script>"}
    made = httpx.post(central.url + "/api/v1/proposals", json=body)
    assert made.status_code == 201, made.text
    assert central.get("/api/v1/proposals")[0] == {"id": made.json()["id"], "made_at": made.json()["made_at"]} | body
    assert httpx.post(central.url + "/api/v1/proposals", json=body | {"site": "x9"}).status_code == 404
    assert httpx.post(central.url + "/api/v1/proposals", json=body | {"limit_w": -1}).status_code == 422


# -- who may ask -------------------------------------------------------------------------------------------------------


def raw_request(central: RunningCentral, text: str) -> str:
    host, port = central.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 5) as sock:
        sock.sendall(text.replace("\n", "\r\n").encode())
        data = b""
        with contextlib.suppress(TimeoutError):
            while chunk := sock.recv(65_536):
                data += chunk
                if b"\r\n\r\n" in data and b"403" in data[:20]:
                    break
        return data.decode(errors="replace")


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/api/v1/sites", {"host": "evil.example"}),
        ("GET", "/api/v1/sites", {"host": "127.0.0.1.evil.example:8080"}),
        ("GET", "/", {"host": "evil.example:80"}),
        ("GET", "/api/v1/sites", {"origin": "http://evil.example"}),
        ("GET", "/api/v1/sites", {"origin": "null"}),
        ("GET", "/api/v1/sites", {"origin": "http://127.0.0.1:1"}),
        ("POST", "/api/v1/orders", {"origin": "http://evil.example", **JSON}),
        ("POST", "/api/v1/orders", {"content-type": "text/plain"}),
        ("POST", "/api/v1/orders", {"content-type": "application/x-www-form-urlencoded"}),
        ("POST", "/api/v1/proposals", {"sec-fetch-site": "cross-site", **JSON}),
        ("GET", "/api/v1/sites", {"sec-fetch-site": "same-site"}),
        ("PUT", "/api/v1/keys", {"origin": "https://evil.example", **JSON}),
    ],
)
def test_other_web_pages_cannot_use_central(
    central: RunningCentral, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = httpx.request(method, central.url + path, content=b"{}" if method != "GET" else None, headers=headers)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_web_socket_of_another_page_is_refused(central: RunningCentral) -> None:
    port = central.url.rsplit(":", 1)[1]
    request = (
        "GET /_nicegui_ws/socket.io/?EIO=4&transport=websocket HTTP/1.1\n"
        "Host: {host}\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nOrigin: {origin}\n\n"
    )
    for host, origin in ((f"127.0.0.1:{port}", "http://evil.example"), ("evil.example", "http://evil.example")):
        assert " 403 " in raw_request(central, request.format(host=host, origin=origin)).split("\n")[0]


def test_answers_carry_headers_that_keep_other_pages_out(central: RunningCentral) -> None:
    headers = httpx.get(central.url + "/api/v1/sites").headers
    assert "access-control-allow-origin" not in headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in headers["content-security-policy"]


def test_there_is_no_route_that_signs(central: RunningCentral) -> None:
    document = central.get("/openapi.json")
    writing = {(m, p) for p, ms in document["paths"].items() for m in ms if m not in {"get", "head"}}
    assert writing == {
        ("post", "/api/v1/orders"),
        ("post", "/api/v1/orders/{order_id}/spoken"),
        ("post", "/api/v1/proposals"),
        ("put", "/api/v1/keys"),
    }


# -- what survives -----------------------------------------------------------------------------------------------------


def test_killed_between_commit_and_acknowledgement_nothing_is_lost_or_doubled(tmp_path) -> None:
    """Its broker dies with central; the site sends again what no commit named."""
    registrar = SigningKey.generate()
    running = RunningCentral(tmp_path, make_settings(tmp_path / "data", registrar, ("ekb-1",)), registrar)
    running.start()
    key, ledger, done_bulk, done_lines, sent = SigningKey.generate(), None, set(), set(), 0
    _, raw = make_order("ekb-1", DISPATCHER)
    batches: dict[int, bytes] = {}
    for kill_after_s in (0.15, 0.3, 0.05, None):
        site = running.site("ekb-1", key)
        site.ledger, site.batches = ledger or site.ledger, batches
        ledger = site.ledger
        site.come_online()
        if kill_after_s == 0.15:
            post(running, raw)
        for _ in range(40):
            ledger.add("site", "event", ev="x", obj="y")
            site.batch(sent)
            sent += 1
        began = time.monotonic()
        for n in range(sent):  # as an agent does: whatever is not yet committed goes again
            if n not in done_bulk:
                site.client.publish("tizgin/1/ekb-1/bulk", batches[n], qos=1)
            if n not in done_lines:
                site.client.publish("tizgin/1/ekb-1/evidence", ledger.lines["site"][n], qos=1)
        if kill_after_s is None:
            site.wait_committed("bulk", len(set(range(sent)) - done_bulk), 20)
            site.wait_committed("site", len(set(range(sent)) - done_lines), 20)
            wait_for(lambda heard=site.orders: raw in heard, "the order outlives central", 8)
        else:
            time.sleep(max(0.0, kill_after_s - (time.monotonic() - began)))
            running.kill()
        done_bulk |= site.committed("bulk")
        done_lines |= site.committed("site")
        site.close()
        if kill_after_s is not None:
            running.start()
    found = running.get("/api/v1/counts")
    running.stop()
    assert done_bulk == done_lines == set(range(sent))
    assert (found["records"], found["records_distinct"]) == (sent, sent)
    assert (found["batches"], found["values"], found["values_distinct"]) == (sent, sent * 10, sent * 10)
    assert found["forks"] == 0
