"""A link ends when it is told to, even where the library below it loses the cancellation."""

from __future__ import annotations

import asyncio

from drivers.cancellation import cancel_was_lost


async def test_a_loop_whose_library_swallowed_the_cancellation_still_ends() -> None:
    rounds = 0

    async def swallows() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return  # what wait_for of Python 3.11 does when the result comes at the same moment

    async def loop() -> None:
        nonlocal rounds
        while not cancel_was_lost():
            rounds += 1
            await swallows()

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({task})
    assert rounds == 1
