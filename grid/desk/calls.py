"""Parts of the desk's pages about telephone calls: what to read aloud, what was said, and the order by another way."""

from __future__ import annotations

from grid.call import DRILL, script
from grid.desk.desk import Desk, OrderPage
from grid.desk.html import Html, el, join
from grid.texts import Texts
from wire.keys import b64
from wire.orders import Order


def drill_banner(order: Order) -> Html | None:
    """«УЧЕНИЕ / ОҚУ-ЖАТТЫҒУ» over everything that is shown of a drill."""
    return el("p", DRILL, class_="drill", data_testid="desk-drill") if order.mode == "drill" else None


def call_part(found: OrderPage, t: Texts) -> Html:
    """NOT DELIVERED — CALL, the number, and what to read aloud."""
    # A number that central names is a claim like any other: whoever has central would like to be called.
    phone = f"{found.phone} {t('(unsigned)')}" if found.phone else t("the number in your directory")
    lines = [el("p", line) for line in script(found.signed.order, t, found.site_name)]
    return el(
        "div",
        el("p", t("NOT DELIVERED — CALL") + " " + phone, data_testid="desk-not-delivered"),
        el("p", t("Read aloud:"), class_="small"),
        el("div", *lines, class_="script", data_testid="desk-script"),
        el("p", t("Then enter below who took it, when, and the recording's number."), class_="small"),
        class_="alarm",
        role="alert",
    )


def spoken_section(desk: Desk, found: OrderPage, t: Texts) -> Html:
    """The form for what was spoken, and the order as text for another way than the broker."""
    order = found.signed.order
    person = desk.register.person(desk.issuer.person) if desk.issuer else None
    given = order.basis.given_by or (person.name if person else "")

    def field(label: str, name: str, value: str | None = None) -> Html:
        box = el("input", name=name, value=value, maxlength=200, data_testid=f"desk-spoken-{name}")
        return el("label", label, box)

    form = el(
        "form",
        field(t("Given by"), "given_by", given),
        field(t("Taken by"), "taken_by"),
        field(t("When, HH:MM (empty: now)"), "at"),
        field(t("Recording number"), "recording_no"),
        field(t("What was said"), "text"),
        el("button", t("Sign and enter the call"), data_testid="desk-spoken-sign"),
        method="post",
        action=f"/order/{order.id}/spoken",
        class_="order",
        autocomplete="off",
    )
    code = el("textarea", b64(found.signed.raw), readonly=True, rows=4, data_testid="desk-code")
    other = el(
        "details",
        el("summary", t("Send the signed order by another way")),
        el("p", t("The site enters it with: tizgin agent order FILE. It is judged as if it had come by the link.")),
        el("p", el("a", t("Save it as a file"), href=f"/order/{order.id}/envelope", download=True)),
        code,
    )
    return el("section", el("h2", t("By telephone")), join(form, other))
