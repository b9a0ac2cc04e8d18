"""The gateway as a process: its files, its journal, what it says of sites, and kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from grid.errors import GridError
from grid.gateway.checks import Powers
from grid.gateway.inbox import Handed, hand_over, waiting
from grid.gateway.members import Given, Member, Standing, figures_differ, judge
from grid.gateway.pace import exhausted, next_turn
from grid.gateway.plan import load_plan
from grid.gateway.preview import preview, story
from grid.gateway.run import Gateway, alone
from grid.gateway.settings import load_settings
from grid.gateway.view import Seen, read_view
from grid.sequence import Sequence
from grid.story import Answer, Story
from tests.unit.agent_kit import EMERGENCY_W, START_MS
from tests.unit.country_kit import FULL_W, GATEWAY, PEOPLE, ZONE, Country, running_country
from tizgin.cli import run
from wire.dsse import ORDER_TYPE, seal
from wire.keys import SigningKey, b64
from wire.orders import Basis, Hold, Order, parse_order, uuid7
from wire.powers import Mandate, sign_power
from wire.registry import Epoch, Issuer, KeysDocument, Person, RegisteredSite, Revocation, Zone, sign_keys

REGISTRAR = SigningKey.generate()
BOUNDS = Zone(id=ZONE, max_step_w=300_000, max_ramp_w_per_min=6_000_000)
PLAN = """
id: {id}
zones: [karaganda]
target: {{{target}}}
ramp_kw_per_min: 3000
hold: {{until_released: true}}
basis: {{code: drill}}
"""


def files(folder: Path, register: KeysDocument, central: str = "http://127.0.0.1:1") -> Path:
    """gateway.yaml and what it names."""
    folder.mkdir(exist_ok=True)
    (folder / "gateway.pem").touch(mode=0o600)
    (folder / "gateway.pem").write_bytes(GATEWAY.to_pem(None))
    (folder / "keys.json").write_bytes(sign_keys(register, REGISTRAR))
    (folder / "gateway.yaml").write_text(
        f"key: gateway.pem\nregister_file: keys.json\nregistrar: ['{REGISTRAR.public.text}']\n"
        f"central: {central}\ndata_dir: data\nlook_s: 0.2\n"
    )
    return folder / "gateway.yaml"


def plan_file(folder: Path, target: str = "permille: 700", plan_id: str | None = None) -> Path:
    path = folder / "plan.yaml"
    path.write_text(PLAN.format(id=plan_id or uuid7(START_MS), target=target))
    return path


async def pass_time(country: Country, gateway: Gateway, done: Callable[[], bool]) -> None:
    for _ in range(300):
        gateway.step()
        if done():
            return
        await country.second()
    raise AssertionError([d.state for d in gateway.running])


async def test_plans_come_as_files_one_after_the_other_in_a_zone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_country(tmp_path, 3, zone=BOUNDS) as country:
        config = files(tmp_path / "office", country.register)
        settings = load_settings(config)
        gateway = Gateway(settings, GATEWAY, country, country.clock.now_ms)

        def hand(target: str) -> Handed:
            loaded = load_plan(plan_file(tmp_path, target), now_ms=START_MS)
            handed = Handed(loaded, country.mandate(loaded))
            seen = preview(handed, GATEWAY.kid, country.register, country, country.clock.now_ms())
            assert (seen["total_w"], seen["missing_w"]) == (country.total_w, 0)
            assert sum(row["share_w"] for row in seen["sites"]) >= seen["total_w"] - seen["target_w"] > 0
            hand_over(settings.data_dir, handed)
            return handed

        first = hand("permille: 700")
        await pass_time(country, gateway, lambda: bool(country.posts))
        early = hand("permille: 500")
        gateway.step()
        assert waiting(settings.data_dir) == []
        refused = story(settings.data_dir, early.plan.id)
        assert refused["state"] == "refused"
        assert f"plan {first.plan.id} is still on its way" in refused["text"]
        await pass_time(country, gateway, lambda: gateway.running[0].state == "held")
        second = hand("permille: 500")
        await pass_time(country, gateway, lambda: gateway.running[-1].plan == second.plan)
        await pass_time(country, gateway, lambda: gateway.running[0].state == "held")
        assert story(settings.data_dir, first.plan.id)["state"] == "left"
        assert country.total_w <= 3 * FULL_W * 500 // 1000 + 50_000

        capsys.readouterr()
        # Both plans' orders stand until persons release them; the list names each.
        assert run(["gateway", "show", "--config", str(config), "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["plan"], shown["state"]) == (second.plan.id, "held")
        assert {row["site"] for row in shown["release"]} == {"kz-00", "kz-01", "kz-02"}
        assert run(["gateway", "show", "--config", str(config), "--plan", first.plan.id]) == 0
        assert capsys.readouterr().out.count("tizgin order sign --action release --site kz-0") == 3


async def test_a_revoked_gateway_orders_nothing_more(tmp_path: Path) -> None:
    async with running_country(tmp_path, 4, zone=BOUNDS) as country:
        config = files(tmp_path / "office", country.register)
        settings = load_settings(config)
        gateway = Gateway(settings, GATEWAY, country, country.clock.now_ms)
        plan = load_plan(plan_file(tmp_path, "permille: 500"), now_ms=START_MS)
        hand_over(settings.data_dir, Handed(plan, country.mandate(plan)))
        await pass_time(country, gateway, lambda: len(country.posts) == 2)
        revoked = (Revocation(kid=GATEWAY.kid, at=START_MS, reason="stolen"),)
        newer = country.register.model_copy(update={"version": 2, "revoked": revoked})
        (config.parent / "keys.json").write_bytes(sign_keys(newer, REGISTRAR))
        await pass_time(country, gateway, lambda: gateway.running[0].state == "powerless")
        for _ in range(20):
            await country.second()
            gateway.step()
        assert len(country.posts) == 2
        assert "was revoked" in story(settings.data_dir, plan.id)["text"]


def test_a_folder_where_others_may_write_is_refused_and_so_is_a_second_gateway(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    plan = load_plan(plan_file(tmp_path), now_ms=START_MS)
    with pytest.raises(GridError, match="chmod 700"):
        hand_over(folder, Handed(plan, "x"))
    folder.chmod(0o700)
    with alone(folder), pytest.raises(GridError, match="another gateway"), alone(folder):
        pass


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s.replace("id: ", "# "), "a plan needs an id.*for example 'id: "),
        (lambda s: s.replace("permille: 700", "permille: 700, total_kw: 1"), "exactly one of"),
        (lambda s: s.replace("until_released: true", "until: 2030-01-01, restore_auto: true"), "gives no load back"),
        (lambda s: s.replace("[karaganda]", "[karaganda, karaganda]"), "named twice"),
        (lambda s: s.replace("3000", "0.0001"), "whole watts"),
        (lambda s: s + "stop: true\n", "stop"),
    ],
)
def test_a_wrong_plan_is_refused_with_its_reason(tmp_path: Path, change: Callable[[str], str], match: str) -> None:
    path = plan_file(tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(GridError, match=match):
        load_plan(path, now_ms=START_MS)


# what a site says, and what its meter says ---------------------------------------------------------------------------


def member(**changes: Any) -> Member:
    """A site told at START_MS to go from 200 kW to 100 kW at 600 kW per minute."""
    order = Order(
        v=1, id=uuid7(START_MS), site="kz-00", epoch="e1-00000000", seq=1, action="limit", limit_w=100_000,
        issued_at=START_MS, execute_by=START_MS + 60_000, expires_at=START_MS + 60_000,
        hold=Hold(until_released=True), basis=Basis(code="t"),
    )  # fmt: skip
    signed = parse_order(seal(ORDER_TYPE, order.encode(), GATEWAY).encode())
    seen = Seen("kz-00", "online", 100_000, START_MS, 100_000, 0, 0, None, "+7 1")
    found = Member("kz-00", ZONE, 300_000, seen, standing=Standing.SENT)
    found.given = Given(signed, START_MS, 200_000, 100_000, 600_000, posted=True)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def heard(*states: tuple[str, str, dict[str, Any]]) -> Story:
    answers = [Answer("cmd_rx", "received", START_MS, "k", 0, "", None, (), None, None, {}, (), None, None)]
    for n, (ty, state, extra) in enumerate(states, 1):
        fields: dict[str, Any] = {
            "text": "", "code": None, "flags": (), "power_w": None, "target_w": None, "ms": {}, "escalated": (),
            "agent_mode": "armed", "order_mode": "live",
        }  # fmt: skip
        answers.append(Answer(ty=ty, state=state, at=START_MS + n, kid="k", n=n, **(fields | extra)))
    return Story("o", "kz-00", answers=answers)


ACK = ("cmd_ack", "validated", {"target_w": 100_000})
HELD = ("cmd_eff", "holding", {"power_w": 99_000})


@pytest.mark.parametrize(
    ("story", "after_s", "standing", "code", "text"),
    [
        (None, 9, Standing.SENT, "", ""),
        (None, 10, Standing.OUT, "not_delivered", "CALL +7 1"),
        (heard(), 5, Standing.ACTING, "", ""),
        (heard(("cmd_ack", "rejected", {"code": "locked", "text": "no"})), 5, Standing.OUT, "refused", "locked: no"),
        (heard(ACK), 30, Standing.ACTING, "", ""),
        (heard(ACK), 200, Standing.OUT, "late", "not held"),
        (heard(ACK, HELD), 30, Standing.HOLDING, "", ""),
        (heard(ACK, HELD, ("cmd_ack", "rejected", {"code": "replay"})), 30, Standing.HOLDING, "", ""),
        (heard(("cmd_ack", "validated", {"target_w": 150_000})), 5, Standing.OUT, "short", "goes to 150000 W"),
        (heard(("cmd_ack", "validated", {"agent_mode": "shadow"})), 5, Standing.OUT, "trial", "shadow"),
        (heard(ACK, ("cmd_eff", "failed", {"text": "missing 5 kW"})), 30, Standing.OUT, "short", "missing 5 kW"),
        (heard(ACK, ("cmd_eff", "holding", {"flags": ("degraded",)})), 30, Standing.OUT, "short", ""),
        (heard(ACK, ("cmd_eff", "holding", {"power_w": 150_000})), 30, Standing.OUT, "contradicts", "with 150000 W"),
        (heard(ACK, HELD, ("cmd_eff", "restoring", {})), 30, Standing.RELEASED, "", ""),
        (heard(ACK, ("cmd_eff", "expired", {})), 90, Standing.OUT, "expired", ""),
    ],
)
def test_where_a_site_stands_by_its_signed_answers(
    story: Story | None, after_s: int, standing: Standing, code: str, text: str
) -> None:
    found = member(story=story)
    judge(found, START_MS + after_s * 1000, 180)
    assert (found.standing, found.code) == (standing, code)
    assert text in found.text


def test_a_meter_above_the_limit_for_half_a_minute_contradicts_a_signed_hold() -> None:
    found = member(story=heard(ACK, HELD))
    powers = [101_500] * 60 + [150_000] * 10 + [101_500] + [150_000] * 40
    named: list[int] = []
    for second, power in enumerate(powers, 1):
        at = START_MS + second * 1000
        found.seen = Seen("kz-00", "online", power, at, power, 50_000, 0, None, None)
        judge(found, at, 180)
        if found.code:
            named.append(second)
    # Noise, and ten seconds above it, are no contradiction; the count begins anew after each good sample.
    assert named[0] == 72 + 30
    assert (found.code, found.power_w, found.expected_w) == ("contradicts", 150_000, 150_000)
    # Its signed word counts where it is the worse of the two.
    found.story = heard(ACK, ("cmd_eff", "holding", {"power_w": 180_000}))
    assert found.power_w == 180_000


@pytest.mark.parametrize(("before", "differs"), [(None, False), (185_000, False), (215_000, False), (120_000, True)])
def test_a_signed_power_that_the_live_meter_did_not_show_is_named(before: int | None, differs: bool) -> None:
    found = member(story=heard(("cmd_ack", "validated", {"target_w": 100_000, "before_w": before})))
    text = figures_differ(found)
    assert (text is not None) == differs
    assert text is None or "120000 W" in text


def test_the_same_sample_again_and_again_contradicts_nobody() -> None:
    found = member(story=heard(ACK, HELD))
    for second in range(1, 200):
        found.seen = Seen("kz-00", "online", 150_000, START_MS + 1000, 150_000, 0, 0, None, None)
        judge(found, START_MS + second * 1000, 180)
    assert found.standing is Standing.HOLDING


def test_central_can_make_nobody_give_more_than_the_register_leaves_him() -> None:
    entry = RegisteredSite(id="kz-00", zone=ZONE, contracted_w=300_000, emergency_w=36_000, slot_s=900)
    row = {"id": "kz-00", "presence": "online", "net_w": 100_000, "age_ms": 5, "floor_w": 0, "available_w": 10**9}

    def seen(**changes: Any) -> Seen:
        return read_view({"sites": [row | changes, {"id": "strange"}, 7]}, {"kz-00": entry}).sites["kz-00"]

    assert (seen().available_w, seen().floor_w) == (64_000, 36_000)
    assert seen(floor_w=80_000).available_w == 20_000
    for doubt in ({"age_ms": 16_000}, {"age_ms": None}, {"presence": "offline"}, {"net_w": True}, {"why": "x"}):
        assert seen(**doubt).available_w == 0, doubt
    unsaid = read_view({"sites": []}, {"kz-00": entry}).sites["kz-00"]
    assert (unsaid.net_w, unsaid.why_not) == (None, "central does not know this site")
    with pytest.raises(GridError, match="no list of sites"):
        read_view({"sites": {}}, {"kz-00": entry})


# kill -9 -------------------------------------------------------------------------------------------------------------


@contextmanager
def played_central(sites: tuple[str, ...], at_post: Callable[[bytes], None]) -> Iterator[str]:
    """A central that carries nothing: sites draw 272 kW and never answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            now = time.time_ns() // 1_000_000
            rows = [
                {"id": name, "presence": "online", "mode": "armed", "net_w": FULL_W, "age_ms": 100, "at": now,
                 "last_w": FULL_W, "floor_w": EMERGENCY_W, "available_w": 230_000, "why": None, "phone": None}
                for name in sites
            ]  # fmt: skip
            self.tell({"sites": rows, "objections": []} if "/zones/" in self.path else {"answers": []})

        def do_POST(self) -> None:
            at_post(self.rfile.read(int(self.headers["content-length"])))
            self.tell({})

        def tell(self, doc: dict[str, Any]) -> None:
            body = json.dumps(doc).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def now_register(sites: tuple[str, ...]) -> tuple[KeysDocument, int]:
    now = time.time_ns() // 1_000_000
    valid = {"valid_from": now - 10**6, "valid_to": now + 10**9}
    issuers = [
        Issuer(kid=key.kid, key=key.public.text, person=name, rights=rights, zones=(ZONE,), **valid)
        for key, name, rights in (
            (PEOPLE.dispatcher, "aru", ("mandate",)), (PEOPLE.second, "bek", ("mandate",)),
            (GATEWAY, "gate", ("limit",)),
        )
    ]  # fmt: skip
    roles = (("aru", "system_operator"), ("bek", "grid_company"), ("gate", "gateway"))
    document = KeysDocument(
        v=1, version=1, issued_at=now, issuers=tuple(issuers), zones=(BOUNDS,),
        persons=tuple(Person(id=n, name=n, organisation="SO", role=role) for n, role in roles),  # type: ignore[arg-type]  # a stand-in with what is asked of it
        sites=tuple(
            RegisteredSite(
                id=name, zone=ZONE, contracted_w=300_000, emergency_w=EMERGENCY_W, slot_s=900,
                epochs=(Epoch(epoch="e1-00000000", k_rec=SigningKey.generate().public.text,
                              k_log=SigningKey.generate().public.text),),
            )
            for name in sites
        ),
    )  # fmt: skip
    return document, now


