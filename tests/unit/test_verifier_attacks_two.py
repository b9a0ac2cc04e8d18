"""Attacks 21 to 38: keys, epochs, registers, invented readings, witnesses, totals, what no signature shows.

Continues ``test_verifier_attacks_one.py``; ``docs/verification.md`` lists them all.
"""

from __future__ import annotations

import ast
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_kit import (
    EPOCH,
    IMPORT,
    MAP,
    SITE,
    SLOT,
    SLOTS,
    START,
    Doc,
    Site,
    codes,
    doubts,
    framed,
    frames,
    fresh,
    gap,
    good_site,
    joined,
    judged,
    ordered,
    signed_line,
)

from verifier.notes import read_policy
from wire import canonical
from wire.checkpoints import Checkpoint, cosign
from wire.energy import interval_wh
from wire.keys import SigningKey, b64
from wire.merkle import Frontier
from wire.notes import Note, parse_note
from wire.rotation import KeyChange

NOTES, LEAVES = f"log/{EPOCH}.notes", f"log/{EPOCH}.leaves"
M1 = f"records/{EPOCH}/mp_M1.tzr"
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture(scope="module")
def template() -> Site:
    return good_site(witnessed=True)


@pytest.fixture
def site(template: Site) -> Site:
    return fresh(template)


def of_site(site: Site) -> Doc:
    found: Doc = site.register["sites"][0]
    return found


# keys ----------------------------------------------------------------------------------------------------------------


def test_attack_21_a_signature_in_its_other_form(site: Site, tmp_path: Path) -> None:
    """S + L is the same number modulo the group's order: it must not be a second signature."""
    files = site.files()
    lines = files[M1].splitlines()
    head, _, text = lines[4].rpartition(b"|")
    signature = base64.b64decode(text)
    second = signature[:32] + (int.from_bytes(signature[32:], "little") + GROUP_ORDER).to_bytes(32, "little")
    lines[4] = head + b"|" + base64.b64encode(second)
    assert "SIG" in codes(judged(tmp_path, site, ordered(files | {M1: b"\n".join(lines) + b"\n"})))


LOW_ORDER = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"


def test_attack_21_keys_of_low_order(site: Site, tmp_path: Path) -> None:
    low = b64(bytes.fromhex(LOW_ORDER))
    trust = json.loads(site.trust()) | {"collector": [low]}
    refused = judged(tmp_path, site, trust=json.dumps(trust).encode())
    assert (refused.exit, codes(refused)) == (3, {"TRUST"})
    of_site(site)["epochs"][0]["k_rec"] = low
    assert "REGISTER" in codes(judged(tmp_path, site))


def test_attack_22_a_key_that_the_register_does_not_know(site: Site, tmp_path: Path) -> None:
    files = site.files()
    strange = b"".join(line + b"\n" for line in site.lines("mp:M1", SigningKey.generate()))
    assert "KEY" in codes(judged(tmp_path, site, ordered(files | {M1: strange})))


def test_attack_22_a_key_beyond_its_last_index(site: Site, tmp_path: Path) -> None:
    of_site(site)["epochs"][0]["to_index"] = 20
    assert codes(judged(tmp_path, site)) & {"KEY", "CHECKPOINT"}


def test_attack_22_a_revoked_key(site: Site, tmp_path: Path) -> None:
    site.register["revoked"] = [{"kid": site.rec.kid, "at": (START + 4 * SLOT) * 1000, "reason": "stolen"}]
    report = judged(tmp_path, site)
    assert "KEY" in codes(report)
    assert report.points["M1"].grades["B"] >= 2, "what witnesses saw before stays good"
    site.register["revoked"][0]["at"] = (START + 40 * SLOT) * 1000
    assert judged(tmp_path, site).exit == 0


