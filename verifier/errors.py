"""What can be wrong with a bundle: one class per check, so that a test and a report can name it.

``exit_code`` is what the program ends with: 2 the evidence is broken, 3 it cannot be verified (keys or files missing,
or input that no honest writer makes and that would exhaust the machine), 4 the program was used wrongly.
"""

from __future__ import annotations


class VerifyError(Exception):
    """Base of all findings that keep a bundle from being intact."""

    check = 0
    code = "ERROR"
    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)

    def line(self) -> str:
        """``CODE message``, cut to a length that a report can bear."""
        return f"{self.code} {str(self)[:400]}"


class UsageError(VerifyError):
    """The program was called wrongly."""

    code = "USAGE"
    exit_code = 4


class CannotVerify(VerifyError):
    """Something needed is missing, so nothing can be said."""

    code = "CANNOT_VERIFY"
    exit_code = 3


class TrustError(CannotVerify):
    """1: the trust file names no sane key."""

    check = 1
    code = "TRUST"


class ArchiveError(VerifyError):
    """2: the archive is not the one canonical zip of its entries."""

    check = 2
    code = "ARCHIVE"


class InputLimit(CannotVerify):
    """Input that no honest writer makes and that is made to exhaust a reader: the run ends there."""

    code = "LIMIT"


class ArchiveLimit(InputLimit):
    """2: the archive is larger than any honest one, or claims to be."""

    check = 2


class ManifestError(VerifyError):
    """3: the manifest's signature, or a file that is not what the manifest says."""

    check = 3
    code = "MANIFEST"


class UnknownSigner(CannotVerify):
    """3, 4: signed by nobody whom the trust file names."""

    code = "UNKNOWN_SIGNER"


class RegisterError(VerifyError):
    """4: the register's signature or content."""

    check = 4
    code = "REGISTER"


class LineError(VerifyError):
    """6: a line that is not a record, or not the canonical bytes of one."""

    check = 6
    code = "FORMAT"


class RecordKeyError(VerifyError):
    """6: a record signed by a key that is not valid for its site and epoch."""

    check = 6
    code = "KEY"


class SignatureError(VerifyError):
    """6: a record whose signature does not verify."""

    check = 6
    code = "SIG"


class SequenceError(VerifyError):
    """7: a number missing, twice or out of order."""

    check = 7
    code = "SEQ"


class ChainError(VerifyError):
    """7: a record that does not follow from the one before it."""

    check = 7
    code = "CHAIN"


class GenesisError(VerifyError):
    """8: an epoch without a genesis, or one that contradicts the register."""

    check = 8
    code = "GENESIS"


class CalendarError(VerifyError):
    """8: a slot off the grid, twice, or neither read nor declared as a gap."""

    check = 8
    code = "SLOT"


class EpochError(VerifyError):
    """8: an epoch that names another end of the epoch before than the witnesses saw."""

    check = 8
    code = "EPOCH_BREAK"


class ContinuityError(VerifyError):
    """9: a register reading that does not continue the one before."""

    check = 9
    code = "REGISTER_DISCONTINUITY"


class EnergyError(VerifyError):
    """9: energy that does not follow from the registers."""

    check = 9
    code = "DELTA"


class DecodeError(VerifyError):
    """9: raw frames that are absent or say something else."""

    check = 9
    code = "DECODE"


class RatioError(VerifyError):
    """9: transformer ratios or a serial number that differ from the register."""

    check = 9
    code = "RATIO"


class BindError(VerifyError):
    """9: a reading without the record that says how to read it."""

    check = 9
    code = "BIND"


class QualityError(VerifyError):
    """9: something in a stream that does not belong there, such as an estimate among readings."""

    check = 9
    code = "QUALITY"


class ProfileError(VerifyError):
    """9: the meter's own memory of a slot says something else."""

    check = 9
    code = "PROFILE"


class SpotError(VerifyError):
    """9: a spot reading that its own signature, frames or arithmetic contradict."""

    check = 9
    code = "SPOT"


class BalanceError(VerifyError):
    """9: a balance that is not the sum of the slots it names."""

    check = 9
    code = "BALANCE"


class PositionError(VerifyError):
    """10: a record about a switch that cannot be understood."""

    check = 10
    code = "SWITCH"


class CommandError(VerifyError):
    """11: an answer without its order, an order that is not what its record says, or a report that does not follow."""

    check = 11
    code = "COMMAND"


class ReportError(VerifyError):
    """13: totals in the bundle that differ from those recomputed."""

    check = 13
    code = "REPORT"


class CheckpointError(VerifyError):
    """5: a checkpoint that the log did not sign, or a cosignature that is none."""

    check = 5
    code = "CHECKPOINT"


class EquivocationError(VerifyError):
    """5: the log signed two roots of one size."""

    check = 5
    code = "EQUIVOCATION"


class LeafError(VerifyError):
    """5: leaves that do not give the signed root, or a record that is not the leaf it says."""

    check = 5
    code = "ROOT_MISMATCH"


class TruncatedError(VerifyError):
    """5: the log is longer than what the bundle tells of."""

    check = 5
    code = "TRUNCATED"


class VerdictError(VerifyError):
    """5: a log of verdicts with lines left out, or lines that are not what their run says."""

    check = 5
    code = "VERDICT"


class AnchorError(VerifyError):
    """12: a record anchored to a checkpoint that was not cosigned, or that came after it."""

    check = 12
    code = "ANCHOR"


class TimeEvidenceError(VerifyError):
    """12: a record whose clock lies outside what the witnesses saw."""

    check = 12
    code = "TIME"