def test_kill_nine_between_signing_and_sending_leaves_one_order_per_site(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites, posts = ("kz-00", "kz-01"), []
    process: list[subprocess.Popen[bytes]] = []

    def at_post(raw: bytes) -> None:
        posts.append(raw)
        if len(posts) == 1:
            os.kill(process[0].pid, signal.SIGKILL)

    register, now = now_register(sites)
    with played_central(sites, at_post) as url:
        config = files(tmp_path / "office", register, url)
        plan = plan_file(tmp_path, "permille: 500", uuid7(now))
        mandate = Mandate(
            v=1, id=uuid7(now), plan=load_plan(plan, now_ms=now).id, zones=(ZONE,), gateway=GATEWAY.kid, issued_at=now,
            valid_from=now, valid_to=now + 3_600_000, actions=("limit",), band_w=10_000, max_cut_w=250_000,
            max_step_w=100_000, max_ramp_w_per_min=40_000_000,
        )  # fmt: skip
        paper = tmp_path / "mandate.json"
        paper.write_bytes(sign_power(mandate, (PEOPLE.dispatcher, PEOPLE.second)))
        options = ["--config", str(config), "--mandate", str(paper)]
        assert run(["gateway", "plan", str(plan), *options, "--check"]) == 0
        out = capsys.readouterr().out
        assert "544 kW now, target 272 kW" in out
        assert "kz-01  272 kW  -136 kW" in out
        assert not (tmp_path / "office" / "data").exists(), "a check hands nothing over"
        assert run(["gateway", "plan", str(plan), *options]) == 0

        def start() -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "tizgin.cli", "gateway", "run", "--config", str(config)]
            return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        process.append(start())
        assert process[0].wait(30) == -signal.SIGKILL
        process[0] = start()
        deadline = time.monotonic() + 30
        while len({parse_order(raw).order.site for raw in posts}) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process[0].terminate()
        assert process[0].wait(10) == 0
    assert posts[1] == posts[0], "the same bytes, under the same id"
    orders = [parse_order(raw).order for raw in dict.fromkeys(posts)]
    assert sorted(order.site for order in orders) == list(sites)
    assert all(order.mandate == b64(paper.read_bytes()) for order in orders)
    shown = story(tmp_path / "office" / "data", None)
    assert [row["order"] for row in shown["orders"]] == [order.id for order in orders]
    assert Sequence(tmp_path / "office" / "gateway.pem", GATEWAY.kid).reach("kz-00", 0) == orders[0].seq


