"""JSON Schema of the files a person writes, for editors that complete and underline.

``python -m config.schema`` writes the committed files anew; a test holds them to the models. A first line
``# yaml-language-server: $schema=…`` in a site file makes an editor use them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from config.central import Central
from config.site import Site

FOLDER = Path(__file__).parent / "schema"


def json_schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of a model, by the names used in the file."""
    body = model.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body, "title": title}


def schemas() -> dict[str, dict[str, Any]]:
    """File name → schema."""
    return {
        "site.schema.json": json_schema(Site, "Tizgin site file"),
        "central.schema.json": json_schema(Central, "Tizgin settings of central"),
    }


def text(schema: dict[str, Any]) -> str:
    """A schema as it stands in its file."""
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write(folder: Path = FOLDER) -> None:
    """Write all schema files."""
    folder.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(text(schema), encoding="utf-8")


if __name__ == "__main__":
    write()
