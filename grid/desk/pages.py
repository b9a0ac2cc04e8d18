"""The desk's pages: strings in, markup out. Central's text is escaped like all other text."""

from __future__ import annotations

from urllib.parse import quote

from grid.call import DRILL
from grid.desk.calls import call_part, drill_banner, spoken_section
from grid.desk.desk import Desk, OrderPage, SiteLine
from grid.desk.html import Html, el, join
from grid.errors import GridError
from grid.progress import (
    completion_text,
    flag_text,
    history,
    report_text,
    returned_text,
    state_text,
    story_state_text,
    trial_text,
)
from grid.texts import LANGUAGES, NAMES, Texts
from grid.words import describe, headline, kilowatt, live_power, signer_text
from wire.orders import Order

COMPOSABLE = ("limit", "reduce", "stop")
ENDED = frozenset({"done", "rejected", "expired", "cancelled"})


def page(desk: Desk, t: Texts, path: str, *content: Html | None) -> Html:
    """A whole page."""
    languages = [
        el(
            "button",
            NAMES[code],
            name="language",
            value=code,
            data_testid=f"lang-{code}",
            aria_pressed="true" if code == t.language else "false",
        )
        for code in LANGUAGES
    ]
    back = el("input", type="hidden", name="back", value=path)
    head = el(
        "header",
        el("h1", el("a", t("Order desk"), href="/")),
        el("span", signer_text(desk.kid, desk.register), class_="who"),
        el("form", back, *languages, method="post", action="/language"),
    )
    unknown = None
    if desk.issuer is None:
        unknown = el("section", t("This key is not in the register: every site will refuse its orders."), class_="bad")
    body = el("body", head, el("main", unknown, *content), el("script", src="/desk.js", defer=True))
    links = join(
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("link", rel="stylesheet", href="/desk.css"),
        el("link", rel="icon", href="data:,"),
        el("title", t("Order desk")),
    )
    return join(Html("<!doctype html>"), el("html", el("head", links), body, lang=t.language))


def site_name(site: SiteLine, t: Texts) -> str | None:
    """The dispatch name of a site in this language, as central has it."""
    return site.names.get(t.language) or next(iter(site.names.values()), None)


def sites_part(desk: Desk, t: Texts) -> Html:
    """Live power of every site of the register."""
    sites, error = desk.sites()
    trouble = el("p", t("Central does not answer; call the sites if it is urgent."), " ", error, class_="bad")
    return join(trouble if error else None, el("div", *(_site(site, t) for site in sites), class_="sites"))


def _site(site: SiteLine, t: Texts) -> Html:
    age = "—" if site.age_ms is None else t("{seconds} s ago", seconds=round(site.age_ms / 1000))
    notes = [el("div", t("limit {power}", power=kilowatt(site.limit_w, t)), class_="small") if site.limit_w else None]
    if site.other_epoch:
        warning = "Central reports another epoch ({epoch}) than the register; orders will be refused."
        text = t(warning, epoch=site.other_epoch)
        notes.append(el("div", text, class_="bad"))
    if site.simulation:
        notes.append(el("div", t("SIMULATION"), class_="small"))
    names = {
        "monitor": t("observes only"),
        "shadow": t("trial, nothing is switched"),
        "armed": t("armed"),
        "online": t("connected"),
        "offline": t("not connected"),
        "unknown": t("connection unknown"),
    }
    status = " · ".join(names.get(part, part) for part in (site.mode, site.presence) if part) or "—"
    return el(
        "div",
        el("b", site_name(site, t)),
        el("span", site.id, class_="small"),
        el("div", "—" if site.power_w is None else live_power(site.power_w, t), class_="kw"),
        el("div", age, class_="age"),
        el("div", status, class_="small"),
        *notes,
        class_="site stale" if site.stale else "site",
        data_testid=f"desk-site-{site.id}",
    )


