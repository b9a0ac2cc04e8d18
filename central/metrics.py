"""Counters and gauges of one central, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from central.live import LiveState, Presence


class Metrics:
    """What ``/metrics`` tells."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.messages = Counter("tizgin_messages", "MQTT messages taken, by topic", ["topic"], registry=own)
        self.records = Counter("tizgin_records", "Evidence records stored", ["result"], registry=own)
        self.batches = Counter("tizgin_batches", "Telemetry batches stored", ["result"], registry=own)
        self.quarantined = Counter("tizgin_quarantined", "Messages not taken, by reason", ["reason"], registry=own)
        self.forks = Counter("tizgin_forks", "Groups in which a site sent other bytes for a number", registry=own)
        self.wants = Counter("tizgin_wants", "Requests to send again", registry=own)
        self.unsent = Counter("tizgin_unsent", "Messages that found no connection", ["topic"], registry=own)
        self.store_errors = Counter("tizgin_store_errors", "Times a store was unavailable", registry=own)
        self.orders_sent = Counter("tizgin_orders_sent", "Order envelopes published, repeats included", registry=own)

    def render(self) -> bytes:
        """Text in the Prometheus exposition format."""
        return generate_latest(self.registry)


class LiveGauges(Collector):
    """Presence and age of live data per site, computed when asked."""

    def __init__(self, live: LiveState, now_ms: Callable[[], int]) -> None:
        self._live = live
        self._now_ms = now_ms

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Gauges of this moment; a site without live data has no power sample, rather than 0."""
        online = GaugeMetricFamily("tizgin_site_online", "1 while the site is connected", labels=["site"])
        age = GaugeMetricFamily("tizgin_site_live_age_seconds", "Age of the live power", labels=["site"])
        power = GaugeMetricFamily("tizgin_site_power_watts", "Net power, where known", labels=["site"])
        now = self._now_ms()
        for site in self._live.sites.values():
            presence = site.presence(broker_up=self._live.broker_up)
            online.add_metric([site.id], 1.0 if presence is Presence.ONLINE else 0.0)
            value = site.net(now)
            if value.age_ms is not None:
                age.add_metric([site.id], value.age_ms / 1000)
            if value.power_w is not None:
                power.add_metric([site.id], float(value.power_w))
        broker = GaugeMetricFamily("tizgin_broker_up", "1 while the collector is connected to the broker")
        broker.add_metric([], 1.0 if self._live.broker_up else 0.0)
        return [online, age, power, broker]
