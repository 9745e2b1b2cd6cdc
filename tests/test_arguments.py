"""Every library's own constructor arguments beside a file of its tensors: understood, held against them, or refused."""

import numpy as np
import pytest

from tests.test_layouts import CLIP, DINO2, GOOGLE, LUCID, NO_CLASS, POOLED, random_tensors
from vit_common import CheckpointError, ViTConfig, load_checkpoint
from vit_common.layouts import LAYOUTS, export_layout
from vit_common.layouts.arguments import Arguments
from vit_common.mae_config import MaeConfig, mae_spec

SIZES = {"image_size": (8, 12), "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 5}
ENCODER = {"mlp_dim": 48, "num_heads": 3, "num_layers": 2, "dropout_rate": 0.0, "attention_dropout_rate": 0.0}
GOOGLE_ARGS = {"patches": {"size": (4, 4)}, "hidden_size": 12, "transformer": ENCODER, "num_classes": 5,
               "image_size": (8, 12)}  # fmt: skip
BIG_ARGS = {"patch_size": (4, 4), "width": 12, "depth": 2, "mlp_dim": 48, "num_heads": 3, "num_classes": 5}
LUCID_ARGS = {"image_size": (8, 12), "patch_size": 4, "num_classes": 5, "dim": 12, "depth": 2, "heads": 3,
              "mlp_dim": 48, "dim_head": 4}  # fmt: skip
CLIP_ARGS = {"image_size": (8, 12), "patch_size": 4, "width": 12, "layers": 2, "heads": 3, "mlp_ratio": 4.0,
             "output_dim": 5}  # fmt: skip
OPEN_CLIP = CLIP | {"norm_eps": 1e-5, "head_bias": False}
TIMM_ARGS = {"img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 5, "embed_dim": 12, "depth": 2,
             "num_heads": 3, "mlp_ratio": 4.0, "qkv_bias": True}  # fmt: skip
TUTORIAL = {"attn_proj": False, "final_norm": False, "head_softmax": True, "norm_eps": 1e-5, "pos_embed": "sincos_1d"}

# layout, what its user gives, what it means: fields beyond SIZES
UNDERSTOOD = [
    ("google", {**GOOGLE_ARGS, "classifier": "token", "representation_size": None}, GOOGLE),
    ("google", {**GOOGLE_ARGS, "classifier": "gap", "representation_size": 7}, GOOGLE | NO_CLASS | {"pre_logits": 7}),
    ("google", {**GOOGLE_ARGS, "classifier": "unpooled"}, GOOGLE | NO_CLASS | {"pool": "none"}),
    ("google", {**GOOGLE_ARGS, "classifier": "token_unpooled"}, GOOGLE | {"pool": "none"}),
    ("big_vision", {**BIG_ARGS, "pool_type": "none", "image_size": (8, 12)}, GOOGLE | NO_CLASS | {"pool": "none"}),
    ("open_clip", {**CLIP_ARGS, "pool_type": "none"}, OPEN_CLIP | {"pool": "none"}),
    ("google_linen", {"dim": 12, "depth": 2, "heads": 3, "mlp": 48, "patch": 4, "img": (8, 12), "num_classes": 5},
     GOOGLE),
    ("big_vision", {**BIG_ARGS, "pool_type": "gap", "image_size": (8, 12)}, GOOGLE | NO_CLASS),
    ("big_vision", {**BIG_ARGS, "posemb": "sincos2d", "image_size": (8, 12)},
     GOOGLE | NO_CLASS | {"pos_embed": "sincos_2d_inclusive"}),
    ("big_vision", {**BIG_ARGS, "pool_type": "map", "rep_size": True, "image_size": (8, 12)},
     GOOGLE | {"class_token": False, "pool": "map", "pre_logits": 12}),
    ("big_vision", {**BIG_ARGS, "pool_type": "tok", "image_size": (8, 12), "mlp_dim": None, "dropout": 0.0},
     GOOGLE | {"pos_embed_prefix": False}),
    ("big_vision_scan", {**BIG_ARGS, "scan": True, "image_size": (8, 12)}, GOOGLE | NO_CLASS),
    ("torchvision", {"image_size": (8, 12), "patch_size": 4, "num_layers": 2, "num_heads": 3, "hidden_dim": 12,
                     "mlp_dim": 48, "num_classes": 5, "representation_size": 9, "dropout": 0.0}, {"pre_logits": 9}),
    ("open_clip", CLIP_ARGS, OPEN_CLIP),
    ("open_clip", {**CLIP_ARGS, "act_layer": "QuickGELU", "pool_type": "avg", "final_ln_after_pool": True},
     OPEN_CLIP | POOLED | {"activation": "quick_gelu"}),
    ("open_clip", {**CLIP_ARGS, "qk_norm": True, "scale_fc": True, "scale_attn_inner": True, "ls_init_value": 1e-5},
     OPEN_CLIP | DINO2 | {"qk_norm": True, "mlp_norm": True, "attn_norm": True}),
    ("open_clip", {**CLIP_ARGS, "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-6},
                   "patch_dropout": 0.5}, OPEN_CLIP | {"activation": "gelu_tanh", "norm_eps": 1e-6,
                                                       "patch_drop_rate": 0.5}),
    ("open_clip", {"input_resolution": (8, 12), "patch_size": 4, "width": 12, "layers": 2, "heads": 3, "output_dim": 5},
     OPEN_CLIP | {"activation": "quick_gelu"}),
    ("lucidrains", LUCID_ARGS, LUCID),
    ("lucidrains", {**LUCID_ARGS, "pool": "mean", "dropout": 0.1, "emb_dropout": 0.2},
     LUCID | NO_CLASS | {"attn_drop_rate": 0.1, "proj_drop_rate": 0.1, "pos_drop_rate": 0.2}),
    ("simple_vit", LUCID_ARGS, LUCID | NO_CLASS | {"pos_embed": "sincos_2d_inclusive", "proj_bias": False}),
    ("mae", {**TIMM_ARGS, "global_pool": True}, POOLED),
    ("dino", {**TIMM_ARGS, "qk_scale": None, "drop_path_rate": 0.1}, {"drop_path_rate": 0.1}),
    ("dinov2", {**TIMM_ARGS, "num_register_tokens": 2, "block_chunks": 0, "ffn_layer": "mlp", "init_values": 1.0},
     DINO2 | {"reg_tokens": 2, "pos_embed_registers": False}),
    ("timm", {**TIMM_ARGS, "global_pool": "token", "norm_layer": "LayerNorm(eps=1e-05)", "act_layer": "quick_gelu"},
     {"norm_eps": 1e-5, "activation": "quick_gelu"}),
    ("tutorial", {"chw": (3, 8, 12), "n_patches": 2, "n_blocks": 2, "hidden_d": 12, "n_heads": 3, "out_d": 5},
     TUTORIAL | {"patch_size": (4, 6)}),
]  # fmt: skip


def written(folder, layout: str, config: ViTConfig):
    np.savez(folder / "w.npz", **export_layout(random_tensors(config, 0), config, layout))
    return folder / "w.npz"


@pytest.mark.parametrize(("layout", "given", "fields"), UNDERSTOOD)
def test_a_librarys_arguments_give_the_configuration(tmp_path, layout, given, fields):
    config = ViTConfig(**{**SIZES, **fields})
    assert load_checkpoint(written(tmp_path, layout, config), layout=layout, config=given)[0] == config


def test_every_library_with_arguments_of_its_own_is_tried():
    own = {layout.name for layout in LAYOUTS.values() if layout.arguments is not dict}
    assert own == {layout for layout, *_ in UNDERSTOOD}


@pytest.mark.parametrize(("layout", "given", "fields", "message"), [
    ("lucidrains", {**LUCID_ARGS, "mlp_dim": 44}, LUCID, "mlp_dim=44 contradicts the tensors, which have 48"),
    ("lucidrains", {**LUCID_ARGS, "dim_head": 64}, LUCID, "head_dim=64 contradicts the tensors, which have 4"),
    ("lucidrains", {**LUCID_ARGS, "depth": 3}, LUCID, "missing: transformer.layers.2.0"),
    ("torchvision", {"num_layers": 2, "num_heads": 3, "hidden_dim": 24, "image_size": (8, 12)}, {},
     "has shape .* but the given configuration expects"),
    ("lucidrains", {**LUCID_ARGS, "dim_heads": 4}, LUCID, "vit-pytorch's argument 'dim_heads' has .* mean 'dim_head'"),
    ("open_clip", {**CLIP_ARGS, "attentional_pool": True}, OPEN_CLIP, "attentional_pool=True has no counterpart"),
    ("open_clip", {**CLIP_ARGS, "scale_heads": True}, OPEN_CLIP, "scale_heads=True has no counterpart here"),
    ("open_clip", {**CLIP_ARGS, "pool_type": "max"}, OPEN_CLIP, "pool_type='max' has no counterpart .* 'tok', 'avg'"),
    ("open_clip", {**CLIP_ARGS, "act_layer": "Mish"}, OPEN_CLIP, "the activation 'Mish' is unknown"),
    ("open_clip", {**CLIP_ARGS, "image_size": "8x12"}, OPEN_CLIP, "image_size='8x12' is not understood"),
    ("google", {**GOOGLE_ARGS, "classifier": "last"}, GOOGLE, "classifier='last' has no counterpart here"),
    ("google", {**GOOGLE_ARGS, "classifier": "unpooled"}, GOOGLE, "1 not part of the model: cls "),
    ("big_vision", {**BIG_ARGS, "pool_type": "last"}, GOOGLE | NO_CLASS, "pool_type='last' has no counterpart here"),
    ("big_vision", BIG_ARGS, GOOGLE | NO_CLASS | {"pos_embed": "sincos_2d_inclusive"}, "image_size cannot be told"),
    ("mae", {**TIMM_ARGS, "decoder_depth": 2, "decoder_num_heads": 2}, {}, "mae checkpoint has no decoder"),
    ("dinov2", {**TIMM_ARGS, "ffn_layer": "identity"}, DINO2, "ffn_layer='identity' has no counterpart here"),
])  # fmt: skip
def test_what_contradicts_the_tensors_or_is_not_built_is_an_error(tmp_path, layout, given, fields, message):
    path = written(tmp_path, layout, ViTConfig(**{**SIZES, **fields}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path, layout=layout, config=given)


@pytest.mark.parametrize("layout", ["google", "big_vision", "open_clip", "dino"])
def test_pixels_past_the_last_whole_patch_are_left_out(tmp_path, layout):
    """As these programs' convolutions do; others divide their images evenly or not at all."""
    fields = {"google": GOOGLE, "big_vision": GOOGLE | NO_CLASS, "open_clip": OPEN_CLIP, "dino": {}}[layout]
    config = ViTConfig(**{**SIZES, **fields})
    given = {"image_size": (11, 14), "num_heads": 3, "activation": config.activation}
    uneven = load_checkpoint(written(tmp_path, layout, config), layout=layout, config=given)[0]
    assert (uneven.grid_size, uneven.patch_crop) == ((2, 3), True)


def test_a_masked_autoencoder_by_its_arguments(tmp_path):
    encoder = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=2, num_classes=0)
    config = MaeConfig(encoder, decoder_dim=8, decoder_depth=3, decoder_heads=2, decoder_mlp_ratio=4.0, norm_pix=False)
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=spec.shape) for name, spec in mae_spec(config).items()}
    own = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "decoder_embed_dim": 8,
           "decoder_depth": 3, "decoder_num_heads": 2}  # fmt: skip
    for layout in ("mae", "huggingface_mae"):
        np.savez(tmp_path / "mae.npz", **export_layout(tensors, config, layout))
        ours = {"num_heads": 3, "norm_eps": 1e-6, "activation": "gelu", "decoder_heads": 2, "norm_pix": False}
        if layout == "mae":  # the other library has a file for them
            assert load_checkpoint(tmp_path / "mae.npz", config=own)[0] == config
            normed = load_checkpoint(tmp_path / "mae.npz", config=own | {"norm_pix_loss": True})[0]
            assert normed == MaeConfig(**{**vars(config), "norm_pix": True})
            loaded = load_checkpoint(tmp_path / "mae.npz", config=ours)
            assert loaded[0] == config
            assert all(np.array_equal(loaded[1][name], tensors[name]) for name in tensors)
            with pytest.raises(CheckpointError, match=r"decoder_heads cannot be told .* 'decoder_heads': \.\.\."):
                load_checkpoint(tmp_path / "mae.npz", config={"num_heads": 3, "norm_pix": True})
        assert load_checkpoint(tmp_path / "mae.npz", config={n: ours[n] for n in list(ours)[:3]})[0] == encoder


