"""LuxOS: everything on the JSON socket; sleep and wake by ``curtail`` within a session."""

from drivers.asic.luxos.answers import FAMILY
from drivers.asic.luxos.driver import LuxOs

__all__ = ["FAMILY", "LuxOs"]
