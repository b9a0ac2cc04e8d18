"""Block's Proto rig: a REST interface with a token for the password; mining is stopped and started."""

from drivers.asic.proto.driver import FAMILY, ProtoRig

__all__ = ["FAMILY", "ProtoRig"]