def home(desk: Desk, t: Texts, error: str | None) -> Html:
    """Sites, the form, proposals, recent orders."""
    trouble = el("section", error, class_="bad", role="alert", data_testid="desk-error") if error else None
    return page(
        desk,
        t,
        "/",
        join(trouble),
        el("section", el("h2", t("Sites")), el("div", sites_part(desk, t), data_part="/part/sites")),
        el("section", el("h2", t("New order")), _form(desk, t)),
        el("section", el("h2", t("Proposals")), el("div", proposals_part(desk, t), data_part="/part/proposals")),
        el("section", el("h2", t("Orders")), el("div", orders_part(desk, t), data_part="/part/orders")),
    )


def _options(*pairs: tuple[str, str]) -> list[Html]:
    return [el("option", text, value=value) for value, text in pairs]


def _form(desk: Desk, t: Texts) -> Html:
    actions = {
        "limit": t("limit to"),
        "reduce": t("reduce by"),
        "stop": t("stop to the emergency reservation"),
    }
    means = (("none", t("sleep only")), ("switch", t("then open switches")))
    return el(
        "form",
        el("label", t("Site"), el("select", *_options(*((s.id, s.id) for s in desk.register.sites)), name="site")),
        el("label", t("Order"), el("select", *_options(*actions.items()), name="action")),
        el("label", t("Kind"), el("select", *_options(("live", t("live")), ("drill", DRILL)), name="mode")),
        el("label", t("kW"), _input("kw", "desk-limit-kw", big=True, inputmode="decimal")),
        el("label", t("Hold, minutes (empty: until released)"), _input("hold_minutes", inputmode="numeric")),
        el("label", t("Escalation"), el("select", *_options(*means), name="escalation")),
        el("label", t("Escalate after, s"), _input("after_s", inputmode="numeric", value="60")),
        el("label", t("Return in steps of, %"), _input("restore_percent", inputmode="decimal", value="20")),
        el("label", t("A step of return every, s"), _input("restore_stage_delay_s", inputmode="numeric", value="30")),
        el("label", t("Dispatch number"), _input("dispatch_no")),
        el("label", t("Given by"), _input("given_by")),
        el("label", t("Reason"), _input("text")),
        el("button", t("Compose"), data_testid="desk-compose"),
        method="post",
        action="/compose",
        class_="order",
        autocomplete="off",
    )


def _input(
    name: str, testid: str | None = None, *, big: bool = False, inputmode: str | None = None, value: str | None = None
) -> Html:
    return el(
        "input",
        name=name,
        data_testid=testid,
        class_="big" if big else None,
        inputmode=inputmode,
        value=value,
        maxlength=200,
    )


def proposals_part(desk: Desk, t: Texts) -> Html:
    """What others suggest; nothing is sent before it is composed, read and signed here."""
    rows = []
    for proposal in desk.proposals():
        hidden = [el("input", type="hidden", name=k, value=v) for k, v in proposal.fields.items()]
        amount = proposal.fields.get("limit_kw") or proposal.fields.get("reduce_kw") or ""
        text = " ".join(part for part in (proposal.site, proposal.fields["action"], amount, amount and t("kW")) if part)
        button = el("button", t("Look at it"), class_="quiet")
        rows.append(
            el(
                "li",
                el(
                    "form",
                    text,
                    " ",
                    el("span", proposal.note, class_="small"),
                    " ",
                    *hidden,
                    button,
                    method="post",
                    action="/compose",
                    class_="row",
                ),
            )
        )
    return el("ol", *rows) if rows else el("p", t("none"), class_="small")


def orders_part(desk: Desk, t: Texts) -> Html:
    """Recent orders as links."""
    rows = []
    for order_id, site, action, mine, drill in desk.orders():
        named = f"{DRILL} · {site} · {action}" if drill else f"{site} · {action}"
        link = el("a", f"{named} · {order_id}", href=f"/order/{quote(order_id, safe='')}")
        rows.append(el("li", link, " " + t("signed here") if mine else ""))
    return el("ol", *rows) if rows else el("p", t("none"), class_="small")


def _table(order: Order, t: Texts, site: str | None, signers: str) -> Html:
    rows = describe(order, t, site_name=site, signers=signers)
    return el("table", *(el("tr", el("th", label), el("td", value)) for label, value in rows[1:]))


