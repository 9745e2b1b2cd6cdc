"""LayerNorm, rung by rung: see `benchmarks.ladder`."""
