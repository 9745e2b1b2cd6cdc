"""What the exported tensors mean to the other library: its own formula, written out, gives what our stages give.

A wrong map that is undone on the way back would pass every there-and-back test; not these.
"""

import numpy as np
import pytest

import numpy_vit
from vit_common import ViTConfig, param_spec
from vit_common.layouts import export_layout

SIZES = {"image_size": (8, 12), "patch_size": (4, 6), "in_channels": 3, "embed_dim": 12, "num_heads": 3, "depth": 2}
CONFIG = ViTConfig(**SIZES, num_classes=5)
RNG = np.random.default_rng(0)
TOKENS = RNG.normal(size=(7, 12))  # (T, D)
IMAGES = RNG.normal(size=(2, 3, 8, 12))


def drawn(config: ViTConfig) -> dict[str, np.ndarray]:
    return {name: RNG.normal(size=spec.shape) for name, spec in param_spec(config).items()}


def heads(params: dict, x: np.ndarray, block: int = 1) -> np.ndarray:
    """Our query, key and value, (3, NH, T, HD)."""
    qkv = x @ params[f"blocks.{block}.attn.qkv.weight"].T + params.get(f"blocks.{block}.attn.qkv.bias", 0)
    return qkv.reshape(len(x), 3, 3, -1).transpose(1, 2, 0, 3)


@pytest.mark.parametrize(("layout", "number"), [("google", 1), ("google_linen", 0), ("big_vision", 0)])
def test_flax_attention(layout, number):
    config = CONFIG.replace(class_token=False, pool="mean")
    params = drawn(config)
    theirs = export_layout(params, config, layout)
    start = f"Transformer/encoderblock_1/MultiHeadDotProductAttention_{number}/"
    start = "params/" + start if layout == "big_vision" else start
    for ours, name in zip(heads(params, TOKENS), ("query", "key", "value"), strict=True):
        kernel, bias = theirs[start + name + "/kernel"], theirs[start + name + "/bias"]
        flax = np.einsum("td,dhk->htk", TOKENS, kernel) + bias[:, None]
        np.testing.assert_allclose(flax, ours, rtol=1e-12, atol=1e-12)
    context = RNG.normal(size=(7, 3, 4))
    flax = np.einsum("thk,hkd->td", context, theirs[start + "out/kernel"])
    ours = context.reshape(7, 12) @ params["blocks.1.attn.proj.weight"].T
    np.testing.assert_allclose(flax, ours, rtol=1e-12, atol=1e-12)


