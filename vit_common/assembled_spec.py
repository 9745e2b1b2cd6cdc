"""Parameters of a configuration that is not plain: the names and shapes of timm, stage by stage."""

from vit_common.config import ViTConfig
from vit_common.params import Init, ParamSpec, linear_spec, norm_spec, under

Spec = dict[str, ParamSpec]


def assembled_spec(config: ViTConfig) -> Spec:
    """Name -> ParamSpec of every parameter, in the order of the forward pass."""
    width = config.embed_dim
    spec = {**token_spec(config), **under("patch_embed", patch_spec(config))}
    if config.rope == "mixed":
        freqs = (2, config.depth, config.num_heads, config.head_dim // 2)
        spec["rope.freqs"] = ParamSpec(freqs, "normal_02")
    if config.pre_norm:
        spec |= under("norm_pre", norms(config, width))
    if config.rel_pos_bias in ("shared", "both"):
        spec["rel_pos_bias.relative_position_bias_table"] = table_spec(config)
    for i in range(config.depth):
        spec |= under(f"blocks.{i}", BLOCKS[config.block](config, i))
    if config.final_norm:
        spec |= under("norm", norms(config, width))
    if config.pool == "map":
        spec |= under("attn_pool", pool_spec(config))
    features = 2 * width if config.pool == "cls_mean" else width
    if config.fc_norm:
        spec |= under("fc_norm", norms(config, features))
    if config.pre_logits:
        spec |= under("pre_logits.fc", linear_spec(config.pre_logits, features))
        features = config.pre_logits
    if config.num_classes:
        spec |= under("head", linear(config.num_classes, features, config.head_bias, "normal_02"))
        if config.dist_head:
            spec |= under("head_dist", linear(config.num_classes, width, config.head_bias, "normal_02"))
    return spec


def token_spec(config: ViTConfig) -> Spec:
    width, spec = config.embed_dim, {}
    if config.class_token:
        spec["cls_token"] = ParamSpec((1, 1, width), "normal_1e-6")
    if config.dist_token:
        spec["dist_token"] = ParamSpec((1, 1, width), "normal_02")
    if config.reg_tokens:
        spec["reg_token"] = ParamSpec((1, config.reg_tokens, width), "normal_1e-6")
    if config.pos_embed == "learned":
        grid = config.stored_grid
        count = grid[0] * grid[1] + config.num_pos_prefix
        spec["pos_embed"] = ParamSpec((1, count, width), "normal_02")
    return spec


def patch_spec(config: ViTConfig) -> Spec:
    width = config.embed_dim
    spec = under("norm_in", norm_spec(config.patch_dim)) if config.patch_norm_in else {}
    spec["proj.weight"] = ParamSpec((width, config.in_channels, *config.patch_size), "lecun", decay=True)
    if config.patch_bias:
        spec["proj.bias"] = ParamSpec((width,), "zeros")
    if config.patch_norm != "none":
        spec |= under("norm", norms(config, width, config.patch_norm))
    return spec


def residual_spec(config: ViTConfig, i: int) -> Spec:
    """A block of two branches; LayerScale's gammas on both, or on the attention alone."""
    spec = {
        **under("norm1", norms(config, config.embed_dim, start=_post_start(config))),
        **under("attn", attention_spec(config, i)),
        **under("norm2", norms(config, config.embed_dim, start=_post_start(config))),
        **under("mlp", mlp_spec(config)),
    }
    if config.layer_scale is not None and config.block == "pre_norm":
        names = ("gamma_1", "gamma_2") if config.layer_scale_names == "gamma" else ("ls1.gamma", "ls2.gamma")
        for name in names if config.layer_scale_mlp else names[:1]:
            spec[name] = ParamSpec((config.embed_dim,), config.layer_scale)
    return spec


def things_spec(config: ViTConfig, i: int) -> Spec:
    spec: Spec = {}
    for group, body, inside in (("attns", "attn", attention_spec(config, i)), ("ffns", "mlp", mlp_spec(config))):
        for j in range(2):
            branch = {**under("norm", norms(config, config.embed_dim)), **under(body, inside)}
            if config.layer_scale is not None:
                branch["ls.gamma"] = ParamSpec((config.embed_dim,), config.layer_scale)
            spec |= under(f"{group}.{j}", branch)
    return spec


def parallel_spec(config: ViTConfig, i: int) -> Spec:
    width, hidden, bias = config.embed_dim, config.mlp_dim, config.qkv_bias != "none"
    spec = under("in_norm", norms(config, width))
    spec |= under("in_proj", linear(hidden + 3 * config.attn_dim, width, bias))
    if not bias:
        spec["mlp_bias"] = ParamSpec((hidden,), "zeros")
    spec |= head_norm_spec(config)
    if config.block == "diff_parallel":
        spec |= under("out_proj", linear(width, config.attn_dim + hidden, config.proj_bias))
    else:
        spec |= under("attn_out_proj", linear(width, config.attn_dim, config.proj_bias))
        spec |= under("mlp_out_proj", linear(width, hidden, config.proj_bias))
    if config.layer_scale is not None:
        spec["ls.gamma"] = ParamSpec((width,), config.layer_scale)
    return spec


BLOCKS = {"pre_norm": residual_spec, "res_post": residual_spec, "parallel_things": things_spec,
          "parallel": parallel_spec, "diff_parallel": parallel_spec}  # fmt: skip


def attention_spec(config: ViTConfig, i: int) -> Spec:
    spec: Spec = {}
    width, inner = config.embed_dim, config.attn_dim
    if config.qkv == "fused":
        spec |= under("qkv", linear(3 * inner, width, config.qkv_bias == "all"))
        if config.qkv_bias == "qv":
            spec |= {name: ParamSpec((inner,), "zeros") for name in ("q_bias", "v_bias")}
    else:
        kv = config.kv_heads[i] * config.head_dim
        for name, out in (("q_proj", inner), ("k_proj", kv), ("v_proj", kv)):
            spec |= under(name, linear(out, width, config.has_bias(name[0])))
    spec |= head_norm_spec(config)
    if config.rel_pos_bias in ("block", "both"):
        spec["relative_position_bias_table"] = table_spec(config)
    if config.attn_norm:
        spec |= under("norm", norms(config, inner))
    if config.attn_proj:
        spec |= under("proj", linear(width, inner, config.proj_bias))
    return spec


def head_norm_spec(config: ViTConfig) -> Spec:
    """Norms over a head's width, and what differential attention learns."""
    width = config.head_dim // 2 if config.uses_diff_attention else config.head_dim
    spec: Spec = {}
    if config.qk_norm:
        spec |= {**under("q_norm", norms(config, width)), **under("k_norm", norms(config, width))}
    if config.uses_diff_attention:
        spec |= {f"lambda_{name}": ParamSpec((width,), "normal_1e-1") for name in ("q1", "k1", "q2", "k2")}
        spec["sub_norm.weight"] = ParamSpec((2 * width,), "ones")
    return spec


def mlp_spec(config: ViTConfig) -> Spec:
    width, hidden, bias = config.embed_dim, config.mlp_dim, config.mlp_bias
    names = {"mlp": ("fc1",), "glu": ("fc1_g", "fc1_x"), "glu_packed": ("fc1",)}[config.mlp]
    spec: Spec = {}
    for name in names:
        spec |= under(name, linear(2 * hidden if config.mlp == "glu_packed" else hidden, width, bias))
    if config.mlp_norm:
        spec |= under("norm", norms(config, hidden))
    return spec | under("fc2", linear(width, hidden, bias))


def pool_spec(config: ViTConfig) -> Spec:
    width = config.embed_dim
    hidden = int(width * config.attn_pool_mlp_ratio) if config.attn_pool_mlp_ratio else config.mlp_dim
    return {
        "latent": ParamSpec((1, 1, width), "lecun"),
        **under("q", linear_spec(width, width)),
        **under("kv", linear_spec(2 * width, width)),
        **under("proj", linear_spec(width, width)),
        **under("norm", norms(config, width)),
        **under("mlp.fc1", linear_spec(hidden, width)),
        **under("mlp.fc2", linear_spec(width, hidden)),
    }


def table_spec(config: ViTConfig) -> ParamSpec:
    height, width = config.stored_grid
    return ParamSpec(((2 * height - 1) * (2 * width - 1) + 3, config.num_heads), "zeros")


def linear(out_features: int, in_features: int, bias: bool, init: Init = "xavier") -> Spec:
    spec = linear_spec(out_features, in_features, init)
    return spec if bias else {"weight": spec["weight"]}


def norms(config: ViTConfig, width: int, kind: str | None = None, start: float | None = None) -> Spec:
    """The configuration's norm, its weight starting at 1 or at `start`."""
    spec = norm_spec(width)
    if start is not None:
        spec["weight"] = ParamSpec((width,), start)
    return spec if (kind or config.norm) == "layer" else {"weight": spec["weight"]}


def _post_start(config: ViTConfig) -> float | None:
    return config.layer_scale if config.block == "res_post" else None
