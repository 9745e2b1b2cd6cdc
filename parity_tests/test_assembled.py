"""The assembled model: equal to the plain one on plain configurations, and right in every combination of variants."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import numpy_vit
import torch_vit
from numpy_vit.assembled import assembled_backward, assembled_forward
from parity_tests.strategies import configs, seeds
from parity_tests.variants import close
from vit_common import ConfigError, DtypeError, RangeError, ShapeError, ViTConfig, make_masks, param_spec
from vit_common.masks import keep_some

DROP = {"pos_drop_rate": 0.1, "attn_drop_rate": 0.2, "proj_drop_rate": 0.15, "drop_path_rate": 0.3}
VARIANTS = [
    {"patch_drop_rate": 0.4, "rope": "mixed", **DROP},
    {"patch_drop_rate": 0.5, "rope": "axial", "reg_tokens": 2, **DROP},
    {"block": "parallel", "proj_bias": False, "mlp_bias": False, "norm": "rms"},
    {"block": "parallel", "layer_scale": 0.1, **DROP}, {"block": "diff_parallel", "qk_norm": True, **DROP},
    {"block": "parallel_things", "layer_scale": 0.2, "mlp": "glu", **DROP},
    {"attention": "diff", "attn_norm": True, **DROP}, {"rel_pos_bias": "both", **DROP},
    {"block": "res_post", "norm": "rms", "mlp": "glu_packed", "mlp_norm": True, **DROP},
    {"rope": "axial", "rope_freqs": "pixel", "rope_half": True, "qkv": "split", "num_kv_heads": (1, 2)},
    {"pos_grid": (3, 3), "pos_resize": "google_zoom", "pool": "map", "pre_logits": 7, "patch_norm": "layer",
     "patch_norm_in": True, "patch_bias": False, "attn_head_dim": 8},
    {"pool": "avg_max", "pool_include_prefix": True, "pos_embed_prefix": False, "pos_embed": "sincos_2d_inclusive",
     "head_bias": False},
    {"pool": "cls_mean", "fc_norm": True, "dist_token": True, "head_softmax": True, "final_norm": False,
     "activation": "gelu_tanh"},
    {"dist_token": True, "dist_head": True, "activation": "silu"},
    {"dist_token": True, "dist_head": True, "head_bias": False, "num_classes": 3},
    {"attn_proj": False, "qkv_bias": "qv", "mlp_bias": False, "activation": "quick_gelu", "proj_bias": False},
    {"patch_crop": True, "image_size": (19, 30), "pool": "max"},
    {"pos_embed": "none", "qkv_bias": "none", "pre_norm": True},
    {"rope": "dinov3", "rope_half": True, "rope_temperature": 100.0, "pos_embed": "none", "reg_tokens": 3,
     "layer_scale": 1e-2, "layer_scale_names": "gamma"},
    {"reg_tokens": 3, "pos_embed_registers": False, "pos_grid": (3, 2)},
    {"pos_embed": "sincos_1d", "reg_tokens": 1}, {"pos_embed": "sincos_2d_inclusive", "embed_dim": 8},
    {"pos_embed": "sincos_2d_inclusive", "embed_dim": 4},
    {"mlp_norm": True, "norm": "rms"}, {"mlp": "glu", "mlp_norm": True, "mlp_bias": False, **DROP},
    {"attention": "diff", "qk_norm": True, "qkv_bias": "none", **DROP},
    {"block": "parallel_things", "qk_norm": True, "mlp_norm": True}, {"rel_pos_bias": "shared", "pool": "map"},
    {"block": "parallel", "rope": "mixed", "qk_norm": True}, {"pre_logits": 6, "num_classes": 0},
    {"pool": "map", "attn_pool_mlp_ratio": 1.5, "attn_pool_heads": 3, "mlp": "glu"},
    {"pool": "map", "mlp": "glu_packed", "mlp_bias": False, "mlp_norm": True, **DROP},
    {"rope": "mixed"}, {"rope": "mixed", "rope_grid_indexing": "xy", "rope_grid_offset": 0.3},
    {"rope": "axial", "rope_ref_grid": (4, 5), "rope_grid_indexing": "xy", "rope_grid_offset": 0.3},
    {"rope": "axial", "rope_freqs": "pixel", "rope_grid_indexing": "xy", "rope_max_res": 100},
    {"rope": "dinov3", "rope_grid_indexing": "xy", "rope_grid_offset": 0.3},
    {"rope": "multimodal", "rope_half": True, "rope_section": (1, 2, 1), "patch_pad": True, "image_size": (19, 30)},
    {"pool": "refined", "patch_norm": "rms", "patch_norm_eps": 1e-2, "reg_tokens": 1},
    {"pool": "none", "fc_norm": True}, {"pool": "cls_dist", "dist_token": True},
    {"pool": "map", "attn_pool_activation": "silu", "mlp": "glu"},
    {"rel_pos_bias": "both", "pos_grid": (3, 2), "table_resize": "huggingface_bilinear"},
    {"rel_pos_bias": "block", "pos_grid": (4, 4), "pos_embed": "none"},
    {"rope": "axial", "rope_grid_indexing": "xy", "rope_ref_grid": (3, 5), "dynamic_image_size": True},
    {"attention": "diff", "rel_pos_bias": "both"}, {"pool": "none", "head_softmax": True},
    {"pool": "map", "pool_include_prefix": True}, {"rope": "mixed", "depth": 1},
    {"block": "parallel", "attn_head_dim": 8}, {"qkv": "split", "attn_head_dim": 8},
    {"block": "parallel_things", "rope": "mixed"}, {"block": "parallel_things", "rel_pos_bias": "both"},
    {"block": "diff_parallel", "proj_bias": False},
    {"reg_tokens": 1, "pos_embed_prefix": False, "pos_embed_registers": False},
    *({"qkv": "split", "qkv_bias": b} for b in ("q", "k", "v", "qk", "kv")),
]  # fmt: skip
SMALL = {"image_size": (16, 24), "patch_size": 8, "num_classes": 5, "embed_dim": 24, "depth": 2, "num_heads": 2}


def parameters(config, rng):
    return {n: (p.init == "ones") + 0.3 * rng.normal(size=p.shape) for n, p in param_spec(config).items()}


@given(config=configs(), seed=seeds)
def test_equal_to_the_plain_model_on_a_plain_configuration(config, seed):
    rng = np.random.default_rng(seed)
    params, masks = parameters(config, rng), make_masks(config, 2, seed, 0)
    images = rng.normal(size=(2, config.in_channels, *config.image_size))
    logits, cache = numpy_vit.vit_forward(params, images, config, masks)
    dlogits = rng.normal(size=logits.shape)
    gx, grads = numpy_vit.vit_backward(dlogits, cache)
    other, other_cache = assembled_forward(params, images, config, masks)
    gx_other, grads_other = assembled_backward(dlogits, other_cache)
    close({0: other}, {0: logits}, np.float64, True)
    close({"gx": gx_other, **grads_other}, {"gx": gx, **grads}, np.float64, True)


@pytest.mark.parametrize("fields", VARIANTS, ids=lambda f: "-".join(f)[:60])
def test_both_engines_agree_in_every_intermediate_and_gradient(fields):
    config, rng = ViTConfig(**{**SMALL, **fields}), np.random.default_rng(0)
    params, masks = parameters(config, rng), make_masks(config, 3, 1, 2)
    images, values, slopes = rng.normal(size=(3, 3, *config.image_size)), {}, {}
    logits, cache = numpy_vit.vit_forward(params, images, config, masks, values)
    dlogits = rng.normal(size=logits.shape)
    gx, grads = numpy_vit.vit_backward(dlogits, cache, slopes)
    assert set(grads) == set(params)
    assert set(values) == set(slopes)
    for attention in ("explicit", "fused"):
        model = torch_vit.VisionTransformer(config, attention, seed=None).double()
        model.load_state_dict(torch_vit.to_torch(params))
        x = torch.from_numpy(images.copy()).requires_grad_()
        with torch_vit.Tape(model) as tape:
            out = model(x, torch_vit.to_torch(masks))
        out.backward(torch.from_numpy(dlogits))
        named = {n: p.grad.numpy() for n, p in model.named_parameters()}
        close({"gx": gx, **grads}, {"gx": x.grad.numpy(), **named}, np.float64, True)
        if attention == "explicit":
            assert set(values) == set(tape.values)
            for name, value in tape.values.items():
                close({name: values[name]}, {name: value.numpy()}, np.float64, True)
            for name, slope in tape.grads.items():
                close({name: slopes[name]}, {name: slope.numpy()}, np.float64, True)
    small = {n: p.astype(np.float32) for n, p in params.items()}
    low, low_cache = numpy_vit.vit_forward(small, images.astype(np.float32), config, masks)
    low_gx, low_grads = numpy_vit.vit_backward(dlogits.astype(np.float32), low_cache)
    assert {low.dtype, low_gx.dtype, *(g.dtype for g in low_grads.values())} == {np.dtype(np.float32)}
    single = model.float()(torch.from_numpy(images.astype(np.float32)), torch_vit.to_torch(masks))
    close({0: single.detach().numpy(), 1: low}, {0: logits, 1: logits}, np.float32, False)


@pytest.mark.parametrize("fields", VARIANTS, ids=lambda f: "-".join(f)[:60])
def test_the_backward_is_the_adjoint_of_the_complex_step(fields):
    config, rng = ViTConfig(**{**SMALL, **fields}), np.random.default_rng(1)
    params, masks = parameters(config, rng), make_masks(config, 2, 1, 2)
    images = rng.normal(size=(2, 3, *config.image_size))
    logits, cache = numpy_vit.vit_forward(params, images, config, masks)
    dlogits = rng.normal(size=logits.shape)
    gx, grads = numpy_vit.vit_backward(dlogits, cache)
    directions = {n: rng.normal(size=p.shape) for n, p in params.items()}
    along, h = rng.normal(size=images.shape), 1e-150
    stepped = {n: p + 1j * h * directions[n] for n, p in params.items()}
    jvp = numpy_vit.vit_forward(stepped, images + 1j * h * along, config, masks)[0].imag / h
    terms = [gx * along, *(grads[n] * d for n, d in directions.items())]
    size, count = sum(np.abs(t).sum() for t in terms), sum(t.size for t in terms)
    assert abs((jvp * dlogits).sum() - sum(t.sum() for t in terms)) <= count * np.finfo(float).eps * size


@given(seed=seeds)
def test_a_padded_patch_is_not_seen(seed):
    """What stands in a patch that is not there changes nothing, and gets no gradient; nor does a masked key."""
    config, rng = ViTConfig(**{**SMALL, "pool": "cls"}), np.random.default_rng(seed)
    params, images = parameters(config, rng), rng.normal(size=(2, 3, 16, 24))
    there = rng.random((2, config.num_patches)) > 0.5
    logits, cache = numpy_vit.vit_forward(params, images, config, {"padding_mask": there})
    gx, _ = numpy_vit.vit_backward(rng.normal(size=logits.shape), cache)
    pixels = np.kron(there.reshape(2, 1, 2, 3), np.ones((1, 1, 8, 8))) > 0
    assert not gx[~np.broadcast_to(pixels, gx.shape)].any()
    noise = np.where(pixels, 0.0, rng.normal(size=images.shape))
    again, _ = numpy_vit.vit_forward(params, images + noise, config, {"padding_mask": there})
    assert np.array_equal(again, logits)
    model = torch_vit.VisionTransformer(config, seed=None).double()
    model.load_state_dict(torch_vit.to_torch(params))
    close({0: logits}, {0: model(torch.from_numpy(images), {"padding_mask": torch.from_numpy(there)}).detach().numpy()},
          np.float64, True)  # fmt: skip


@given(seed=seeds, heads=st.sampled_from([1, 2]), real=st.booleans())
def test_a_patch_dropped_is_a_patch_that_nobody_reads(seed, heads, real):
    """With masks of who may read whom and of what is there: both are of all patches, whichever are dropped."""
    config, rng = ViTConfig(**{**SMALL, "pool": "cls", "reg_tokens": 1}), np.random.default_rng(seed)
    params, images = parameters(config, rng), rng.normal(size=(2, 3, 16, 24))
    patches, tokens = config.num_patches, config.num_tokens
    kept, there = keep_some(rng.random((2, patches)), 0.4), rng.random((2, patches)) > 0.3
    mask = rng.random((rng.integers(1, 3), heads, tokens, tokens)) > 0.3
    mask[..., 0] = True  # the class token is always read
    if real:
        mask = np.where(mask, rng.normal(size=mask.shape), -np.inf)
    dropping = {"patch_drop": kept, "padding_mask": there, "attn_mask": mask}
    masking = {"padding_mask": kept & there, "attn_mask": mask}
    logits, cache = numpy_vit.vit_forward(params, images, config, dropping)
    dlogits = rng.normal(size=logits.shape)
    gx, grads = numpy_vit.vit_backward(dlogits, cache)
    same, cache = numpy_vit.vit_forward(params, images, config, masking)
    gx_same, grads_same = numpy_vit.vit_backward(dlogits, cache)
    close({"logits": logits, "gx": gx, **grads}, {"logits": same, "gx": gx_same, **grads_same}, np.float64, True)
    theirs = torch_vit.vit_forward(torch_vit.to_torch(params), torch.from_numpy(images), config,
                                   torch_vit.to_torch(dropping))  # fmt: skip
    close({"logits": theirs.numpy()}, {"logits": same}, np.float64, True)


MISFITS = [
    ({"attn_mask": np.ones((2, 7, 7), bool)}, ShapeError, r"attn_mask has shape \(2, 7, 7\), expected \(T, T\) or"),
    ({"attn_mask": np.ones((6, 7), bool)}, ShapeError, r"attn_mask has shape \(6, 7\).*T = 7"),
    ({"attn_mask": np.ones((7, 7), np.int64)}, DtypeError, r"has dtype (torch\.)?int64, expected (torch\.)?bool"),
    ({"padding_mask": np.ones((2, 7), bool)}, ShapeError, r"padding_mask has shape \(2, 7\), expected \(2, 6\)"),
    ({"padding_mask": np.ones((1, 6), bool)}, ShapeError, r"padding_mask has shape \(1, 6\), expected \(2, 6\)"),
    ({"attn_mask": np.ones((3, 1, 7, 7), bool)}, ShapeError, r"shape \(3, 1, 7, 7\), expected \(2, NH, 7, 7\)"),
    ({"pos_drop": np.ones((2, 7, 16), bool)}, ConfigError, "'pos_drop', whose rate is 0 .* leave the mask out"),
    ({"blocks.0.drop_path1": np.ones(2, bool)}, ConfigError, r"'blocks\.0\.drop_path1', whose rate is 0"),
    ({"padding_mask": np.ones((2, 6))}, DtypeError, "padding mask has dtype"),
    ({"blocks.0.attn.atn_drop": np.ones((2, 4, 7, 7), bool)}, ConfigError, "did you mean 'blocks.0.attn.attn_drop'"),
]


@pytest.mark.parametrize(("masks", "error", "message"), MISFITS)
@pytest.mark.parametrize("fields", [{}, {"reg_tokens": 0, "layer_scale": 0.1}])
def test_a_mask_that_does_not_fit_is_refused(masks, error, message, fields):
    config, rng = ViTConfig(**{**SMALL, **fields}), np.random.default_rng(0)
    params, images = parameters(config, rng), rng.normal(size=(2, 3, 16, 24))
    with pytest.raises(error, match=message):
        numpy_vit.vit_forward(params, images, config, masks)
    with pytest.raises(error, match=message):
        torch_vit.vit_forward(torch_vit.to_torch(params), torch.from_numpy(images), config, torch_vit.to_torch(masks))


def test_relative_positions_need_all_patches():
    config, rng = ViTConfig(**SMALL, rel_pos_bias="block"), np.random.default_rng(0)
    params, drop = parameters(config, rng), {"patch_drop": np.arange(6)[None] < 4}
    with pytest.raises(ConfigError, match="rel_pos_bias='block' is a table over the whole grid; leave out patch_drop"):
        numpy_vit.vit_forward(params, rng.normal(size=(1, 3, 16, 24)), config, drop)
    with pytest.raises(ConfigError, match="patch_drop_rate=0"):
        ViTConfig(**SMALL, rel_pos_bias="block", patch_drop_rate=0.5)


def test_a_query_that_may_read_nothing():
    config, rng = ViTConfig(**SMALL), np.random.default_rng(0)
    nothing = np.zeros((config.num_tokens, config.num_tokens), bool)
    with pytest.raises(RangeError, match="may read no key"):
        numpy_vit.vit_forward(parameters(config, rng), rng.normal(size=(1, 3, 16, 24)), config, {"attn_mask": nothing})


BODIES = [{}, {"block": "parallel"}, {"block": "parallel_things"}, {"block": "res_post"}, {"attention": "diff"},
          {"mlp": "glu"}]  # fmt: skip


@pytest.mark.parametrize("rate", ["pos_drop_rate", "attn_drop_rate", "proj_drop_rate", "drop_path_rate"])
@pytest.mark.parametrize("fields", BODIES, ids=str)
def test_torch_draws_its_own_masks_in_train_mode_only(fields, rate):
    """One rate alone: without masks, two passes in train mode differ, and in eval mode nothing is dropped."""
    config = ViTConfig(**{**SMALL, "layer_scale": 0.5, "reg_tokens": 1, **fields, rate: 0.5})
    params, images = parameters(config, np.random.default_rng(0)), np.random.default_rng(1).normal(size=(8, 3, 16, 24))
    model = torch_vit.VisionTransformer(config, seed=None).double()
    model.load_state_dict(torch_vit.to_torch(params))
    x = torch.from_numpy(images)
    torch.manual_seed(0)
    with torch.no_grad():
        first, second = model.train()(x), model(x)
        assert (first != second).any()
        calm = model.eval()(x)
    close({0: numpy_vit.vit_forward(params, images, config)[0]}, {0: calm.numpy()}, np.float64, True)
    assert torch.isfinite(first).all()


@pytest.mark.parametrize("fields", [
    {"pos_embed_prefix": False, "reg_tokens": 1}, {"rope": "axial"}, {"patch_pad": True}, {"rel_pos_bias": "both"},
], ids=str)  # fmt: skip
def test_a_dynamic_model_takes_images_of_any_size(fields):
    """To the bit what the model at that size computes, in both engines."""
    rng = np.random.default_rng(0)
    config = ViTConfig(**{**SMALL, **fields, "dynamic_image_size": True})
    params, images = parameters(config, rng), rng.normal(size=(2, 3, 40, 21 if config.patch_pad else 16))
    there = config.replace(dynamic_image_size=False).at_image_size(images.shape[2:])
    logits, cache = numpy_vit.vit_forward(params, images, config)
    other, other_cache = numpy_vit.vit_forward(params, images, there)
    assert np.array_equal(logits, other)
    dlogits = rng.normal(size=logits.shape)
    (gx, grads), (gx_other, grads_other) = (numpy_vit.vit_backward(dlogits, c) for c in (cache, other_cache))
    assert np.array_equal(gx, gx_other)
    assert all(np.array_equal(grads[name], grads_other[name]) for name in params)
    model = torch_vit.VisionTransformer(config, seed=None).double()
    model.load_state_dict(torch_vit.to_torch(params))
    x = torch.from_numpy(images.copy()).requires_grad_()
    out = model(x)
    out.backward(torch.from_numpy(dlogits))
    named = {n: p.grad.numpy() for n, p in model.named_parameters()}
    close({0: logits, "gx": gx, **grads}, {0: out.detach().numpy(), "gx": x.grad.numpy(), **named}, np.float64, True)
    with pytest.raises(ShapeError, match="images"):
        numpy_vit.vit_forward(params, images, config.replace(dynamic_image_size=False))


@given(config=configs(), seed=seeds)
def test_patch_dropout_of_a_plain_model(config, seed):
    """A mask that is given holds, whatever rate the configuration has."""
    rng = np.random.default_rng(seed)
    params, images = parameters(config, rng), rng.normal(size=(2, config.in_channels, *config.image_size))
    keep = rng.random((2, config.num_patches)).argsort(axis=1) < max(1, config.num_patches // 2)
    logits, _ = numpy_vit.vit_forward(params, images, config, {"patch_drop": keep})
    assert np.array_equal(logits, assembled_forward(params, images, config, {"patch_drop": keep})[0])
    model = torch_vit.VisionTransformer(config, seed=None).double().eval()
    model.load_state_dict(torch_vit.to_torch(params))
    with torch_vit.Tape(model) as tape:
        theirs = model(torch.from_numpy(images), torch_vit.to_torch({"patch_drop": keep})).detach().numpy()
    close({0: logits}, {0: theirs}, np.float64, True)
    assert {"tokens", "norm", "logits", *(f"blocks.{i}.mlp" for i in range(config.depth))} <= set(tape.values)
    assert not config.depth or tape.values["blocks.0"].shape[1] == config.num_prefix_tokens + keep[0].sum()
