"""What each engine costs: `python -m benchmarks --help`. No number without parity of what was timed."""
