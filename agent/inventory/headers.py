"""Which column is what: header names as Kazakh, Russian and English lists write them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

FIELDS = (
    "serial",
    "mac",
    "model",
    "owner",
    "group",
    "address",
    "nameplate",
    "hashrate",
    "entered",
    "registration_no",
    "customs_no",
)

_NAMES: dict[str, tuple[str, ...]] = {
    "serial": (
        "serial", "serial no", "serial number", "sn", "s n", "device serial number",
        "серийный номер", "серийный no", "сер no", "заводской номер", "заводской no", "зав no",
        "сериялық нөмірі", "сериялық нөмір", "зауыттық нөмірі", "зауыттық нөмір",
    ),
    "mac": ("mac", "mac address", "mac адрес", "мак адрес", "mac мекенжайы", "mac адресі"),
    "model": (
        "model", "equipment", "equipment model", "equipment name", "device model", "miner model", "type",
        "модель", "модель оборудования", "наименование", "наименование оборудования", "оборудование",
        "наименование апк", "марка модель", "модель апк", "модель асик",
        "моделі", "үлгісі", "жабдық", "жабдықтың атауы", "жабдық атауы", "атауы",
    ),
    "owner": (
        "owner", "tenant", "customer", "client", "владелец", "собственник", "арендатор", "клиент", "заказчик",
        "владелец апк", "иесі", "меншік иесі", "жалға алушы", "жалдаушы", "клиенті",
    ),
    "group": (
        "group", "location", "place", "rack", "container", "группа", "место", "место установки", "место размещения",
        "расположение", "стойка", "контейнер", "зал", "тобы", "топ", "орны", "орналасқан жері", "орналасуы",
        "контейнері",
    ),
    "address": ("ip", "ip address", "address", "ip адрес", "ip мекенжайы", "ip адресі"),
    "nameplate": (
        "power", "nameplate", "nameplate power", "rated power", "consumption", "мощность", "паспортная мощность",
        "номинальная мощность", "потребляемая мощность", "номинал", "қуаты", "қуат", "номиналды қуаты",
        "паспорттық қуаты",
    ),
    "hashrate": (
        "hashrate", "hash rate", "th", "nominal hashrate", "хешрейт", "хэшрейт", "хеш рейт",
        "вычислительная мощность", "хешрейті", "есептеу қуаты", "ths",
    ),
    "entered": (
        "date", "date of entry", "registration date", "entered", "дата", "дата внесения", "дата внесения в реестр",
        "дата регистрации", "дата ввода", "күні", "тіркеу күні", "тізілімге енгізілген күні",
    ),
    "registration_no": (
        "registration no", "registration number", "register no", "register number", "reg no",
        "регистрационный номер", "номер в реестре", "реестровый номер", "рег no", "no в реестре",
        "тіркеу нөмірі", "тізілімдегі нөмірі",
    ),
    "customs_no": (
        "customs no", "customs number", "customs declaration", "declaration", "гтд", "номер гтд", "гтд no", "дт",
        "грузовая таможенная декларация", "таможенная декларация", "номер таможенной декларации",
        "жүк кедендік декларациясы", "кедендік декларация", "кедендік декларация нөмірі", "жкд",
    ),
}  # fmt: skip

_FIELD = {name: field for field, names in _NAMES.items() for name in names}
_UNITS = {
    "nameplate": {"w": 1.0, "вт": 1.0, "kw": 1000.0, "квт": 1000.0, "кв": 1000.0},
    "hashrate": {
        "th": 1.0, "ths": 1.0, "тх": 1.0, "тхс": 1.0, "gh": 1e-3, "ghs": 1e-3, "гх": 1e-3, "гхс": 1e-3,
        "ph": 1e3, "phs": 1e3, "пх": 1e3, "пхс": 1e3,
    },
}  # fmt: skip
_UNIT_TAIL = re.compile(
    r"[\s,;:(\[]+(?P<unit>k?w|к?вт|[tgp]h(?:\s*/\s*s|\s*/\s*с)?|[тгп]х(?:\s*/\s*[сs])?|ths|ghs)\s*[)\]]?\s*$"
)


def header_key(text: str) -> str:
    """A header as a key: small letters, ``№`` as ``no``, no punctuation."""
    plain = text.replace("№", " no ").replace("ё", "е").replace("Ё", "Е")
    plain = unicodedata.normalize("NFKC", plain).casefold()
    return " ".join("".join(char if char.isalnum() else " " for char in plain).split())


def field_of(header: str) -> tuple[str, float] | None:
    """The field a column holds and the factor to its unit (W, TH/s); ``None`` where the header is not known.

    >>> field_of("Мощность, кВт")
    ('nameplate', 1000.0)
    >>> field_of("Hashrate (TH/s)")
    ('hashrate', 1.0)
    """
    plain = unicodedata.normalize("NFKC", header.replace("№", " no ")).casefold().strip()
    found = _UNIT_TAIL.search(plain)
    unit = "".join(char for char in found["unit"] if char.isalnum()) if found else None
    bare = header_key(plain[: found.start()] if found else plain)
    field = _FIELD.get(header_key(header)) or _FIELD.get(bare)
    if unit in _UNITS["hashrate"] and field == "nameplate":
        field = "hashrate"  # "Мощность, TH/s" is a hash rate
    if field is None and bare == "" and unit is not None:
        field = next((name for name, units in _UNITS.items() if unit in units), None)
    if field is None:
        alone = header_key(header).replace(" ", "")
        field = next((name for name, units in _UNITS.items() if alone in units), None)
        unit = alone if field is not None else unit
    if field is None:
        return None
    return field, _UNITS.get(field, {}).get(unit or "", 1.0)


def columns_of(headers: Sequence[str]) -> dict[int, tuple[str, float]]:
    """Column index → (field, factor) of a row taken as headers; a field named twice keeps both columns."""
    return {at: found for at, text in enumerate(headers) if text and (found := field_of(text)) is not None}
