"""Fingerprint of an output: what its commissioning proved. Any change of it makes the commissioning lapse."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from config.nodes import Control, Input, Switch
from config.site import Site


def output_fingerprint(site: Site, switch_id: str, profile_version: Callable[[str], str]) -> str:
    """SHA-256 (hex) over the switch, its wiring, its devices with profile versions and links, and the whole graph.

    Args:
        site: the site file.
        switch_id: the output.
        profile_version: profile id → version text.

    Raises:
        KeyError: no such switch.
    """
    switch = next((n for n in site.nodes if isinstance(n, Switch) and n.id == switch_id), None)
    if switch is None:
        raise KeyError(switch_id)
    wired = {i.device for i in _wiring(switch)}
    devices = [d for d in site.devices if d.id in wired]
    links = {d.link for d in devices}
    body = {
        "switch": switch.model_dump(mode="json"),
        "devices": [d.model_dump(mode="json") | {"profile_version": profile_version(d.profile)} for d in devices],
        "links": [link.model_dump(mode="json") for link in site.links if link.id in links],
        "graph": [n.model_dump(mode="json") for n in site.nodes],
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _wiring(switch: Switch) -> list[Control | Input]:
    found: list[Control | Input] = [] if switch.control is None else [switch.control]
    if switch.position is not None:
        found += [switch.position.open, switch.position.closed]
    found += [item for _, item in switch.readiness.wired()]
    return found
