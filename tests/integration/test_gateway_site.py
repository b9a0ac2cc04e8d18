"""The gateway over the real central, broker and agent: live messages, a signed order, a meter that falls."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from unittest import mock

import httpx
import pytest
from site_kit import SITE, ZONE, SiteKit, now_ms, until

from central.api.app import make_app
from grid.client import CentralClient
from grid.gateway.dispatcher import Dispatcher
from grid.gateway.journal import Journal
from grid.gateway.plan import Plan
from grid.sequence import Sequence
from tizgin.cli import run
from wire import canonical
from wire.keys import SigningKey, b64
from wire.orders import uuid7
from wire.powers import Mandate, sign_power
from wire.registry import Issuer, KeysDocument, Person, Zone, open_keys

STEP_W = 8_000
RETURN_W = 300_000


def with_gateway(kit: SiteKit, gateway: SigningKey) -> bytes:
    """The kit's register with a gateway, the right to mandate, and bounds of the zone."""
    now = now_ms()
    before, _ = open_keys(kit.register(), [kit.registrar.public])
    span = {"valid_from": now - 86_400_000, "valid_to": now + 86_400_000}
    own = Issuer(kid=gateway.kid, key=gateway.public.text, person="gate", rights=("limit",), zones=(ZONE,), **span)
    issuers = tuple(
        i.model_copy(update={"rights": (*i.rights, "mandate")}) if i.person != "engineer" else i for i in before.issuers
    )
    return kit.register(
        issuers=(*issuers, own),
        persons=(*before.persons, Person(id="gate", name="Gateway", organisation="KEGOC", role="gateway")),
        zones=(Zone(id=ZONE, max_step_w=STEP_W, max_ramp_w_per_min=400_000, max_return_w_per_min=RETURN_W),),
    )


@pytest.mark.long
async def test_a_plan_comes_down_at_a_real_site_and_a_person_gives_it_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit, gateway = SiteKit(tmp_path), SigningKey.generate()
    try:
        await kit.start()
        assert kit.central is not None
        raw = with_gateway(kit, gateway)
        assert await kit.central.take_register(raw)
        register: KeysDocument = open_keys(raw, [kit.registrar.public])[0]
        app, loop, seen = kit.app, asyncio.get_running_loop(), kit.central.live.sites[SITE]
        assert app is not None
        await until(lambda: app.register.document is not None and app.register.document.zones, 10, "zones at the agent")
        await until(lambda: seen.state is not None and seen.state.mode == "armed", 20, "central knows it is armed")
        await until(lambda: seen.live is not None and seen.live.asics_hashing, 10, "live values at central")
        api = make_app(kit.central)

        async def ask(request: httpx.Request) -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(api)) as client:
                headers = {"content-type": "application/json"}
                return await client.request(request.method, request.url, content=request.content, headers=headers)

        def carry(request: httpx.Request) -> httpx.Response:
            said = asyncio.run_coroutine_threadsafe(ask(request), loop).result(10)
            return httpx.Response(said.status_code, content=said.content)

        now = now_ms()
        plan = Plan.model_validate_json(
            canonical.encode(
                {"v": 1, "id": uuid7(now), "zones": [ZONE], "target": {"permille": 600}, "ramp_w_per_min": 200_000,
                 "hold": {"until_released": True}, "restore": {"stage_delay_s": 1}, "basis": {"code": "drill"}}
            )
        )  # fmt: skip
        mandate = Mandate(
            v=1, id=uuid7(now), plan=plan.id, zones=(ZONE,), gateway=gateway.kid, issued_at=now, valid_from=now,
            valid_to=now + 3_600_000, actions=("limit",), band_w=6_000, max_cut_w=40_000, max_step_w=STEP_W,
            max_ramp_w_per_min=200_000,
        )  # fmt: skip
        with CentralClient("http://127.0.0.1:80", transport=httpx.MockTransport(carry)) as client:

            def dispatch() -> Dispatcher:
                made = Dispatcher(
                    key=gateway, sequence=Sequence(tmp_path / "gate.pem", gateway.kid), register=register,
                    journal=Journal(tmp_path / "gateway.db"), central=client,
                )  # fmt: skip
                made.start(plan, b64(sign_power(mandate, (kit.dispatcher, kit.second))), None, now_ms())
                deadline = time.monotonic() + 40
                while made.tick(now_ms()) not in {"held", "short"} and time.monotonic() < deadline:
                    time.sleep(0.2)
                return made

            before = kit.net_w()
            done = await asyncio.to_thread(dispatch)
        assert done.state == "held", list(done.members.values())
        assert before is not None
        assert done.target_w == done.total_w * 600 // 1000
        assert abs(done.total_w - before) <= 3_000
        power = kit.net_w()
        assert power is not None
        assert power <= done.target_w + 6_000
        order = next(iter(app.journal.live.values()))
        assert order.order.mandate is not None
        assert order.doc.persons == ["gate"]
        (tmp_path / "keys.json").write_bytes(raw)
        (tmp_path / "me.pem").touch(mode=0o600)
        (tmp_path / "me.pem").write_bytes(kit.dispatcher.to_pem(None))
        words = ["order", "release-plan", plan.id, "--central", "http://127.0.0.1:80", "--yes", "--json"]
        words += ["--key", str(tmp_path / "me.pem"), "--keys", str(tmp_path / "keys.json"), "--wait-s", "20"]
        words += ["--registrar", kit.registrar.public.text, "--out", str(tmp_path / "back")]
        carried = CentralClient("http://127.0.0.1:80", transport=httpx.MockTransport(carry))
        with mock.patch("grid.client.CentralClient", return_value=carried):
            ended = await asyncio.to_thread(run, words)
        told = json.loads(next(line for line in capsys.readouterr().out.splitlines() if line.startswith('{"plan"')))
        assert (ended, told["complete"]) == (0, True), told
        row = told["releases"][0]
        assert (row["order"], row["result"], row["max_w_per_min"]) == (order.id, "validated", RETURN_W)
        assert abs(row["off_w"] - (before - power)) <= 8_000
        await until(lambda: order.id not in app.journal.live, 60, "the order's end")
        await until(lambda: (kit.net_w() or 0) >= before - 3_000, 40, "the load at the meter")
    finally:
        await kit.stop()
