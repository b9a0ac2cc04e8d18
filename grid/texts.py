"""Texts in Kazakh, Russian and English: gettext catalogues (``grid/i18n/*.po``) read with Babel at start.

The English text is the key; a text that a catalogue lacks shows in English rather than not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from babel.messages.pofile import read_po

LANGUAGES = ("kk", "ru", "en")
NAMES = {"kk": "Қазақша", "ru": "Русский", "en": "English"}


@dataclass(frozen=True, slots=True)
class Texts:
    """One language. Call it with the English text and the values of its ``{fields}``."""

    language: str
    catalogue: Mapping[str, str]

    def __call__(self, text: str, **values: object) -> str:
        found = self.catalogue.get(text) or text
        return found.format_map(values) if values else found


def load_texts(language: str) -> Texts:
    """The catalogue of a language.

    Raises:
        ValueError: a language that is not there.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r}: expected one of {', '.join(LANGUAGES)}")
    with (files("grid") / "i18n" / f"{language}.po").open("rb") as file:
        catalogue = read_po(file, locale=language)
    return Texts(language, {str(m.id): str(m.string) for m in catalogue if m.id and m.string})
