"""The child's program: reads requests, asks one machine each through ``pyasic``, answers. Ends with its input.

Started as ``python -m drivers.asic.foreign.child MEMORY_BYTES FILES CONCURRENCY``. Standard library and ``pyasic``
only. It has no command that changes a machine, and the library's own are taken away before it is used.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, BinaryIO

from drivers.asic.foreign import frames
from drivers.asic.foreign.guard import MACHINE, OutsideCall, end_with_parent, fence, limit

LIBRARY = "pyasic"
WRITES = (
    "fault_light_off",
    "fault_light_on",
    "reboot",
    "restart_backend",
    "resume_mining",
    "send_config",
    "set_power_limit",
    "stop_mining",
    "upgrade_firmware",
    "open_api",
)
"""Whatever of this the library's classes have is replaced by a refusal."""
MAX_DEADLINE_S = 120.0


class ReadOnly(RuntimeError):
    """Something tried to change a machine."""


def main(memory_bytes: int, files: int, concurrency: int) -> None:
    """Serve until the input ends."""
    # What the library prints must not get between the frames: it gets another descriptor, and standard output none.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    end_with_parent()
    limit(memory_bytes, files)
    fence()  # before the library is imported: nor may its import speak to anybody
    _find_no_libraries()
    try:
        library = import_module(LIBRARY)
    except ImportError as error:
        out.write(frames.pack({"missing": LIBRARY, "error": str(error)[:300]}))
        return
    asyncio.run(_serve(library, out, concurrency))


def _find_no_libraries() -> None:
    """A dependency looks for optional C libraries with a compiler and a temporary file; here it finds none."""
    import ctypes.util

    ctypes.util.find_library = lambda name: None  # noqa: ARG005 - the signature is the standard library's


