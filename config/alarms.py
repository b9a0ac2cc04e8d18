"""The alarm catalogue: what each alarm means, whom it reaches, how soon, and what to do, in three languages."""

from __future__ import annotations

from importlib import resources
from typing import Literal

import yaml
from pydantic import Field, TypeAdapter

from config.base import Model, Text3

Receiver = Literal["site_duty", "chief_engineer", "dispatcher", "metrologist", "regulator"]


class Alarm(Model):
    """One alarm. An alarm about one device is written ``<id>:<device>`` where it is raised."""

    id: str = Field(pattern=r"^[a-z_]{3,40}$")
    urgency: Literal[1, 2, 3] = Field(alias="class")
    """1 call now, 2 this shift, 3 log."""
    receivers: tuple[Receiver, ...] = Field(min_length=1)
    react_min: int = Field(ge=1, le=1440)
    text: Text3
    todo: Text3


def load_alarms() -> dict[str, Alarm]:
    """The shipped catalogue by alarm id."""
    text = resources.files("config").joinpath("alarms.yaml").read_text(encoding="utf-8")
    alarms = TypeAdapter(tuple[Alarm, ...]).validate_python(yaml.safe_load(text))
    return {alarm.id: alarm for alarm in alarms}
