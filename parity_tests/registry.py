"""The stages of the plain model as the harness knows them, in reading order: cases, bound, how they are called."""

from __future__ import annotations

from parity_tests import bounds, strategies
from parity_tests.stage import Stage


def _composite(name: str, bound) -> Stage:
    return Stage(name, strategies.composite_cases(name), bound, kind="composite")


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in [
        Stage("linear", strategies.linear_cases(), bounds.linear),
        Stage("patch_embed", strategies.patch_embed_cases(), bounds.patch_embed),
        Stage("class_token", strategies.class_token_cases(), bounds.class_token),
        Stage("pos_embed", strategies.pos_embed_cases(), bounds.pos_embed),
        Stage("layer_norm", strategies.layer_norm_cases(), bounds.layer_norm),
        Stage("gelu", strategies.gelu_cases(), bounds.gelu),
        Stage("dropout", strategies.dropout_cases(), bounds.dropout),
        Stage("drop_path", strategies.drop_path_cases(), bounds.dropout),
        Stage("softmax", strategies.softmax_cases(), bounds.softmax),
        Stage("attention", strategies.attention_cases(), bounds.attention, batched=("q", "k", "v")),
        _composite("multi_head", bounds.multi_head),
        _composite("mlp", bounds.mlp),
        _composite("encoder_block", bounds.encoder_block),
        _composite("encoder", bounds.encoder),
        Stage("pool", strategies.pool_cases(), bounds.pool),
        _composite("head", bounds.head),
        Stage("cross_entropy", strategies.loss_cases(), bounds.cross_entropy, scalar=True),
        _composite("vit", bounds.vit),
    ]
}
