"""Proof that the two engines are the same function with the same gradients, and that the proof could have failed."""
