"""One process: stores, broker, collector and web server, from start to a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
import uvicorn

from central.api.app import make_app
from central.errors import CentralError
from central.pages.app import install_pages
from central.paths import write_public
from central.service import CentralService
from config.central import Central, RegisteredSite

log = structlog.get_logger(__name__)

WEB_STOP_S = 1


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: the stores must outlive the last request."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to :func:`serve`."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise CentralError(f"port {port} on {host}: {error.strerror}; stop what uses it or change 'port'") from None
    return sock


async def serve(
    settings: Central,
    base: Path,
    *,
    version: str,
    ready_file: Path | None = None,
    reload_sites: Callable[[], tuple[RegisteredSite, ...]] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run central until SIGTERM, SIGINT or ``stop``.

    Args:
        base: folder that relative paths of the settings count from.
        ready_file: written with ``{api_url, broker_host, broker_port}`` when everything is up.
        reload_sites: asked on SIGHUP for the registered sites.

    Raises:
        CentralError: it cannot be started; nothing is left running.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if ready_file is not None:
        await asyncio.to_thread(ready_file.unlink, missing_ok=True)
    sock = _listen(settings.host, settings.port)
    service = CentralService(settings, base)
    try:
        await service.start()
        try:
            await _serve_web(service, sock, version, ready_file, reload_sites, stop)
        finally:
            await service.stop()
            log.info("central_stopped")
    finally:
        sock.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        if ready_file is not None:
            await asyncio.to_thread(ready_file.unlink, missing_ok=True)


async def _serve_web(
    service: CentralService,
    sock: socket.socket,
    version: str,
    ready_file: Path | None,
    reload_sites: Callable[[], tuple[RegisteredSite, ...]] | None,
    stop: asyncio.Event,
) -> None:
    app = make_app(service, version)
    install_pages(app, service)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=WEB_STOP_S, server_header=False
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[sock]), name="web")
    reloading = asyncio.create_task(_follow_sites(service, reload_sites), name="reload-sites")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await _until_started(server, running)
        connecting = asyncio.create_task(service.wait_connected(), name="connect")
        await asyncio.wait({connecting, stopping, running}, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done():
            connecting.result()
            host, port = sock.getsockname()[:2]
            broker_host, broker_port = service.broker_address
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            ready = {"api_url": url, "broker_host": broker_host, "broker_port": broker_port}
            if ready_file is not None:
                await asyncio.to_thread(write_public, ready_file, json.dumps(ready).encode() + b"\n")
            log.info("central_ready", **ready)
        else:
            connecting.cancel()
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (reloading, stopping):
            task.cancel()
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _until_started(server: uvicorn.Server, running: asyncio.Task[None]) -> None:
    while not server.started:
        if running.done():
            running.result()
            raise CentralError("the web server ended before it was started; its log says why")
        await asyncio.sleep(0.01)


async def _follow_sites(service: CentralService, reload_sites: Callable[[], tuple[RegisteredSite, ...]] | None) -> None:
    if reload_sites is None:
        return
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    try:
        while True:
            await asked.wait()
            asked.clear()
            try:
                await service.set_sites(await asyncio.to_thread(reload_sites))
            except Exception as error:  # a mistake in the file must not end a running central
                log.error("sites_not_reloaded", error=str(error)[:500])
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
