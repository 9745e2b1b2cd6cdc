"""The encoder block of the parts' rungs `vectorised`."""

from benchmarks.ladder.attention import vectorised as attention
from benchmarks.ladder.compose import block
from benchmarks.ladder.gelu import vectorised as gelu
from benchmarks.ladder.layer_norm import vectorised as norm

encoder_block_forward, encoder_block_backward = block(norm, attention, gelu)