def test_older_files_of_big_vision(tmp_path):
    """Until 2022: positions in the encoder, the class token's among them; pooling at the top."""
    config = ViTConfig(**{**SIZES, **GOOGLE, "image_size": 8})
    mapped = config.replace(class_token=False, pool="map")
    for wanted, renames in ((config, {"params/pos_embedding": "Transformer/pos_embedding"}),
                            (mapped, {"params/MAPHead_0/": "", "params/": "opt/target/"})):  # fmt: skip
        tensors = random_tensors(wanted, 0)
        old = export_layout(tensors, wanted, "big_vision")
        for here, there in renames.items():
            old = {name.replace(here, there): tensor for name, tensor in old.items()}
        np.savez(tmp_path / "old.npz", **old)
        loaded = load_checkpoint(tmp_path / "old.npz", config={"patch_size": 4})
        assert loaded[0] == wanted
        assert all(np.array_equal(loaded[1][name], tensors[name]) for name in tensors)


def test_one_patch_in_big_vision(tmp_path):
    """The class token has no position, though zero is a square number too."""
    config = ViTConfig(**{**SIZES, **GOOGLE, "image_size": 4, "pos_embed_prefix": False})
    assert load_checkpoint(written(tmp_path, "big_vision", config))[0] == config


def test_blocks_of_dinov2_in_chunks(tmp_path):
    config = ViTConfig(**{**SIZES, **DINO2, "image_size": 8, "num_classes": 0, "mlp": "glu_packed",
                          "activation": "silu"})  # fmt: skip
    tensors = random_tensors(config, 0)
    theirs = export_layout(tensors, config, "dinov2")
    assert "blocks.0.mlp.w12.weight" in theirs
    np.savez(tmp_path / "w.npz", **{n.replace("blocks.", "blocks.0."): tensor for n, tensor in theirs.items()})
    loaded = load_checkpoint(tmp_path / "w.npz", config={"num_heads": 3})
    assert loaded[0] == config
    assert all(np.array_equal(loaded[1][name], tensors[name]) for name in tensors)


def test_defaults_belong_to_the_librarys_words():
    """A dict of ViTConfig's own fields is completed by nobody's defaults."""
    words = Arguments("lib", {"dim": "embed_dim", "heads": "num_heads"}, {"activation": "relu"})
    assert words({"num_heads": 3}) == {"num_heads": 3}
    assert words({"heads": 3, "dim": None}) == {"activation": "relu", "num_heads": 3}
