"""A plan of the gateway given back by persons: one review, one act, one release for each order that is proven."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from grid.errors import CentralRefused, GridError
from grid.gateway.inbox import open_folder
from grid.gateway.journal import Issued, Journal, StoredPlan
from grid.gateway.run import JOURNAL
from grid.release.act import Signer, check_signers, kept, open_kept, sign_all
from grid.release.carry import Carrier
from grid.release.collect import Review, review
from grid.release.pace import Pace, paces
from tests.unit.agent_kit import EMERGENCY_W
from tests.unit.country_kit import FULL_W, GATEWAY, PEOPLE, ZONE, Country, running_country
from tests.unit.test_gateway_country import until
from tests.unit.test_gateway_run import plan_file
from tizgin.cli import run
from tizgin.commands._order_common import now_ms
from wire.dsse import ORDER_TYPE, seal
from wire.keys import SigningKey, b64
from wire.names import origin
from wire.orders import Basis, Hold, Order, Restore, SignedOrder, parse_order, uuid7
from wire.powers import Mandate, sign_power
from wire.records import RecordLine
from wire.registry import Epoch, Issuer, KeysDocument, Person, RegisteredSite, Zone, sign_keys

REGISTRAR = SigningKey.generate()
DOWN, UP = 9_000_000, 3_000_000
BOUNDS = Zone(id=ZONE, max_step_w=500_000, max_ramp_w_per_min=DOWN, max_return_w_per_min=UP)


# the country ---------------------------------------------------------------------------------------------------------


def signer(folder: Path, key: SigningKey = PEOPLE.dispatcher) -> Signer:
    return Signer(key, folder / f"{key.kid}.pem")


def look(country: Country, plan: str) -> Review:
    kids = [PEOPLE.dispatcher.kid]
    return review(country, country.register, plan, zones=None, kids=kids, now_ms=country.clock.now_ms())


def give_back(country: Country, made: list[Pace], plan: str, folder: Path) -> Carrier:
    open_kept(folder)
    releases = sign_all(
        made, folder, plan=plan, signers=[signer(country.folder)], register=country.register, words={}, central=None,
        now_ms=country.clock.now_ms(),
    )  # fmt: skip
    return Carrier(country, country.register, releases)


@pytest.mark.parametrize("sites", [50])
async def test_a_country_comes_back_within_its_zones_ramp_after_one_act(tmp_path: Path, sites: int) -> None:
    unbounded = BOUNDS.model_copy(update={"max_return_w_per_min": None})
    async with running_country(tmp_path, sites, zone=unbounded) as country:
        gateway, plan = country.dispatcher(), country.plan(ramp_w_per_min=DOWN)
        before = country.total_w
        gateway.start(plan, country.mandate(plan), None, country.clock.now_ms())
        await until(country, gateway, "held")
        assert {parse_order(raw).order.restore.max_w_per_min for raw in country.posts} == {None}
        # The orders leave the return free; the register bounds it since.
        country.register = country.register.model_copy(update={"zones": (BOUNDS,)})
        country.cut_off = {"kz-07", "kz-31"}
        await country.second()
        found = look(country, plan.id)
        left = {one.site: one.code for one in found.left}
        assert {name: left[name] for name in sorted(country.cut_off)} == {"kz-07": "off_line", "kz-31": "off_line"}
        made = paces(found.live, country.register)
        assert {pace.found.site.id for pace in made} == set(country.cores) - country.cut_off
        assert sum(pace.rate_w or 10**9 for pace in made) <= UP
        low, began = country.total_w, country.clock.now_ms()
        carrier = give_back(country, made, plan.id, tmp_path / "back")
        seen, answered = [low], False
        held = {name: country.cores[name].plant.net_w for name in country.cut_off}
        while country.total_w < before - sum(FULL_W - power for power in held.values()):
            answered = carrier.look(country.clock.now_ms()) or answered
            await country.second()
            seen.append(country.total_w)
            assert len(seen) < 900, (country.total_w, before)
        assert answered
        assert {result.code for result in carrier.results.values()} == {"validated"}
        minutes = [later - now for now, later in zip(seen, seen[60:], strict=False)]
        over = max(power - low - UP * second // 60 for second, power in enumerate(seen))
        took = (country.clock.now_ms() - began) / 60_000
        print(f"\n{sites} sites, {low / 1e6:.2f} MW to {country.total_w / 1e6:.2f} MW at {UP / 1e6:g} MW per minute:")
        print(f"{took:.1f} min, most in one minute {max(minutes) / UP:.1%}, most above the line {over / 1000:.0f} kW")
        assert max(minutes) <= UP * 105 // 100
        assert over <= UP * 5 // 100
        assert {name: country.cores[name].plant.net_w for name in held} == held, "off line: nothing returned"
        gateway.tick(country.clock.now_ms())
        assert gateway.state == "frozen"


# central's word, and what is proven ----------------------------------------------------------------------------------


@dataclass
class Office:
    """Three sites that hold orders of a plan by their own signed word, a central that may lie, and persons' files."""

    folder: Path
    now: int = field(default_factory=now_ms)
    names: tuple[str, ...] = ("kz-00", "kz-01", "kz-02")
    plan: str = ""
    rec: dict[str, SigningKey] = field(default_factory=dict)
    shown: dict[str, list[str]] = field(default_factory=dict)
    raws: dict[str, bytes] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    posts: list[bytes] = field(default_factory=list)
    presence: dict[str, str] = field(default_factory=dict)
    alarms: dict[str, list[str]] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    refuse: dict[str, str] = field(default_factory=dict)
    kill_at: int | None = None
    """Dies when so many have been handed over."""

    def __post_init__(self) -> None:
        self.plan = uuid7(self.now)
        self.rec = {name: SigningKey.generate() for name in self.names}
        self.register = self._register()
        self.held = {name: self.hold(name) for name in self.names}
        (self.folder / "keys.json").write_bytes(sign_keys(self.register, REGISTRAR))
        for name, key in (("me", PEOPLE.dispatcher), ("second", PEOPLE.second), ("gateway", GATEWAY)):
            (self.folder / f"{name}.pem").touch(mode=0o600)
            (self.folder / f"{name}.pem").write_bytes(key.to_pem(None))

    def _register(self) -> KeysDocument:
        valid = {"valid_from": self.now - 10**6, "valid_to": self.now + 10**9, "zones": (ZONE,)}
        both = ("limit", "release", "mandate")
        people = ((PEOPLE.dispatcher, "aru", both), (PEOPLE.second, "bek", both), (GATEWAY, "gate", ("limit",)))
        roles = (("aru", "system_operator"), ("bek", "grid_company"), ("gate", "gateway"))
        return KeysDocument(
            v=1, version=1, issued_at=self.now, zones=(BOUNDS,),
            persons=tuple(Person(id=n, name=n, organisation="SO", role=role) for n, role in roles),  # type: ignore[arg-type]  # a literal each
            issuers=tuple(
                Issuer(kid=key.kid, key=key.public.text, person=name, rights=rights, **valid)  # type: ignore[arg-type]  # as above
                for key, name, rights in people
            ),
            sites=tuple(
                RegisteredSite(
                    id=name, zone=ZONE, contracted_w=300_000, emergency_w=EMERGENCY_W, slot_s=900,
                    epochs=(Epoch(epoch="e1-00000000", k_rec=self.rec[name].public.text,
                                  k_log=SigningKey.generate().public.text),),
                )
                for name in self.names
            ),
        )  # fmt: skip

    def mandate(self, plan: str, *keys: SigningKey) -> str:
        paper = Mandate(
            v=1, id=uuid7(self.now), plan=plan, zones=(ZONE,), gateway=GATEWAY.kid, issued_at=self.now,
            valid_from=self.now, valid_to=self.now + 3_600_000, actions=("limit",), band_w=10_000, max_cut_w=250_000,
            max_step_w=100_000, max_ramp_w_per_min=40_000_000,
        )  # fmt: skip
        return b64(sign_power(paper, keys or (PEOPLE.dispatcher, PEOPLE.second)))

    def make(self, site: str, mandate: str | None, *keys: SigningKey, **changes: Any) -> SignedOrder:
        fields: dict[str, Any] = {
            "v": 1, "id": uuid7(self.now), "site": site, "epoch": "e1-00000000", "seq": 1, "action": "limit",
            "limit_w": 100_000, "issued_at": self.now, "execute_by": self.now, "expires_at": self.now,
            "hold": Hold(until_released=True), "mandate": mandate, "basis": Basis(code="t"),
        }  # fmt: skip
        return parse_order(seal(ORDER_TYPE, Order(**(fields | changes)).encode(), *keys).encode())

    def hold(self, site: str, plan: str | None = None, flags: tuple[str, ...] = (), **changes: Any) -> str:
        """A live order of a plan at a site, told down to 100 kW from 270 kW."""
        signed = self.make(site, self.mandate(plan or self.plan), GATEWAY, **changes)
        return self.show(signed, site, "holding", flags=flags)

    def show(self, signed: SignedOrder, site: str, state: str | None, flags: tuple[str, ...] = ()) -> str:
        name = signed.order.id
        self.raws[name] = signed.raw
        self.shown.setdefault(site, []).append(name)
        self.lines[name] = []
        if state is not None:
            self.say(signed, "cmd_rx", digest=signed.digest)
            self.ack(signed, before_w=270_000, target_w=100_000, flags=list(flags))
            self.say(signed, "cmd_eff", state=state, power_w=100_000, flags=list(flags))
        return name

    def ack(self, signed: SignedOrder, **extra: Any) -> None:
        modes = {"agent_mode": "armed", "order_mode": "live", "kids": [], "seq": 1, "text": ""}
        self.say(signed, "cmd_ack", **({"state": "validated", "code": None} | modes | extra))

    def say(self, signed: SignedOrder, ty: str, **fields: Any) -> None:
        order, said = signed.order, self.lines[signed.order.id]
        n = sum(map(len, self.lines.values()))
        doc = {
            "v": 1, "log": origin(order.site, order.epoch), "st": "cmd", "n": n, "p": "00" * 32 if n else None,
            "a": None, "ty": ty, "at": self.now + n, "mono": 1, "boot": "b", "clk": {"s": "S"}, "fw": "1",
            "id": order.id,
        }  # fmt: skip
        said.append(RecordLine.sign(doc | fields, self.rec[order.site]).encode().decode())

    # what the command sees of central

    def sites(self) -> list[dict[str, Any]]:
        return [
            {"id": n, "presence": self.presence.get(n, "online"), "phone": "+7 1", "alarms": self.alarms.get(n, [])}
            for n in self.names
        ]

    def orders(self, site: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        return [{"id": name, "action": "limit"} for name in self.shown.get(site or "", [])][:limit]

    def order(self, order_id: str, /) -> dict[str, Any]:
        if order_id not in self.raws:
            raise CentralRefused(404, "unknown order")
        return {"envelope": b64(self.raws[order_id]), "answers": self.lines[order_id]}

    def checkpoint(self, _site: str, _epoch: str, _size: int | None = None, /) -> str | None:
        return None

    def post_order(self, raw: bytes, /) -> dict[str, Any]:
        if self.kill_at is not None and len(self.posts) >= self.kill_at:
            raise KeyboardInterrupt
        self.posts.append(raw)
        signed = parse_order(raw)
        known = signed.order.id in self.raws
        self.raws[signed.order.id] = raw
        self.lines.setdefault(signed.order.id, [])
        if signed.order.site not in self.deaf and not known:
            self.say(signed, "cmd_rx", digest=signed.digest)
            code = self.refuse.get(signed.order.site)
            self.ack(signed, **({"state": "rejected", "code": code} if code else {}))
        return {}

    @contextmanager
    def client(self) -> Iterator[Office]:
        yield self

    def run(self, *options: str, key: tuple[str, ...] = ("me",), out: str = "back") -> int:
        """The command with this central."""
        words = ["order", "release-plan", self.plan, "--central", "http://127.0.0.1:1", "--wait-s", "1", "--yes"]
        words += ["--keys", str(self.folder / "keys.json"), "--registrar", REGISTRAR.public.text]
        words += [word for name in key for word in ("--key", str(self.folder / f"{name}.pem"))]
        with (
            mock.patch("grid.client.CentralClient", return_value=self.client()),
            mock.patch("tizgin.commands._order_release.LOOK_S", 0.02),
        ):
            return run([*words, "--out", str(self.folder / out), *options])

    def posted(self) -> list[Order]:
        return [parse_order(raw).order for raw in self.posts]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_one_act_releases_every_order_of_the_plan_at_its_sites_part(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    assert office.run("--dispatch-no", "118", "--lang", "ru") == 0
    said = capsys.readouterr()
    orders = office.posted()
    assert {order.site: order.target for order in orders} == office.held
    assert {order.restore.max_w_per_min for order in orders} == {UP // 3}
    assert {(order.action, order.basis.dispatch_no) for order in orders} == {("release", "118")}
    assert all(signed.envelope.verify(office.register.verify_keys()) == (PEOPLE.dispatcher.kid,)
               for signed in map(parse_order, office.posts))  # fmt: skip
    for shown in ("off 170 kW  back 1000 kW/min", "zone karaganda: 3 sites, off 510 kW, back 3000 kW/min, the zone's"):
        assert shown in said.err
    assert said.out.count("validated") == 3
    assert "возврат разрешён, объектов 3 из 3, 510 кВт, не быстрее 3 МВт в минуту" in said.out.replace("3,0", "3")


@pytest.mark.parametrize(("language", "words"), [("kk", "нысандар: 3 ішінен 3"), ("en", "sites 3 of 3")])
def test_the_line_to_be_read_aloud_is_in_each_language(
    office: Office, capsys: pytest.CaptureFixture[str], language: str, words: str
) -> None:
    assert office.run("--lang", language) == 0
    assert words in capsys.readouterr().out.splitlines()[-1]


def test_an_order_that_allows_a_slower_return_keeps_it(office: Office) -> None:
    slow = office.hold("kz-00", supersedes=office.held["kz-00"], restore=Restore(max_w_per_min=5_000))
    assert office.run() == 0
    orders = {order.site: order for order in office.posted()}
    assert (orders["kz-00"].target, orders["kz-00"].restore.max_w_per_min) == (slow, 5_000)
    # Stages of all sites do not fall into one moment.
    assert len({order.not_before for order in orders.values()}) == 3


FOREIGN: dict[str, tuple[str, str]] = {
    "of another plan": ("other", "an order of plan"),
    "of a person": ("other", "an order of aru, not of this plan"),
    "signed by nobody known": ("forged", "not signed by a registered key"),
    "a mandate of one person": ("forged", "two persons"),
    "a mandate and a person's key": ("forged", "its mandate is for"),
    "of another site": ("forged", "it is an order for kz-01"),
    "bytes under another's id": ("not_shown", "central gave order"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_order_that_central_adds_is_named_and_not_released(
    office: Office, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    good, one = office.mandate(office.plan), office.mandate(office.plan, PEOPLE.dispatcher)
    match kind:
        case "of another plan":
            added = office.hold("kz-00", plan=uuid7(office.now))
        case "of a person":
            added = office.show(office.make("kz-00", None, PEOPLE.dispatcher), "kz-00", "holding")
        case "signed by nobody known":
            added = office.show(office.make("kz-00", good, SigningKey.generate()), "kz-00", "holding")
        case "a mandate of one person":
            added = office.show(office.make("kz-00", one, GATEWAY), "kz-00", "holding")
        case "a mandate and a person's key":
            added = office.show(office.make("kz-00", good, PEOPLE.dispatcher), "kz-00", "holding")
        case "of another site":
            added = office.held["kz-01"]
            office.shown["kz-00"].append(added)
        case _:
            added = uuid7(office.now)
            office.shown["kz-00"].append(added)
            office.raws[added], office.lines[added] = office.raws[office.held["kz-01"]], []
    code, why = FOREIGN[kind]
    # What is not what it says is a reason to look; a good order of somebody else is none.
    assert office.run("--json") == (0 if code == "other" else 1)
    left = printed(capsys)["left_out"]
    assert [(row["order"], row["code"]) for row in left] == [(added, code)]
    assert why in left[0]["why"]
    assert sorted(order.target or "" for order in office.posted()) == sorted(office.held.values())
    assert [order.target for order in office.posted() if order.site == "kz-00"] == [office.held["kz-00"]]


def test_who_is_left_out_is_named_with_the_reason(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    office.presence["kz-00"] = "offline"
    office.hold("kz-01", supersedes=office.held["kz-01"], flags=("saon_lock",))
    office.alarms["kz-02"] = ["clock_unsynchronised"]
    again = office.hold("kz-02", supersedes=office.held["kz-02"])
    assert office.run("--json") == 1
    assert capsys.readouterr().out == "", "there was nothing to sign"
    assert office.posts == []
    # Two persons may where the clock is not synchronised.
    assert office.run("--json", key=("me", "second")) == 1
    doc = printed(capsys)
    assert {row["site"]: row["code"] for row in doc["left_out"]} == {"kz-00": "off_line", "kz-01": "locked"}
    assert [row["order"] for row in doc["releases"]] == [again]
    assert doc["releases"][0]["off_w"] == 340_000, "what both orders of the chain took off"
    kids = {kid for kid, _ in parse_order(office.posts[0]).envelope.signatures}
    assert kids == {PEOPLE.dispatcher.kid, PEOPLE.second.kid}


@pytest.mark.parametrize(
    ("state", "code", "exit_code"), [("restoring", "released", 0), ("done", "none", 0), (None, "unanswered", 1)]
)
def test_an_order_that_is_not_held_is_not_released(
    office: Office, capsys: pytest.CaptureFixture[str], state: str | None, code: str, exit_code: int
) -> None:
    office.shown["kz-00"] = []
    office.show(office.make("kz-00", office.mandate(office.plan), GATEWAY), "kz-00", state)
    assert office.run("--json") == exit_code
    doc = printed(capsys)
    assert [(row["site"], row["code"]) for row in doc["left_out"]] == [("kz-00", code)]
    assert {order.site for order in office.posted()} == {"kz-01", "kz-02"}


def test_a_killed_command_sends_the_same_bytes_again_and_signs_nothing_twice(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    office.kill_at = 1
    assert office.run() != 0
    files = {path.name: path.read_bytes() for path in (office.folder / "back").glob("*.json")}
    assert len(files) == 3, "all are on disk before the first leaves"
    assert len(office.posts) == 1
    office.kill_at = None
    capsys.readouterr()
    assert office.run("--json") == 0
    assert {path.name: path.read_bytes() for path in (office.folder / "back").glob("*.json")} == files
    assert sorted(raw.strip() for raw in files.values()) == sorted(raw.strip() for raw in office.posts)
    assert printed(capsys)["complete"]
    # Once more: everybody has answered, nothing leaves.
    assert office.run() == 0
    assert len(office.posts) == 3


def test_a_command_killed_while_it_signs_goes_on_with_what_it_signed(office: Office) -> None:
    office.kill_at = 0
    assert office.run() != 0
    first = sorted((office.folder / "back").glob("*.json"))[0]
    kept_bytes = first.read_bytes()
    for path in sorted((office.folder / "back").glob("*.json"))[1:]:
        path.unlink()
    office.kill_at = None
    assert office.run() == 0
    assert kept_bytes.strip() in [raw.strip() for raw in office.posts]
    assert sorted(order.target or "" for order in office.posted()) == sorted(office.held.values())


def test_a_site_that_does_not_answer_or_says_no_makes_the_command_fail(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    office.deaf, office.refuse = {"kz-00"}, {"kz-01": "locked"}
    assert office.run("--json") == 1
    doc = printed(capsys)
    rows = {row["site"]: row for row in doc["releases"]}
    assert {name: row["result"] for name, row in rows.items()} == {
        "kz-00": "no_answer", "kz-01": "refused", "kz-02": "validated",
    }  # fmt: skip
    assert rows["kz-00"]["text"] == "NOT DELIVERED — CALL +7 1"
    assert "sites 1 of 3" in doc["line"]


def test_what_was_signed_long_ago_is_not_sent(office: Office) -> None:
    office.kill_at = 0
    assert office.run() != 0
    releases = kept(office.folder / "back", office.plan, office.register)
    office.kill_at = None
    carrier = Carrier(office, office.register, releases)
    assert carrier.look(now_ms() + 601_000)
    assert {result.code for result in carrier.results.values()} == {"stale"}
    assert office.posts == []


def test_a_gateways_key_and_one_person_twice_sign_nothing(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    assert office.run(key=("gateway",)) == 1
    assert "it never gives load back" in capsys.readouterr().err
    assert office.run(key=("me", "gateway")) == 1
    assert office.run(key=("me", "me")) == 1
    assert "two signatures need two persons" in capsys.readouterr().err
    assert office.posts == []
    assert not (office.folder / "back").exists()


def test_a_key_without_the_right_or_out_of_its_time_is_refused(office: Office) -> None:
    mine = office.register.issuers[0]
    for changes, said in (({"rights": ("limit",)}, "no right to release"), ({"valid_to": office.now - 1}, "not valid")):
        issuers = (mine.model_copy(update=changes), *office.register.issuers[1:])
        register = office.register.model_copy(update={"issuers": issuers})
        with pytest.raises(GridError, match=said):
            check_signers([signer(office.folder)], register, office.now)


def test_a_folder_of_another_plan_is_left_alone(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    assert office.run() == 0
    before, office.plan = len(office.posts), uuid7(office.now)
    assert office.run() == 1
    assert "a release of another plan" in capsys.readouterr().err
    assert len(office.posts) == before


def test_an_order_that_central_hides_is_found_by_the_gateways_journal(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_folder(office.folder / "data")
    with closing(Journal(data / JOURNAL)) as journal:
        journal.begin(StoredPlan(office.plan, "d", b"", "m", None, office.now, 1, 1, "held", ""))
        for site, order in office.held.items():
            journal.issue(office.plan, Issued(order, site, office.raws[order], office.now, 270_000, 100_000, 600_000))
    office.shown["kz-00"] = []
    hidden = office.held["kz-01"]
    office.shown["kz-01"] = []
    del office.raws[hidden]
    assert office.run("--json", "--journal", str(data)) == 1
    doc = printed(capsys)
    assert [(row["order"], row["code"]) for row in doc["left_out"]] == [(hidden, "not_shown")]
    assert {order.site for order in office.posted()} == {"kz-00", "kz-02"}


def test_a_zone_at_a_time(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    assert office.run("--zone", "south") == 2
    assert "the register has karaganda" in capsys.readouterr().err
    far = office.register.sites[2].model_copy(update={"zone": "north"})
    register = office.register.model_copy(update={"sites": (*office.register.sites[:2], far)})
    (office.folder / "keys.json").write_bytes(sign_keys(register, REGISTRAR))
    assert office.run("--zone", ZONE, "--json") == 0
    assert {order.site: order.restore.max_w_per_min for order in office.posted()} == {
        "kz-00": UP // 2,
        "kz-01": UP // 2,
    }
    assert printed(capsys)["left_out"] == []


def test_a_plan_is_named_by_its_file_or_its_id(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    paper = plan_file(office.folder, plan_id=office.plan)
    office.plan = str(paper)
    assert office.run() == 0
    assert len(office.posts) == 3
    office.plan = "no-such-plan"
    assert office.run() == 2
    assert "neither a plan's id" in capsys.readouterr().err
