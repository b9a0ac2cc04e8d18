"""Routes under ``/api/v1``."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from central import energy, shares
from central.api import checkpoints, order_reports, views
from central.api.problems import Problem, read_body
from central.dispatch import OrderView, view
from central.registers import OlderRegister
from central.relay import Reused
from central.service import CentralService
from central.store import orders, words
from central.store.orders import StoredOrder
from central.store.schema import forks, intervals, order_answers, quarantine, records, tallies
from wire.errors import BadOrder, WireError
from wire.orders import MAX_ORDER_BYTES, Method, Text, Watt, parse_order, uuid7
from wire.registry import MAX_KEYS_BYTES
from wire.spoken import MAX_NOTE_BYTES, open_note, signer

PROPOSAL_LIFE_MS = 86_400_000
FUTURE_MS = 60_000


class Proposal(BaseModel):
    """What an operator or central suggests. Unsigned: a desk decodes it, shows it, and signs an order of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    site: Annotated[str, Field(max_length=41)]
    action: Literal["limit", "reduce", "stop", "release"]
    limit_w: Watt | None = None
    reduce_w: Watt | None = None
    minutes: Annotated[int, Field(ge=1, le=10_080)] | None = None
    target: Annotated[str, Field(max_length=36)] | None = None
    note: Text | None = None


async def order_view(service: CentralService, order: StoredOrder) -> OrderView:
    """An order with its answers and progress."""
    answers, notes, said = await service.database.read(
        lambda c: (orders.answers(c, order), words.notes_of(c, order.id), words.site_words(c, order))
    )
    live = service.live.sites.get(order.site)
    progress = tuple(live.progress.get(order.id, ())) if live else ()
    return view(order, answers, progress, service.now_ms(), notes=notes, words=said)


async def latest_order(service: CentralService, site: str, actions: frozenset[str] | None = None) -> OrderView | None:
    """The newest order of a site, of these actions alone where they are named."""
    rows = await service.database.read(lambda c: orders.listed(c, site, 1, actions))
    return await order_view(service, rows[0]) if rows else None


async def stored_intervals(service: CentralService, site: str, mp: str | None, since_s: int, limit: int) -> list[Any]:
    """Rows of the newest intervals and gaps, newest first."""
    query = sa.select(intervals).where(intervals.c.site == site, intervals.c.t0_s >= since_s)
    if mp is not None:
        query = query.where(intervals.c.mp == mp)
    query = query.order_by(intervals.c.t0_s.desc(), intervals.c.mp, intervals.c.epoch.desc()).limit(limit)
    return await service.database.read(lambda c: list(c.execute(query)))


def make_router(service: CentralService) -> APIRouter:
    """All routes over one central."""
    router = APIRouter(prefix="/api/v1")
    _site_routes(router, service)
    _order_routes(router, service)
    order_reports.add(router, service)
    checkpoints.add(router, service, _known)
    _register_routes(router, service)
    return router


def _known(service: CentralService, site: str) -> str:
    if site not in service.sites:
        raise Problem(
            404, "unknown_site", "Unknown site", f"site {site[:60]!r} is not registered; add it to central's settings"
        )
    return site


def _site_routes(router: APIRouter, service: CentralService) -> None:
    @router.get("/sites")
    async def sites() -> list[dict[str, Any]]:
        """All registered sites with their live power and its age."""
        return [views.site_summary(service, site) for site in service.sites]

    @router.get("/sites/{site}")
    async def one_site(site: str) -> dict[str, Any]:
        """Presence, mode, epoch, live, ages, newest order."""
        return views.site_detail(service, _known(service, site), await latest_order(service, site))

    @router.get("/zones/proposal")
    async def shares_of_zones(
        zone: Annotated[list[str], Query(min_length=1, max_length=64)],
        target_w: Annotated[int | None, Query(ge=0, le=10**13)] = None,
        permille: Annotated[int | None, Query(ge=0, le=1000)] = None,
        ramp_w_per_min: Annotated[int | None, Query(ge=1, le=10**10)] = None,
        max_cut_w: Annotated[int | None, Query(ge=0, le=10**10)] = None,
        method: Annotated[list[Method] | None, Query(max_length=4)] = None,
    ) -> dict[str, Any]:
        """Shares of a target over all sites of the zones, with the reason for each that gives nothing. Unsigned."""
        if (target_w is None) == (permille is None):
            raise Problem(422, "parameter", "A parameter is wrong", "give exactly one of target_w, permille")
        document = service.registers.document
        zones = tuple(dict.fromkeys(zone))
        found = shares.propose(
            [views.site_now(service, site) for site in service.sites if views.zone_of(service, site) in zones],
            [document.zone(one) if document else None for one in zones],
            target_w=target_w,
            permille=permille,
            ramp_w_per_min=ramp_w_per_min,
            max_cut_w=max_cut_w,
            methods=tuple(method or ("sleep",)),
        )
        return views.proposal(service, found)

    @router.get("/sites/{site}/latest")
    async def latest(site: str, kind: Annotated[str | None, Query(max_length=20)] = None) -> list[dict[str, Any]]:
        """Newest telemetry value of every point within the last hour."""
        since = service.now_ms() - 3_600_000
        rows = await service.telemetry.latest(_known(service, site), kind=kind, since=since)
        return [{name: getattr(row, name) for name in row.__slots__} for row in rows]

    @router.get("/sites/{site}/series")
    async def series(
        site: str,
        kind: Annotated[str, Query(max_length=20)],
        device: Annotated[str, Query(max_length=128)],
        point: Annotated[str, Query(max_length=64)],
        minutes: Annotated[int, Query(ge=1, le=129_600)] = 60,
        step_s: Annotated[int, Query(ge=1, le=86_400)] = 10,
    ) -> list[dict[str, Any]]:
        """Telemetry of one point: mean, least, greatest of the good values per step."""
        now = service.now_ms()
        first = now - minutes * 60_000
        steps = await service.telemetry.series(_known(service, site), kind, device, point, first, now, step_s)
        return [{name: getattr(step, name) for name in step.__slots__} for step in steps]

    @router.get("/sites/{site}/intervals")
    async def slots(
        site: str,
        mp: Annotated[str | None, Query(max_length=62)] = None,
        hours: Annotated[int, Query(ge=1, le=2208)] = 24,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 2000,
    ) -> list[dict[str, Any]]:
        """Intervals and gaps from signed records, newest first; ``wh`` is null in a gap."""
        since_s = service.now_ms() // 1000 - hours * 3600
        rows = await stored_intervals(service, _known(service, site), mp, since_s, limit)
        return [
            {
                "site": r.site,
                "mp": r.mp,
                "t0": r.t0_s,
                "t1": r.t1_s,
                "kind": r.kind,
                "wh": r.wh,
                "exp_wh": r.exp_wh,
                "why": r.why,
                "flags": r.flags.split(),
                "epoch": r.epoch,
                "n": r.n,
                "verified": r.verified,
            }
            for r in rows
        ]


