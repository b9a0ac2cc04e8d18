"""The contract between site, central, grid operator and regulator: vocabulary, topics, messages, orders, records.

Pure data and arithmetic. No sockets, no files, no clocks: who needs the time passes it in. Everything here is
documented for other implementers in ``docs/protocol.md``, with vectors in ``tests/vectors``.
"""
