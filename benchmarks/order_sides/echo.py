"""The floor's peer, a process of its own: the least that any signed and durable answer to an order over MQTT takes.

``python -m benchmarks.order_sides.echo PLAN`` reads orders from one topic, verifies one Ed25519 signature over them,
commits two records of the agent's sizes with ``synchronous=FULL``, and publishes an answer of the agent's size that
begins with the order's number. No judging, no chain, no engine, nothing polled. Prints ``ready``; ends with its input.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import sys
import threading
from pathlib import Path

from benchmarks.order_sides.broker import Identity, connected
from wire.dsse import ORDER_TYPE, open_envelope, pae
from wire.keys import SigningKey, VerifyKey

NUMBER_BYTES = 8


def main() -> int:
    """Entry point."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    dispatcher = VerifyKey.from_text(plan["dispatcher"])
    own = SigningKey.generate()
    rx, answer = plan["rx_bytes"], plan["answer_bytes"]
    heard: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with connected(
        Identity(**plan["broker"]), [plan["order_topic"]], lambda _topic, raw, _at: heard.put(raw)
    ) as client:
        db = sqlite3.connect(plan["database"], isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE record (n INTEGER PRIMARY KEY, payload BLOB, sig BLOB)")

        def end() -> None:
            sys.stdin.read()
            heard.put(None)

        threading.Thread(target=end, daemon=True).start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while (raw := heard.get()) is not None:
            number, body = raw[:NUMBER_BYTES], raw[NUMBER_BYTES:]
            envelope = open_envelope(body, expected_type=ORDER_TYPE)
            if not dispatcher.verifies(pae(envelope.payload_type, envelope.payload), envelope.signatures[0][1]):
                raise RuntimeError("the floor's order does not verify")
            records = [body[:rx].ljust(rx, b"r"), b"a" * answer]
            db.execute("BEGIN IMMEDIATE")
            for record in records:
                db.execute("INSERT INTO record (payload, sig) VALUES (?, ?)", (record, own.sign(record)))
            db.execute("COMMIT")
            client.publish(plan["answer_topic"], number + records[1], qos=1)
        db.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
