"""Device profiles: one YAML file per device model, its pydantic model, codec, loader and read planner.

Here live what a device model *is* (registers, units, limits, outputs, golden vectors) and the pure functions that turn
register words into values and back. Site data (addresses, unit ids, ratios of one installation) and any I/O other than
reading the profile files may not live here.
"""

from drivers.profiles.codec import Decoded, decode_block, decode_map, exact
from drivers.profiles.loader import load_profile, load_profiles, profile_schema
from drivers.profiles.model import MeterProfile, Point, Profile, RelayProfile, Variable
from drivers.profiles.plan import Block, plan

__all__ = [
    "Block",
    "Decoded",
    "MeterProfile",
    "Point",
    "Profile",
    "RelayProfile",
    "Variable",
    "decode_block",
    "decode_map",
    "exact",
    "load_profile",
    "load_profiles",
    "plan",
    "profile_schema",
]
