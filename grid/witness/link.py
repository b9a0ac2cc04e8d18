"""The witness as a client of central's broker: it reads what it is asked and answers, under a certificate of its own.

The answer is what HTTP would have been answered. Who asks need not be believed: a checkpoint is signed by its log.
"""

from __future__ import annotations

import secrets
import sqlite3
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from grid.errors import GridError
from grid.witness.app import MAX_BODY, Witness
from wire.errors import BadNote
from wire.witness_link import Ask, Said, ask_topic, client_name, said_topic

log = structlog.get_logger(__name__)

KEEPALIVE_S = 20
MAX_WAITING = 100
"""Answers that wait for a connection; an older question is asked again."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where central's broker is, and the TLS identity to show it."""

    url: str
    ca_file: Path
    cert_file: Path
    key_file: Path

    def host_port(self) -> tuple[str, int]:
        """Host and port.

        Raises:
            GridError: it is not ``mqtts://host:port``.
        """
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if host is None or parts.scheme != "mqtts":
            raise GridError(f"broker {self.url!r}: expected mqtts://host:port; a witness speaks only over TLS")
        return host, port or 8883

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer, both sides with certificates, the host's name checked.

        Raises:
            GridError: a file is missing or of no use.
        """
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(self.ca_file))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            files = f"{self.ca_file}, {self.cert_file}, {self.key_file}"
            raise GridError(f"TLS files {files}: {error}; 'tizgin central enroll-witness' issues them") from None
        return context


def answer(witness: Witness, raw: bytes) -> Said | None:
    """What is said to a question; ``None`` where it has no identifier to answer to."""
    try:
        ask = Ask.parse(raw)
    except BadNote as error:
        log.warning("question_not_understood", error=str(error))
        return None
    if len(ask.body) > MAX_BODY:
        return Said(ask.id, 413, f"at most {MAX_BODY} bytes\n")
    try:
        status, _, text = witness.add(ask.body)
    except sqlite3.Error as error:
        log.error("not_kept", error=str(error))
        return Said(ask.id, 503, "the witness cannot keep what it would sign; try again later\n")
    return Said(ask.id, status, text)


class BrokerLink:
    """One connection that keeps itself up, in paho's own thread. Owner: who calls :meth:`start` and :meth:`stop`."""

    def __init__(self, witness: Witness, broker: Broker) -> None:
        self._witness = witness
        self._host, self._port = broker.host_port()
        name = client_name(witness.public)
        self._ask, self._said = ask_topic(name), said_topic(name)
        # Not guessable: whoever connects under the same id would throw this connection out.
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{name}.{secrets.token_hex(16)}",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        client.tls_set_context(broker.context())
        client.suppress_exceptions = True
        client.max_queued_messages_set(MAX_WAITING)
        client.reconnect_delay_set(1, 30)
        client.on_connect = self._connected
        client.on_connect_fail = self._failed
        client.on_disconnect = self._disconnected
        client.on_message = self._asked
        self._client = client

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._client.connect_async(self._host, self._port, KEEPALIVE_S)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    # These run in paho's thread.

    def _connected(self, client: paho.Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            log.error("broker_refused", reason=str(code))
            return
        client.subscribe(self._ask, qos=1)
        log.info("broker_connected", host=self._host, port=self._port)

    def _failed(self, _client: paho.Client, _data: Any) -> None:
        log.warning("broker_not_reached", host=self._host, port=self._port)

    def _disconnected(self, _client: paho.Client, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        log.warning("broker_disconnected", reason=str(code))

    def _asked(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        said = answer(self._witness, bytes(message.payload))
        if said is None:
            return
        if client.publish(self._said, said.encode(), qos=0).rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            log.warning("answer_not_sent")
