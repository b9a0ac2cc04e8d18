"""MQTT over TLS for the measuring side: one client, what it hears with the moment it was heard."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

WAIT_S = 15.0
Hear = Callable[[str, bytes, int], None]
"""(topic, bytes, monotonic ns when it was heard); called in the client's thread."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Where the broker is, and who we are there. Paths as text."""

    port: int
    ca: str
    cert: str
    key: str


@contextlib.contextmanager
def connected(who: Identity, topics: list[str], hear: Hear) -> Iterator[Client]:
    """A client that is connected and subscribed for as long as the block runs.

    Raises:
        TimeoutError: the broker did not answer, or did not take the subscriptions.
        OSError, ssl.SSLError: no connection.
    """
    ready = threading.Event()
    context = ssl.create_default_context(cafile=who.ca)
    context.load_cert_chain(who.cert, who.key)
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False)
    client.tls_set_context(context)
    client.max_inflight_messages_set(200)
    # As the agent does it; without, the floor would wait 40 ms for the other side's delayed acknowledgement.
    client.on_socket_open = lambda _client, _data, made: made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.on_connect = lambda made, *_: made.subscribe([(topic, 1) for topic in topics])
    client.on_subscribe = lambda *_: ready.set()

    def on_message(_client: Client, _data: Any, message: Any) -> None:
        hear(message.topic, message.payload, time.monotonic_ns())

    client.on_message = on_message
    client.connect("127.0.0.1", who.port, keepalive=30)
    client.loop_start()
    try:
        if not ready.wait(WAIT_S):
            raise TimeoutError("the broker did not take the subscriptions")
        yield client
    finally:
        client.disconnect()
        client.loop_stop()
