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
