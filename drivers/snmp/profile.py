"""Profile of a PDU model: which objects it has, what they count in, and how an outlet is commanded.

Files: ``drivers/profiles/data/pdus/<id with underscores>.yaml``. Everything that differs between models is data here,
above all the numbers for "off": on one model the state says off = 1 while the command for off is 2.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, ValidationError, model_validator

from config.base import Model
from drivers.errors import ProfileError
from wire.points import is_point

DATA = Path(__file__).parent.parent / "profiles" / "data" / "pdus"

Oid = Annotated[str, Field(pattern=r"^1\.3\.6\.1(\.(0|[1-9][0-9]{0,9})){1,40}$")]
Instance = Annotated[str, Field(pattern=r"^((0|[1-9][0-9]{0,9})|\{outlet\})(\.((0|[1-9][0-9]{0,9})|\{outlet\}))*$")]
"""What follows the column's OID; ``{outlet}`` stands for the outlet's number.

Other names in braces stand for the profile's ``places`` and are filled in before this is checked."""
PowerSource = Literal["measured", "estimated", "unknown"]
"""``measured``: shown by V x A x PF of a recording; ``unknown``: the MIB says active power and nothing shows more."""
Scale = Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$")]
Code = Annotated[int, Field(ge=-(2**31), lt=2**32)]


class ObjectRef(Model):
    """One column of the device's MIB and the row that is meant."""

    object: str
    """Name in the MIB."""
    oid: Oid
    instance: Instance = "0"
    note: str | None = None

    def at(self, outlet: int | None = None) -> str:
        """Full OID of the value; ``outlet`` replaces ``{outlet}``.

        Raises:
            ValueError: the row needs an outlet's number and none is given.
        """
        if "{outlet}" in self.instance:
            if outlet is None:
                raise ValueError(f"{self.object}: an outlet's number is needed")
            return f"{self.oid}.{self.instance.replace('{outlet}', str(outlet))}"
        return f"{self.oid}.{self.instance}"

    @property
    def walk_prefix(self) -> str | None:
        """OID below which the last number is the outlet's, or ``None`` where it stands elsewhere."""
        head, _, last = f"{self.oid}.{self.instance}".rpartition(".")
        return head if last == "{outlet}" and "{" not in head else None


class Measure(ObjectRef):
    """A value: ``raw * scale`` is in the SI base unit of its point."""

    scale: Scale = "1"
    """Exact decimal, as text so that no binary fraction creeps in."""
    decimals: Oid | None = None
    """Column with the number of decimal digits of the same row; the value is divided by 10 to that power."""
    available: Oid | None = None
    """Column that says (1 = true) whether the same row's value means anything."""
    sentinels: tuple[int, ...] = ()
    """Raw numbers with which the device says that it has no value."""
    minimum: float = 0.0
    """Below this a value is suspect (SI)."""
    maximum: float | None = None
    text: bool = False
    resettable: bool = False
    """A person may set the counter to zero on the device."""
    plus: tuple[Instance, ...] = ()
    """Further rows that are added, such as the other phases; a row that the device does not have adds nothing."""

    @cached_property
    def factor(self) -> Fraction:
        """The exact scale."""
        return Fraction(self.scale)

    @model_validator(mode="after")
    def _sane(self) -> Measure:
        if Fraction(self.scale) == 0:
            raise ValueError(f"{self.object}: scale 0 would turn every value into 0")
        if self.plus and (self.decimals is not None or self.available is not None or self.text):
            raise ValueError(f"{self.object}: only plain numbers are added up ('plus')")
        return self

    def columns(self, outlet: int | None = None) -> tuple[str, ...]:
        """OIDs to ask for this value: the value itself, then decimals and availability, or the rows to add."""
        row = self.at(outlet)[len(self.oid) :]
        own = (self.oid + row, *(c + row for c in (self.decimals, self.available) if c is not None))
        return own + tuple(f"{self.oid}.{instance}" for instance in self.plus)


class NamedMeasure(Measure):
    """A value of the model that no point of the vocabulary stands for; decoded for people, no telemetry."""

    unit: str


class OutletState(ObjectRef):
    """Codes of an outlet's state. A code in none of the lists means unknown."""

    instance: Instance = "{outlet}"
    off: tuple[Code, ...] = Field(min_length=1)
    on: tuple[Code, ...] = Field(min_length=1)
    moving: tuple[Code, ...] = ()
    """A command is under way."""

    @model_validator(mode="after")
    def _disjoint(self) -> OutletState:
        codes = (*self.off, *self.on, *self.moving)
        if len(set(codes)) != len(codes):
            raise ValueError(f"{self.object}: one code means two states: {codes}")
        return self


class Command(ObjectRef):
    """One SET that commands a level."""

    instance: Instance = "{outlet}"
    value: Code


class Outlets(Model):
    """The outlets of a model. ``open`` and ``close`` are absent where it cannot switch."""

    maximum: int = Field(ge=1, le=256)
    """Most outlets that one device of this model has: bounds every table walk."""
    count: ObjectRef | None = None
    state: OutletState | None = None
    power_w: Measure | None = None
    current_a: Measure | None = None
    energy_import_wh: Measure | None = None
    pending: OutletState | None = None
    """Whether a delayed command waits: ``on`` lists the codes for "yes"."""
    open: Command | None = None
    close: Command | None = None

    @model_validator(mode="after")
    def _switchable(self) -> Outlets:
        if (self.open is None) != (self.close is None):
            raise ValueError("outlets: give both open and close, or neither")
        if self.open is not None and self.close is not None:
            if self.state is None:
                raise ValueError("outlets: commands without a state object cannot be read back")
            if (self.open.oid, self.open.value) == (self.close.oid, self.close.value):
                raise ValueError(f"outlets: open and close are the same command {self.open.oid} = {self.open.value}")
        return self

    def commands(self, outlet: int) -> frozenset[tuple[str, int]]:
        """Everything that may ever be written for one outlet: object and value of its two commands."""
        found = (self.open, self.close)
        return frozenset((command.at(outlet), command.value) for command in found if command is not None)

    @property
    def measures(self) -> dict[str, Measure]:
        """Measured points of each outlet that the model has."""
        found = {"power_w": self.power_w, "current_a": self.current_a, "energy_import_wh": self.energy_import_wh}
        return {point: measure for point, measure in found.items() if measure is not None}


