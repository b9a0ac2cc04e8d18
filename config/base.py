"""Shared field types of what a person writes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Id = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,60}$")]
"""Identifier of a thing within one site file."""

SiteId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,40}$")]
"""Site id; equals the common name of the site's TLS certificate."""

Kilowatt = Annotated[float, Field(ge=0, le=5_000_000, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]


class Model(BaseModel):
    """Frozen, and a field nobody knows is an error: a misspelt safety setting must not be ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


class Text3(Model):
    """A text in the three languages of the user interface."""

    kk: str
    ru: str
    en: str
