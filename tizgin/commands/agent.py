"""``tizgin agent``: the on-site agent. Each sub-command's body is a module of its own, imported when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The on-site agent.")

ConfigOption = Annotated[
    Path, typer.Option("--config", help="The site file.", exists=True, dir_okay=False, show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Write here instead of standard output.")]
WhoOption = Annotated[str, typer.Option("--who", help="Name of the person.")]


@app.callback()
def root() -> None:
    """The on-site agent."""


@app.command(epilog="Example: tizgin agent check --config site.yaml")
def check(config: ConfigOption, as_json: JsonOption = False) -> int:
    """Is the site file right, and what goes dark with each output? Exit 1 where it holds an error."""
    from tizgin.commands._agent_check import check_file

    return check_file(config, as_json=as_json)


@app.command(epilog="Example: tizgin agent enroll --config site.yaml --out enrolment.json")
def enroll(config: ConfigOption, out: OutOption = None) -> int:
    """Make this site's keys and ledger, and print what the registrar and central's CA need."""
    from tizgin.commands._agent_run import enroll_site

    return enroll_site(config, out)


@app.command(epilog="Example: tizgin agent run --config site.yaml")
def run(
    config: ConfigOption,
    ready_file: Annotated[Path | None, typer.Option(help="Write a JSON line here when everything runs.")] = None,
    log_format: Annotated[str, typer.Option(help="text or json")] = "text",
) -> int:
    """Run the agent until it is asked to stop."""
    from tizgin.commands._agent_run import run_agent

    return run_agent(config, ready_file, log_format)


@app.command(epilog="Example: tizgin agent status --config site.yaml")
def status(config: ConfigOption, as_json: JsonOption = False) -> int:
    """What the running agent says of itself."""
    from tizgin.commands._agent_ask import show_status

    return show_status(config, as_json=as_json)


@app.command(epilog="Example: tizgin agent outputs --config site.yaml --json")
def outputs(config: ConfigOption, as_json: JsonOption = False) -> int:
    """Outputs with their fingerprints, meters and expected power: what a commissioning protocol has to name."""
    from tizgin.commands._agent_ask import show_outputs

    return show_outputs(config, as_json=as_json)


@app.command(epilog="Example: tizgin agent act --config site.yaml armed.json")
def act(
    config: ConfigOption,
    file: Annotated[Path, typer.Argument(help="Signed act: mode of the agent, or commissioning of outputs.")],
) -> int:
    """Hand a signed act to the running agent; it checks signatures and rights."""
    from tizgin.commands._agent_ask import hand_act

    return hand_act(config, file)


@app.command(epilog="Example: tizgin agent mode --config site.yaml")
def mode(
    config: ConfigOption, file: Annotated[Path | None, typer.Argument(help="Signed mode act to hand in.")] = None
) -> int:
    """The agent's effective mode; with a signed act, change it."""
    from tizgin.commands._agent_ask import hand_act, show_mode

    return show_mode(config) if file is None else hand_act(config, file)


@app.command(
    epilog="Example: tizgin agent tag F3 --who 'A. Serik' --reason 'permit 12, work on the cable' --config site.yaml"
)
def tag(
    obj: Annotated[str, typer.Argument(metavar="SWITCH", help="Switch to tag.")],
    config: ConfigOption,
    who: WhoOption,
    reason: Annotated[str, typer.Option("--reason", help="Permit number and reason.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take your tag off.")] = False,
) -> int:
    """Hang or take off a tag: while it hangs, nothing moves this switch."""
    from tizgin.commands._agent_ask import tag_object

    return tag_object(config, obj, who, reason, remove=remove)


