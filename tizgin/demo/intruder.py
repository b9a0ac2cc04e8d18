"""Somebody who has stolen the collector's certificate: can write to the broker, and can sign nothing.

``python -m tizgin.demo.intruder PLAN`` publishes files to topics, byte for byte. The plan is JSON:
``{"host", "port", "ca", "cert", "key", "messages": [{"topic", "file"}]}``. Exits 0 once the broker has taken them all.
Used to show what central's own resending and refusing would hide: that the *agent* knows a replay and an order that
comes too late.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

WAIT_S = 10.0


def publish(plan: dict[str, Any]) -> None:
    """Publish every message of the plan with QoS 1.

    Raises:
        TimeoutError: the broker did not take them.
        OSError, ssl.SSLError: no connection.
    """
    connected = threading.Event()
    context = ssl.create_default_context(cafile=plan["ca"])
    context.load_cert_chain(plan["cert"], plan["key"])
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False)
    client.tls_set_context(context)
    client.on_connect = lambda *_: connected.set()
    client.connect(str(plan["host"]), int(plan["port"]), keepalive=20)
    client.loop_start()
    try:
        if not connected.wait(WAIT_S):
            raise TimeoutError("the broker did not answer")
        for message in plan["messages"]:
            client.publish(message["topic"], Path(message["file"]).read_bytes().strip(), qos=1).wait_for_publish(WAIT_S)
    finally:
        client.disconnect()
        client.loop_stop()


def main() -> int:
    """Entry point."""
    publish(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
