"""The encoder block of the parts' rungs `blocked`."""

from benchmarks.ladder.attention import blocked as attention
from benchmarks.ladder.compose import block
from benchmarks.ladder.gelu import blocked as gelu
from benchmarks.ladder.layer_norm import blocked as norm

encoder_block_forward, encoder_block_backward = block(norm, attention, gelu)
