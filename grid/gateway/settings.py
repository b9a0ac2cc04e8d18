"""``gateway.yaml``: whose key, which register, which central, where the journal lies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grid.errors import GridError
from grid.registrar.register import load_yaml


class GatewaySettings(BaseModel):
    """One gateway. Paths are relative to the file's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Path
    passphrase_file: Path | None = None
    register_file: Path
    """The registrar's signed register (``keys.json``), read again before every plan."""
    registrar: Annotated[tuple[str, ...], Field(min_length=1, max_length=4)]
    """The registrar's public key: base64, or a file."""
    central: str
    data_dir: Path
    """Journal and plans that wait. Of mode 0700: who may write here may start a plan of a live mandate."""
    mandate: Path | None = None
    """Mandate for plans that bring none of their own."""
    declaration: Path | None = None
    look_s: Annotated[float, Field(ge=0.2, le=10)] = 1.0


def load_settings(path: Path) -> GatewaySettings:
    """Settings from a file, paths made whole.

    Raises:
        GridError: not such a file; the message names the field.
    """
    try:
        settings = GatewaySettings.model_validate(load_yaml(path))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5]]
        raise GridError(f"{path}: " + "; ".join(lines)) from None
    folder = path.parent
    whole = {
        name: folder / value
        for name in ("key", "passphrase_file", "register_file", "data_dir", "mandate", "declaration")
        if (value := getattr(settings, name)) is not None
    }
    registrar = tuple(str(folder / text) if (folder / text).is_file() else text for text in settings.registrar)
    return settings.model_copy(update=whole | {"registrar": registrar})
