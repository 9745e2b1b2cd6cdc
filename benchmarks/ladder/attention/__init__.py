"""Attention, rung by rung: see `benchmarks.ladder`."""