def draft_page(desk: Desk, t: Texts, draft: str, order: Order) -> Html:
    """The order in words, as it will be signed."""
    name = _name_of(desk, order.site, t)
    sign = el("button", t("Sign and send"), class_="sign", data_testid="desk-sign")
    return page(
        desk,
        t,
        f"/draft/{draft}",
        el(
            "section",
            el("h2", t("Read it, then sign it")),
            drill_banner(order),
            el("p", headline(order, t), class_="headline", data_testid="desk-headline"),
            _table(order, t, name, signer_text(desk.kid, desk.register)),
            el(
                "form",
                sign,
                el("a", t("Do not sign"), href="/", class_="button quiet"),
                method="post",
                action=f"/draft/{draft}/sign",
                class_="row",
            ),
        ),
    )


def _name_of(desk: Desk, site: str, t: Texts) -> str | None:
    found = next((s for s in desk.sites()[0] if s.id == site), None)
    return site_name(found, t) if found else None


def order_page(desk: Desk, t: Texts, found: OrderPage) -> Html:
    """An order and how it goes; for a release also the order that it releases."""
    order = found.signed.order
    signers = "; ".join(signer_text(kid, desk.register) for kid in found.signers)
    release = None
    if order.sheds and found.story.state not in ENDED:
        button = el("button", t("Release"), class_="quiet", data_testid="desk-release")
        release = el("form", button, method="post", action=f"/order/{order.id}/release")
    target = None
    if order.target is not None and order.target != "all":
        there = quote(order.target, safe="")
        link = el("a", order.target, href=f"/order/{there}")
        part = el("div", target_part(desk, t, order.target), data_part=f"/part/target/{there}")
        target = el("section", el("h2", t("The order it is about"), " ", link), part)
    return page(
        desk,
        t,
        f"/order/{order.id}",
        el("section", el("div", order_part(desk, t, found), data_part=f"/part/order/{order.id}"), release),
        target,
        spoken_section(desk, found, t),
        el("section", el("h2", t("The signed order")), _table(order, t, _name_of(desk, order.site, t), signers)),
    )


def target_part(desk: Desk, t: Texts, order_id: str) -> Html:
    """How the order goes that a release, an extension or a cancellation is about, in short."""
    try:
        found = desk.order(order_id)
    except GridError as error:
        return el("p", str(error), class_="bad")
    story = found.story
    state = story_state_text(story, t) or t("signed and sent, no signed answer yet")
    parts: list[Html | None] = [
        drill_banner(found.signed.order),
        el("p", headline(found.signed.order, t)),
        el("p", state, class_="state", data_testid="desk-target-state", data_state=story.state or "sent"),
    ]
    returned = returned_text(story, t)
    if returned is not None:
        parts.append(el("p", returned, class_="aloud", data_testid="desk-target-returned"))
    return join(*parts, _notices(found, t), _claim(found, t))


def _claim(found: OrderPage, t: Texts) -> Html | None:
    claim = found.claim
    if claim is None or claim.power_w is None or found.story.state in ENDED:
        return None
    said = [t("unsigned, as central shows it: {power}", power=live_power(claim.power_w, t))]
    if claim.state:
        said.append(state_text(claim.state, t))
    return el("p", ", ".join(said), class_="small", data_testid="desk-claim")


