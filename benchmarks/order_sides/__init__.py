"""Parts of :mod:`benchmarks.orders`: the plant, the dispatcher, the floor's peer and the watch over a fast fleet."""