def test_flax_patches_and_dense():
    params = drawn(CONFIG)
    theirs = export_layout(params, CONFIG, "google")
    ours = numpy_vit.patch_embed_forward(IMAGES, params["patch_embed.proj.weight"], params["patch_embed.proj.bias"])[0]
    pixels = IMAGES.reshape(2, 3, 2, 4, 2, 6)  # (B, C, gh, P_h, gw, P_w)
    flax = np.einsum("bcipjq,pqcd->bijd", pixels, theirs["embedding/kernel"]) + theirs["embedding/bias"]
    np.testing.assert_allclose(flax.reshape(ours.shape), ours, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(theirs["head/kernel"], params["head.weight"].T)


def test_flax_attention_pooling():
    """Query from the probe, key and value from the tokens, heads apart."""
    config = CONFIG.replace(class_token=False, pool="map")
    params = drawn(config)
    theirs = export_layout(params, config, "big_vision")
    start = "params/MAPHead_0/MultiHeadDotProductAttention_0/"
    kv = TOKENS @ params["attn_pool.kv.weight"].T + params["attn_pool.kv.bias"]
    for ours, name in ((kv[:, :12], "key"), (kv[:, 12:], "value")):
        flax = np.einsum("td,dhk->thk", TOKENS, theirs[start + name + "/kernel"]) + theirs[start + name + "/bias"]
        np.testing.assert_allclose(flax.reshape(7, 12), ours, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(theirs["params/MAPHead_0/probe"], params["attn_pool.latent"])


def test_stacked_blocks():
    config = CONFIG.replace(class_token=False, pool="mean")
    params = drawn(config)
    one, stack = (export_layout(params, config, name) for name in ("big_vision", "big_vision_scan"))
    for name, tensor in stack.items():
        if "encoderblock/" in name:
            for i in range(2):
                np.testing.assert_array_equal(tensor[i], one[name.replace("encoderblock/", f"encoderblock_{i}/")])


def test_vit_pytorch_patches():
    """'b c (h p1) (w p2) -> b (h w) (p1 p2 c)', LayerNorm, Linear."""
    config = CONFIG.replace(patch_norm="layer", patch_norm_in=True, qkv_bias="none", norm_eps=1e-5)
    params = drawn(config)
    theirs = export_layout(params, config, "lucidrains")
    patches = IMAGES.reshape(2, 3, 2, 4, 2, 6).transpose(0, 2, 4, 3, 5, 1).reshape(2, 4, -1)
    normed = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(patches.var(-1, keepdims=True) + 1e-5)
    normed = normed * theirs["to_patch_embedding.1.weight"] + theirs["to_patch_embedding.1.bias"]
    out = normed @ theirs["to_patch_embedding.2.weight"].T + theirs["to_patch_embedding.2.bias"]
    ours = IMAGES.reshape(2, 3, 2, 4, 2, 6).transpose(0, 2, 4, 1, 3, 5).reshape(2, 4, -1)
    ours = (ours - ours.mean(-1, keepdims=True)) / np.sqrt(ours.var(-1, keepdims=True) + 1e-5)
    ours = ours * params["patch_embed.norm_in.weight"] + params["patch_embed.norm_in.bias"]
    ours = ours @ params["patch_embed.proj.weight"].reshape(12, -1).T + params["patch_embed.proj.bias"]
    np.testing.assert_allclose(out, ours, rtol=1e-10, atol=1e-10)


def test_tutorial_heads():
    """Each head maps its own slice of the token; gradients keep the blocks and drop what lies between."""
    config = CONFIG.replace(attn_proj=False, final_norm=False, head_softmax=True)
    params = drawn(config)
    theirs = export_layout(params, config, "tutorial")
    for kind, letter in enumerate("qkv"):
        for h in range(3):
            name = f"blocks.1.mhsa.{letter}_mappings.{h}"
            rows, columns = slice(12 * kind + 4 * h, 12 * kind + 4 * h + 4), slice(4 * h, 4 * h + 4)
            np.testing.assert_array_equal(theirs[name + ".weight"], params["blocks.1.attn.qkv.weight"][rows, columns])
            np.testing.assert_array_equal(theirs[name + ".bias"], params["blocks.1.attn.qkv.bias"][rows])


@pytest.mark.parametrize("layout", ["huggingface_vit", "huggingface_clip", "torchvision", "open_clip"])
def test_query_key_value(layout):
    clip = layout in ("huggingface_clip", "open_clip")
    config = CONFIG.replace(**({"patch_bias": False, "pre_norm": True, "head_bias": False} if clip else {}))
    params = drawn(config)
    theirs = export_layout(params, config, layout)
    names = {
        "huggingface_vit": [f"vit.encoder.layer.1.attention.attention.{n}.weight" for n in ("query", "key", "value")],
        "huggingface_clip": [f"vision_model.encoder.layers.1.self_attn.{n}_proj.weight" for n in "qkv"],
        "torchvision": ["encoder.layers.encoder_layer_1.self_attention.in_proj_weight"],
        "open_clip": ["transformer.resblocks.1.attn.in_proj_weight"],
    }[layout]
    np.testing.assert_array_equal(np.concatenate([theirs[n] for n in names]), params["blocks.1.attn.qkv.weight"])
    if layout == "open_clip":  # features @ proj
        np.testing.assert_array_equal(theirs["proj"], params["head.weight"].T)
