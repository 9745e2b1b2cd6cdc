"""From timm's constructor arguments to the fields of ViTConfig: one table for what only has another name, four rules
for what timm decides from several arguments at once."""

from typing import Any

from vit_common.errors import ConfigError, nearest
from vit_common.timm_names import timm_args

# timm's argument -> our field, the value as it is.
SAME = {
    "img_size": "image_size", "patch_size": "patch_size", "in_chans": "in_channels", "num_classes": "num_classes",
    "embed_dim": "embed_dim", "depth": "depth", "num_heads": "num_heads", "mlp_ratio": "mlp_ratio",
    "class_token": "class_token", "reg_tokens": "reg_tokens", "num_reg_tokens": "reg_tokens",
    "pos_drop_rate": "pos_drop_rate", "patch_drop_rate": "patch_drop_rate", "proj_drop_rate": "proj_drop_rate",
    "attn_drop_rate": "attn_drop_rate", "drop_path_rate": "drop_path_rate", "qk_norm": "qk_norm",
    "num_kv_heads": "num_kv_heads", "pool_include_prefix": "pool_include_prefix",
    "scale_attn_norm": "attn_norm", "scale_attn_inner": "attn_norm", "scale_mlp_norm": "mlp_norm",
    "scale_mlp": "mlp_norm", "pre_norm": "pre_norm", "use_pre_transformer_norm": "pre_norm",
    "rope_grid_offset": "rope_grid_offset",
    "rope_grid_indexing": "rope_grid_indexing", "rope_temperature": "rope_temperature",
    "rope_rotate_half": "rope_half", "ref_feat_shape": "rope_ref_grid", "attn_pool_num_heads": "attn_pool_heads",
    "attn_pool_mlp_ratio": "attn_pool_mlp_ratio", "dynamic_img_size": "dynamic_image_size",
    "dynamic_img_pad": "patch_pad", "rope_mrope_section": "rope_section",
}  # fmt: skip

# Decided below, by family.
RULED = {
    "vit": {"global_pool", "qkv_bias", "proj_bias", "init_values", "pos_embed", "no_embed_class", "final_norm",
            "fc_norm", "embed_norm_layer", "norm_layer", "act_layer", "block_fn", "mlp_layer", "attn_layer"},
    "eva": {"global_pool", "qkv_bias", "qkv_fused", "swiglu_mlp", "swiglu_align_to", "attn_type", "norm_layer",
            "init_values", "attn_only_layer_scale", "no_embed_class", "use_abs_pos_emb", "use_rot_pos_emb", "rope_type",
            "use_post_norm", "use_post_transformer_norm", "use_fc_norm"},
    "beit": {"global_pool", "qkv_bias", "swiglu_mlp", "norm_layer", "init_values", "use_abs_pos_emb",
             "use_rel_pos_bias", "use_shared_rel_pos_bias", "use_fc_norm"},
}  # fmt: skip
RULED["deit"] = RULED["vit"]

# Training-time or bookkeeping arguments that leave the trained function as it is.
IGNORED = {
    "weight_init", "fix_init", "head_init_scale", "rope_shift_coords",
    "rope_jitter_coords", "rope_rescale_coords", "pretrained", "drop_rate",
}  # fmt: skip

POOL = {"token": "cls", "avg": "mean", "avgmax": "avg_max", "max": "max", "map": "map", "": "none", "prr": "refined"}
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu", "silu": "silu",
               "swish": "silu", "gelutanh": "gelu_tanh", "quickgelu": "quick_gelu"}  # fmt: skip
BLOCKS = {"block": "pre_norm", "respostblock": "res_post", "res_post": "res_post", "parallelscalingblock": "parallel",
          "parallel": "parallel", "diffparallelscalingblock": "diff_parallel", "diff_parallel": "diff_parallel",
          "parallelthingsblock": "parallel_things", "parallel_things": "parallel_things"}  # fmt: skip
NORMS = {"layernorm": "layer", "rmsnorm": "rms", "layer": "layer", "rms": "rms"}
ROPES = {"cat": "axial", "mixed": "mixed", "dinov3": "dinov3", "mrope": "multimodal"}
MLPS = {"mlp": "mlp", "swiglu": "glu", "swiglupacked": "glu_packed", "swiglu_packed": "glu_packed"}