def rotated(site: Site, *, told: bool = True, registered: bool = True, off: int = 0) -> Site:
    """The record key changes in slot 5: ``key_rotate`` by the old key, the register's entry, the new key's records."""
    new, at_s = SigningKey.generate(), START + 5 * SLOT + 100
    if told:
        site.add("site", "key_rotate", at_s, {"new": new.public.text, "role": "k_rec"})
    site.rotated = (at_s * 1000, new)
    places = site.signed().places
    index = places["site"][-1] if told else max(p for docs in places.values() for p in docs[:6])
    if registered:
        entry = of_site(site)["epochs"][0]
        later = entry | {"k_rec": new.public.text, "from_index": index + 1 + off}
        of_site(site)["epochs"] = [entry | {"to_index": index + off}, later]
    return site


def test_a_rotation_that_all_three_say_is_good(site: Site, tmp_path: Path) -> None:
    report = judged(tmp_path, rotated(site))
    assert (report.errors, report.doubts, report.exit) == ([], [], 0)


@pytest.mark.parametrize("lacking", [{"told": False}, {"registered": False}, {"off": 1}, {"off": -1}])
def test_attack_23_a_rotation_that_one_of_three_does_not_say(site: Site, tmp_path: Path, lacking: Doc) -> None:
    report = judged(tmp_path, rotated(site, **lacking))
    assert "KEY" in codes(report)
    assert report.exit == 2


def test_attack_23_a_rotation_that_the_new_key_says_itself(site: Site, tmp_path: Path) -> None:
    rotated(site)
    site.streams["site"][-1]["at"] += 1000
    report = judged(tmp_path, site)
    assert any("KEY_CHAIN" in error.line() for error in report.errors)


def log_rotated(site: Site, *, told: bool = True, by: str = "log", off: int = 0) -> Site:
    """The log key changes in slot 5: the old one's proof in ``key_rotate``, the register's entry, later checkpoints."""
    new, at_s = SigningKey.generate(), START + 5 * SLOT + 100
    site.add("site", "event", at_s - 50, {"ev": "tag", "obj": "F1"})
    if told:
        site.add("site", "key_rotate", at_s, {})
    index = site.signed().places["site"][-1]
    change = KeyChange(SITE, site.epoch, "k_log", site.log.public, new.public, index + 1)
    if told:
        site.streams["site"][-1] |= change.fields(new if by == "new" else site.log, new)
    site.later_log = (index + 1, new)
    entry = of_site(site)["epochs"][0]
    later = entry | {"k_log": new.public.text, "from_index": index + 1 + off}
    of_site(site)["epochs"] = [entry | {"to_index": index + off}, later]
    return site


def test_a_log_key_that_all_three_exchange_is_good(site: Site, tmp_path: Path) -> None:
    report = judged(tmp_path, log_rotated(site))
    assert (report.errors, report.doubts, report.exit) == ([], [], 0)


@pytest.mark.parametrize("lacking", [{"told": False}, {"by": "new"}, {"off": 1}, {"off": -1}])
def test_attack_23_a_log_key_that_one_of_three_does_not_say(site: Site, tmp_path: Path, lacking: Doc) -> None:
    report = judged(tmp_path, log_rotated(site, **lacking))
    assert codes(report) & {"KEY", "CHECKPOINT"}
    assert report.exit == 2


# epochs --------------------------------------------------------------------------------------------------------------


def installed_again(link: Callable[[Any], Doc | None]) -> tuple[Site, Site, dict[str, bytes]]:
    first = good_site(witnessed=True, slots=range(6))
    second = good_site(before=first, slots=range(6, SLOTS))
    signed = first.signed()
    second.streams["site"][0]["prev"] = link(signed)
    return first, second, joined(first, second)


def root(leaves: list[bytes]) -> str:
    tree = Frontier()
    tree.extend(leaves)
    return tree.root().hex()


def whole(signed: Any) -> Doc:
    return {"epoch": EPOCH, "size": len(signed.leaves), "root": root(signed.leaves)}


def test_a_new_epoch_that_names_the_end_of_the_old_one_is_good(tmp_path: Path) -> None:
    first, _, files = installed_again(whole)
    report = judged(tmp_path, first, files)
    assert (report.errors, report.doubts, report.exit) == ([], [], 0)
    assert report.points["M1"].grades == {"B": SLOTS}