def _order_routes(router: APIRouter, service: CentralService) -> None:
    @router.post("/orders", status_code=202)
    async def post_order(request: Request, response: Response) -> dict[str, Any]:
        """Carry a signed order to its site. The body is the envelope, byte for byte."""
        raw = await read_body(request, MAX_ORDER_BYTES)
        try:
            signed = parse_order(raw)
        except BadOrder as error:
            raise Problem(422, error.code, "Not an order", str(error)) from None
        _known(service, signed.order.site)
        try:
            new = await service.relay.post(signed)
        except Reused as error:
            raise Problem(409, "id_reuse", "The id is taken", f"{error}; make a new order with a new id") from None
        if not new:
            response.status_code = 200
        stored = await service.database.read(lambda c: orders.find(c, signed.order.id))
        if stored is None:
            raise Problem(500, "store", "Not stored", "the order could not be read back; post the same bytes again")
        return views.order_summary(await order_view(service, stored))

    @router.get("/orders")
    async def list_orders(
        site: Annotated[str | None, Query(max_length=41)] = None, limit: Annotated[int, Query(ge=1, le=200)] = 20
    ) -> list[dict[str, Any]]:
        """Newest orders first."""
        rows = await service.database.read(lambda c: orders.listed(c, site, limit))
        return [views.order_summary(await order_view(service, row)) for row in rows]

    @router.get("/orders/{order_id}")
    async def one_order(order_id: str) -> dict[str, Any]:
        """One order: progress (unsigned) and answers (signed record lines)."""
        stored = await service.database.read(lambda c: orders.find(c, order_id[:36]))
        if stored is None:
            raise Problem(404, "unknown_order", "Unknown order", f"no order {order_id[:60]!r} was posted here")
        settings = service.sites.get(stored.site)
        document = service.registers.document
        return views.order_detail(await order_view(service, stored), settings.phone if settings else None, document)

    @router.post("/orders/{order_id}/spoken", status_code=201)
    async def post_spoken(order_id: str, request: Request, response: Response) -> dict[str, Any]:
        """Keep a dispatcher's signed note that this order was spoken. The body is the envelope, byte for byte."""
        raw = await read_body(request, MAX_NOTE_BYTES)
        new = await _keep_note(service, order_id, raw)
        if not new:
            response.status_code = 200
        return {"order": order_id[:36], "new": new}

    @router.post("/proposals", status_code=201)
    async def propose(proposal: Proposal) -> dict[str, Any]:
        """Suggest an order. Nothing is sent anywhere; a desk may fetch it."""
        _known(service, proposal.site)
        now = service.now_ms()
        proposal_id = uuid7(now)
        body = proposal.model_dump_json(exclude_none=True)
        await service.database.write(lambda c: orders.insert_proposal(c, proposal_id, proposal.site, body, now))
        return {"id": proposal_id, "made_at": now} | proposal.model_dump(exclude_none=True)

    @router.get("/proposals")
    async def list_proposals(
        site: Annotated[str | None, Query(max_length=41)] = None, limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> list[dict[str, Any]]:
        """Suggestions of the last day, newest first."""
        since = service.now_ms() - PROPOSAL_LIFE_MS
        rows = await service.database.read(lambda c: orders.listed_proposals(c, site, since, limit))
        return [{"id": row.id, "made_at": row.made_at} | json.loads(row.body) for row in rows]


async def _keep_note(service: CentralService, order_id: str, raw: bytes) -> bool:
    stored = await service.database.read(lambda c: orders.find(c, order_id[:36]))
    if stored is None:
        raise Problem(404, "unknown_order", "Unknown order", f"no order {order_id[:60]!r} was posted here: post it too")
    document = service.registers.document
    if document is None:
        raise Problem(409, "no_register", "No register", "the registrar's register was not put here yet")
    try:
        note, envelope = open_note(raw)
        signer(note, envelope, document)
    except WireError as error:
        raise Problem(422, "spoken", "Not a note", str(error)) from None
    if (note.order, note.site) != (stored.id, stored.site):
        detail = f"the note speaks of {note.order} at {note.site}, expected {stored.id} at {stored.site}"
        raise Problem(422, "spoken", "Another order", detail)
    now = service.now_ms()
    if note.at > now + FUTURE_MS:
        raise Problem(422, "spoken", "In the future", f"spoken at {note.at} ms, it is {now}; check the clock")
    try:
        return await service.database.write(lambda c: words.insert_note(c, note, envelope, raw, now))
    except ValueError as error:
        raise Problem(409, "too_many", "Too many notes", str(error)) from None


def _register_routes(router: APIRouter, service: CentralService) -> None:
    @router.put("/keys")
    async def put_keys(request: Request) -> dict[str, Any]:
        """Take a register signed by the registrar; only a higher version is taken. It is carried to every site."""
        raw = await read_body(request, MAX_KEYS_BYTES)
        try:
            new = await service.take_register(raw)
        except OlderRegister as error:
            raise Problem(409, "old_version", "Not newer", str(error)) from None
        except WireError as error:
            raise Problem(422, "register", "Not a register", str(error)) from None
        document = service.registers.document
        return {"version": document.version if document else None, "new": new}

    @router.get("/keys")
    async def get_keys() -> Response:
        """The register in force, byte for byte."""
        if service.registers.envelope is None:
            raise Problem(404, "no_register", "No register", "the registrar's register was not put here yet")
        return Response(service.registers.envelope, media_type="application/json")

    @router.get("/sites/{site}/energy")
    async def site_energy(
        site: str,
        first: Annotated[int, Query(alias="from", ge=0, le=2**40)],
        last: Annotated[int, Query(alias="to", ge=0, le=2**40)],
        by: Annotated[Literal["hour", "day", "month", "quarter"], Query()] = "day",
    ) -> list[dict[str, Any]]:
        """Energy of every metering point by period of Kazakhstan's time, from records whose signatures hold."""
        _known(service, site)
        document = service.registers.document
        entry = document.site(site) if document else None
        if entry is None:
            raise Problem(404, "no_register", "Not registered", "slot lengths come from the registrar's register")

        def read(connection: sa.Connection) -> list[dict[str, Any]]:
            points = energy.points_of(connection, site)
            sums = energy.energy(connection, site, points, entry.slot_s, first, last, by, entry)
            return [energy.as_dict(one) for one in sums]

        try:
            return await service.database.read(read)
        except ValueError as error:
            raise Problem(422, "period", "Not a period", str(error)) from None

    @router.get("/counts")
    async def counts(site: Annotated[str | None, Query(max_length=41)] = None) -> dict[str, Any]:
        """Rows and distinct identities in the stores, counted now by the databases themselves."""
        telemetry = await service.telemetry.counts(site)

        def count(connection: sa.Connection) -> dict[str, Any]:
            def rows(table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
                query = sa.select(sa.func.count()).select_from(table)
                limits = [*where, table.c.site == site] if site is not None else list(where)
                return int(connection.execute(query.where(*limits)).scalar_one())

            per_stream = sa.select(
                records.c.site,
                records.c.epoch,
                records.c.stream,
                sa.func.count(),
                sa.func.count(records.c.n.distinct()),
            ).group_by(records.c.site, records.c.epoch, records.c.stream)
            kept = sa.select(tallies.c.name, sa.func.sum(tallies.c.count)).group_by(tallies.c.name)
            if site is not None:
                per_stream = per_stream.where(records.c.site == site)
                kept = kept.where(tallies.c.site == site)
            streams = connection.execute(per_stream).all()
            return {
                "records": sum(r[3] for r in streams),
                "records_distinct": sum(r[4] for r in streams),
                "records_verified": rows(records, records.c.verified.is_(True)),
                "records_false": rows(records, records.c.verified.is_(False)),
                "streams": [{"site": s, "epoch": e, "stream": st, "count": n} for s, e, st, n, _ in streams],
                "intervals": rows(intervals, intervals.c.kind == "interval"),
                "gaps": rows(intervals, intervals.c.kind == "gap"),
                "answers": rows(order_answers),
                "forks": rows(forks),
                "quarantine": rows(quarantine),
                "tallies": {name: int(value) for name, value in connection.execute(kept)},
            }

        found = await service.database.read(count)
        return found | {
            "batches": telemetry.batches,
            "values": telemetry.values,
            "values_distinct": telemetry.distinct_values,
        }