@app.command(
    epilog="Example: tizgin agent maintenance KM1 --hours 4 --who 'A. Serik' --permit 12 --reason 'contactor' "
    "--config site.yaml"
)
def maintenance(
    obj: Annotated[str, typer.Argument(metavar="OBJECT", help="Switch, device or group of machines.")],
    config: ConfigOption,
    who: WhoOption,
    hours: Annotated[float | None, typer.Option("--hours", help="How long, at most 12; again to renew.")] = None,
    permit: Annotated[str, typer.Option("--permit", help="Number of the permit.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="What is done.")] = "",
    end: Annotated[bool, typer.Option("--end", help="It is over.")] = False,
) -> int:
    """Declare an object out of service: left out of plans, its alarms are one, its MW declared unavailable."""
    from tizgin.commands import _agent_words as body

    return body.maintain(config, obj, who, hours, permit, reason, end=end)


@app.command(epilog="Example: tizgin agent order order.json --config site.yaml")
def order(
    config: ConfigOption,
    file: Annotated[Path | None, typer.Argument(help="Signed order; - reads standard input.", dir_okay=False)] = None,
    code: Annotated[str | None, typer.Option("--code", help="The order as text, as the desk shows it.")] = None,
) -> int:
    """Hand a signed order in that came by another way than the broker. Exit 1 where it is refused."""
    from tizgin.commands import _agent_words as body

    return body.hand_order(config, file, code)


@app.command(
    epilog="Example: tizgin agent ack 01989c5e-7a30-7cc1-9d52-3f1f8b0a6b11 --who 'A. Serik' --config site.yaml"
)
def ack(
    order_id: Annotated[str, typer.Argument(metavar="ORDER", help="Id of the order.")],
    config: ConfigOption,
    who: WhoOption,
) -> int:
    """A person on site knows of an order. Recorded and shown; it delays nothing and moves nothing."""
    from tizgin.commands import _agent_words as body

    return body.acknowledge(config, order_id, who)


@app.command(
    epilog="Example: tizgin agent spoken --order 01989c5e-7a30-7cc1-9d52-3f1f8b0a6b11 --who 'A. Serik' "
    "--given-by 'B. Omarov' --at 18:12 --recording 4711 --config site.yaml"
)
def spoken(
    config: ConfigOption,
    order_id: Annotated[str, typer.Option("--order", help="Id of the order, as it was read aloud.")],
    who: WhoOption,
    given_by: Annotated[str, typer.Option("--given-by", help="Name of the dispatcher who spoke.")],
    at: Annotated[str, typer.Option("--at", help="When: 18:12 in Kazakhstan, or ISO 8601 with a zone.")],
    recording: Annotated[str, typer.Option("--recording", help="Number of the recording.")] = "",
    text: Annotated[str, typer.Option("--text", help="What was said and done.")] = "",
) -> int:
    """Enter an order that was spoken by telephone and that people carry out by hand. The agent moves nothing for it."""
    from tizgin.commands import _agent_words as body

    return body.enter_spoken(config, body.Spoken(order_id, who, given_by, at, recording, text))


@app.command(epilog="Example: tizgin agent plan --limit 3MW --config site.yaml")
def plan(
    config: ConfigOption,
    limit: Annotated[str, typer.Option("--limit", help="Limit at the boundary: 3MW, 850kW, 0.")],
    as_json: JsonOption = False,
) -> int:
    """What the running agent would do for a limit, in any mode. Moves nothing. Exit 1 where it would not be reached."""
    from tizgin.commands import _agent_plan as body

    return body.show_plan(config, limit, as_json=as_json)


@app.command(
    epilog="Example: tizgin agent replace em-1 --serial 55512345 --closing-reading 12345.67 --reason 'act 17, burnt' "
    "--person 'A. Serik' --config site.yaml"
)
def replace(
    device: Annotated[str, typer.Argument(help="Device of the site file that was exchanged.")],
    config: ConfigOption,
    serial: Annotated[str, typer.Option("--serial", help="Serial number of the new device.")],
    reason: Annotated[str, typer.Option("--reason", help="Act number and reason.")],
    person: Annotated[str, typer.Option("--person", help="Name of who exchanged it.")],
    closing: Annotated[
        str | None, typer.Option("--closing-reading", help="Last reading of the old meter, kWh, as on its display.")
    ] = None,
    no_closing: Annotated[
        str | None, typer.Option("--no-closing-reading", help="Why the old meter has no last reading.")
    ] = None,
    opening: Annotated[
        str | None, typer.Option("--opening-reading", help="First reading of the new meter, kWh, as on its display.")
    ] = None,
    photo: Annotated[
        Path | None,
        typer.Option("--photo", help="Photograph of both displays; its SHA-256 is recorded.", dir_okay=False),
    ] = None,
) -> int:
    """A device was exchanged: recorded as evidence, meters are bound anew, its outputs are unarmed."""
    from tizgin.commands._agent_replace import Told, replace_device

    return replace_device(config, Told(device, serial, person, reason, closing, no_closing, opening, photo))


@app.command(
    epilog="Example: tizgin agent spot M1 --display 12345.67 --who 'A. Serik' --organisation 'KEGOC' --role inspector "
    "--seal 0012345 --photo m1.jpg --config site.yaml"
)
def spot(
    config: ConfigOption,
    point: Annotated[str | None, typer.Argument(help="Metering point.")] = None,
    display: Annotated[str | None, typer.Option("--display", help="kWh exactly as on the display.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="When it was read (ISO, UTC+5); now by default.")] = None,
    who: Annotated[str | None, typer.Option("--who", help="Name of who read it.")] = None,
    organisation: Annotated[str | None, typer.Option("--organisation", help="Whom that person is from.")] = None,
    role: Annotated[str | None, typer.Option("--role", help="What that person is there as.")] = None,
    serial: Annotated[str | None, typer.Option("--serial", help="Serial number on the meter's plate.")] = None,
    seal: Annotated[list[str] | None, typer.Option("--seal", help="Number of a seal; once for each.")] = None,
    photo: Annotated[
        Path | None, typer.Option("--photo", help="Photograph of the display; its SHA-256 is recorded.", dir_okay=False)
    ] = None,
    act: Annotated[
        Path | None, typer.Option("--act", help="All of that, signed by the person (order act spot).", dir_okay=False)
    ] = None,
) -> int:
    """A person reads a meter's display and the agent its registers, at once; recorded as evidence."""
    from tizgin.commands._agent_spot import Seen
    from tizgin.commands._agent_spot import spot as body

    return body(config, Seen(point, display, at, who, organisation, role, serial, tuple(seal or ()), photo), act)


@app.command(
    epilog="Example: tizgin agent commission KM1 KM2 --person 'D. Kim' --person 'B. Akhmetova' --out protocol.json "
    "--config site.yaml"
)
def commission(
    config: ConfigOption,
    outputs: Annotated[list[str] | None, typer.Argument(metavar="OUTPUT...", help="Outputs to prove.")] = None,
    person: Annotated[list[str] | None, typer.Option("--person", help="Person on site; at least two.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: for scripts.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would happen.")] = False,
    live_load: Annotated[bool, typer.Option("--live-load", help="Put nothing to sleep; cut what runs.")] = False,
    awake: Annotated[int, typer.Option("--awake", help="Leave so many machines running.", min=0)] = 0,
    retest: Annotated[bool, typer.Option("--retest", help="Also while the agent is armed.")] = False,
    without: Annotated[list[str] | None, typer.Option("--without", help="Metering point not judged.")] = None,
    display: Annotated[
        list[str] | None, typer.Option("--display", help="POINT=kWh as read on the meter's display.")
    ] = None,
    patience_s: Annotated[int, typer.Option(help="How long a person is waited for.", min=1, max=86_400)] = 3600,
    return_s: Annotated[int, typer.Option(help="How long machines may take to boot.", min=1, max=86_400)] = 900,
    note: Annotated[str, typer.Option("--note", help="For the record: permit, clamp, weather.")] = "",
    give_back: Annotated[bool, typer.Option("--give-back", help="Wake what a broken-off test left asleep.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the protocol of what passed here.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Prove outputs on the plant, one at a time, with the running agent. Exit 1 where one does not pass."""
    from tizgin.commands import _agent_commission as body

    if give_back:
        return body.give_back(config, tuple(person or ()), as_json=as_json)
    asked = body.Asked(
        tuple(outputs or ()),
        tuple(person or ()),
        yes,
        plan,
        live_load,
        awake,
        retest,
        tuple(without or ()),
        tuple(display or ()),
        patience_s,
        return_s,
        note,
        out,
        as_json,
    )
    return body.commission(config, asked)


@app.command(epilog="Example: tizgin agent rotate --role record --who 'D. Kim' --out change.json --config site.yaml")
def rotate(
    config: ConfigOption,
    role: Annotated[str, typer.Option("--role", help="record: the key of records; log: that of checkpoints.")],
    who: WhoOption,
    records: Annotated[
        int | None, typer.Option("--records", help="Change after so many records; by default a day's.", min=20)
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="file or token: where a new log key lives; else as the site file says.")
    ] = None,
    out: OutOption = None,
) -> int:
    """Have the running agent change a key: it makes a new one, and changes once the registrar has entered it."""
    from tizgin.commands._agent_rotate import rotate_key

    return rotate_key(config, role, who, records, out, to)


@app.command(epilog="Example: tizgin agent backup site-backup.zip --config site.yaml")
def backup(
    config: ConfigOption, file: Annotated[Path, typer.Argument(help="Where the archive goes.", dir_okay=False)]
) -> int:
    """Keep what the next box needs: configuration, papers, what was learned. Never a key, never the ledger."""
    from tizgin.commands._agent_backup import make_backup

    return make_backup(config, file)


@app.command(epilog="Example: tizgin agent restore site-backup.zip --config /etc/tizgin")
def restore(
    file: Annotated[Path, typer.Argument(help="Archive of 'tizgin agent backup'.", exists=True, dir_okay=False)],
    config: Annotated[Path, typer.Option("--config", help="Folder for the site file.", file_okay=False)],
) -> int:
    """Set up a new box in place of a dead one: new keys, a new epoch, outputs unarmed."""
    from tizgin.commands._agent_backup import restore as body

    return body(file, config)


@app.command(
    "confirm-positions",
    epilog="Example: tizgin agent confirm-positions --who 'A. Serik' --open KM1 --open KM3 --config site.yaml",
)
def confirm_positions(
    config: ConfigOption,
    who: WhoOption,
    opened: Annotated[
        list[str] | None, typer.Option("--open", help="Switch that you see open; all others you see closed.")
    ] = None,
) -> int:
    """Say what you see at the panels after a box was replaced; until it agrees with what is read, nothing is armed."""
    from tizgin.commands._agent_backup import confirm_positions as body

    return body(config, who, tuple(opened or ()))


inventory = typer.Typer(no_args_is_help=True, help="Machines on site against the register list and accredited pools.")
app.add_typer(inventory, name="inventory")


@inventory.callback()
def inventory_root() -> None:
    """Machines on site against the register list and accredited pools."""


@inventory.command(
    "import",
    epilog="Example: tizgin agent inventory import register.xlsx --accredited pools.yaml --config site.yaml",
)
def inventory_import(
    config: ConfigOption,
    file: Annotated[Path | None, typer.Argument(help="Register list, CSV or XLSX.", dir_okay=False)] = None,
    accredited: Annotated[
        Path | None, typer.Option("--accredited", help="List of accredited pools, YAML or CSV.", dir_okay=False)
    ] = None,
    sheet: Annotated[str | None, typer.Option("--sheet", help="Worksheet of an XLSX; the first by default.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Take in the register list, the list of accredited pools, or both. Exit 1 where a list is refused."""
    from tizgin.commands._agent_inventory import import_lists

    return import_lists(config, file, accredited, sheet, as_json=as_json)


@inventory.command("check", epilog="Example: tizgin agent inventory check --fresh --json --config site.yaml")
def inventory_check(
    config: ConfigOption,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask every machine now, not what the agent saw.")] = False,
    accredited: Annotated[
        Path | None, typer.Option("--accredited", help="Judge pools by this list instead.", dir_okay=False)
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write equipment by owner and model here.", dir_okay=False)
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Which machines are unregistered, missing, twice or moved, and for which pools they work. Exit 1 where any."""
    from tizgin.commands._agent_inventory import check_site

    return check_site(config, fresh=fresh, accredited=accredited, csv_file=csv, as_json=as_json)