def order_part(_desk: Desk, t: Texts, found: OrderPage) -> Html:
    """State, proof and steps: what the page asks for every second."""
    story, order = found.story, found.signed.order
    parts: list[Html | None] = [drill_banner(order), el("p", headline(order, t), class_="headline")]
    if order.mode == "drill":
        parts.append(el("p", t("DRILL: nothing is switched"), class_="note"))
    if found.not_delivered:
        parts.append(call_part(found, t))
    state = story_state_text(story, t) or t("signed and sent, no signed answer yet")
    parts.append(el("p", state, class_="state", data_testid="desk-state", data_state=story.state or "sent"))
    if story.trial is not None:
        parts.append(el("p", trial_text(story.trial, t), class_="note", data_testid="desk-trial"))
    parts.append(_proof(found, t))
    completed, returned = completion_text(story, t), returned_text(story, t)
    if completed is not None:
        parts.append(el("p", completed, class_="aloud", data_testid="desk-completion"))
    if returned is not None:
        parts.append(el("p", returned, class_="aloud", data_testid="desk-returned"))
    said = report_text(story, t)
    if said is not None and story.report is not None:
        kind = "good" if story.report.verdict in {"obeyed", "not_due"} else "bad"
        parts.append(el("p", said, class_=kind, data_testid="desk-report"))
    parts.append(_notices(found, t))
    rows = history(story, found.words, t)
    items = [el("li", el("b", at), " ", what, " ", el("code", kid)) for at, what, kid in rows]
    parts.append(el("ol", *items, data_testid="desk-history") if items else None)
    parts.append(_claim(found, t))
    if found.error:
        parts.append(el("p", found.error, class_="bad"))
    if found.note_error:
        again = el("button", t("Send the note again"), class_="quiet")
        parts.append(el("p", t("The note of the call is not at central yet"), ": ", found.note_error, class_="bad"))
        parts.append(el("form", again, method="post", action=f"/order/{order.id}/spoken/again"))
    if found.mine and story.received is None:
        again = el("button", t("Send the same order again"), class_="quiet")
        parts.append(el("form", again, method="post", action=f"/order/{order.id}/again"))
    return join(*parts)


def _notices(found: OrderPage, t: Texts) -> Html | None:
    """What stands beside the state: flags of the newest word, and who has to walk to which switch."""
    story, claim = found.story, found.claim
    if story.state in ENDED:
        claim = None
    last = story.last
    newer = claim is not None and (last is None or (claim.at is not None and claim.at >= last.at))
    signed = tuple(flag for flag in (last.flags if last else ()) if flag != "drill")
    said = tuple(flag for flag in (claim.flags if claim and newer else ()) if flag not in (*signed, "drill"))
    rows = [el("p", "⚠ ", flag_text(flag, t), class_="note", data_testid=f"desk-flag-{flag}") for flag in signed]
    for flag in said:
        text = flag_text(flag, t) + " " + t("(unsigned)")
        rows.append(el("p", "⚠ ", text, class_="note", data_testid=f"desk-flag-{flag}"))
    if claim is not None and newer and claim.waiting_for:
        text = t("a person has to close: {switches}", switches=", ".join(claim.waiting_for)) + " " + t("(unsigned)")
        rows.append(el("p", "⚠ ", text, class_="note", data_testid="desk-waiting-for"))
    return join(*rows) if rows else None


def _proof(found: OrderPage, t: Texts) -> Html:
    story = found.story
    lines: list[Html] = []
    if found.bad_signature:
        lines.append(el("p", t("THE ORDER ITSELF IS NOT PROPERLY SIGNED"), ": ", found.bad_signature, class_="bad"))
    for refused in story.refused[:10]:
        lines.append(el("p", t("REFUSED ANSWER"), ": ", refused.why, class_="bad", data_testid="desk-refused"))
    if story.kids:
        text = t("verified by site key {kid}", kid=", ".join(story.kids))
        lines.append(el("p", "✓ ", text, class_="good"))
    if found.log == "split":
        text = t("TWO HISTORIES of this site's records were seen: its evidence cannot be relied on, tell the regulator")
        lines.append(el("p", text, class_="bad", role="alert", data_testid="desk-log", data_state="split"))
    elif found.log is not None:
        agrees = t("the site's log of {size} records is the one that central shows", size=found.log_size)
        alone = t("the site's log of {size} records is not compared yet", size=found.log_size)
        text = f"✓ {agrees}" if found.log == "agrees" else alone
        lines.append(el("p", text, class_="small", data_testid="desk-log", data_state=found.log))
    proven = bool(story.kids) and not story.refused and found.bad_signature is None
    return el("div", *lines, data_testid="desk-verified", data_ok="true" if proven else "false")
