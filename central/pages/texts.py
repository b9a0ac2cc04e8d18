"""Texts in Kazakh, Russian and English from gettext catalogues, read with Babel at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from babel.messages.pofile import read_po

LANGUAGES = ("kk", "ru", "en")


@dataclass(frozen=True, slots=True)
class Texts:
    """One language. Call it with the English text and the values of its ``{fields}``."""

    language: str
    catalogue: Mapping[str, str]

    def __call__(self, text: str, **values: object) -> str:
        """The text in this language; one that the catalogue lacks shows in English rather than not at all."""
        found = self.catalogue.get(text) or text
        return found.format_map(values) if values else found


def load_all() -> dict[str, Texts]:
    """Every language."""
    found = {}
    for language in LANGUAGES:
        path = files("central") / "i18n" / language / "LC_MESSAGES" / "tizgin.po"
        with path.open("rb") as file:
            catalogue = read_po(file, locale=language)
        found[language] = Texts(language, {str(m.id): str(m.string) for m in catalogue if m.id and m.string})
    return found
