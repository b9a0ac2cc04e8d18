"""The system operator's own reading of a meter: what a verifier is given beside a site's evidence (V26)."""

from __future__ import annotations

from grid.errors import GridError
from wire import canonical
from wire.dsse import READING_TYPE, Envelope, seal
from wire.keys import SigningKey

MOST_WH = canonical.MAX_INT


def sign_reading(*, site: str, point: str, from_s: int, to_s: int, wh: int, source: str, key: SigningKey) -> Envelope:
    """Sign import energy over [from_s, to_s), epoch s on the slot grid.

    Args:
        source: where the reading comes from, for people: system, meter, register.

    Raises:
        GridError: no energy, or no span of time.
    """
    if not 0 <= wh <= MOST_WH or not 0 <= from_s < to_s or not source.strip() or len(source) > 200:
        raise GridError(
            f"reading: saw {wh} Wh from {from_s} to {to_s}, source {source[:40]!r}; expected energy over time"
        )
    body = {"v": 1, "site": site, "point": point, "from": from_s, "to": to_s, "wh": wh, "source": source}
    return seal(READING_TYPE, canonical.encode(body), key)