def test_attack_24_a_new_epoch_without_a_link(tmp_path: Path) -> None:
    first, _, files = installed_again(lambda _: None)
    report = judged(tmp_path, first, files)
    assert (report.exit, doubts(report)) == (1, {"EPOCH_BREAK"})


@pytest.mark.parametrize(
    "link",
    [
        lambda s: whole(s) | {"size": s.sizes[2], "root": root(s.leaves[: s.sizes[2]])},
        lambda s: whole(s) | {"root": "ab" * 32},
        lambda s: whole(s) | {"epoch": "e1-ffffffff"},
        lambda s: {"epoch": EPOCH},
    ],
)
def test_attack_24_a_new_epoch_with_a_false_link(tmp_path: Path, link: Callable[[Any], Doc]) -> None:
    first, _, files = installed_again(link)
    report = judged(tmp_path, first, files)
    assert (report.exit, codes(report)) == (2, {"EPOCH_BREAK"})


def test_attack_24_records_that_the_old_epoch_lost_are_counted(tmp_path: Path) -> None:
    first, _, files = installed_again(lambda s: whole(s) | {"size": len(s.leaves) + 7})
    report = judged(tmp_path, first, files)
    assert report.exit == 1
    assert any(doubt.startswith("EPOCH_BREAK") and "7 records lost" in doubt for doubt in report.doubts)


# registers -----------------------------------------------------------------------------------------------------------


def test_attack_25_a_lower_ratio_in_the_bind(site: Site, tmp_path: Path) -> None:
    site.streams["mp:M1"][0]["ct"] = {"num": 100, "den": 1}
    assert "RATIO" in codes(judged(tmp_path, site))


def test_attack_26_energy_that_is_not_the_registers_and_registers_that_are_not_the_frames(
    site: Site, tmp_path: Path
) -> None:
    site.streams["mp:M1"][4]["wh"] -= 1
    other = fresh(site)
    assert "DELTA" in codes(judged(tmp_path, site))
    other.streams["mp:M1"][4]["wh"] += 1
    other.streams["mp:M2"][4]["reg"][IMPORT][1] -= 1
    assert "DECODE" in codes(judged(tmp_path, other))


def integers(site: Site, values: list[int], **changes: Any) -> None:
    """Point M1 with an integer register of these values at the boundaries."""
    how = MAP | {"enc": "u32", "lsb": {"num": 1, "den": 1}} | changes
    docs = site.streams["mp:M1"]
    docs[0]["pts"] = docs[0]["pts"] | {IMPORT: how}
    for slot, doc in enumerate(docs[1:]):
        before, after = values[slot], values[slot + 1]
        exported = doc["reg"]["energy_export_wh"]
        doc["reg"] = doc["reg"] | {IMPORT: [before, after]}
        doc["raw"] = frames(after, exported[1])
        if "raw0" in doc:
            doc["raw0"] = frames(before, exported[0])
        wrapped = after < before and "roll" in how
        doc["wh"] = interval_wh(before, after, how, wrapped=wrapped)
        doc["q"] = ["rollover"] if wrapped else []


def test_attack_27_a_meter_is_exchanged_without_a_word(site: Site, tmp_path: Path) -> None:
    site.streams["mp:M2"][6]["sn"] = "B2"
    assert "RATIO" in codes(judged(tmp_path, site))


def test_attack_27_a_register_is_set_to_zero(site: Site, tmp_path: Path) -> None:
    values = [1_000_000 + 2500 * i for i in range(7)] + [2500 * i for i in range(6)]
    integers(site, values)
    assert "DELTA" in codes(judged(tmp_path, site))
    integers(site, values, roll=10**8)
    assert "DELTA" in codes(judged(tmp_path, site)), "nor does it pass for a rollover far below the end"
    high = [9 * 10**7 + 2500 * i for i in range(7)] + [2500 * i for i in range(6)]
    of_site(site)["contracted_w"] = 1_000_000
    integers(site, high, roll=10**8)
    assert "DELTA" in codes(judged(tmp_path, site)), "nor one of more than the connection carries"


