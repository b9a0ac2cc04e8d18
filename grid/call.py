"""What a dispatcher reads aloud when an order is not delivered, and the note that he signs of the call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from grid.errors import ComposeError
from grid.texts import Texts
from grid.words import KAZAKHSTAN, clock_time, headline, said_power
from wire.dsse import SPOKEN_TYPE, seal
from wire.keys import SigningKey
from wire.orders import Order
from wire.spoken import SpokenNote

DRILL = "УЧЕНИЕ / ОҚУ-ЖАТТЫҒУ"
"""In both languages on every page, whatever its own: nobody may take a drill for live, or live for a drill."""


def _what(order: Order, t: Texts) -> str:
    if order.action == "limit" and order.limit_w is not None:
        return t("Limit the load to {power}", power=said_power(order.limit_w, t))
    if order.action == "reduce" and order.reduce_w is not None:
        return t("Reduce the load by {power}", power=said_power(order.reduce_w, t))
    return headline(order, t)


def script(order: Order, t: Texts, site_name: str | None = None) -> list[str]:
    """Lines to be read aloud: who is called, the order's number, what, until when, and to repeat it back."""
    site = order.basis.dispatch_name or site_name or order.site
    lines = [DRILL] if order.mode == "drill" else []
    number = order.basis.dispatch_no or order.id
    lines.append(t("{site}, this is the dispatcher. Order number {number}.", site=site, number=number))
    lines.append(_what(order, t) + ".")
    if order.hold is not None and order.hold.until is not None:
        lines.append(t("Hold it until {time}.", time=clock_time(order.hold.until)))
    elif order.hold is not None:
        lines.append(t("Hold it until I release it."))
    lines.append(t("Repeat back."))
    return lines


def sign_note(
    order: Order,
    signer: SigningKey,
    *,
    given_by: str,
    taken_by: str,
    at: str,
    recording_no: str,
    text: str,
    now_ms: int,
) -> bytes:
    """The signed note of a call, as an envelope.

    Args:
        at: ``18:12`` in Kazakhstan, the last time it was so; empty for now.

    Raises:
        ComposeError: a field that cannot be; the message names it.
    """
    fields = {
        "v": 1,
        "order": order.id,
        "site": order.site,
        "given_by": given_by.strip(),
        "taken_by": taken_by.strip(),
        "at": _moment_ms(at.strip(), now_ms),
        "recording_no": recording_no.strip() or None,
        "text": text.strip(),
    }
    try:
        note = SpokenNote.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise ComposeError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return seal(SPOKEN_TYPE, note.encode(), signer).encode()


def _moment_ms(text: str, now_ms: int) -> int:
    if not text:
        return now_ms
    hours, colon, minutes = text.partition(":")
    if not (colon and hours.isdecimal() and minutes.isdecimal() and int(hours) < 24 and int(minutes) < 60):
        raise ComposeError(f"at: {text[:20]!r}, expected the time in Kazakhstan, such as 18:12")
    now = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(KAZAKHSTAN)
    said = now.replace(hour=int(hours), minute=int(minutes), second=0, microsecond=0)
    return int((said if said <= now else said - timedelta(days=1)).timestamp() * 1000)
