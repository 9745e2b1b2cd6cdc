r"""Variant: the fields by which published Vision Transformers differ from the plain one.

Every field's default is the plain model of Dosovitskiy et al. 2021. A configuration with one other value is assembled
from further stages by `assembled.py` of each engine; the plain model's own files never read these fields.
"""

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from vit_common.config_checks import check_width
from vit_common.errors import ConfigError

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]
Norm = Literal["layer", "rms"]
ResizeRule = Literal[
    "timm_bicubic", "timm_bicubic_no_antialias", "timm_bilinear", "timm_bilinear_no_antialias",
    "huggingface_bicubic", "huggingface_bilinear", "torchvision_bicubic", "google_zoom", "open_clip_bicubic",
    "mae_bicubic", "dino_bicubic", "dinov2_bicubic", "dinov2_bicubic_antialias", "dinov2_registers_bicubic",
    "flexivit_bilinear", "flexivit_patch_bilinear",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a Vision Transformer may have beyond the plain one; base class of ViTConfig, all fields by keyword."""

    # Tokens before the patches
    reg_tokens: int = 0
    """register tokens after the class token (Darcet et al. 2023), `reg_token` (1, R, D)"""
    dist_token: bool = False
    """distillation token after the class token (Touvron et al. 2021), `dist_token` (1, 1, D)"""
    dist_head: bool = False
    """second head `head_dist` on the distillation token; the logits are the mean of both heads"""
    pos_embed_prefix: bool = True
    """positions are added to the prefix tokens too; False: to the patches alone (timm's `no_embed_class`)"""
    pos_embed_registers: bool = True
    """where the prefix tokens have positions, the registers have too; False: only class and distillation token"""
    pos_grid: tuple[int, int] | None = None
    """patch grid that `pos_embed` (and relative position tables) are stored for, when the image's is another"""
    pos_resize: ResizeRule = "timm_bicubic"
    """how positions stored for `pos_grid` are resized to the image's grid"""
    table_resize: Literal["timm_geometric", "huggingface_bilinear"] = "timm_geometric"
    """how relative position tables stored for `pos_grid` are; Hugging Face's rule touches all that are not square"""
    dynamic_image_size: bool = False
    """images of other sizes than `image_size` are taken too, as `at_image_size` has it"""
    patch_drop_rate: float = 0.0
    """share of the patch tokens left out of a training pass (Li et al. 2023, FLIP)"""

    # Patch embedding
    patch_crop: bool = False
    """pixels past the last whole patch are left out, as a strided convolution does; False: they are an error"""
    patch_pad: bool = False
    """the last patches are filled up with zeros where the image ends within them"""
    patch_bias: bool = True
    """bias of the patch projection"""
    patch_norm: Literal["none", "layer", "rms"] = "none"
    """norm after the patch projection, `patch_embed.norm`"""
    patch_norm_eps: float | None = None
    """epsilon of that norm when it is not `norm_eps`"""
    patch_norm_in: bool = False
    """LayerNorm of the raw patch, flattened as (C, P_h, P_w), before the projection, `patch_embed.norm_in`"""
    pre_norm: bool = False
    """norm of the tokens entering block 0, `norm_pre` (CLIP)"""

    # Norms, activation, block
    norm: Norm = "layer"
    """norm used throughout: LayerNorm, or RMSNorm (no mean, no bias)"""
    activation: Activation = "gelu"
    """activation of the MLP"""
    block: Literal["pre_norm", "res_post", "parallel", "diff_parallel", "parallel_things"] = "pre_norm"
    """pre-norm; res-post (norm after each branch); attention and MLP in parallel (Dehghani et al. 2023), with
    differential attention too; two attentions then two MLPs in parallel (Touvron et al. 2022)"""
    layer_scale: float | None = None
    """initial value of LayerScale's gamma (Touvron et al. 2021, CaiT); None: none. In a res-post block, of the norms"""
    layer_scale_names: Literal["ls", "gamma"] = "ls"
    """`ls1.gamma`, `ls2.gamma` (timm's vit) or `gamma_1`, `gamma_2` (timm's eva and beit)"""
    layer_scale_mlp: bool = True
    """LayerScale on the MLP branch too; False: on the attention branch alone"""

    # Attention
    attn_head_dim: int | None = None
    """width HD of a head when it is not D / NH; the inner width of attention is NH * HD"""
    qkv: Literal["fused", "split"] = "fused"
    """one projection `attn.qkv`, or three: `attn.q_proj`, `attn.k_proj`, `attn.v_proj`"""
    qkv_bias: Literal["all", "none", "qv", "q", "k", "v", "qk", "kv"] = "all"
    """which of query, key and value have a bias; "qv": all but the key (fused: `attn.q_bias`, `attn.v_bias`)"""
    num_kv_heads: int | tuple[int, ...] | None = None
    """key and value heads, fewer than NH in grouped-query attention; one number, or one for each block"""
    qk_norm: bool = False
    """norm of query and key over each head, `attn.q_norm`, `attn.k_norm`"""
    attn_norm: bool = False
    """norm of the merged heads before the projection, `attn.norm` (timm's `scale_attn_norm`)"""
    attn_proj: bool = True
    """output projection of attention"""
    proj_bias: bool = True
    """bias of the output projection of attention"""
    attention: Literal["softmax", "diff"] = "softmax"
    """softmax attention, or the difference of two (Ye et al. 2024)"""
    rel_pos_bias: Literal["none", "block", "shared", "both"] = "none"
    """relative position bias added to the scores (BEiT): a table in each block, one for all blocks, or both"""

    # Rotary positions
    rope: Literal["none", "axial", "mixed", "dinov3", "multimodal"] = "none"
    """rotary position embedding: fixed frequencies along each axis, learned ones (`rope.freqs`), DINOv3's, or one run
    of frequencies dealt out to time, row and column in turn, t h w t h w ... (interleaved, the order of Qwen3-VL;
    Qwen2-VL's three runs, all of time, then of row, then of column, are another model)"""
    rope_freqs: Literal["lang", "pixel"] = "lang"
    """axial: inverse powers of the temperature on patch indices, or bands up to `rope_max_res` on [-1, 1]"""
    rope_temperature: float = 10000.0
    """base of the frequencies"""
    rope_max_res: int = 224
    """pixel frequencies: the highest is half of it, times pi"""
    rope_half: bool = False
    """rotate the halves of a head against each other; False: neighbouring pairs"""
    rope_section: tuple[int, int, int] = (8, 12, 12)
    """multimodal: frequencies for time, row and column; where rows or columns have run out, time's, which is zero"""
    rope_grid_offset: float = 0.0
    """added to the patch indices"""
    rope_grid_indexing: Literal["ij", "xy"] = "ij"
    """which coordinate comes first: row ("ij") or column ("xy")"""
    rope_ref_grid: tuple[int, int] | None = None
    """patch grid of pre-training: coordinates are scaled to it"""

    # MLP
    mlp: Literal["mlp", "glu", "glu_packed"] = "mlp"
    """two linear maps; gated, with gate and value apart (`fc1_g`, `fc1_x`) or stacked in one `fc1` (gate first)"""
    mlp_hidden: int | None = None
    """hidden width M when it is not D * mlp_ratio; of a gated MLP, the width after the gate"""
    mlp_bias: bool = True
    """biases of the MLP's linear maps"""
    mlp_norm: bool = False
    """norm of the hidden values before the last linear map, `mlp.norm` (timm's `scale_mlp_norm`)"""

    # Head
    final_norm: bool = True
    """norm of the tokens after the last block, `norm`"""
    fc_norm: bool = False
    """norm of the pooled vector, `fc_norm`"""
    pool_include_prefix: bool = False
    """pooling reads the prefix tokens too"""
    attn_pool_heads: int | None = None
    """heads of attention pooling when not NH"""
    attn_pool_mlp_ratio: float | None = None
    """hidden width of attention pooling's MLP as a multiple of D, when not the model's own"""
    attn_pool_activation: Activation | None = None
    """activation of attention pooling's MLP, when not the model's own"""
    pre_logits: int = 0
    """width of a linear layer with tanh before the head, `pre_logits.fc`; 0: none"""
    head_bias: bool = True
    """bias of the head"""
    head_softmax: bool = False
    """the model returns probabilities: softmax after the head"""

    def check_variant(self) -> None:
        """Raise ConfigError unless the fields, each of which holds what it may, fit together."""
        config: Any = self  # the plain fields live in the subclass
        if self.patch_drop_rate and self.rel_pos_bias != "none":
            raise ConfigError(f"rel_pos_bias={self.rel_pos_bias!r} is a table over the whole grid; patch_drop_rate=0")
        if self.dist_token and not config.class_token:
            raise ConfigError("dist_token=True needs class_token=True: the two stand side by side")
        if self.dist_head and not self.dist_token:
            raise ConfigError("dist_head=True needs dist_token=True")
        if config.pool == "cls_dist" and not self.dist_token:
            raise ConfigError("pool='cls_dist' needs dist_token=True")
        if self.dist_head and (config.pool != "cls" or self.pre_logits):
            raise ConfigError("dist_head=True reads the class and the distillation token: pool='cls', pre_logits=0")
        # Before a tuple of `depth` entries is made: a file may claim any depth.
        given = self.num_kv_heads
        kv = given if isinstance(given, tuple) else (given or config.num_heads,)
        if (isinstance(given, tuple) and len(kv) != config.depth) or any(h < 1 or config.num_heads % h for h in kv):
            raise ConfigError(
                f"num_kv_heads={self.num_kv_heads} must be one number, or {config.depth} (one for each block), "
                f"each dividing num_heads={config.num_heads}"
            )
        if self.qkv == "fused" and any(h != config.num_heads for h in kv):
            raise ConfigError("grouped-query attention (num_kv_heads) needs qkv='split'")
        divisor = {"none": 1, "multimodal": 2}.get(self.rope, 4)
        if config.head_dim % divisor:
            raise ConfigError(f"rope={self.rope!r} needs a head width divisible by {divisor}, got {config.head_dim}")
        if self.qkv == "fused" and self.qkv_bias not in ("all", "none", "qv"):
            raise ConfigError(f"qkv_bias={self.qkv_bias!r} needs qkv='split'; fused there are 'all', 'none' and 'qv'")
        if self.rope == "mixed" and any(h != config.num_heads for h in kv):
            raise ConfigError(
                f"rope='mixed' turns the keys too by frequencies of each of num_heads={config.num_heads} heads: "
                f"num_kv_heads={given} must be None, or take rope='axial'"
            )
        if self.rope == "mixed" and self.rope_half:
            raise ConfigError("rope='mixed' rotates neighbouring pairs: rope_half must be False")
        if self.uses_diff_attention and self.rope != "none":
            raise ConfigError(f"rope={self.rope!r} does not go with differential attention, whose heads are halved")
        if self.uses_diff_attention and config.head_dim % 2:
            raise ConfigError(f"differential attention needs an even head width, got {config.head_dim}")
        if self.rel_pos_bias != "none" and self.num_prefix_tokens != 1:
            raise ConfigError("rel_pos_bias needs exactly one token before the patches, the class token")
        if not self.attn_proj and config.attn_dim != config.embed_dim:
            raise ConfigError(f"attn_proj=False needs NH * HD = embed_dim={config.embed_dim}, got {config.attn_dim}")
        readers = self.attn_pool_heads or (config.num_heads if config.pool == "map" else 1)
        if config.embed_dim % readers:
            raise ConfigError(
                f"attention pooling by {readers} heads needs embed_dim={config.embed_dim} divisible by them; give "
                f"attn_pool_heads a divisor of it, e.g. attn_pool_heads={math.gcd(config.embed_dim, readers)}"
            )
        if self.attn_pool_mlp_ratio is not None:
            width = config.embed_dim * self.attn_pool_mlp_ratio
            check_width("attn_pool_mlp_ratio", self.attn_pool_mlp_ratio, width)

    @property
    def is_plain(self) -> bool:
        """Whether the plain model's own stages are the whole model."""
        pool: str = getattr(self, "pool", "cls")
        sincos = getattr(self, "pos_embed", "learned") != "sincos_2d_inclusive"
        beyond = self.variant_fields().keys() - {"pos_resize", "table_resize"}  # without a `pos_grid` they say nothing
        return pool in ("cls", "mean") and sincos and not beyond

    def variant_fields(self) -> dict[str, Any]:
        """The fields that differ from the plain model's, by name."""
        defaults = {f.name: f.default for f in fields(Variant) if f.default is not MISSING}
        return {name: getattr(self, name) for name, default in defaults.items() if getattr(self, name) != default}

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: class, distillation, registers, in this order."""
        return int(getattr(self, "class_token", True)) + int(self.dist_token) + self.reg_tokens

    @property
    def num_pos_prefix(self) -> int:
        """Prefix tokens that have positions."""
        if not self.pos_embed_prefix:
            return 0
        return self.num_prefix_tokens - (0 if self.pos_embed_registers else self.reg_tokens)

    def has_bias(self, letter: str) -> bool:
        """Whether the projection of query, key or value ("q", "k", "v") has a bias."""
        return self.qkv_bias == "all" or (self.qkv_bias != "none" and letter in self.qkv_bias)

    @property
    def uses_diff_attention(self) -> bool:
        return self.attention == "diff" or self.block == "diff_parallel"

    @property
    def kv_heads(self) -> tuple[int, ...]:
        """Key and value heads of each block."""
        config: Any = self
        heads = self.num_kv_heads
        return (heads or config.num_heads,) * config.depth if heads is None or isinstance(heads, int) else tuple(heads)
