"""The log key in a security token (SoftHSM2): making, signing, a token that fails, and a change of key both ways."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from site_kit import site_doc
from soft_token import KEY, PIN, SoftToken, soft_token

from agent.checkpoints import Checkpointer
from agent.errors import AgentError
from agent.hsm import child
from agent.hsm.key import TRIAL, TokenKey, look, make
from agent.hsm.process import TokenError
from agent.identity import LOG, NEXT, enrolment, load_keys, make_keys
from agent.inbox import Inbox
from agent.ledger import Ledger
from agent.ledger import store as store_module
from agent.rotation import Rotation, settle
from tests.unit.test_key_rotation import SITE, Box
from tizgin.cli import run
from wire.checkpoints import log_key, open_checkpoint
from wire.enrolment import read_enrolment
from wire.errors import WireError
from wire.keys import SigningKey, VerifyKey
from wire.logkeys import P256Key
from wire.registry import Epoch
from wire.rotation import KeyChange, read_change

P384 = "06052b81040022"


@pytest.fixture
def soft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftToken:
    return soft_token(tmp_path / "hsm", monkeypatch)


# the token -----------------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_and_signs(soft: SoftToken) -> None:
    token = soft.token()
    assert look(token) is None
    key = make(token)
    assert key.public.verifies(TRIAL, key.sign_now(TRIAL))
    assert make(token).public == key.public
    found = look(token)
    assert found is not None
    assert (found.public, found.id) == (key.public, key.id)
    other = make(soft.token(key="another"))
    assert other.public != key.public


def test_a_key_of_somebody_else_is_used_if_it_cannot_leave_the_token(soft: SoftToken) -> None:
    soft.generate("good")
    assert make(soft.token(key="good")).id == b"good".hex()
    for label, changes, why in (
        ("loose", {"extractable": True}, "EXTRACTABLE True"),
        ("large", {"curve": P384}, "not an EC key on P-256"),
    ):
        soft.generate(label, **changes)
        with pytest.raises(TokenError, match=why) as caught:
            make(soft.token(key=label))
        assert caught.value.code == "key"
    soft.generate("good")
    with pytest.raises(TokenError, match="2 keys are called 'good'"):
        make(soft.token(key="good"))


@pytest.mark.parametrize(
    ("changes", "code", "why"),
    [
        ({"module": "/nowhere.so"}, "module", "no such PKCS#11 library"),
        ({"module": sys.executable}, "module", "cannot be loaded"),
        ({"label": "other"}, "token", "tokens present: 'site'"),
        ({"pin_file": Path("/nowhere/pin")}, "pin_file", "cannot be read"),
    ],
)
def test_what_cannot_be_asked_says_why(soft: SoftToken, changes: dict[str, Any], code: str, why: str) -> None:
    with pytest.raises(TokenError, match=why) as caught:
        look(soft.token(**changes))
    assert caught.value.code == code


def test_a_pin_file_that_others_can_read_or_that_holds_no_pin_is_refused(soft: SoftToken) -> None:
    soft.pin_file.chmod(0o640)
    with pytest.raises(TokenError, match="chmod 600"):
        look(soft.token())
    soft.pin_file.chmod(0o600)
    for content in ("", "\n", "one\ntwo\n", "9" * 300):
        soft.pin_file.write_text(content)
        with pytest.raises(TokenError, match="one line"):
            look(soft.token())


def test_a_wrong_pin_is_tried_once_and_shown_to_nobody(soft: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    token = soft.token()
    soft.pin_file.write_text(PIN + "7\n")
    with pytest.raises(TokenError) as caught:
        look(token)
    assert caught.value.code == "pin"
    assert PIN not in str(caught.value)
    asked: list[int] = []
    honest = type(token)._command()
    monkeypatch.setattr(type(token), "_command", staticmethod(lambda: asked.append(1) or honest))
    with pytest.raises(TokenError, match="refuses the PIN"):
        look(token)
    assert asked == [], "a token locks itself after some wrong PINs"
    soft.pin_file.write_text(PIN + "\n")
    assert look(token) is None
    assert asked == [1]


def test_without_the_library_the_error_names_the_extra(soft: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_module(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(child, "import_module", no_module)
    with pytest.raises(child.Refused, match=r"pip install 'tizgin\[pkcs11\]'"):
        child.serve({"op": "look"})


def replaced_by(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr("agent.hsm.process.Token._command", staticmethod(lambda: ["sh", "-c", script]))


async def test_a_token_that_hangs_holds_nobody_up_and_is_used_again(
    soft: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make(soft.token(limit_s=15))
    key.token.limit_s = 0.4
    with monkeypatch.context() as patch:
        replaced_by(patch, "exec sleep 30")
        asked = asyncio.create_task(key.sign(b"x"))
        beats = 0
        while not asked.done():
            begun = time.monotonic()
            await asyncio.sleep(0.01)
            assert time.monotonic() - begun < 0.3, "the loop was held up"
            beats += 1
        assert beats > 10
        with pytest.raises(TokenError, match="no answer to sign within") as caught:
            await asked
        assert caught.value.code == "hangs"
        cancelled = asyncio.create_task(key.sign(b"x"))
        await asyncio.sleep(0.1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    key.token.limit_s = 15
    assert key.public.verifies(b"x", await key.sign(b"x"))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("kill -SEGV $$", "without an answer"),
        ("echo nonsense", "without an answer"),
        ("echo '{}'", "no signature"),
        ('echo \'{"signature":"00"}\'', "1 bytes"),
        (f'echo \'{{"signature":"{"01" * 64}"}}\'', "another key has taken its place"),
    ],
)
async def test_an_answer_that_is_none_is_refused(
    soft: SoftToken, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    key = make(soft.token())
    replaced_by(monkeypatch, f"cat > /dev/null; {script}")
    with pytest.raises(TokenError, match=why):
        await key.sign(b"x")


# the agent -----------------------------------------------------------------------------------------------------------


class TokenBox(Box):
    """A site whose file names a token."""

    soft: SoftToken
    key_label: str = KEY
    begun_in_token: bool = False

    async def open(self) -> Box:
        token = self.soft.token(key=self.key_label)
        await asyncio.to_thread(make_keys, self.state, token if self.begun_in_token else None)
        keys = load_keys(self.state, token)
        self.ledger = Ledger.open(
            self.state / "ledger.db", site=SITE, key=keys.rec, clock=self.clock, fw="t", successor=keys.next_rec
        )
        keys = settle(self.state, keys, self.ledger)
        self.first = keys
        self.checkpointer = Checkpointer(
            SITE, self.ledger, keys.log, self.clock, 900, lambda: None, self._show,
            first=int(self.ledger.meta("log_from") or 0),
        )  # fmt: skip
        self.rotation = Rotation(
            SITE, self.state, keys, self.ledger, self.register, self.checkpointer, self.clock, token
        )  # type: ignore[arg-type]  # a stand-in with what is asked of it
        self.rotation.listen()
        await self.rotation.arm()
        self.ledger.start()
        return self

    async def to(self, place: str | None) -> KeyChange:
        doc = {"role": "k_log", "who": "D. Kim", "records": 20, "to": place}
        return read_change((await self.rotation.take(doc)).encode())


@pytest.fixture
async def box(tmp_path: Path, soft: SoftToken, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TokenBox]:
    monkeypatch.setattr(store_module, "GROUP_S", 0.001)
    found = TokenBox(tmp_path / "state")
    found.soft = soft
    yield found
    await found.close()


async def events(box: Box) -> list[tuple[str, str]]:
    docs = [json.loads(line.payload) for ty, line in await box.lines() if ty == "event"]
    return [(doc["now"], doc["detail"]["why"]) for doc in docs if doc["ev"] == "log_key"]


async def test_a_token_that_is_pulled_stops_checkpoints_alone_and_signs_when_it_is_back(box: TokenBox) -> None:
    box.begun_in_token = True
    await box.open()
    await box.write(2)
    await box.checkpointer.make()
    assert box.checkpointer.counters.signed == 1
    box.soft.pull()
    await box.write(3)
    await box.checkpointer.make()
    await box.checkpointer.make()
    assert box.checkpointer.counters.signed == 1
    assert box.checkpointer.unsigned is not None
    assert "expected one token 'site'" in str(box.checkpointer.status()["unsigned"])
    await box.write(4)
    # The agent starts without it, too.
    await box.close()
    await box.open()
    assert isinstance(box.checkpointer.key, TokenKey)
    await box.checkpointer.make()
    assert box.checkpointer.unsigned is not None
    box.soft.put_back()
    await box.checkpointer.make()
    assert box.checkpointer.unsigned is None
    await box.checkpointer.make()
    size, _ = await box.ledger.head()
    rows = await box.ledger.read("SELECT size, note FROM checkpoint ORDER BY size")
    assert rows[-1][0] == size
    for _, note in rows:
        open_checkpoint(bytes(note), [log_key(box.checkpointer.origin, box.checkpointer.key.public.raw)])
    told = await events(box)
    assert [now for now, _ in told] == ["does not sign", "does not sign", "signs"]
    assert not any(PIN in line.payload.decode() for _, line in await box.lines())


async def test_the_key_moves_into_the_token_and_back_and_each_checkpoint_is_of_its_key(box: TokenBox) -> None:
    await box.open()
    keys, places, entries = [box.checkpointer.key.public], [0], ()
    for place in ("token", "file"):
        change = await box.to(place)
        assert isinstance(change.new, P256Key if place == "token" else VerifyKey)
        state = (box.state / NEXT["k_log"]).read_bytes()
        assert (b"PRIVATE" in state) == (place == "file")
        both = box.entries(change)
        entries = (*(entries or both[:1]), both[1])
        if place == "file":
            box.soft.pull()  # the change itself needs no token
        await box.enter(*entries)
        for _ in range(24):
            await box.write(1)
            if place == "token":
                continue
            await box.checkpointer.make()
        if place == "token":
            await box.checkpointer.make()
        keys.append(change.new)
        places.append(change.from_index)
        assert box.checkpointer.key.public == change.new
    rows = await box.ledger.read("SELECT size, note FROM checkpoint ORDER BY size")
    seen = set()
    for size, note in rows:
        newest = max(i for i, place in enumerate(places) if size - 1 >= place)
        open_checkpoint(bytes(note), [log_key(box.checkpointer.origin, keys[newest].raw)])
        seen.add(newest)
    assert {1, 2} <= seen
    kept = load_keys(box.state)
    assert (kept.log.public, kept.next_log) == (keys[2], None), "no token is needed any more"


async def test_a_change_that_needs_the_token_is_refused_while_it_is_away(box: TokenBox) -> None:
    await box.open()
    old = box.checkpointer.key.public
    box.soft.pull()
    with pytest.raises(AgentError, match="expected one token"):
        await box.to("token")
    assert box.rotation.status() is None
    change = await box.to("file")
    assert isinstance(change.new, VerifyKey)
    box.soft.put_back()
    moved = await box.to("token")
    assert isinstance(moved.new, P256Key)
    assert moved.old == old
    box.soft.pull()
    with pytest.raises(AgentError):
        await box.ask("k_log", 30)
    assert box.rotation.status() is not None, "what was planned before stays"
    box.soft.put_back()
    await box.enter(*box.entries(moved))
    await box.write(24)
    assert box.checkpointer.key.public == moved.new
    with pytest.raises(AgentError, match="another label"):
        await box.to("token")
    box.rotation.token = box.soft.token(key="next")
    assert isinstance((await box.to(None)).new, P256Key)
    with pytest.raises(WireError):
        await box.to("cloud")
    with pytest.raises(WireError):
        await box.rotation.take({"role": "k_rec", "who": "x", "to": "token"})


async def test_a_key_in_a_token_that_the_site_file_no_longer_names(box: TokenBox) -> None:
    box.begun_in_token = True
    await box.open()
    with pytest.raises(AgentError, match=r"keys\.log\.pkcs11"):
        load_keys(box.state)


async def test_a_request_that_waits_for_a_token_holds_up_no_other(tmp_path: Path) -> None:
    free = asyncio.Event()

    async def slow(_: Any) -> str:
        await free.wait()
        return "late"

    async def quick(_: Any) -> str:
        return "now"

    inbox = Inbox(tmp_path, None, lambda: None, requests={"rotate": slow, "plan": quick}, slow=frozenset({"rotate"}))  # type: ignore[arg-type]  # no act is handed in
    (tmp_path / "inbox" / "a.json").write_text('{"ty": "rotate"}')
    (tmp_path / "inbox" / "b.json").write_text('{"ty": "plan"}')
    task = asyncio.create_task(inbox.run())
    try:
        for _ in range(300):
            if (tmp_path / "inbox" / "b.result").exists():
                break
            await asyncio.sleep(0.02)
        assert json.loads((tmp_path / "inbox" / "b.result").read_text())["text"] == "now"
        assert not (tmp_path / "inbox" / "a.result").exists()
        free.set()
        for _ in range(300):
            if (tmp_path / "inbox" / "a.result").exists():
                break
            await asyncio.sleep(0.02)
        assert json.loads((tmp_path / "inbox" / "a.result").read_text())["text"] == "late"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# a person's commands -------------------------------------------------------------------------------------------------


def site_file(folder: Path, soft: SoftToken) -> Path:
    doc = site_doc(luxos=1, stock=1, broker_port=1, registrar=SigningKey.generate().public.text)
    folder.mkdir()
    (folder / "miners.secret").write_text("root")
    (folder / "ca.pem").write_text("no certificate, and no secret")
    (folder / "site.yaml").write_text(yaml.safe_dump(doc | {"keys": soft.settings()}))
    return folder / "site.yaml"


def test_check_enrol_and_back_up(soft: SoftToken, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = site_file(tmp_path / "site", soft)
    state = config.parent / "state"

    def told(*args: str) -> tuple[int, str]:
        code = run(["agent", *args, "--config", str(config)])
        out = capfd.readouterr()
        assert PIN not in out.out + out.err
        return code, out.out + out.err

    def checked() -> dict[str, Any]:
        code, text = told("check", "--json")
        assert code == 0, "what is wrong with a token is no error of the file"
        found: dict[str, Any] = json.loads(text)["token"]
        return found

    assert (checked()["present"], checked()["key"]) == (True, None)
    code, text = told("enroll", "--out", str(tmp_path / "e.json"))
    assert code == 0
    found = read_enrolment((tmp_path / "e.json").read_bytes())
    assert isinstance(found.k_log, P256Key)
    kid = found.k_log.kid
    assert f"log key {kid[:4]} {kid[4:8]} {kid[8:12]} {kid[12:]}  (key '{KEY}' of token 'site')" in text
    assert (state / LOG).stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in (state / LOG).read_bytes()
    assert checked() == {"token": "site", "present": True, "key": kid, "signs": True, "why": None}
    assert f"token site: present, key {kid}, signs" in told("check")[1]

    archive = tmp_path / "b.zip"
    assert "carry by hand, it is a secret: " + str(soft.pin_file) in told("backup", str(archive))[1]
    with zipfile.ZipFile(archive) as opened:
        held = {name: opened.read(name) for name in opened.namelist()}
    assert not any(LOG in name for name in held)
    assert not any(word in data for data in held.values() for word in (PIN.encode(), b"PRIVATE KEY", kid.encode()))

    again, _ = told("enroll", "--out", str(tmp_path / "again.json"))
    assert again == 0
    assert read_enrolment((tmp_path / "again.json").read_bytes()).k_log == found.k_log
    soft.pull()
    assert (checked()["present"], checked()["signs"]) == (False, False)
    code, text = told("enroll", "--out", str(tmp_path / "away.json"))
    assert code != 0
    assert "expected one token 'site'" in text


def test_an_enrolment_by_a_token_binds_the_key_to_the_others(soft: SoftToken, tmp_path: Path) -> None:
    token = soft.token()
    make_keys(tmp_path / "state", token)
    doc = json.loads(enrolment(tmp_path / "state", SITE, "e1-0a0b0c0d", token))
    assert read_enrolment(json.dumps(doc).encode()).k_log.text == doc["k_log"]
    other = make(soft.token(key="other"))
    for wrong in ({"k_log": other.public.text}, {"proof_log": doc["proof_tls"]}):
        with pytest.raises(WireError):
            read_enrolment(json.dumps(doc | wrong).encode())


def test_a_register_entry_with_the_key_of_a_token(soft: SoftToken) -> None:
    entry = Epoch(epoch="e1-0a0b0c0d", k_rec=SigningKey.generate().public.text, k_log=make(soft.token()).public.text)
    assert len(entry.k_log) == 124
