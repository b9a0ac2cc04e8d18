"""Errors of drivers. Each message names the thing, what was seen, what was expected and what to do."""

from __future__ import annotations

from wire.quality import Quality


class DriverError(Exception):
    """A device could not be read or told; ``quality`` says why in the common vocabulary."""

    quality: Quality = Quality.NO_CONNECTION


class NoConnection(DriverError):
    """Nothing listens there, or the connection broke."""


class NoAnswer(DriverError):
    """The device did not answer in time. After a write this means *unknown*, never *failed*."""

    quality = Quality.TIMEOUT


class BadFrame(DriverError):
    """An answer arrived that does not belong to the question, or is damaged."""

    quality = Quality.CRC


class Refused(DriverError):
    """The device answered that it will not (exception code, error status)."""

    quality = Quality.EXCEPTION


class BadAnswer(DriverError):
    """The answer is whole but cannot be understood."""

    quality = Quality.DECODE


class ProfileError(Exception):
    """A profile file is wrong: file, field, what was seen, what was expected."""