def timm_fields(name: str, model_args: dict[str, Any]) -> dict[str, Any]:
    """Fields of ViTConfig for a timm architecture, its constructor arguments overridden by `model_args`.

    Raises:
        ConfigError: an unknown name or argument; the message says the nearest.
    """
    family, args = timm_args(name.split(".")[0])  # a tag names weights, not an architecture
    args |= {key: value for key, value in model_args.items() if value is not None}  # as `timm.create_model` has it
    known = SAME.keys() | RULED[family] | IGNORED
    for key in args:
        if key not in known:
            raise ConfigError(f"timm's {name} has no argument {key!r} known here; {nearest(key, sorted(known))}")
    fields = {SAME[key]: value for key, value in args.items() if key in SAME}
    if fields.get("reg_tokens") is None:
        fields.pop("reg_tokens", None)
    fields |= _norm("norm", "norm_eps", args.get("norm_layer") or "layernorm_1e-6")
    default = "token" if family in ("vit", "deit") else "avg"
    fields["pool"] = _choice("global_pool", args.get("global_pool", default), POOL)
    fields |= {"vit": _vit, "deit": _deit, "eva": _eva, "beit": _beit}[family](args, fields)
    fields.setdefault("class_token", True)
    sizes = (_pair(fields.get(side, default)) for side, default in (("image_size", 224), ("patch_size", 16)))
    image, patch = sizes
    cropped = any(size % side for size, side in zip(image, patch, strict=True))
    fields["patch_crop"] = cropped and not fields.get("patch_pad")
    if cropped and fields.get("patch_pad") and fields["pos_embed"] == "learned":  # timm counts whole patches only
        fields["pos_grid"] = (image[0] // patch[0], image[1] // patch[1])
    return fields


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _vit(args: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    block = _choice("block_fn", args.get("block_fn", "Block"), BLOCKS)
    mlp = _choice("mlp_layer", args.get("mlp_layer", "Mlp"), MLPS)
    biases = bool(args.get("proj_bias", True))
    final, after = args.get("final_norm", True), args.get("fc_norm")
    after = fields["pool"] in ("mean", "avg_max", "max") if after is None else after
    out = {
        "block": block, "mlp": mlp, "proj_bias": biases, "mlp_bias": biases,
        "qkv_bias": "all" if args.get("qkv_bias", True) else "none",
        "activation": _choice("act_layer", args.get("act_layer") or "gelu", ACTIVATIONS),
        "attention": _choice("attn_layer", args.get("attn_layer") or "attn", {"attn": "softmax", "diff": "diff"}),
        "pos_embed": "learned" if args.get("pos_embed", "learn") == "learn" else "none",
        "pos_embed_prefix": not args.get("no_embed_class", False), "patch_bias": not args.get("pre_norm", False),
        "final_norm": bool(final and not after), "fc_norm": bool(final and after),
    }  # fmt: skip
    if out["pos_embed"] == "none":  # the class returns before it gets there
        fields.pop("pos_drop_rate", None)
    scale = args.get("init_values")
    if scale or (scale is not None and block in ("res_post", "parallel", "diff_parallel")):
        out["layer_scale"] = float(scale)
    if args.get("embed_norm_layer"):
        patch_norm = _norm("patch_norm", "eps", args["embed_norm_layer"])
        out["patch_norm"] = patch_norm["patch_norm"]
        if patch_norm["eps"] != fields["norm_eps"]:
            out["patch_norm_eps"] = patch_norm["eps"]
    if mlp == "glu_packed":  # timm counts gate and value: half of it is the hidden width
        out |= {"mlp_ratio": args.get("mlp_ratio", 4.0) / 2, "attn_pool_mlp_ratio": args.get("mlp_ratio", 4.0)}
        hidden = int(args.get("embed_dim", 768) * args.get("mlp_ratio", 4.0)) // 2
        if hidden != int(args.get("embed_dim", 768) * out["mlp_ratio"]):
            out["mlp_hidden"] = hidden
        if fields["pool"] != "map":
            out.pop("attn_pool_mlp_ratio")
    return out


def _deit(args: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Two heads, or without classes the mean of both tokens; positions there are always.

    Raises:
        ConfigError: registers, or a norm after pooling, which the class stores and never reads.
    """
    if fields.get("reg_tokens") or args.get("fc_norm"):
        raise ConfigError("timm's distilled class stores reg_tokens and fc_norm, but never reads them: leave them out")
    headed = bool(args.get("num_classes", 1000))
    out = _vit({**args, "pos_embed": "learn"}, fields) | {"dist_token": True, "dist_head": headed}
    return out | ({} if headed else {"pool": "cls_dist"})


def _eva(args: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    pool, post_norm = fields["pool"], bool(args.get("use_post_norm", False))
    after = args["use_fc_norm"] if args.get("use_fc_norm") is not None else pool == "mean"
    final = args["use_post_transformer_norm"] if args.get("use_post_transformer_norm") is not None else not after
    bias, align = args.get("qkv_bias", True), args.get("swiglu_align_to", 0)
    rope_type = _choice("rope_type", args.get("rope_type") or "cat", ROPES)
    out = {
        "final_norm": bool(final), "fc_norm": bool(after), "block": "res_post" if post_norm else "pre_norm",
        "qkv": "fused" if args.get("qkv_fused", True) else "split",
        "qkv_bias": "none" if not bias else "all" if args.get("attn_type", "eva") == "rope" else "qv",
        "pos_embed": "learned" if args.get("use_abs_pos_emb", True) else "none",
        "pos_embed_prefix": not args.get("no_embed_class", False),
        "patch_bias": not args.get("use_pre_transformer_norm", False), "layer_scale_names": "gamma",
        "layer_scale_mlp": not args.get("attn_only_layer_scale", False),
        "rope": rope_type if args.get("use_rot_pos_emb", False) else "none",
        "pool_include_prefix": pool == "map", "pre_norm": bool(args.get("use_pre_transformer_norm", False)),
    }  # fmt: skip
    if args.get("swiglu_mlp"):
        out["mlp"] = "glu" if args.get("scale_mlp") or (align and not post_norm) else "glu_packed"
        out["activation"] = "silu"
        ratio = args.get("mlp_ratio", 4.0)
        hidden = int(args.get("embed_dim", 768) * ratio)
        if out["mlp"] == "glu" and align and hidden % align:
            out["mlp_hidden"] = hidden + -hidden % align
        if pool == "map":  # its MLP is never gated
            out |= {"attn_pool_activation": "gelu", "attn_pool_mlp_ratio": args.get("attn_pool_mlp_ratio") or ratio}
    if args.get("init_values") is not None and not post_norm:
        out["layer_scale"] = float(args["init_values"])
    if rope_type != "axial" or out["rope"] == "none":  # timm's other kinds take no reference grid
        fields.pop("rope_ref_grid", None)
    if rope_type in ("mixed", "multimodal"):  # nor these an offset
        fields.pop("rope_grid_offset", None)
    if rope_type == "multimodal":
        out["rope_half"] = True
    return out


def _beit(args: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    after = args["use_fc_norm"] if args.get("use_fc_norm") is not None else fields["pool"] == "mean"
    shared, own = args.get("use_shared_rel_pos_bias", False), args.get("use_rel_pos_bias", False)
    out: dict[str, Any] = {
        "final_norm": not after, "fc_norm": bool(after), "qkv_bias": "qv" if args.get("qkv_bias", True) else "none",
        "pos_embed": "learned" if args.get("use_abs_pos_emb", True) else "none", "layer_scale_names": "gamma",
        "rel_pos_bias": "both" if shared and own else "shared" if shared else "block" if own else "none",
    }  # fmt: skip
    if args.get("swiglu_mlp"):
        out |= {"mlp": "glu", "activation": "silu"}
    if args.get("init_values"):
        out["layer_scale"] = float(args["init_values"])
    return out


def _norm(kind: str, eps: str, text: Any) -> dict[str, Any]:
    """The kind and eps of "rmsnorm_1e-5", "RmsNorm", "LayerNorm(eps=1e-05)", "layernorm" (timm's own eps is 1e-6)."""
    word = str(text).lower().replace("(eps=", "_").rstrip(")")
    name, _, number = word.partition("_")
    value = float(number) if number[:1].isdigit() else 1e-6
    return {kind: _choice("norm_layer", name.removesuffix("fp32"), NORMS), eps: value}


def _choice(argument: str, value: Any, choices: dict[str, str]) -> str:
    key = value if value in choices else str(value).lower()
    if key not in choices:
        raise ConfigError(f"timm's {argument}={value!r} has no counterpart here; {nearest(str(value), choices)}")
    return choices[key]
