"""GELU, rung by rung: see `benchmarks.ladder`."""
