"""The encoder block of the parts' rungs `in_place`."""

from benchmarks.ladder.attention import in_place as attention
from benchmarks.ladder.compose import block
from benchmarks.ladder.gelu import in_place as gelu
from benchmarks.ladder.layer_norm import in_place as norm

encoder_block_forward, encoder_block_backward = block(norm, attention, gelu)
