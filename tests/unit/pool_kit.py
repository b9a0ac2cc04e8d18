"""One list of pools for the tests of the list and of the watch."""

from __future__ import annotations

from datetime import date

from agent.inventory.pools import ListedPool, PoolList, Verdict

WALLET = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"
LIST = PoolList(
    [
        ListedPool("Pool KZ", ("pool.kz", "*.eu.pool.kz"), valid_to=date(2027, 1, 1)),
        ListedPool("Old Pool", ("old.kz",), valid_to=date(2026, 1, 1)),
        ListedPool("Vendor share", ("fee.example.com",), Verdict.FEE),
        ListedPool("Own proxy", ("10.20.0.5",), Verdict.PROXY),
    ]
)
