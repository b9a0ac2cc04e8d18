"""One MQTT connection: paho in its own thread, bridged into the event loop.

Callbacks of paho hand over and return; they hold no lock of ours and never raise. ``publish`` resolves when the broker
acknowledged, or fails when the connection is lost: who published decides again from disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message that came down."""

    topic: str
    payload: bytes
    retained: bool


class NotConnected(Exception):
    """The broker did not acknowledge: nothing is known about delivery."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker is, and the TLS identity to show it."""

    url: str
    ca_file: str
    cert_file: str
    key_file: str

    def host_port(self) -> tuple[str, int]:
        """Host and port of an ``mqtts://`` URL.

        Raises:
            ValueError: another scheme; evidence never travels in clear.
        """
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme != "mqtts" or not parts.hostname:
            raise ValueError(f"broker {self.url!r}: expected mqtts://host:port")
        return parts.hostname, parts.port or 8883

    def context(self) -> ssl.SSLContext:
        """Mutual TLS 1.2+, host name checked."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert_file, self.key_file)
        return context


def why_not(error: BaseException | None, ca_file: str) -> str:
    """Why there is no connection, in words for the person who can change it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the broker's certificate is not trusted: {error.verify_message}; expected one that {ca_file} vouches for"
        )
    if isinstance(error, ssl.SSLError):
        return f"the broker did not agree on TLS: {error.reason}; check port, ca_file and cert_file"
    return f"the broker cannot be reached: {error or 'no reason given'}"