def test_attack_28_a_real_rollover_passes(site: Site, tmp_path: Path) -> None:
    of_site(site)["contracted_w"] = 1_000_000
    integers(site, [(99_990_000 + 2500 * i) % 10**8 for i in range(SLOTS + 1)], roll=10**8)
    report = judged(tmp_path, site)
    assert (report.errors, report.exit) == ([], 0)
    assert report.points["M1"].wh == 2500 * SLOTS


# invented readings ---------------------------------------------------------------------------------------------------


def test_attack_29_a_gap_is_hidden_by_equal_shares(site: Site, tmp_path: Path) -> None:
    """Slots 3 to 6 were not read; somebody with the record key divides what the registers say into equal parts."""
    integers(site, [10_000 + 1000 * i for i in range(SLOTS + 1)])
    invented = fresh(site)
    for doc in invented.streams["mp:M1"][4:8]:
        doc["raw"] = []
    assert "DECODE" in codes(judged(tmp_path, invented)), "without frames"
    assert judged(tmp_path, site).exit == 0, "with forged frames the registers are in order …"
    cfg = site.signed().lines["mp:M1"][0].hash.hex()
    for slot, wh in ((3, 400), (4, 1600), (5, 1000), (6, 1000)):
        told = {"t0": START + slot * SLOT, "t1": START + (slot + 1) * SLOT, "wh": wh, "src": "profile", "cfg": cfg}
        site.add("mp:M1", "archive", START + SLOTS * SLOT + 10, told)
    site.anchored = False
    cfg = site.signed().lines["mp:M1"][0].hash.hex()
    for doc in site.streams["mp:M1"]:
        if doc["ty"] == "archive":
            doc["cfg"] = cfg
    report = judged(tmp_path, site)
    assert "PROFILE" in codes(report), "… and the meter's own profile says otherwise"


def test_attack_29_equal_shares_do_not_follow_the_power_that_was_read(site: Site, tmp_path: Path) -> None:
    for slot, wh in ((3, 2000), (4, 20_000), (5, 15_000), (6, 2000)):
        site.streams["mp:M1"][slot + 1]["pi"] = {"wh": wh, "n": 900, "gap_ms": 1000}
    report = judged(tmp_path, site)
    assert (report.exit, doubts(report)) == (1, {"INTEGRAL", "FROZEN"}), "equal energies while the power moved"
    assert report.points["M1"].lowered == {"V11": 4}


def test_values_beside_the_registers_have_their_shapes_or_the_slot_fails(site: Site, tmp_path: Path) -> None:
    three = {"u": [230_000] * 3, "i": [1000] * 3, "p": [230] * 3}
    site.streams["mp:M1"][4] |= {"ph": three | {"n": 9, "iu": [0] * 3, "neg": [0] * 3}, "ev": {"cover_open": 7}}
    assert judged(tmp_path, fresh(site)).exit == 0
    site.streams["mp:M1"][4]["ph"]["iu"] = [10, 0, 0]
    report = judged(tmp_path, site)
    assert "DELTA" in codes(report), "more polls than there were"
    assert report.points["M1"].grades["X"] == 1


def test_attack_30_a_gap_is_taken_back_later(site: Site, tmp_path: Path) -> None:
    late = dict(site.streams["mp:M1"][5])
    gap(site, "mp:M1", range(4, 5))
    honest = fresh(site)
    site.streams["mp:M1"].insert(7, late | {"at": site.streams["mp:M1"][6]["at"]})
    assert "SLOT" in codes(judged(tmp_path, site)), "the gap was written and stays"
    honest.anchored = False
    cfg = honest.signed().lines["mp:M1"][0].hash.hex()
    told = {"t0": late["t0"], "t1": late["t1"], "wh": late["wh"], "src": "profile", "cfg": cfg}
    honest.add("mp:M1", "archive", START + SLOTS * SLOT + 10, told)
    report = judged(tmp_path, honest)
    assert (codes(report), report.points["M1"].grades["R"]) == (set(), 1), "what the meter remembers stands beside it"


