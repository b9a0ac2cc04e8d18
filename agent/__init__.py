"""The on-site process: acquire → meter → record → curtail → send.

``assembly`` puts it together, ``app`` is its life; ``acquisition`` reads, ``metering`` closes slots, ``ledger`` and
``outbox`` make durable, ``curtailment`` carries out orders, ``uplink`` talks to central. Nothing here knows whether the
plant is simulated.
"""
