"""Which device, network switch and gateway has power: fed from the plant itself, or from its battery for a while."""

from __future__ import annotations

from collections.abc import Collection

from config.devices import Device, Equipment
from config.site import Site


class Supplies:
    """Supply of every device and equipment; a battery lasts ``ups_min`` real minutes and is full again at once."""

    def __init__(self, site: Site, now_s: float) -> None:
        self._fed_from: dict[str, str | None] = {}
        self._ups_s: dict[str, float] = {}
        self._lost_s: dict[str, float | None] = {}
        items: list[Equipment | Device] = [*site.equipment, *site.devices]
        for item in items:
            self._fed_from[item.id] = item.fed_from
            self._ups_s[item.id] = item.ups_min * 60.0
            self._lost_s[item.id] = None
        self._via: dict[str, tuple[str, ...]] = {link.id: link.via for link in site.links}
        self._now_s = now_s

    def update(self, now_s: float, energised: Collection[str]) -> None:
        """Take which nodes are live at ``now_s``."""
        self._now_s = now_s
        for name, node in self._fed_from.items():
            if node is None or node in energised:
                self._lost_s[name] = None
            elif self._lost_s[name] is None:
                self._lost_s[name] = now_s

    def has_power(self, name: str) -> bool:
        """True where a device or equipment runs; what the site file does not name, or not feed, always does."""
        lost_s = self._lost_s.get(name)
        return lost_s is None or self._now_s < lost_s + self._ups_s[name]

    def reachable(self, via: Collection[str]) -> bool:
        """True where everything on the way has power."""
        return all(self.has_power(name) for name in via)

    def link_up(self, link: str) -> bool:
        """True where the link's gateways and network switches have power."""
        return self.reachable(self._via.get(link, ()))
