"""Configurations of other people's models: the table of timm's names, config.json of Hugging Face, and bad input."""

import pytest

from vit_common import ConfigError, ViTConfig, param_spec
from vit_common.assembled_spec import assembled_spec
from vit_common.mae_config import MaeConfig, mae_spec
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
    (lambda: ViTConfig(patch_drop_rate=1.0), "must be a rate, 0 <= rate < 1"),
    (lambda: ViTConfig(attention="diff", rope="axial"), "does not go with differential attention"),
    (lambda: ViTConfig(qkv_bias="kv"), "needs qkv='split'"),
    (lambda: ViTConfig(pool="cls_dist"), "needs dist_token=True"),
    (lambda: ViTConfig(rope="multimodal", rope_section=(1, 2)), "three numbers"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_bad_input_is_named_with_the_nearest_good_one(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_from_huggingface_follows_the_architecture():
    clip = {"model_type": "clip_vision_model", "projection_dim": 7, "architectures": ["CLIPVisionModelWithProjection"]}
    assert ViTConfig.from_huggingface(clip).num_classes == 7
    assert not ViTConfig.from_huggingface(clip).head_bias
    both = {"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": 7}
    assert ViTConfig.from_huggingface({**both, "vision_config": {"projection_dim": 512}}).num_classes == 7
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


TIMM = {"vit": "vit_base_patch16_224", "deit": "deit_tiny_distilled_patch16_224", "eva": "eva02_tiny_patch14_224"}


@pytest.mark.parametrize(("family", "arguments", "fields"), [
    ("vit", {"global_pool": ""}, {"pool": "none"}), ("vit", {"global_pool": "prr"}, {"pool": "refined"}),
    ("vit", {"embed_norm_layer": "rmsnorm", "norm_layer": "layernorm_1e-5"}, {"patch_norm_eps": 1e-6}),
    ("vit", {"norm_layer": "layernormfp32"}, {"norm": "layer", "norm_eps": 1e-6}),
    ("vit", {"dynamic_img_size": True, "dynamic_img_pad": True, "img_size": 70},
     {"dynamic_image_size": True, "patch_pad": True, "pos_grid": (4, 4), "grid_size": (5, 5)}),
    ("vit", {"pos_embed": "none", "pos_drop_rate": 0.1}, {"pos_drop_rate": 0.0}),
    ("vit", {"init_values": None, "fc_norm": None}, {"layer_scale": None}),
    ("deit", {"num_classes": 0, "pos_embed": "none", "pos_drop_rate": 0.1},
     {"pool": "cls_dist", "pos_embed": "learned", "dist_head": False, "pos_drop_rate": 0.1}),
    ("eva", {"global_pool": "map", "swiglu_align_to": 8}, {"attn_pool_activation": "gelu", "activation": "silu"}),
    ("eva", {"rope_type": "mixed", "rope_grid_offset": 1.0}, {"rope": "mixed", "rope_grid_offset": 0.0}),
    ("eva", {"rope_type": "mrope", "rope_mrope_section": (2, 3, 3)},
     {"rope": "multimodal", "rope_half": True, "rope_section": (2, 3, 3)}),
], ids=str)  # fmt: skip
def test_what_timms_arguments_mean(family, arguments, fields):
    config = ViTConfig.from_timm(TIMM[family], **arguments)
    assert {name: getattr(config, name) for name in fields} == fields
    assert ViTConfig.from_dict(config.to_dict()) == config


def test_what_timms_distilled_class_never_reads():
    for argument in ({"reg_tokens": 2}, {"fc_norm": True}):
        with pytest.raises(ConfigError, match="stores reg_tokens and fc_norm, but never reads them"):
            ViTConfig.from_timm(TIMM["deit"], **argument)


@pytest.mark.parametrize(("values", "fields"), [
    ({"model_type": "vit", "head_dim": 16}, {"attn_head_dim": 16, "pos_resize": "huggingface_bicubic"}),
    ({"model_type": "vit", "image_size": 35, "patch_size": 8}, {"patch_crop": True, "grid_size": (4, 4)}),
    ({"model_type": "dinov2_with_registers"}, {"pos_resize": "timm_bicubic", "dynamic_image_size": True}),
    ({"model_type": "beit"}, {"table_resize": "huggingface_bilinear", "dynamic_image_size": True}),
    ({"model_type": "dinov3_vit", "value_bias": False}, {"qkv_bias": "q", "qkv": "split"}),
    ({"model_type": "dinov3_vit", "query_bias": False, "key_bias": True}, {"qkv_bias": "kv", "qkv": "split"}),
    ({"model_type": "dinov3_vit", "key_bias": True}, {"qkv_bias": "all", "qkv": "fused"}),
], ids=str)  # fmt: skip
def test_what_hugging_faces_fields_mean(values, fields):
    config = ViTConfig.from_huggingface(values)
    assert {name: getattr(config, name) for name in fields} == fields
    assert config.is_plain == (values == {"model_type": "vit"})


def test_how_positions_would_be_resized_makes_no_variant_of_a_plain_model():
    config = ViTConfig.from_huggingface({"model_type": "vit"})
    assert config.is_plain
    assert not config.at_image_size(384).is_plain


def test_the_decoder_of_a_masked_autoencoder_is_of_its_encoders_kind():
    values = {"model_type": "vit_mae", "hidden_act": "relu", "qkv_bias": False, "image_size": 32, "patch_size": 8,
              "decoder_hidden_size": 24, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1,
              "decoder_intermediate_size": 50}  # fmt: skip
    config = MaeConfig.from_huggingface(values)
    assert (config.decoder.activation, config.decoder.qkv_bias, config.decoder.mlp_dim) == ("relu", "none", 50)
    assert "decoder_blocks.0.attn.qkv.bias" not in mae_spec(config)
    for hidden in range(1, 400):
        assert MaeConfig.from_huggingface({**values, "decoder_intermediate_size": hidden}).decoder.mlp_dim == hidden
