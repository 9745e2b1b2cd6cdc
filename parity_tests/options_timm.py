"""Constructor arguments of timm's four plain classes, drawn at random, against both engines.

A draw is `timm.create_model(name, **arguments)`. The model is saved as a hub folder, which `load_checkpoint` reads;
logits, losses, block outputs, what the head reads and every gradient, under timm's own names, must be timm's.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parity_tests.options import Array, Chooser, Refused, gradient, gradient_error, gradients, relative, run_both
from parity_tests.peers import fill, float64
from vit_common import ViTConfig, load_checkpoint
from vit_common.layouts import export_layout

FAMILIES = ("vit", "distilled", "eva", "beit")
# Architectures to start from: the plain one of each class, and those whose kind no argument asks for.
NAMES = {
    "vit": ("vit_base_patch16_224",) * 6 + (
        "vit_base_patch16_18x2_224", "vit_base_patch16_rpn_224", "vit_base_patch16_xp_224",
        "vit_dwee_patch16_reg1_gap_256", "vit_dpwee_patch16_reg1_gap_256", "vit_giant_patch14_reg4_dinov2",
        "aimv2_large_patch14_224", "beit3_base_patch16_224", "vit_base_patch16_clip_quickgelu_224",
        "vit_so400m_patch16_siglip_256", "test_vit3", "vit_base_patch16_siglip_gap_224", "deit3_base_patch16_224"),
    "distilled": ("deit_tiny_distilled_patch16_224",),
    "eva": ("eva_giant_patch14_224",) * 3 + (
        "eva02_tiny_patch14_224", "eva02_base_patch16_clip_224", "vit_small_patch16_rope_224",
        "vit_small_patch16_rope_mixed_ape_224", "vit_small_patch16_dinov3", "vit_pe_core_tiny_patch16_384",
        "vit_7b_patch16_dinov3", "vit_base_patch16_sapiens2", "vit_base_patch16_rope_reg1_gap_256"),
    "beit": ("beit_base_patch16_224", "beitv2_base_patch16_224"),
}  # fmt: skip
SIZES = (((32, 32), (8, 8)), ((32, 24), (8, 8)), ((24, 40), (8, 4)), ((35, 29), (8, 8)))  # image, patch
WIDTHS = ((36, 3), (48, 4), (48, 3), (36, 1), (48, 2))  # width, heads
BOTH = (True, False)


class Draw(NamedTuple):
    """The arguments, the size of the images fed, and how scores are masked."""

    name: str
    arguments: dict[str, Any]
    fed: tuple[int, int]
    mask: str


def draw(family: str, seed: int) -> Draw:
    """The case of this number."""
    choose = Chooser(seed, FAMILIES.index(family))
    (image, patch), (width, heads), name = choose.one(*SIZES), choose.one(*WIDTHS), choose.one(*NAMES[family])
    args: dict[str, Any] = {
        "img_size": image, "patch_size": patch, "embed_dim": width, "num_heads": heads, "depth": choose.one(1, 2, 3),
        "num_classes": choose.one(10, 10, 10, 0),
    }  # fmt: skip
    if name.endswith("sapiens2"):  # timm lists one number for each of its own blocks
        args["num_kv_heads"] = 1
    if name.startswith("vit_pe_core"):
        args["attn_pool_num_heads"] = 2
    args |= choose.some(0.3, in_chans=(1, 4), mlp_ratio=(1.5, 2.0, 2.7), qkv_bias=BOTH, drop_rate=(0.1,))
    args |= {"vit": _vit, "distilled": _distilled, "eva": _eva, "beit": _beit}[family](choose)
    fed = image
    if args.get("dynamic_img_size") and choose.chance(0.8):
        fed = choose.one((40, 24), (16, 48), (32, 32), (37, 41) if args.get("dynamic_img_pad") else (24, 32))
    mask = "none" if family == "beit" else choose.one("none", "none", "bool", "added", "causal")
    return Draw(name, args, fed, mask)


def _vit(choose: Chooser) -> dict[str, Any]:
    pooled = choose.some(0.5, global_pool=("token", "avg", "avgmax", "max", "map", "", "prr"), fc_norm=BOTH)
    return pooled | _distilled(choose) | choose.some(0.2, reg_tokens=(0, 1, 3), no_embed_class=BOTH, class_token=BOTH)


def _distilled(choose: Chooser) -> dict[str, Any]:
    """What the distilled class takes too: it must read the class token, and reads neither registers nor `fc_norm`."""
    return choose.some(
        0.2, qk_norm=(True,), scale_attn_norm=(True,), scale_mlp_norm=(True,), proj_bias=(False,),
        init_values=(0.1, 0.0), pre_norm=(True,), final_norm=(False,), pos_embed=("none", "", "learn"),
        pool_include_prefix=(True,), embed_norm_layer=("layernorm", "rmsnorm"),
        norm_layer=("layernorm", "rmsnorm", "LayerNorm", "layernormfp32"), attn_layer=("attn", "diff", ""),
        act_layer=("gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "swish"), weight_init=("jax", "moco"),
        dynamic_img_size=(True,), dynamic_img_pad=(True,),
    )  # fmt: skip


def _eva(choose: Chooser) -> dict[str, Any]:
    return {
        **choose.some(
            0.2, qkv_fused=(False,), qk_norm=(True,), swiglu_mlp=BOTH, swiglu_align_to=(8, 16), scale_mlp=BOTH,
            scale_attn_inner=(True,), attn_type=("rope", "eva"), init_values=(0.1, 0.0),
            attn_only_layer_scale=(True,), class_token=BOTH, num_reg_tokens=(0, 2), no_embed_class=BOTH,
            use_post_norm=(True,), use_pre_transformer_norm=(True,), use_post_transformer_norm=BOTH,
            use_fc_norm=BOTH, attn_pool_num_heads=(1,), attn_pool_mlp_ratio=(2.0,), num_kv_heads=(1,),
            dynamic_img_size=(True,), dynamic_img_pad=(True,),
        ),
        **choose.some(
            0.5, use_abs_pos_emb=BOTH, use_rot_pos_emb=BOTH, rope_type=("cat", "mixed", "dinov3", "mrope"),
            global_pool=("token", "avg", "avgmax", "max", "map", ""),
        ),
        **choose.some(
            0.3, rope_grid_offset=(0.5, 1.0), rope_grid_indexing=("ij", "xy"), rope_temperature=(100.0, 50.0),
            rope_rotate_half=BOTH, ref_feat_shape=((3, 5), (14, 14), 7), rope_mrope_section=((2, 2, 4),),
        ),
    }  # fmt: skip


def _beit(choose: Chooser) -> dict[str, Any]:
    biased = choose.some(0.3, swiglu_mlp=(True,), scale_mlp=(True,), init_values=(0.1, 0.0), use_abs_pos_emb=BOTH,
                         use_rel_pos_bias=BOTH, use_shared_rel_pos_bias=(True,), use_fc_norm=BOTH)  # fmt: skip
    return biased | choose.some(0.5, global_pool=("avg", "token", ""))


class Case(NamedTuple):
    """What timm computes, and the model that did."""

    model: Any
    images: Array
    labels: Array
    dlogits: Array
    mask: Array | None
    values: dict[str, Array]
    grads: dict[str, Array]


def run_timm(timm: Any, case: Draw, seed: int = 1) -> Case:
    """timm's own results.

    Raises:
        Refused: timm raises something about these arguments.
    """
    import torch

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, case.arguments.get("in_chans", 3), *case.fed))
    images = torch.from_numpy(x.copy()).requires_grad_()
    try:
        with float64():
            model = timm.create_model(case.name, pretrained=False, **case.arguments).double().eval()
        fill(model, seed)
        seen: dict[str, Array] = {}
        _watch(model, seen)
        with torch.no_grad():
            model(images)
        options, mask = _mask(case.mask, seen["tokens"].shape[1], rng)
        features = model.forward_features(images, **options)
        out = model.forward_head(features)
    except Exception as error:
        raise Refused(f"{type(error).__name__}: {str(error)[:60]}") from error
    values = {**seen, "logits": out.detach().numpy()}
    values["prelogits"] = model.forward_head(features, pre_logits=True).detach().numpy()
    dlogits, labels = rng.normal(size=tuple(out.shape)), rng.integers(0, max(out.shape[-1], 1), 2)
    out.backward(torch.from_numpy(dlogits))
    values["gx"] = gradient(images)
    for smoothing in (0.0, 0.1) if out.ndim == 2 else ():
        loss = torch.nn.functional.cross_entropy(out, torch.from_numpy(labels), label_smoothing=smoothing)
        values[f"loss {smoothing}"] = loss.detach().numpy()
    return Case(model, x, labels, dlogits, mask, values, gradients(model))


def _watch(model: Any, seen: dict[str, Array]) -> None:
    """Keep what enters block 0 and what leaves each block."""

    def keep(name: str) -> Any:
        return lambda module, args, out: seen.__setitem__(name, out.detach().numpy().copy())

    model.blocks[0].register_forward_pre_hook(
        lambda module, args: seen.__setitem__("tokens", args[0].detach().numpy().copy())
    )
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(keep(f"blocks.{i}"))


def _mask(kind: str, tokens: int, rng: np.random.Generator) -> tuple[dict[str, Any], Array | None]:
    """timm's argument, and ours."""
    import torch

    if kind == "none":
        return {}, None
    if kind == "causal":
        return {"is_causal": True}, np.tri(tokens, dtype=bool)
    mask = (rng.random((tokens, tokens)) < 0.7) | np.eye(tokens, dtype=bool)
    if kind == "added":
        mask = np.where(mask, rng.normal(size=(2, 1, tokens, tokens)), -np.inf)
    return {"attn_mask": torch.from_numpy(mask)}, mask