def test_a_plan_of_one_step_takes_no_more_from_a_zone_than_its_step(tmp_path: Path) -> None:
    path = plan_file(tmp_path, "total_kw: 0")
    path.write_text(path.read_text().replace("ramp_kw_per_min: 3000\n", ""))
    plan = load_plan(path, now_ms=START_MS)
    mandate = Mandate(
        v=1, id=uuid7(START_MS), plan=plan.id, zones=(ZONE,), gateway=GATEWAY.kid, issued_at=START_MS,
        valid_from=START_MS, valid_to=START_MS + 1, actions=("limit",), band_w=10_000, max_cut_w=200_000,
        max_step_w=100_000, max_ramp_w_per_min=1_000_000,
    )  # fmt: skip
    powers = Powers(mandate, "", (BOUNDS,))
    members = []
    for number in range(4):
        seen = Seen(f"kz-0{number}", "online", 200_000, START_MS, 200_000, 150_000, 0, None, None)
        members.append(Member(seen.site, ZONE, 300_000, seen))
    taken = 0
    while (
        turn := next_turn(members, plan, powers, total_w=800_000, target_w=0, elapsed_ms=0, now_ms=START_MS)
    ) is not None:
        told = member().given
        assert told is not None
        told.before_w, told.limit_w = 200_000, 200_000 - turn.cut_w
        turn.member.given, turn.member.standing = told, Standing.SENT
        turn.member.ordered_w += turn.cut_w
        taken += turn.cut_w
    assert taken == BOUNDS.max_step_w
    assert exhausted(members, plan, powers)