PlaceName = Annotated[str, Field(pattern=r"^[a-z]{2,12}$")]
SensorKind = Literal["volts_ac", "amperes", "watts", "hertz"]


class PduProfile(Model):
    """One PDU model. ``points`` are of the whole device, named by the point vocabulary."""

    schema_version: Literal[1] = Field(alias="schema")
    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    kind: Literal["pdu"]
    vendor: str
    model: str
    status: Literal["verified", "documented", "community"]
    """verified: read from a real device by us; documented: maker's MIB; community: third parties only."""
    sources: tuple[str, ...] = Field(min_length=1)
    notes: tuple[str, ...] = ()
    enterprise: Oid
    """Prefix of ``sysObjectID`` of this maker's devices; of a standard MIB, the MIB's own."""
    power_source: PowerSource
    places: dict[PlaceName, int] = Field(default_factory=dict)
    """Numbers in the instances that differ where units are chained: which PDU, cord or inlet is meant."""
    model_name: ObjectRef | None = None
    points: dict[str, Measure] = Field(default_factory=dict)
    more: dict[str, NamedMeasure] = Field(default_factory=dict)
    sensors: dict[str, SensorKind] = Field(default_factory=dict)
    """Points read from the ENTITY-SENSOR-MIB (RFC 3433): the kind of sensor each is."""
    outlets: Outlets | None = None
    _file: Any = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _place(cls, data: Any, handler: ModelWrapValidatorHandler[PduProfile]) -> PduProfile:
        profile = handler(_filled(data, data.get("places")) if isinstance(data, dict) else data)
        if isinstance(data, dict):
            profile._file = data
        return profile

    @model_validator(mode="after")
    def _vocabulary(self) -> PduProfile:
        for point in (*self.points, *self.sensors):
            if not is_point(point):
                raise ValueError(f"points: {point!r} is not in the point vocabulary (wire/points.py)")
        if not self.points and not self.sensors:
            raise ValueError("points: a profile that reads nothing")
        if twice := sorted(self.points.keys() & self.sensors.keys()):
            raise ValueError(f"sensors: {twice[0]!r} is a point of its own already")
        return self

    def placed(self, options: Mapping[str, str]) -> PduProfile:
        """This profile for one unit of a chain: options named like its places replace them.

        Raises:
            ValueError: an option is no number.
        """
        wanted: dict[str, int] = {}
        for name in self.places.keys() & options.keys():
            text = options[name]
            if not (text.isascii() and text.isdigit() and len(text) <= 9):
                raise ValueError(f"option {name}: seen {text!r}, expected a number")
            wanted[name] = int(text)
        if not wanted:
            return self
        return PduProfile.model_validate({**self._file, "places": {**self.places, **wanted}})


def _filled(data: Any, places: Any) -> Any:
    """``{cord}`` in every instance replaced by the number of ``places``; what is not filled in fails its pattern."""
    if isinstance(data, dict):
        return {key: _filled_in(value, places) if key in {"instance", "plus"} else _filled(value, places)
                for key, value in data.items()}  # fmt: skip
    return [_filled(item, places) for item in data] if isinstance(data, list) else data


def _filled_in(value: Any, places: Any) -> Any:
    if isinstance(value, list):
        return [_filled_in(item, places) for item in value]
    for name, number in (places if isinstance(places, dict) else {}).items():
        value = value.replace(f"{{{name}}}", str(number)) if isinstance(value, str) else value
    return value


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a repeated key is an error: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_pdu_profile(path: Path) -> PduProfile:
    """Read one profile file.

    Raises:
        ProfileError: the file, the field, what was seen.
    """
    try:
        # A subclass of SafeLoader: it builds plain data only.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - see above
        profile = PduProfile.model_validate(content)
    except (OSError, yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path.name}: {error}") from error
    if profile.id != path.stem.replace("_", "-"):
        raise ProfileError(f"{path.name}: id {profile.id!r}; expected {path.stem.replace('_', '-')!r}, the file's name")
    return profile


def load_pdu_profiles(folder: Path = DATA) -> dict[str, PduProfile]:
    """All PDU profiles by id.

    Raises:
        ProfileError: one of them is wrong.
    """
    return {profile.id: profile for profile in map(read_pdu_profile, sorted(folder.glob("*.yaml")))}


def load_pdu_profile(profile_id: str, folder: Path = DATA) -> PduProfile:
    """One PDU profile by id.

    Raises:
        ProfileError: there is no such profile (the message lists those there are), or it is wrong.
    """
    known = {path.stem.replace("_", "-"): path for path in sorted(folder.glob("*.yaml"))}
    if profile_id not in known:
        raise ProfileError(f"PDU profile {profile_id!r}: not found; there are {', '.join(known) or 'none'}")
    return read_pdu_profile(known[profile_id])
