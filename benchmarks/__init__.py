"""Measurements that README quotes: ``python -m benchmarks.NAME --json``, ``--quick`` for at most 90 s.

Each prints one JSON object ``{"name", "machine", "ours", "peers", "floor", "ratios"}``. A field that was not measured
is left out. The product's own code is measured as it runs; nothing here is imported by the product.
"""
