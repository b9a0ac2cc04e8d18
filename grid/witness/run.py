"""Runs the witness until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from grid.errors import GridError
from grid.witness.app import Witness, make_app
from grid.witness.link import BrokerLink


def run_witness(
    witness: Witness, *, host: str, port: int, started: Callable[[str], None], link: BrokerLink | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, over HTTP and, with a link, over central's broker.

    ``started`` is given the address.

    Raises:
        GridError: the address cannot be listened on.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise GridError(f"port {port} on {host}: {error.strerror or error}; choose another --port") from None
        listener.listen(64)
        started(f"http://{host}:{listener.getsockname()[1]}")
        settings = uvicorn.Config(
            make_app(witness), log_level="warning", access_log=False, server_header=False, lifespan="off"
        )
        if link is not None:
            link.start()
        try:
            uvicorn.Server(settings).run(sockets=[listener])
        finally:
            if link is not None:
                link.stop()
