"""What the registrar enters for a site's keys, in words: of an enrolment, or of a change of key."""

from __future__ import annotations

from wire.enrolment import Enrolment
from wire.logkeys import LogKey
from wire.rotation import KeyChange


def fingerprint(key: LogKey) -> str:
    """The identifier in groups of four, to be compared by telephone."""
    return " ".join(key.kid[i : i + 4] for i in range(0, 16, 4))


def of_enrolment(found: Enrolment) -> str:
    """The entry of a new epoch."""
    return (
        f"all three proofs hold; site {found.site}, K_rec fingerprint {fingerprint(found.k_rec)}: compare it by "
        "another channel, then enter\n"
        f'  - {{epoch: "{found.epoch}", k_rec: "{found.k_rec.text}", k_log: "{found.k_log.text}"}}'
    )


def of_change(change: KeyChange) -> str:
    """The entry of a key that takes over."""
    return (
        f"both proofs hold; new {change.role} of {change.site}, fingerprint {fingerprint(change.new)}: compare it by "
        f"another channel. Copy the newest entry of epoch {change.epoch}, leave the old one as it is, and in the copy "
        f'set\n  {change.role}: "{change.new.text}"\n  from_index: {change.from_index}\n'
        f"raise the version and sign. The agent changes the key before record {change.from_index} if the register is "
        "there in time, else not at all: then the site asks again. Once 'tizgin agent status' shows key_change null, "
        f"give the old entry to_index: {change.from_index - 1} with the next version. Take out the entry of a new "
        "key that was asked for earlier and never took over."
    )
