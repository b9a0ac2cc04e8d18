"""From the site file to running drivers, and from drivers to live state. One worker per link, one poller per fleet."""

from agent.acquisition.bench import Bench, build

__all__ = ["Bench", "build"]
