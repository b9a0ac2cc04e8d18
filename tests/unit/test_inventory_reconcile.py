"""Register against site: every standing and flag, and that one machine's change costs what one machine costs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.inventory.identity import Identity, identity_of
from agent.inventory.papers import equipment, to_csv
from agent.inventory.reconcile import Flag, Place, Reconciler, Standing, reconcile
from agent.inventory.register import Entry
from drivers.capabilities import MinerStatus

MAC1, MAC2 = "02:00:00:00:00:01", "02:00:00:00:00:02"
PLACES = {
    "g1/1": Place("g1", "10.0.0.1"),
    "g1/2": Place("g1", "10.0.0.2"),
    "g2/1": Place("g2", "10.0.1.1", tenant="t-2"),
}


def entry(row: int, serial: str | None = None, mac: str | None = None, **more: Any) -> Entry:
    return Entry(row=row, serial=serial, mac=mac, **more)


def look(entries: list[Entry], **seen: Identity) -> Reconciler:
    return reconcile(entries, PLACES, {name.replace("_", "/"): identity for name, identity in seen.items()})


# standing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "seen", "standing"),
    [
        pytest.param([entry(2, "A")], Identity("A"), Standing.REGISTERED, id="by-serial"),
        pytest.param([entry(2, None, MAC1)], Identity("A", MAC1), Standing.REGISTERED, id="by-mac-alone"),
        pytest.param([entry(2, "A", MAC1)], Identity(None, MAC1), Standing.REGISTERED, id="machine-gives-mac-alone"),
        pytest.param([entry(2, "B")], Identity("A"), Standing.UNREGISTERED, id="another-serial"),
        pytest.param([], Identity("A"), Standing.UNREGISTERED, id="empty-register"),
        pytest.param([entry(2, "A")], Identity(None, None, "S19"), Standing.UNIDENTIFIED, id="gives-neither"),
    ],
)
def test_how_a_machine_stands_to_the_register(entries: list[Entry], seen: Identity, standing: Standing) -> None:
    assert look(entries, g1_1=seen).finding("g1/1").standing is standing


def test_a_machine_that_was_never_read_is_unread_and_not_missing_anything() -> None:
    book = look([entry(2, "A")])
    assert book.finding("g1/1").standing is Standing.UNREAD
    assert book.counts().unread == 3
    assert [e.serial for e in book.missing()] == ["A"]


def test_placeholders_of_firmwares_are_no_identity() -> None:
    said = identity_of(MinerStatus(family="x", serial="0000000000", mac="00:00:00:00:00:00", model=" S19\n Pro "))
    assert said == Identity(None, None, "S19 Pro", None)
    assert not said.named


def test_a_serial_of_hostile_length_is_no_identity() -> None:
    assert identity_of(MinerStatus(family="x", serial="A" * 100_000)) == Identity()


# flags --------------------------------------------------------------------------------------------------------------


def flags(book: Reconciler, machine: str = "g1/1") -> set[Flag]:
    return set(book.finding(machine).flags)


def test_one_serial_at_two_addresses_is_told_of_both_and_ends_when_one_goes() -> None:
    book = look([entry(2, "A")], g1_1=Identity("A", MAC1), g2_1=Identity("A", MAC2))
    assert book.duplicates() == {"A": ("g1/1", "g2/1")}
    assert (flags(book), flags(book, "g2/1")) == ({Flag.DUPLICATED}, {Flag.DUPLICATED})
    assert book.finding("g1/1").also == ("g2/1",)
    book.take("g2/1", Identity("B", MAC2))
    assert book.duplicates() == {}
    assert flags(book) == set()


def test_one_mac_at_two_addresses_is_told_too() -> None:
    book = look([], g1_1=Identity("A", MAC1), g1_2=Identity("B", MAC1))
    assert book.duplicates() == {MAC1: ("g1/1", "g1/2")}


@pytest.mark.parametrize(
    ("registered", "moved"),
    [
        (entry(2, "A", group="G1 "), False),
        (entry(2, "A", group="g2"), True),
        (entry(2, "A", group="hall 7"), False),
        (entry(2, "A"), False),
        (entry(2, "A", address="10.0.0.1"), False),
        (entry(2, "A", address="10.0.0.9"), True),
    ],
)
def test_a_machine_is_moved_only_where_both_places_are_known(registered: Entry, moved: bool) -> None:
    assert (Flag.MOVED in flags(look([registered], g1_1=Identity("A")))) is moved


@pytest.mark.parametrize(
    ("registered", "seen", "changed"),
    [
        ("Antminer S19", "S19 Pro", True),
        ("Antminer S19", "S19 (95TH)", False),
        (None, "S19", False),
        ("S19", None, False),
    ],
)
def test_a_model_is_changed_only_where_both_are_known(registered: str | None, seen: str | None, changed: bool) -> None:
    book = look([entry(2, "A", model=registered)], g1_1=Identity("A", None, seen))
    assert (Flag.MODEL_CHANGED in flags(book)) is changed


@pytest.mark.parametrize(
    ("entries", "seen", "mixed"),
    [
        ([entry(2, "A", MAC1)], Identity("A", MAC1), False),
        ([entry(2, "A", MAC1)], Identity("A", MAC2), True),
        ([entry(2, "A", MAC1)], Identity("B", MAC1), True),
        ([entry(2, "A", MAC1), entry(3, "B", MAC2)], Identity("A", MAC2), True),
        ([entry(2, "A", MAC1)], Identity("A", None), False),
    ],
)
def test_serial_and_mac_of_different_machines_are_mixed(entries: list[Entry], seen: Identity, mixed: bool) -> None:
    assert (Flag.MIXED in flags(look(entries, g1_1=seen))) is mixed


def test_firmware_and_machine_changes_are_told_against_the_last_sighting() -> None:
    book = look([entry(2, "A")], g1_1=Identity("A", MAC1, "S19", "v1"))
    assert flags(book) == set()
    book.take("g1/1", Identity("A", None, None, None))
    assert flags(book) == set(), "what it does not say this time is no change"
    assert book.take("g1/1", Identity("A", MAC1, "S19", "v1")) is None
    book.take("g1/1", Identity("A", MAC1, "S19", "v2"))
    assert flags(book) == {Flag.FIRMWARE_CHANGED}
    before = book.finding("g1/1").before
    assert before is not None
    assert before.firmware == "v1"
    book.take("g1/1", Identity("B", MAC2, "S19", "v2"))
    assert flags(book) == {Flag.REPLACED}


def test_an_owner_is_the_registers_word_else_the_groups_tenant_else_unknown() -> None:
    book = look(
        [entry(2, "A", owner="ТОО А"), entry(3, "B")], g1_1=Identity("A"), g2_1=Identity("B"), g1_2=Identity("C")
    )
    assert [book.finding(m).owner for m in ("g1/1", "g2/1", "g1/2")] == ["ТОО А", "t-2", None]


# incrementally ------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["A", "B", "C", None])
MACS = st.sampled_from([MAC1, MAC2, None])
IDENTITIES = st.builds(Identity, KEYS, MACS, st.sampled_from(["S19", "S21", None]), st.sampled_from(["v1", "v2", None]))
REGISTER = [entry(2, "A", MAC1, group="g1", model="S19"), entry(3, "B", group="g2"), entry(4, None, MAC2)]


def picture(book: Reconciler) -> Any:
    """All that is said of a site, but for what was there before."""
    said = [
        (f.machine, f.standing, sorted(set(f.flags) - {Flag.FIRMWARE_CHANGED, Flag.REPLACED}), f.also, f.entry)
        for f in book.findings()
    ]
    return said, book.counts(), book.duplicates(), book.missing(), equipment(book)


@settings(max_examples=150)
@given(steps=st.lists(st.tuples(st.sampled_from(sorted(PLACES)), IDENTITIES), max_size=25))
def test_any_history_gives_what_one_look_at_its_end_gives(steps: list[tuple[str, Identity]]) -> None:
    book = Reconciler(REGISTER, PLACES)
    for machine, identity in steps:
        book.take(machine, identity)
    fresh = reconcile(REGISTER, PLACES, book.identities())
    assert picture(book) == picture(fresh)
    counts = book.counts()
    assert counts.registered + counts.unregistered + counts.unidentified + counts.unread == len(PLACES)


class Watched(dict[str, set[str]]):
    """A dictionary that counts how often it is asked."""

    asked = 0

    def __getitem__(self, key: str) -> set[str]:
        Watched.asked += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("size", [100, 10_000])
def test_a_change_of_one_machine_touches_that_machine_alone(size: int) -> None:
    """Also where every machine gives the same serial number, as cloned firmwares do."""
    places = {f"g/{n}": Place("g") for n in range(size)}
    book = reconcile([], places, dict.fromkeys(places, Identity("SAME", MAC1)))
    book._holders = Watched(book._holders)
    Watched.asked = 0
    book.take("g/5", Identity("OTHER", MAC1))
    assert Watched.asked <= 4
    assert len(book.finding("g/6").also) == 8


# papers -------------------------------------------------------------------------------------------------------------


def test_equipment_is_counted_by_owner_and_model_and_sums_say_of_how_many() -> None:
    entries = [
        entry(2, "A", owner="ТОО А", model="Antminer S19", nameplate_w=3250.0, nominal_ths=95.0),
        entry(3, "B", owner="тоо а", model="S19 (95TH)", nameplate_w=3250.0),
        entry(4, "C", model="S21"),
    ]
    lines = equipment(
        look(entries, g1_1=Identity("A"), g1_2=Identity("X", None, "S19"), g2_1=Identity("Y", None, "S19"))
    )
    table = {(line.owner, line.model): line for line in lines}
    first = table["ТОО А", "Antminer S19"]
    assert (first.registered, first.seen, first.nameplate_w, first.nameplate_known) == (2, 1, 6500.0, 2)
    assert (first.nominal_ths, first.nominal_known) == (95.0, 1)
    assert (table[None, "S21"].nameplate_w, table[None, "S21"].seen) == (None, 0)
    assert table[None, "S19"].unregistered == 1
    assert table["t-2", "S19"].unregistered == 1


def test_the_csv_begins_no_formula_in_a_spreadsheet() -> None:
    text = to_csv(equipment(look([entry(2, "A", owner="=HYPERLINK(1)", model="+S19")])))
    rows: list[Mapping[str, str]] = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["owner"] == "'=HYPERLINK(1)"
    assert rows[0]["model"] == "'+S19"
    assert rows[0]["nameplate_w"] == ""