# witnesses -----------------------------------------------------------------------------------------------------------


def test_attack_31_a_cosignature_of_another_checkpoint(site: Site, tmp_path: Path) -> None:
    signed = site.signed()
    one, two = parse_note(signed.notes[-1]), parse_note(signed.notes[-2])
    foreign = Note(one.text, (one.signatures[0], *two.signatures[1:])).encode()
    files = ordered(site.files() | {NOTES: framed([*signed.notes[:-1], foreign])})
    assert "CHECKPOINT" in codes(judged(tmp_path, site, files))


@pytest.mark.parametrize("who", [("so", "col", "reg"), ("col",)])
def test_attack_31_a_witness_s_time_runs_back(site: Site, tmp_path: Path, who: tuple[str, ...]) -> None:
    site.anchored = False
    signed = site.signed()
    notes = []
    for number, raw in enumerate(signed.notes):
        note = parse_note(raw)
        at_s = START + 30 + (number if number != 6 else 1) * SLOT
        others = [line for line in note.signatures[1:] if line.name not in who]
        lines = [cosign(note.text, name, site.witnesses[name], at_s) for name in who]
        notes.append(Note(note.text, (note.signatures[0], *others, *lines)).encode())
    files = ordered(site.files() | {NOTES: framed(notes)})
    assert "CHECKPOINT" in codes(judged(tmp_path, site, files))


def test_attack_31_one_key_is_one_witness(site: Site, tmp_path: Path) -> None:
    site.anchored = False
    signed = site.signed()
    twins = []
    for raw in signed.notes:
        note = parse_note(raw)
        so = [cosign(note.text, "so", site.witnesses["so"], START + 30 * i) for i in range(2)]
        twins.append(Note(note.text, (note.signatures[0], *so)).encode())
    report = judged(tmp_path, site, ordered(site.files() | {NOTES: framed(twins)}))
    assert (report.cosigned, report.exit) == (0, 1)
    policy = site.policy()
    twice = policy.splitlines()[0].replace("witness so", "witness again") + "\n" + policy
    with pytest.raises(ValueError, match="one key twice"):
        read_policy(twice)


def test_attack_32_two_roots_of_one_size(site: Site, tmp_path: Path) -> None:
    signed = site.signed()
    other = Checkpoint(f"tizgin/{SITE}/{EPOCH}", signed.sizes[3], b"\x07" * 32).sign(site.log).encode()
    files = ordered(site.files() | {NOTES: framed([*signed.notes, other])})
    assert "EQUIVOCATION" in codes(judged(tmp_path, site, files))


def test_attack_33_leaves_are_altered_or_meters_kept_back(site: Site, tmp_path: Path) -> None:
    files = site.files()
    leaves = bytearray(files[LEAVES])
    leaves[40] ^= 1
    assert "ROOT_MISMATCH" in codes(judged(tmp_path, site, ordered(files | {LEAVES: bytes(leaves)})))
    kept = {name: data for name, data in files.items() if "mp_M2" not in name}
    doc = json.loads(kept["report.json"])
    del doc["points"]["p0001"]
    report = judged(tmp_path, site, ordered(kept | {"report.json": canonical.encode(doc)}))
    assert (report.exit, report.withheld) == (1, SLOTS + 1)
    assert "WITHHELD" in doubts(report)
    assert report.points["M2"].grades == {"M": SLOTS}


# totals, estimates, what no signature shows --------------------------------------------------------------------------


def test_attack_34_a_total_that_is_not_the_sum(site: Site, tmp_path: Path) -> None:
    files = site.files()
    doc = json.loads(files["report.json"])
    doc["points"]["p0000"]["wh"] -= 1000
    assert "REPORT" in codes(judged(tmp_path, site, files | {"report.json": canonical.encode(doc)}))


