"""Runs the desk on 127.0.0.1 until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from grid.client import CentralClient
from grid.desk.app import make_app
from grid.desk.desk import Desk
from grid.desk.security import Guard, Session
from grid.errors import GridError
from wire.keys import SigningKey
from wire.registry import KeysDocument

CENTRAL_TIMEOUT_S = 3.0


def run_desk(
    *,
    central: str,
    signer: SigningKey,
    key_file: Path,
    register: KeysDocument,
    port: int,
    now_ms: Callable[[], int],
    started: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM. ``started`` is given the address with its one-time token.

    Raises:
        GridError: the port is taken, or central's address is none.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with CentralClient(central, timeout_s=CENTRAL_TIMEOUT_S) as client, listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise GridError(f"port {port} on 127.0.0.1: {error.strerror or error}; choose another --port") from None
        listener.listen(64)
        bound = int(listener.getsockname()[1])
        session = Session()
        desk = Desk(client=client, signer=signer, key_file=key_file, register=register, now_ms=now_ms)
        app = Guard(make_app(desk, session), session, bound)
        started(f"http://127.0.0.1:{bound}/enter?token={session.token}")
        settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
        uvicorn.Server(settings).run(sockets=[listener])
