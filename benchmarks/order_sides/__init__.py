"""Parts of :mod:`benchmarks.orders`: the plant, the dispatcher, what is measured, and the floor's peer."""
