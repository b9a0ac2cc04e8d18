"""One MQTT 5 connection with manual acknowledgement, between paho's thread and the event loop.

Each connection has a paho client of its own: an acknowledgement goes to the client its message came from, so that a
message number of an earlier connection can never acknowledge another message in a later one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

log = structlog.get_logger(__name__)

RECEIVE_MAXIMUM = 200
KEEPALIVE_S = 20
CONNECT_TIMEOUT_S = 3.0
MAX_PENDING = 2000
"""Messages of QoS 0 beyond this are dropped and counted; QoS 1 is bounded by the receive maximum."""
MAX_OUTGOING = 5000
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Arrived:
    """One message as it came."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    mid: int
    client: Client
    received_ms: int


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is and how to reach it."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class MqttLink:
    """Keeps a connection up; gives arrived messages to ``on_message`` in the event loop."""

    def __init__(
        self,
        address: Callable[[], Address],
        subscriptions: Sequence[tuple[str, int]],
        on_message: Callable[[Arrived], None],
        on_up: Callable[[bool], None],
        now_ms: Callable[[], int],
    ) -> None:
        self.connections = 0
        self.dropped = 0
        self._address = address
        self._subscriptions = subscriptions
        self._on_message = on_message
        self._on_up = on_up
        self._now_ms = now_ms
        self._client_id = f"central.{secrets.token_hex(16)}"
        """Not guessable: whoever connects under the same id would throw this connection out."""
        self._pending: deque[Arrived] = deque()
        self._client: Client | None = None
        self._owner: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """True while subscribed."""
        return self._client is not None

    def start(self) -> None:
        """Begin to connect; the task is ended by :meth:`stop`."""
        self._owner = asyncio.create_task(self._run(), name="mqtt-link")

    async def stop(self) -> None:
        """Disconnect."""
        if self._owner is not None:
            self._owner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._owner
            self._owner = None

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> bool:
        """Hand a QoS 1 message to the connection; false where there is none or it is choked.

        What must arrive is sent again by its owner until it is answered: the client's queue is memory.
        """
        client = self._client
        if client is None:
            return False
        properties = _properties(PacketTypes.PUBLISH)
        if expiry_s is not None:
            properties.MessageExpiryInterval = max(1, expiry_s)
        result = client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        return bool(result.rc == MQTTErrorCode.MQTT_ERR_SUCCESS)

    @staticmethod
    def acknowledge(message: Arrived) -> None:
        """Tell the broker that a message is stored. Call in order of arrival."""
        if message.qos:
            message.client.ack(message.mid, message.qos)

    async def _run(self) -> None:
        tries = 0
        while True:
            began = time.monotonic()
            try:
                await self._connect_once()
            except (OSError, ValueError, TimeoutError) as error:
                log.warning("mqtt_connect_failed", error=str(error)[:200])
            if time.monotonic() - began > 30:
                tries = 0
            await asyncio.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)] * random.uniform(0.7, 1.3))
            tries += 1

    async def _connect_once(self) -> None:
        loop = asyncio.get_running_loop()
        ready, gone = asyncio.Event(), asyncio.Event()
        address = self._address()
        client = self._make_client(loop, ready, gone)
        if address.tls is not None:
            client.tls_set_context(address.tls)
        properties = _properties(PacketTypes.CONNECT)
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.SessionExpiryInterval = 0
        properties.MaximumPacketSize = 300_000
        try:
            await asyncio.to_thread(client.connect, address.host, address.port, KEEPALIVE_S, "", 0, True, properties)
            client.loop_start()
            await self._until(ready, gone)
            if gone.is_set():
                raise OSError("the broker closed the connection before it was subscribed")
            self._client = client
            self.connections += 1
            log.info("mqtt_up", host=address.host, port=address.port)
            self._on_up(True)
            await gone.wait()
        finally:
            was_up = self._client is client
            self._client = None
            if was_up:
                log.warning("mqtt_down")
                self._on_up(False)
            await asyncio.shield(asyncio.to_thread(_close, client))

    @staticmethod
    async def _until(ready: asyncio.Event, gone: asyncio.Event) -> None:
        waits = [asyncio.create_task(ready.wait()), asyncio.create_task(gone.wait())]
        try:
            done, _ = await asyncio.wait(waits, timeout=10.0, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise TimeoutError("no answer to CONNECT or SUBSCRIBE within 10 s")
        finally:
            for wait in waits:
                wait.cancel()

    def _make_client(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Event, gone: asyncio.Event) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.suppress_exceptions = True
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(100)
        client.max_queued_messages_set(MAX_OUTGOING)

        # These run in paho's thread: they enqueue and do nothing else. An exception would end that thread.
        def tell(callback: Callable[..., object], *args: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closing
                loop.call_soon_threadsafe(callback, *args)

        def on_connect(_client: Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
            if code.is_failure:
                log.error("mqtt_refused", reason=str(code))
                tell(gone.set)
                return
            _client.subscribe([(name, SubscribeOptions(qos=qos)) for name, qos in self._subscriptions])

        def on_subscribe(_client: Client, _data: Any, _mid: int, codes: Any, _properties: Any) -> None:
            if any(code.is_failure for code in codes):
                log.error("mqtt_subscribe_refused", reasons=[str(code) for code in codes])
                tell(gone.set)
            else:
                tell(ready.set)

        def on_disconnect(_client: Client, _data: Any, _flags: Any, _code: Any, _properties: Any) -> None:
            tell(gone.set)

        def on_message(_client: Client, _data: Any, message: MQTTMessage) -> None:
            if message.qos == 0 and len(self._pending) >= MAX_PENDING:
                self.dropped += 1
                return
            arrived = Arrived(
                message.topic, bytes(message.payload), message.qos, message.retain, message.mid, _client, self._now_ms()
            )
            self._pending.append(arrived)
            tell(self._drain)

        def on_socket_open(_client: Client, _data: Any, sock: Any) -> None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        client.on_connect = on_connect
        client.on_subscribe = on_subscribe
        client.on_disconnect = on_disconnect
        client.on_message = on_message
        client.on_socket_open = on_socket_open
        return client

    def _drain(self) -> None:
        while self._pending:
            self._on_message(self._pending.popleft())


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]  # paho ships types for most of itself, not for this


def _close(client: Client) -> None:
    client.disconnect()
    client.loop_stop()
