"""The encoder block with tiled attention; norm and GELU in blocks."""

from benchmarks.ladder.attention import tiled
from benchmarks.ladder.compose import block
from benchmarks.ladder.gelu import blocked as gelu
from benchmarks.ladder.layer_norm import in_place as norm

encoder_block_forward, encoder_block_backward = block(norm, tiled, gelu)