@pytest.mark.parametrize(
    "change",
    [
        {"q": ["estimated"]},
        {"ty": "balance"},
        {"ty": "archive", "src": "average", "cfg": "BIND"},
    ],
)
def test_attack_35_an_estimate_is_passed_as_a_reading(site: Site, tmp_path: Path, change: Doc) -> None:
    site.anchored = False
    if change.get("cfg"):
        change = change | {"cfg": site.signed().lines["mp:M1"][0].hash.hex()}
    site.streams["mp:M1"][5].update(change)
    report = judged(tmp_path, site)
    assert "QUALITY" in codes(report)


def test_attack_35_a_stream_has_no_records_of_other_types(site: Site, tmp_path: Path) -> None:
    files = site.files()
    bare = {k: v for k, v in files.items() if not k.startswith("log/") and not k.endswith(".idx")}
    last = site.signed().lines["mp:M1"][-1]
    body = json.loads(last.payload) | {"ty": "estimate", "n": SLOTS + 1, "p": last.hash.hex(), "a": None}
    line = signed_line(site, canonical.encode(body))
    assert "QUALITY" in codes(judged(tmp_path, site, ordered(bare | {M1: bare[M1] + line})))


def test_attack_36_hidden_load_and_by_passes_are_asked_about(site: Site, tmp_path: Path) -> None:
    unseen = {"mp": "M1", "was_w": 90_000, "now_w": 89_000, "own_w": 40_000, "seen": False}
    gap(site, "mp:M2", range(3, 5), why="NO_POWER", sw="Q1", up=unseen)
    main, feeders = (doc["wh"] - doc["exp_wh"] for doc in (site.streams[f"mp:M{n}"][8] for n in (1, 2)))
    figures = {"main_wh": main, "feeders_wh": feeders, "loss_wh": 90, "residual_wh": main - feeders - 90, "tol_wh": 150}
    lists = {"main": ["M1"], "transit": [], "feeders": ["M2"], "missing": [], "asic": [], "loss_id": "0" * 16}
    t0 = START + 7 * SLOT
    site.add("bal", "balance", t0 + SLOT + 1, {"t0": t0, "t1": t0 + SLOT} | figures | lists)
    report = judged(tmp_path, site)
    assert (report.exit, codes(report)) == (1, set())
    assert sum(doubt.startswith("SUSPECT") for doubt in report.doubts) == 2
    site.streams["bal"][0]["residual_wh"] = 0
    assert "DELTA" in codes(judged(tmp_path, site)), "a balance that does not add up is false"


def test_attack_37_scaled_values_on_the_wire_are_a_limit_that_is_told(
    site: Site, tmp_path: Path, repository: Path
) -> None:
    """Whoever sits on the wire before the agent can scale all values; no signature behind it can show that."""
    integers(site, [(10_000_000 + 10_000 * i) * 9 // 10 for i in range(SLOTS + 1)])
    assert judged(tmp_path, site).exit == 0
    told = (repository / "docs" / "verification.md").read_text(encoding="utf-8")
    limits = told.partition("## What is not proven")[2].partition("\n## ")[0]
    assert "scales" in limits
    assert "attack 37" in limits.casefold()


def test_attack_38_power_cuts_are_the_agent_s_tests(repository: Path) -> None:
    """A killed agent and a full disk never fork or shorten the log: held by tests that kill and fill for real."""
    wanted = {
        "tests/faults/test_kill_nine.py": "test_agent_killed_while_holding_keeps_what_it_holds_and_returns_it_only",
        "tests/faults/test_full_disk.py": "test_on_the_agents_full_disk_nothing_moves_that_is_not_journalled",
        "tests/integration/test_log_witnessed.py": "test_a_ledger_put_back_to_an_older_day_refuses_to_go_on",
    }
    for name, start in wanted.items():
        tree = ast.parse((repository / name).read_text(encoding="utf-8"))
        functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)]
        assert any(function.startswith(start) for function in functions), (name, start)
