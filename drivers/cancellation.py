"""A way out for loops around libraries that may lose a cancellation.

In Python 3.11 ``asyncio.wait_for`` returns the result when it arrives together with the cancellation, which is then
forgotten; pymodbus and pysnmp use it. The task still knows that it was asked to end.
"""

from __future__ import annotations

import asyncio


def cancel_was_lost() -> bool:
    """True where the running task was cancelled and goes on all the same: the caller's loop has to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
