"""`python -m demo`: one small Vision Transformer trained by both engines at once, and a verdict on their difference."""
