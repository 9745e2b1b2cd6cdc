"""The encoder block, rung by rung: see `benchmarks.ladder`."""
