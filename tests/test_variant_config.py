"""Configurations of other people's models: the table of timm's names, config.json of Hugging Face, and bad input."""

import pytest

from vit_common import ConfigError, ViTConfig, param_spec
from vit_common.assembled_spec import assembled_spec
from vit_common.timm_names import timm_names


def test_every_name_of_the_table_is_a_model():
    assert len(timm_names()) == len(set(timm_names())) == 251
    for name in timm_names():
        config = ViTConfig.from_timm(name)
        assert ViTConfig.from_dict(config.to_dict()) == config
        assert param_spec(config)


def test_the_plain_model_has_the_same_parameters_either_way():
    config = ViTConfig.from_timm("vit_tiny_patch16_224")
    assert config.is_plain
    assert config == ViTConfig.preset("vit_tiny_patch16_224")
    assert assembled_spec(config) == param_spec(config)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: ViTConfig.from_timm("vit_base_patch16_225"), "did you mean 'vit_base_patch16_224'"),
    (lambda: ViTConfig.from_timm("vit_base_patch16_224", img_sise=32), "did you mean 'img_size'"),
    (lambda: ViTConfig.from_timm("vit_base_patch16_224", act_layer="mish"), "act_layer='mish' has no counterpart"),
    (lambda: ViTConfig.from_huggingface({"model_type": "vitt"}), "did you mean 'vit'"),
    (lambda: ViTConfig.from_huggingface({"model_type": "vit", "hidden_act": "gelu_"}), "did you mean 'gelu'"),
    (lambda: ViTConfig(norm="batch"), "norm='batch' is unknown"),
    (lambda: ViTConfig(qkv="fused", num_kv_heads=1), "needs qkv='split'"),
    (lambda: ViTConfig(num_kv_heads=(3, 1), qkv="split"), "one number, or 12"),
    (lambda: ViTConfig(dist_head=True), "needs dist_token=True"),
    (lambda: ViTConfig(rel_pos_bias="block", reg_tokens=1), "exactly one token before"),
    (lambda: ViTConfig(rope="axial", embed_dim=18, num_heads=3), "divisible by 4"),
    (lambda: ViTConfig(patch_drop_rate=1.0), "not a rate"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_bad_input_is_named_with_the_nearest_good_one(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_from_huggingface_follows_the_architecture():
    clip = {"model_type": "clip_vision_model", "projection_dim": 7, "architectures": ["CLIPVisionModelWithProjection"]}
    assert ViTConfig.from_huggingface(clip).num_classes == 7
    assert not ViTConfig.from_huggingface(clip).head_bias
    names = {"0": "a", "1": "b", "2": "c"}
    labels = {"model_type": "vit", "architectures": ["ViTForImageClassification"], "id2label": names}
    assert ViTConfig.from_huggingface(labels).num_classes == 3
    assert ViTConfig.from_huggingface({"model_type": "vit"}).num_classes == 0
    assert ViTConfig.from_huggingface({"model_type": "clip", "vision_config": {"hidden_size": 96}}).embed_dim == 96


def test_another_image_size_keeps_the_parameters():
    config = ViTConfig(image_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=1)
    larger = config.at_image_size((48, 40))
    assert larger.grid_size == (6, 5)
    assert {n: p.shape for n, p in param_spec(larger).items()} == {n: p.shape for n, p in param_spec(config).items()}
    assert larger.at_image_size(32).num_tokens == config.num_tokens
