"""Delays, ramps and draws of machines, switches and loads: data with sources (``data/latencies.yaml``)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TimeFact(_Model):
    """A time in seconds and where it comes from."""

    value: Seconds
    source: str = Field(min_length=3)


class PowerFact(_Model):
    """A power in W and where it comes from."""

    value: float = Field(ge=0, le=10_000)
    source: str = Field(min_length=3)


class ShareFact(_Model):
    """A share of full power and where it comes from."""

    value: Share
    source: str = Field(min_length=3)


class YesNoFact(_Model):
    """A property and where it comes from."""

    value: bool
    source: str = Field(min_length=3)


class Family(_Model):
    """Machines of one firmware family."""

    names: tuple[str, ...] = Field(min_length=1)
    answer_s: TimeFact
    """From the write to the firmware's answer."""
    sleep_delay_s: TimeFact
    """From the accepted write until the draw begins to fall."""
    sleep_ramp_s: TimeFact
    sleeping_w: PowerFact
    wake_boot_s: TimeFact
    """From the accepted wake until the draw begins to rise."""
    wake_ramp_s: TimeFact
    power_boot_s: TimeFact
    """From mains on until the draw begins to rise."""
    boot_share: ShareFact
    """Draw while booting, as a share of full draw."""
    sleep_survives_power_loss: YesNoFact


class ActuatorTimes(_Model):
    """Travel times of a switch."""

    open_s: Seconds
    close_s: Seconds
    source: str = Field(min_length=3)


class LoadShape(_Model):
    """How a load without machines of its own draws."""

    share: Share
    power_factor: float = Field(gt=0, le=1)
    inrush: float = Field(ge=1, le=30)
    """Apparent power at switching-on, as a multiple of the running one."""
    inrush_s: Seconds
    source: str = Field(min_length=3)


class Magnetising(_Model):
    """Inrush of a transformer when it is energised: reactive, a multiple of its rating, decaying to nothing."""

    multiple: float = Field(ge=0, le=40)
    seconds: Seconds
    source: str = Field(min_length=3)


class LoopShape(_Model):
    """Thermal data of a cooling loop, per kW of the machines it cools."""

    set_c: float = Field(ge=-20, le=80)
    """Set point of the thermostat."""
    approach_k: float = Field(gt=0, le=50)
    """At full heat the cooler gets no nearer to the outside temperature."""
    capacity_kj_per_k_kw: float = Field(gt=0, le=1000)
    loss_w_per_k_kw: float = Field(gt=0, le=1000)
    """To the outside while the cooler is shut, per K of difference."""
    source: str = Field(min_length=3)


class _Spring(_Model):
    charge_s: TimeFact


class _Transfer(_Model):
    delay_s: TimeFact


class _Transformer(_Model):
    magnetising: Magnetising


class Latencies(_Model):
    """The whole data file."""

    schema_version: Literal[1] = Field(alias="schema")
    families: dict[str, Family]
    actuators: dict[str, ActuatorTimes]
    spring: _Spring
    transfer: _Transfer
    loads: dict[str, LoadShape]
    transformer: _Transformer
    cooling_loops: dict[Literal["air", "immersion", "hydro"], LoopShape]

    def family(self, name: str) -> Family:
        """The family of that name or alias.

        Raises:
            KeyError: the family is not in the data file; the message lists those that are.
        """
        wanted = name.lower()
        for key, family in self.families.items():
            if wanted == key or wanted in family.names:
                return family
        known = ", ".join(sorted(self.families))
        raise KeyError(f"machine family {name!r} is not in simulator/data/latencies.yaml; known: {known}")


def load_latencies(path: Path | None = None) -> Latencies:
    """Read the data file (the packaged one by default).

    Raises:
        pydantic.ValidationError: a figure is missing, out of range or has no source.
    """
    if path is None:
        text = resources.files("simulator").joinpath("data/latencies.yaml").read_text(encoding="utf-8")
    else:
        text = path.read_text(encoding="utf-8")
    return Latencies.model_validate(yaml.safe_load(text))
