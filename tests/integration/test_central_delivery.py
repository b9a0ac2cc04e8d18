"""From a site's message to the disk and back: once each, nothing lost, nothing believed that is not proven."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.central_site import (
    Ledger,
    RunningCentral,
    Site,
    make_register,
    make_settings,
    now_ms,
    wait_for,
)
from wire.keys import SigningKey
from wire.messages import Progress, State
from wire.names import topic

SITES = ("ekb-1", "pvl-2", "fork-3", "late-4", "bad-5", "keys-6")


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCentral]:
    registrar = SigningKey.generate()
    folder = tmp_path_factory.mktemp("central")
    running = RunningCentral(folder, make_settings(folder / "data", registrar, SITES), registrar)
    running.start()
    yield running
    assert running.stop() < 4.0


@pytest.fixture
def online(central: RunningCentral) -> Iterator[object]:
    made: list[Site] = []

    def make(name: str) -> Site:
        site = central.site(name)
        site.come_online()
        made.append(site)
        return site

    yield make
    for site in made:
        site.close()


def counts(central: RunningCentral, site: str) -> dict:
    return central.get(f"/api/v1/counts?site={site}")


def test_evidence_and_batches_are_stored_once_and_committed(central: RunningCentral, online) -> None:
    site = online("ekb-1")
    t0 = now_ms() // 1000 // 900 * 900 - 3600
    site.ledger.add("site", "genesis", site="ekb-1", slot_s=900)
    lines = [site.ledger.interval("main", t0 + i * 900, 1000 + i) for i in range(3)]
    lines.append(site.ledger.gap("main", t0 + 2700, "TIMEOUT"))
    for _ in range(3):
        site.send_lines(*site.ledger.lines["site"], *lines)
        for n in range(4):
            site.send_batch(n)
    site.wait_committed("mp:main", 4)
    site.wait_committed("bulk", 4)
    found = counts(central, "ekb-1")
    assert (found["records"], found["records_distinct"]) == (5, 5)
    assert (found["batches"], found["values"], found["values_distinct"]) == (4, 40, 40)
    assert (found["intervals"], found["gaps"], found["forks"]) == (3, 1, 0)
    rows = central.get("/api/v1/sites/ekb-1/intervals?mp=main&hours=3")
    assert [(r["kind"], r["wh"], r["why"]) for r in rows] == [
        ("gap", None, "TIMEOUT"),
        ("interval", 1002, None),
        ("interval", 1001, None),
        ("interval", 1000, None),
    ]
    boots = {part.boot for c in site.commits for part in c.streams if part.stream == "bulk"}
    assert boots == {"b1"}
    steps = central.get("/api/v1/sites/ekb-1/series?kind=meter&device=m1&point=power_w&minutes=5&step_s=300")
    assert sum(s["good"] for s in steps) == 20
    assert all(4_000_000 <= s["mean"] <= 4_000_003 for s in steps)


def test_presence_is_answered_with_its_own_time(central: RunningCentral, online) -> None:
    site = online("ekb-1")
    state = site.state()
    site.send("state", state)
    wait_for(lambda: any(c.state_at == state.at for c in site.commits), "the answer to the state")
    assert central.get("/api/v1/sites/ekb-1")["presence"] == "online"
    site.send("state", State(**(state.model_dump() | {"online": False})))
    wait_for(lambda: central.get("/api/v1/sites/ekb-1")["presence"] == "offline", "offline")


def test_live_power_has_an_age_and_silence_is_unknown_not_zero(central: RunningCentral, online) -> None:
    assert central.get("/api/v1/sites/late-4")["power_w"] is None
    site = online("late-4")
    assert central.get("/api/v1/sites/late-4")["freshness"] == "unknown"
    site.send_live(4_812_000, limit_w=None, asics_total=100, asics_hashing=99)
    wait_for(lambda: central.get("/api/v1/sites/late-4")["power_w"] == 4_812_000, "live power")
    assert central.get("/api/v1/sites/late-4")["freshness"] == "fresh"
    site.send_live(None)
    wait_for(lambda: central.get("/api/v1/sites/late-4")["power_w"] is None, "unknown power")
    site.send_live(3_000_000, ages_ms={"net_w": 40_000})
    wait_for(lambda: central.get("/api/v1/sites/late-4")["freshness"] == "stale", "a stale meter is stale at once")


def test_a_hole_and_a_missing_tail_are_asked_for(central: RunningCentral, online) -> None:
    site = online("pvl-2")
    lines = [site.ledger.interval("main", 1_795_000_500 // 900 * 900 + i * 900, i) for i in range(8)]
    for i in (0, 1, 3, 5):
        site.send_lines(lines[i])
    for n in (0, 2):
        site.send_batch(n)
    site.wait_committed("mp:main", 4)
    site.wait_committed("bulk", 2)
    site.send("heads", site.ledger.heads(bulk_last=4))
    wait_for(lambda: len(site.wants) >= 5, "requests for what is missing")
    asked = sorted((w.stream, w.first, w.last) for w in site.wants)
    assert asked == [("bulk", 1, 1), ("bulk", 3, 4), ("mp:main", 2, 2), ("mp:main", 4, 4), ("mp:main", 6, 7)]
    for want in list(site.wants):
        for n in range(want.first, want.last + 1):
            site.send_batch(n) if want.stream == "bulk" else site.send_lines(lines[n])
    site.wait_committed("mp:main", 8)
    site.wait_committed("bulk", 5)
    site.wants.clear()
    site.send("heads", site.ledger.heads(bulk_last=4))
    site.send("state", site.state())
    wait_for(lambda: site.commits[-1].state_at, "the state after the heads")
    assert site.wants == []
    assert counts(central, "pvl-2")["records"] == 8


def test_other_bytes_for_a_number_are_kept_as_a_fork_and_seen(central: RunningCentral, online) -> None:
    site = online("fork-3")
    first = site.ledger.interval("main", 1_795_000_500 // 900 * 900, 10)
    other = Ledger("fork-3", site.ledger.key)
    second = other.interval("main", 1_795_000_500 // 900 * 900, 99)
    site.send_lines(first)
    site.send_lines(second)
    site.send_lines(second)
    site.wait_committed("mp:main", 1)
    wait_for(lambda: counts(central, "fork-3")["forks"] == 1, "the fork is kept once")
    assert [r["wh"] for r in central.get("/api/v1/sites/fork-3/intervals?hours=2000")] == [10]
    assert "fork" in central.get("/api/v1/sites/fork-3")["alarms"]
    site.ledger.hashes["mp:main"][-1] = other.hashes["mp:main"][-1]
    site.send("heads", site.ledger.heads())
    wait_for(lambda: "other_hash" in central.get("/api/v1/sites/fork-3")["alarms"], "the heads contradict the store")


def test_records_are_judged_when_the_register_comes_and_junk_yields_to_the_true_record(
    central: RunningCentral, online
) -> None:
    site = online("keys-6")
    true_key = site.ledger.key
    t0 = 1_795_000_500 // 900 * 900
    junk = Ledger("keys-6", SigningKey.generate())
    site.send_lines(junk.interval("main", t0, 1), junk.interval("main", t0 + 900, 2))
    site.send_lines(site.ledger.add("site", "genesis", site="keys-6", slot_s=900))
    site.wait_committed("mp:main", 2)
    site.wait_committed("site", 1)
    assert counts(central, "keys-6")["records_verified"] == 0
    register = make_register(central.registrar, {"keys-6": true_key})
    answer = httpx.put(central.url + "/api/v1/keys", content=register, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    wait_for(lambda: site.keys, "the register at the site")
    assert site.keys[0] == register
    wait_for(lambda: counts(central, "keys-6")["records_false"] == 2, "stored records are judged")
    assert counts(central, "keys-6")["records_verified"] == 1
    site.send_lines(site.ledger.interval("main", t0, 500))
    wait_for(lambda: counts(central, "keys-6")["records_verified"] == 2, "the true record took the place")
    rows = central.get("/api/v1/sites/keys-6/intervals?hours=2000")
    assert [(r["wh"], r["verified"]) for r in rows] == [(2, False), (500, True)]
    assert counts(central, "keys-6")["forks"] == 1
    older = httpx.put(
        central.url + "/api/v1/keys",
        content=make_register(central.registrar, {"keys-6": true_key}),
        headers={"content-type": "application/json"},
    )
    assert older.status_code == 409
    foreign = httpx.put(
        central.url + "/api/v1/keys",
        content=make_register(SigningKey.generate(), {"keys-6": true_key}, version=9),
        headers={"content-type": "application/json"},
    )
    assert foreign.status_code == 422
    assert httpx.get(central.url + "/api/v1/keys").content == register


HOSTILE = {
    "not a line": ("evidence", b"hello", "quarantined_format"),
    "a line without end": ("evidence", b"TZR1|" + b"{" * 5000, "quarantined_format"),
    "not utf-8": ("evidence", b"TZR1|\xff\xfe|0123456789abcdef|AAAA", "quarantined_format"),
    "deep nesting": ("evidence", b'TZR1|{"a":' + b"[" * 20_000 + b"|0123456789abcdef|AAAA", "quarantined_format"),
    "a batch that is none": ("bulk", b"TZB1" + b"\0" * 40, "quarantined_format"),
    "a zip bomb": (
        "bulk",
        b"TZB1" + __import__("zstandard").ZstdCompressor().compress(b"0" * 50_000_000),
        "quarantined_format",
    ),
    "a bomb that hides its size": (
        "bulk",
        b"TZB1" + __import__("zstandard").ZstdCompressor(write_content_size=False).compress(b"0" * 50_000_000),
        "quarantined_format",
    ),
    "state of another site": (
        "state",
        b'{"site":"ekb-1","epoch":"e1-0badcafe","online":true,"boot":"b","agent_version":"1","mode":"armed","at":1}',
        "quarantined_other_site",
    ),
    "json of the wrong shape": ("heads", b"[]", "quarantined_format"),
    "json with NaN": ("live", b'{"net_w": NaN}', "quarantined_format"),
    "empty": ("inventory", b"", "quarantined_format"),
    "a certificate request": ("csr", b"x", "quarantined_format"),
}


@pytest.mark.parametrize("case", HOSTILE, ids=list(HOSTILE))
def test_hostile_input_is_counted_and_harms_nothing(central: RunningCentral, online, case: str) -> None:
    name, payload, tally = HOSTILE[case]
    site = online("bad-5")
    before = counts(central, "bad-5")["tallies"].get(tally, 0)
    site.publish(topic("bad-5", name), payload)
    wait_for(lambda: counts(central, "bad-5")["tallies"].get(tally, 0) == before + 1, f"{case} counted as {tally}")
    good = len(site.ledger.lines.get("site", []))
    site.ledger.epoch = f"e1-{abs(hash(case)) % 16**8:08x}"
    site.send_lines(site.ledger.add("site", "event", ev="x", obj="y"))
    site.wait_committed("site", good + 1)


def test_times_out_of_bounds_are_set_aside(central: RunningCentral, online) -> None:
    site = online("bad-5")
    before = counts(central, "bad-5")["tallies"].get("quarantined_time", 0)
    future, past = now_ms() + 6 * 60_000, now_ms() - 91 * 86_400_000
    one, two = Ledger("bad-5", site.ledger.key, "e7-00000001"), Ledger("bad-5", site.ledger.key, "e7-00000002")
    site.send_lines(
        one.add("site", "event", at=future, ev="x", obj="y"), two.add("site", "event", at=past, ev="x", obj="y")
    )
    site.send_batch(100, at=future + 60_000)
    site.send_batch(101, at=past)
    wait_for(lambda: counts(central, "bad-5")["tallies"].get("quarantined_time", 0) == before + 4, "all four set aside")
    assert 100 not in site.committed("bulk")


def test_evidence_of_another_site_is_refused(central: RunningCentral, online) -> None:
    site = online("bad-5")
    foreign = Ledger("ekb-1", SigningKey.generate(), "e9-00000009")
    before = counts(central, "bad-5")["tallies"].get("quarantined_other_site", 0)
    site.send_lines(foreign.add("site", "event", ev="x", obj="y"))
    wait_for(
        lambda: counts(central, "bad-5")["tallies"].get("quarantined_other_site", 0) == before + 1,
        "refused and counted",
    )
    assert not any(s["epoch"] == "e9-00000009" for s in central.get("/api/v1/counts")["streams"])


def test_progress_is_kept_but_says_it_is_unsigned(central: RunningCentral, online) -> None:
    site = online("ekb-1")
    site.send_progress("0197a000-0000-7000-8000-000000000001", "executing", steps_done=1, steps_total=4)
    with pytest.raises(ValueError, match="signed"):
        Progress.model_validate({"signed": True})


def test_health_and_metrics(central: RunningCentral) -> None:
    assert central.get("/healthz")["ok"] is True
    text = httpx.get(central.url + "/metrics").text
    assert "tizgin_broker_up 1.0" in text
    assert 'tizgin_records_total{result="new"}' in text
    assert Path(central.log).read_text().count("Traceback") == 0