async def _serve(library: Any, out: BinaryIO, concurrency: int) -> None:
    loop = asyncio.get_running_loop()
    requests = asyncio.StreamReader(limit=frames.MAX_FRAME)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin.buffer)
    take_writes_away(library)
    _send(out, {"hello": 1, "version": str(getattr(library, "__version__", "unknown"))[:40]})
    room = asyncio.Semaphore(concurrency)
    tasks: set[asyncio.Task[None]] = set()
    known: dict[str, Any] = {}
    with suppress(asyncio.IncompleteReadError):
        while True:
            size = frames.length(await requests.readexactly(frames.HEAD))
            request = frames.unpack(await requests.readexactly(size))
            task = loop.create_task(_answer(library, known, out, room, request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    # The parent is gone or wants no more: nobody waits for what is open.
    os._exit(0)


async def _answer(
    library: Any, known: dict[str, Any], out: BinaryIO, room: asyncio.Semaphore, request: dict[str, Any]
) -> None:
    number, host = request.get("id"), str(request.get("host"))
    deadline_s = min(float(request.get("deadline_s", 0)), MAX_DEADLINE_S)
    MACHINE.set(host)  # of this task and of what it starts
    try:
        async with asyncio.timeout(deadline_s), room:
            # Finding out what it is costs more than reading it: asked again only after a failure.
            miner = known.pop(host, None) or await library.get_miner(host)
            if miner is None:
                _send(out, {"id": number, "kind": "nobody", "error": "no machine that the library knows answers"})
                return
            data = await miner.get_data(exclude=["config", "fault_light", "hostname"])
        _send(out, {"id": number, "status": status_of(miner, data)})
        known[host] = miner
    except TimeoutError:
        _send(out, {"id": number, "kind": "timeout", "error": f"no status within {deadline_s:g} s"})
    except OutsideCall as error:
        _send(out, {"id": number, "kind": "outside", "error": str(error)[:300]})
    except (MemoryError, RecursionError):
        os._exit(3)  # nothing can be relied on any more; the parent starts another
    except Exception as error:  # whatever a foreign library raises is one machine's failure
        _send(out, {"id": number, "kind": "failed", "error": f"{type(error).__name__}: {error}"[:300]})


def _send(out: BinaryIO, message: dict[str, Any]) -> None:
    view = memoryview(frames.pack(message))
    while view:
        view = view[out.write(view) or 0 :]


def take_writes_away(library: Any) -> None:
    """Replace every method that changes a machine, in every class of the library that is loaded."""
    name = getattr(library, "__name__", LIBRARY)
    for module in [m for key, m in list(sys.modules.items()) if key == name or key.startswith(name + ".")]:
        for kind in [v for v in vars(module).values() if isinstance(v, type)]:
            for method in WRITES:
                if callable(vars(kind).get(method)):
                    with suppress(AttributeError, TypeError):
                        setattr(kind, method, _refuse(method))


def _refuse(method: str) -> Any:
    async def refused(*_: object, **__: object) -> None:
        raise ReadOnly(f"{method}: this process only reads")

    return refused


# Answers of the library as plain values ----------------------------------------------------------------------------


def status_of(miner: Any, data: Any) -> dict[str, Any]:
    """The library's data as plain JSON values; what it does not give is left out."""
    return {
        "kind": type(miner).__name__,
        "firmware_name": _text(_get(data, "firmware")),
        "model": _text(_get(data, "model")),
        "make": _text(_get(data, "make")),
        "firmware": _text(_get(data, "fw_ver")),
        "mac": _text(_get(data, "mac")),
        "serial": _text(_get(data, "serial_number")),
        "uptime_s": _number(_get(data, "uptime")),
        "mining": _get(data, "is_mining") if isinstance(_get(data, "is_mining"), bool) else None,
        "hashrate_ths": _ths(_get(data, "hashrate")),
        "expected_ths": _ths(_get(data, "expected_hashrate")),
        "power_w": _number(_get(data, "wattage")),
        "fans_rpm": [_number(_get(fan, "speed")) for fan in _list(_get(data, "fans"), 16)],
        "boards": [_board(board) for board in _list(_get(data, "hashboards"), 16)],
        "pools": [_pool(pool) for pool in _list(_get(data, "pools"), 8)],
        "errors": [_text(_get(error, "error_message")) for error in _list(_get(data, "errors"), 32)],
    }


def _board(board: Any) -> dict[str, Any]:
    return {
        "slot": _number(_get(board, "slot")),
        "hashrate_ths": _ths(_get(board, "hashrate")),
        "chips": _number(_get(board, "chips")),
        "temperature_c": [_number(_get(board, "chip_temp")), _number(_get(board, "temp"))],
        "missing": _get(board, "missing") if isinstance(_get(board, "missing"), bool) else None,
    }


def _pool(pool: Any) -> dict[str, Any]:
    url = _get(pool, "url")
    active = _get(pool, "active")
    return {
        "url": None if url is None else str(url)[:300],
        "user": _text(_get(pool, "user")),
        "active": active if isinstance(active, bool) else None,
        "accepted": _number(_get(pool, "accepted")),
        "rejected": _number(_get(pool, "rejected")),
    }


def _get(thing: Any, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:  # a computed field that fails is one value that is not given
        return None


def _list(value: Any, most: int) -> list[Any]:
    return list(value[:most]) if isinstance(value, list | tuple) else []


def _text(value: Any) -> str | None:
    return None if value is None else str(value)[:200]


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if value == value and abs(value) < 2**53 else None  # noqa: PLR0124 - not a number is unequal to itself


def _ths(value: Any) -> float | None:
    """A hash rate object of the library in TH/s, for algorithms counted in hashes; a plain number is TH/s already."""
    try:
        into = getattr(value, "into", None)
        found = float(value if into is None else into(value.unit.TH))
    except Exception:  # no hash rate, or of an algorithm without TH/s
        return None
    return found if found == found and 0 <= found < 2**53 else None  # noqa: PLR0124 - as above


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:4]))