def write_folder(model: Any, case: Draw, folder: Path, seed: int) -> None:
    """The model as a hub folder: config.json as timm writes it now or as it is at its shortest, tensors in one file or
    in two."""
    from safetensors.torch import save_file
    from timm.models._hub import save_config_for_hf

    state = {name: p.detach().contiguous().clone() for name, p in model.state_dict().items()}
    if seed % 4 == 3:
        where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(state))}
        for file in set(where.values()):
            save_file({name: state[name] for name in state if where[name] == file}, folder / file)
        index = {"metadata": {}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(state, folder / "model.safetensors")
    if seed % 2:
        save_config_for_hf(model, str(folder / "config.json"))
        return
    args = case.arguments
    settings = {"architecture": case.name, "num_classes": args["num_classes"], "model_args": args}
    pool = {"global_pool": args["global_pool"]} if args.get("global_pool") else {}
    (folder / "config.json").write_text(json.dumps(settings | pool))


def options_error(timm: Any, family: str, seed: int) -> float:
    """The largest relative error of either engine, over everything that is compared.

    Raises:
        Refused: timm does not take the arguments of this draw.
    """
    case = draw(family, seed)
    truth = run_timm(timm, case)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(truth.model, case, Path(folder), seed)
        config, params = load_checkpoint(folder)
    drops = {name: 0.0 for name in ViTConfig.__dataclass_fields__ if name.endswith("drop_rate")}  # timm keeps none
    assert config.replace(**drops) == ViTConfig.from_timm(case.name, **case.arguments).replace(**drops)
    masks = None if truth.mask is None else {"attn_mask": truth.mask}
    worst = 0.0
    for got in run_both(config, params, truth.images, truth.dlogits, masks):
        read = {"prelogits": prelogits(got["tape"], config), **losses(got["logits"], truth.labels)}
        ours = {**got["tape"], **got, **read}
        worst = max(worst, *(relative(ours[name], value) for name, value in truth.values.items()))
        worst = max(worst, gradient_error(export_layout(got["grads"], config, "timm"), truth.grads))
    return worst


def losses(logits: Array, labels: Array) -> dict[str, Array]:
    import numpy_vit

    smoothings = (0.0, 0.1) if logits.ndim == 2 else ()
    return {f"loss {s}": numpy_vit.cross_entropy_forward(logits, labels, s)[0] for s in smoothings}


def prelogits(tape: dict[str, Array], config: ViTConfig) -> Array:
    """What the head reads; timm hands out the mean of the two tokens that two heads read."""
    if config.dist_token:
        return tape["norm" if config.final_norm else f"blocks.{config.depth - 1}"][:, :2].mean(axis=1)
    return next(tape[name] for name in ("fc_norm", "pooled") if name in tape)