class MqttLink:
    """A connection that keeps itself up. Owner: who calls :meth:`start` and :meth:`stop`."""

    def __init__(
        self,
        endpoint: Endpoint,
        client_id: str,
        *,
        subscribe: tuple[str, ...] = (),
        will: tuple[str, bytes] | None = None,
        on_message: Callable[[Inbound], None] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._subscribe = subscribe
        self._on_message = on_message
        self._loop: asyncio.AbstractEventLoop | None = None
        self._acks: dict[int, asyncio.Future[None]] = {}
        self._early: set[int] = set()
        self.connected = asyncio.Event()
        self.connects = 0
        self.last_error: str | None = None
        self._client_id = client_id
        self._will = will
        self._client = self._make_client()

    def _make_client(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=self._client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.suppress_exceptions = True
        client.max_inflight_messages_set(100)
        client.reconnect_delay_set(1, 30)
        if self._will is not None:
            client.will_set(self._will[0], self._will[1], qos=1, retain=True)
        client.on_connect = self._connected_cb
        client.on_disconnect = self._disconnected_cb
        client.on_connect_fail = self._failed_cb
        client.on_message = self._message_cb
        client.on_publish = self._published_cb
        client.on_socket_open = self._socket_cb
        return client

    async def start(self) -> None:
        """Begin connecting; returns at once.

        Raises:
            OSError, ssl.SSLError: the TLS files cannot be used; the message names them.
        """
        self._loop = asyncio.get_running_loop()
        self._client.tls_set_context(self._context(self._endpoint))
        await asyncio.sleep(random.uniform(0, 0.2))
        self._begin()

    @staticmethod
    def _context(endpoint: Endpoint) -> ssl.SSLContext:
        try:
            return endpoint.context()
        except (OSError, ssl.SSLError) as error:
            raise OSError(
                f"TLS files {endpoint.ca_file}, {endpoint.cert_file}, {endpoint.key_file} cannot be used: {error}"
            ) from error

    def _begin(self) -> None:
        host, port = self._endpoint.host_port()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho ships no types for it
        properties.SessionExpiryInterval = 0
        properties.ReceiveMaximum = 200
        self._client.connect_async(host, port, keepalive=20, clean_start=True, properties=properties)
        self._client.loop_start()

    async def use(self, endpoint: Endpoint) -> None:
        """Connect anew with another TLS identity; returns at once. What was in flight fails, and is sent again.

        Raises:
            OSError, ssl.SSLError: its files cannot be used; the connection stays as it is.
        """
        context = self._context(endpoint)
        old, self._client, self._endpoint = self._client, self._make_client(), endpoint
        self._client.tls_set_context(context)
        await asyncio.to_thread(self._end, old)
        self._lost("another certificate is used")
        self.last_error = None
        self._begin()

    async def stop(self, farewell: tuple[str, bytes] | None = None) -> None:
        """Say good-bye and end the thread."""
        if farewell is not None and self.connected.is_set():
            with contextlib.suppress(NotConnected, TimeoutError):
                await asyncio.wait_for(self.publish(farewell[0], farewell[1], retain=True), 1.0)
        await asyncio.to_thread(self._end, self._client)

    @staticmethod
    def _end(client: paho.Client) -> None:
        client.disconnect()
        client.loop_stop()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Publish and wait for the broker's acknowledgement (QoS 1) or for nothing (QoS 0).

        Raises:
            NotConnected: no connection, or it was lost before the acknowledgement.
        """
        if not self.connected.is_set():
            raise NotConnected(topic)
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise NotConnected(f"{topic}: {paho.error_string(info.rc)}")
        if qos == 0 or info.mid in self._early:
            self._early.discard(info.mid)
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._acks[info.mid] = future
        try:
            async with asyncio.timeout(30):
                await future
        except TimeoutError:
            raise NotConnected(f"{topic}: no acknowledgement within 30 s") from None
        finally:
            self._acks.pop(info.mid, None)

    # callbacks of paho's thread ------------------------------------------------------------------------------------

    def _hand(self, work: Callable[..., None], *args: Any) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(work, *args)

    def _hand_of(self, client: paho.Client, work: Callable[..., None], *args: Any) -> None:
        """As :meth:`_hand`; of a client that was given up nothing is heard: its numbers now mean other messages."""

        def of_this() -> None:
            if client is self._client:
                work(*args)

        self._hand(of_this)

    def _socket_cb(self, _client: paho.Client, _userdata: Any, sock: Any) -> None:
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _connected_cb(self, client: paho.Client, _u: Any, _flags: Any, reason: Any, _props: Any) -> None:
        if reason.is_failure:
            self._hand_of(client, self._note_error, f"broker refused: {reason}")
            return
        for topic in self._subscribe:
            client.subscribe(topic, qos=1)
        self._hand_of(client, self._up)

    def _disconnected_cb(self, client: paho.Client, _u: Any, _flags: Any, reason: Any, _props: Any) -> None:
        self._hand_of(client, self._down, str(reason))

    def _failed_cb(self, client: paho.Client, _u: Any) -> None:
        # paho calls this from where it caught the error, and tells it in no other way.
        self._hand_of(client, self._note_error, why_not(sys.exc_info()[1], self._endpoint.ca_file))

    def _message_cb(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        self._hand(self._deliver, Inbound(message.topic, bytes(message.payload), bool(message.retain)))

    def _published_cb(self, client: paho.Client, _u: Any, mid: int, _reason: Any, _props: Any) -> None:
        self._hand_of(client, self._acked, mid)

    # in the event loop ---------------------------------------------------------------------------------------------

    def _up(self) -> None:
        self.connects += 1
        self.last_error = None
        self._early.clear()
        self.connected.set()
        log.info("mqtt_connected", broker=self._endpoint.url)

    def _down(self, reason: str) -> None:
        if self.connected.is_set():
            log.warning("mqtt_disconnected", broker=self._endpoint.url, reason=reason)
            self.last_error = reason
        else:
            self._note_error(
                f"the broker closed the connection before it accepted this site ({reason}); "
                f"was {self._endpoint.cert_file} issued by its authority, and is it still valid?"
            )
        self._lost(reason)

    def _lost(self, reason: str) -> None:
        self.connected.clear()
        for future in self._acks.values():
            if not future.done():
                future.set_exception(NotConnected(reason))
        self._early.clear()

    def _note_error(self, text: str) -> None:
        if text != self.last_error:
            log.warning("mqtt_cannot_connect", broker=self._endpoint.url, error=text)
        self.last_error = text

    def _acked(self, mid: int) -> None:
        future = self._acks.get(mid)
        if future is None:
            self._early.add(mid)
        elif not future.done():
            future.set_result(None)

    def _deliver(self, message: Inbound) -> None:
        if self._on_message is not None:
            try:
                self._on_message(message)
            except Exception:  # a hostile message must never end delivery of the others
                log.exception("mqtt_message_failed", topic=message.topic)
