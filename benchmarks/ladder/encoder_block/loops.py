"""The encoder block of the parts' rungs `loops`."""

from benchmarks.ladder.attention import loops as attention
from benchmarks.ladder.compose import block
from benchmarks.ladder.gelu import loops as gelu
from benchmarks.ladder.layer_norm import loops as norm

encoder_block_forward, encoder_block_backward = block(norm, attention, gelu)
