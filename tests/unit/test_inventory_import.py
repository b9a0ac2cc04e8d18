"""The register list as people bring it: headers in three languages, CSV and XLSX, and everything that can be wrong."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import AgentError
from agent.inventory import register, tables
from agent.inventory.headers import field_of
from agent.inventory.identity import mac_key, model_key, serial_key
from agent.inventory.importing import Imported, import_file
from agent.inventory.register import Entry
from agent.inventory.tables import TableError, rows_of

NOW_MS = 1_790_000_000_000
TODAY = date(2026, 11, 21)
Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def one(content: str | bytes, name: str = "list.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return one


def xlsx(rows: list[list[Any]], *, sheet: str = "Sheet1") -> bytes:
    book = openpyxl.Workbook()
    book.active.title = sheet
    for row in rows:
        book.active.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def take(path: Path, **options: Any) -> Imported:
    return import_file(path, now_ms=NOW_MS, today=TODAY, **options)


def entries(path: Path, **options: Any) -> tuple[Entry, ...]:
    found = take(path, **options)
    assert found.register is not None, [str(p) for p in found.problems]
    return found.register.entries


# headers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Serial number", ("serial", 1.0)),
        ("S/N", ("serial", 1.0)),
        ("Серийный номер", ("serial", 1.0)),
        ("Серийный №", ("serial", 1.0)),
        ("ЗАВОДСКОЙ НОМЕР", ("serial", 1.0)),
        ("Сериялық нөмірі", ("serial", 1.0)),
        ("MAC", ("mac", 1.0)),
        ("MAC-адрес", ("mac", 1.0)),
        ("MAC мекенжайы", ("mac", 1.0)),
        ("Наименование оборудования", ("model", 1.0)),
        ("Үлгісі", ("model", 1.0)),
        ("Владелец", ("owner", 1.0)),
        ("Иесі", ("owner", 1.0)),
        ("Tenant", ("owner", 1.0)),
        ("Место размещения", ("group", 1.0)),
        ("Орналасқан жері", ("group", 1.0)),
        ("Мощность, Вт", ("nameplate", 1.0)),
        ("Мощность, кВт", ("nameplate", 1000.0)),
        ("Rated power (kW)", ("nameplate", 1000.0)),
        ("Номиналды қуаты, кВт", ("nameplate", 1000.0)),
        ("TH/s", ("hashrate", 1.0)),
        ("Хешрейт, ТХ/с", ("hashrate", 1.0)),
        ("Hashrate (GH/s)", ("hashrate", 0.001)),
        ("Есептеу қуаты, TH/s", ("hashrate", 1.0)),
        ("Дата внесения в реестр", ("entered", 1.0)),
        ("Тіркеу күні", ("entered", 1.0)),
        ("Регистрационный номер", ("registration_no", 1.0)),
        ("№ в реестре", ("registration_no", 1.0)),
        ("ГТД №", ("customs_no", 1.0)),
        ("Жүк кедендік декларациясы", ("customs_no", 1.0)),
        ("IP", ("address", 1.0)),
        ("№", None),
        ("Примечание", None),
        ("", None),
        ("x" * 500, None),
    ],
)
def test_a_header_is_known_by_its_name_in_three_languages(header: str, expected: tuple[str, float] | None) -> None:
    assert field_of(header) == expected


# good lists ---------------------------------------------------------------------------------------------------------

RUSSIAN = (
    "Реестр АПК ТОО «Пример»\n"
    "№;Серийный номер;MAC-адрес;Модель;Владелец;Место;Мощность, кВт;Хешрейт, ТХ/с;Дата внесения в реестр;ГТД\n"
    "1;ymdb-9000 1;02-00-00-00-00-01;Antminer S21;ТОО «Қуат»;rack1;3,5;200;31.03.2026;55302/1\n"
    ";;;;;;;;;\n"
    "2;;0200.0000.0002;Antminer S21;;rack1;;;;\n"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "kz1048"])
def test_a_list_is_read_in_the_encodings_that_spreadsheets_write(encoding: str, put: Put) -> None:
    first, second = entries(put(RUSSIAN, encoding=encoding))
    assert first == Entry(
        row=3,
        serial="YMDB90001",
        mac="02:00:00:00:00:01",
        model="Antminer S21",
        owner="ТОО «Қуат»",
        group="rack1",
        nameplate_w=3500.0,
        nominal_ths=200.0,
        entered="2026-03-31",
        customs_no="55302/1",
    )
    assert second == Entry(row=5, mac="02:00:00:00:00:02", model="Antminer S21", group="rack1")


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_the_delimiter_is_seen_from_the_file(mark: str, put: Put) -> None:
    text = mark.join(["Serial", "Model", "Owner"]) + "\n" + mark.join(["A1", '"S19, with rails; two"', "x"]) + "\n"
    (only,) = entries(put(text))
    assert (only.serial, only.model) == ("A1", "S19, with rails; two")


def test_an_xlsx_gives_the_same_as_a_csv(put: Put) -> None:
    rows = [
        ["Register"],
        ["Serial", "MAC", "Model", "Power, W", "TH/s", "Date", "Remark"],
        ["A1", "02:00:00:00:00:01", "S21", 3500, 200.5, datetime(2026, 3, 31), "x"],
        [123456789, None, "S21", "3 500", None, None, None],
    ]
    first, second = entries(put(xlsx(rows), "list.xlsx"))
    assert (first.serial, first.nameplate_w, first.nominal_ths, first.entered) == ("A1", 3500.0, 200.5, "2026-03-31")
    assert (second.serial, second.nameplate_w, second.nominal_ths) == ("123456789", 3500.0, None)


def test_a_named_sheet_is_read_and_an_unknown_one_is_named(put: Put) -> None:
    path = put(xlsx([["Serial", "Model"], ["A1", "S19"]], sheet="Реестр"), "list.xlsx")
    assert entries(path, sheet="Реестр")[0].serial == "A1"
    with pytest.raises(TableError, match="no sheet 'X'; it has Реестр"):
        take(path, sheet="X")


# what is wrong ------------------------------------------------------------------------------------------------------

HEAD = "Serial,MAC,Model,Power W,TH/s,Date,IP\n"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("A1,zz,S19,,,,", "row 2, MAC: saw 'zz', expected six pairs of hex digits"),
        ("A1,00:00:00:00:00:00,S19,,,,", "row 2, MAC: saw '00:00:00:00:00:00'"),
        (",,S19,,,,", "row 2: saw neither serial number nor MAC"),
        ("A1,,S19,lots,,,", "row 2, Power W: saw 'lots', expected a number (W)"),
        ("A1,,S19,-3500,,,", "row 2, Power W: saw '-3500'"),
        ("A1,,S19,3500000,,,", "row 2, Power W: saw 3.5e+06 W, expected above 0 and at most 100000 W"),
        ("A1,,S19,0,,,", "row 2, Power W: saw 0 W"),
        ("A1,,S19,,1e3,,", "row 2, TH/s: saw '1e3'"),
        ("A1,,S19,,,31.02.2026,", "row 2, Date: saw '31.02.2026', expected a day"),
        ("A1,,S19,,,2027-01-01,", "row 2, Date: saw '2027-01-01', expected a day such as"),
        ("A1,,S19,,,,10.1.1.400", "row 2, IP: saw '10.1.1.400', expected an IP address"),
        ("1.23457E+17,,S19,,,,", "row 2, Serial: saw '1.23457E+17', expected all its digits"),
        ("=A2&B2,,S19,,,,", "row 2, Serial: saw a formula '=A2&B2', expected a value; paste the column as values"),
        ("Z" * 600 + ",,S19,,,,", "row 2, Serial: saw a long text"),
        ("A1,,S19,,,,\na-1,,S19,,,,", "row 3, Serial: saw A1, which stands in row 2 too, expected each machine once"),
        ("А1,,S19,,,,\nA1,,S19,,,,", "row 3, Serial: saw A1, which stands in row 2 too"),  # the first А is Cyrillic
        (
            "A1,02:00:00:00:00:01,S19,,,,\nA2,0200-0000-0001,S19,,,,",
            "row 3, MAC: saw 02:00:00:00:00:01, which stands in row 2 too",
        ),
    ],
)
def test_a_mistake_is_named_by_file_row_and_column_and_the_list_refused(row: str, said: str, put: Put) -> None:
    found = take(put(HEAD + row + "\n"))
    assert found.register is None
    assert any(said in str(p) and str(p).startswith("list.csv, row") for p in found.problems), [
        str(p) for p in found.problems
    ]


def test_all_mistakes_are_told_at_once_and_counted_beyond_what_is_listed(put: Put) -> None:
    found = take(put(HEAD + "".join(f"S{n},zz,S19,,,,\n" for n in range(1000))))
    assert found.errors == 1000
    assert len(found.problems) == 200


def test_a_second_column_of_one_kind_is_refused(put: Put) -> None:
    found = take(put("Serial,S/N,Model\nA1,A2,S19\n"))
    assert found.register is None
    assert "a second column for serial" in str(found.problems[0])


def test_places_that_are_no_group_and_machines_without_model_are_warned_of(put: Put) -> None:
    found = take(put("Serial,Model,Place\nA1,S19,hall 7\nA2,,rack1\n"), groups=["rack1"])
    assert found.register is not None
    assert [p.severity for p in found.problems] == ["warning", "warning"]
    assert "1 machines without a model" in str(found.problems[0])
    assert "hall 7" in str(found.problems[1])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "neither text nor XLSX"),
        ("just a text\n", "no header row; saw 'just a text'"),
        ("Serial,Model\n", "a header and no machine beneath it"),
        ('Serial,Model\n"A1,S19\n', "expected CSV with closed quotes"),
        (b"PK\x03\x04 broken", "damaged archive"),
    ],
)
def test_what_is_no_list_is_refused_with_what_to_do(content: str | bytes, said: str, put: Put) -> None:
    with pytest.raises(TableError, match=said):
        take(put(content))


def test_too_many_rows_are_refused(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 10)
    rows = [["Serial", "Model"], *([f"A{n}", "S19"] for n in range(10))]
    with pytest.raises(TableError, match="more than 10 rows"):
        take(put("\n".join(",".join(row) for row in rows)))
    with pytest.raises(TableError, match="more than 10 rows"):
        take(put(xlsx(rows), "list.xlsx"))


# hostile XLSX -------------------------------------------------------------------------------------------------------


def repacked(original: bytes, change: Callable[[str, bytes], bytes], extra: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(original)) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
        for name, content in (extra or {}).items():
            target.writestr(name, content)
    return out.getvalue()


GOOD = xlsx([["Serial", "Model"], ["A1", "S19"]])


def test_a_formula_in_an_xlsx_is_not_evaluated_and_not_believed(put: Put) -> None:
    found = take(put(xlsx([["Serial", "Model", "Power W"], ["A1", "S19", "=1000+2500"]]), "list.xlsx"))
    assert found.register is None
    assert "a formula '=1000+2500'" in str(found.problems[0])


def test_a_long_serial_kept_as_a_number_is_refused_because_its_digits_are_lost(put: Put) -> None:
    found = take(put(xlsx([["Serial", "Model"], [12345678901234567, "S19"]]), "list.xlsx"))
    assert found.register is None
    assert "format the column as text" in str(found.problems[0])


def test_a_packed_bomb_is_refused_before_it_is_unpacked(put: Put) -> None:
    bomb = repacked(GOOD, lambda _name, data: data, {"xl/media/x.bin": b"\0" * (40 << 20)})
    assert len(bomb) < 1 << 20
    with pytest.raises(TableError, match="refused: packed"):
        take(put(bomb, "list.xlsx"))


def test_an_archive_of_very_many_parts_is_refused(put: Put) -> None:
    with pytest.raises(TableError, match="parts, at most"):
        take(put(repacked(GOOD, lambda _n, d: d, {f"x/{n}": b"" for n in range(2100)}), "list.xlsx"))


def test_entities_in_the_xml_are_refused(put: Put) -> None:
    def poison(name: str, data: bytes, *, entity: bytes = b'<!DOCTYPE x [<!ENTITY b "A2">]>') -> bytes:
        if not name.startswith("xl/worksheets/"):
            return data
        assert b">A1<" in data
        head, _, rest = data.rpartition(b"?>")
        return head + (b"?>" if head else b"") + entity + rest.replace(b">A1<", b">&b;<" if entity else b">A2<")

    assert entries(put(repacked(GOOD, partial(poison, entity=b"")), "list.xlsx"))[0].serial == "A2"
    with pytest.raises(TableError, match=r"XLSX \("):
        take(put(repacked(GOOD, poison), "list.xlsx"))


@given(data=st.binary(max_size=400), at=st.integers(0, len(GOOD) - 1), patch=st.binary(min_size=1, max_size=8))
def test_no_bytes_bring_anything_but_rows_or_a_table_error(data: bytes, at: int, patch: bytes) -> None:
    for raw in (data or b"x", GOOD[:at] + patch + GOOD[at + len(patch) :], GOOD[:at]):
        try:
            for row in rows_of(Path("x"), raw):
                assert len(row.cells) <= tables.MAX_COLUMNS
        except TableError:
            continue


# keys ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (" ymdb-90 01 ", "YMDB9001"),
        ("АВС12", "ABC12"),
        ("0000000000", None),
        ("N/A", None),
        ("unknown", None),
        ("нет", None),
        ("", None),
        (None, None),
        ("ffffffff", None),
        ("x" * 65, None),
    ],
)
def test_a_serial_number_as_a_key(text: str | None, key: str | None) -> None:
    assert serial_key(text) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("02-00-00-00-00-0a", "02:00:00:00:00:0A"),
        ("0200.0000.000A", "02:00:00:00:00:0A"),
        ("02000000000a", "02:00:00:00:00:0A"),
        ("ff:ff:ff:ff:ff:ff", None),
        ("02:00:00:00:00", None),
        (None, None),
    ],
)
def test_a_mac_as_a_key(text: str | None, key: str | None) -> None:
    assert mac_key(text) == key


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Antminer S19j Pro", "S19J PRO (104TH)", True),
        ("Bitmain Antminer S21 200 TH/s", "Antminer S21", True),
        ("Whatsminer M50S_VH50", "M50S", True),
        ("Whatsminer M30S++", "M30S+", False),
        ("S19", "S19 Pro", False),
        ("S19 XP", "S19 ХР", True),  # the second ХР is Cyrillic
        ("S21 Hyd.", "S21 Hyd", True),
    ],
)
def test_models_are_the_same_without_vendor_rate_and_board(one: str, other: str, same: bool) -> None:
    assert (model_key(one) == model_key(other)) is same


# the kept file ------------------------------------------------------------------------------------------------------


def test_the_list_is_kept_and_read_back_and_damage_is_named(put: Put, tmp_path: Path) -> None:
    found = take(put(RUSSIAN)).register
    assert found is not None
    assert register.load(tmp_path) is None
    register.store(tmp_path, found)
    assert register.load(tmp_path) == found
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
    (tmp_path / register.FILE).write_text('{"entries": 5}')
    with pytest.raises(AgentError, match="import the list again"):
        register.load(tmp_path)
