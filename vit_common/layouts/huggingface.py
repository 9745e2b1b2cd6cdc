"""Hugging Face transformers: names as they stand in published files. Since version 5 the library holds some tensors
under other names in memory; these spellings are read too."""

from typing import Any

from vit_common.config import ViTConfig
from vit_common.layouts.huggingface_rows import CLASSIFIER, HEADS, NEEDS, attention, prefixed, zeros
from vit_common.layouts.huggingface_towers import CLIP, SIGLIP
from vit_common.layouts.layout import Layout
from vit_common.layouts.rules import HALVES, constant, rows

EMBEDDINGS = (
    ("cls_token", "embeddings.cls_token"),
    ("dist_token", "embeddings.distillation_token"),
    ("patch_embed.proj.*", "embeddings.patch_embeddings.projection.*"),
    ("norm.*", "layernorm.*"),
)
TABLE = "relative_position_bias.relative_position_bias_table"


def twice(ours: str, first: str, second: str) -> tuple[tuple, ...]:
    """Two modules of a block that are numbered 1 and 2 here."""
    return tuple(
        (f"blocks.{{i}}.{ours.format(n)}", f"encoder.layer.{{i}}.{name}") for n, name in ((1, first), (2, second))
    )


START = "encoder.layer.{i}.attention."
LAYER = attention(START + "attention.", "query", "key", "value", START + "output.dense")
VIT_BLOCK = (
    *LAYER,
    *twice("norm{}.*", "layernorm_before.*", "layernorm_after.*"),
    *twice("mlp.fc{}.*", "intermediate.dense.*", "output.dense.*"),
)
DINO_BLOCK = (
    *LAYER,
    *twice("norm{}.*", "norm1.*", "norm2.*"),
    *twice("ls{}.gamma", "layer_scale1.lambda1", "layer_scale2.lambda1"),
)
IN_MEMORY = (
    (r"^(?:encoder\.)?layers?\.(\d+)\.", r"encoder.layer.\1."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
VIT_IN_MEMORY = (*IN_MEMORY, (r"^(encoder\.layer\.\d+\.)mlp\.fc1\.", r"\1intermediate.dense."),
                 (r"^(encoder\.layer\.\d+\.)mlp\.fc2\.", r"\1output.dense."))  # fmt: skip


def _decoded(names: str | tuple[str, ...], start: str) -> tuple[str, ...]:
    """A block of the encoder's table as one of the decoder's."""
    there = "decoder_blocks.{j}" if start.startswith("blocks") else "decoder.decoder_layers.{j}"
    return tuple(name.replace(start, there) for name in ((names,) if isinstance(names, str) else names))


def _family(name: str, title: str, word: str, table: Any, **more: Any) -> Layout:
    settings: dict[str, Any] = {
        "prefixes": (word,), "prefix": prefixed(word), "bare": HEADS, "needs": NEEDS, "spellings": VIT_IN_MEMORY,
        "ignored": r"^pooler\.|^embeddings\.mask_token$|relative_position_index$",
    }  # fmt: skip
    return Layout(name=name, title=title, table=table if callable(table) else rows(*table), **{**settings, **more})


PATCHES = "embeddings.patch_embeddings.projection.weight"
POSITIONS = ("pos_embed", "embeddings.position_embeddings")
POOLER = ("pre_logits.fc.*", "pooler.dense.*")


def _deit(c: Any) -> tuple:
    """With a teacher there are two heads, under other names than one head alone."""
    two = ("head.*", "cls_classifier.*"), ("head_dist.*", "distillation_classifier.*")
    return rows(*EMBEDDINGS, POSITIONS, *VIT_BLOCK, *(two if c.dist_head else (CLASSIFIER, *_pooler(c))))


def _pooler(c: Any) -> tuple:
    """A linear map and tanh after pooling, in the body alone: a classifier leaves it unread."""
    return () if getattr(c, "num_classes", 0) else (POOLER,)


def _cls(tensors: Any) -> dict[str, Any]:
    """These models read the class token, classifiers without the pooler."""
    return {"pool": "cls", **({"pre_logits": 0} if "classifier.weight" in tensors else {})}


DEIT = _family(
    "huggingface_deit", "Hugging Face DeiT, with or without teacher", "deit.", _deit,
    marks=(PATCHES, "embeddings.distillation_token"),
    facts=lambda tensors: {"dist_head": "distillation_classifier.weight" in tensors, **_cls(tensors)},
)  # fmt: skip

BEIT = _family(
    "huggingface_beit", "Hugging Face BEiT", "beit.",
    (
        *EMBEDDINGS, POSITIONS, *VIT_BLOCK, ("fc_norm.*", "pooler.layernorm.*"), CLASSIFIER,
        ("blocks.{i}.gamma_1", "encoder.layer.{i}.lambda_1"), ("blocks.{i}.gamma_2", "encoder.layer.{i}.lambda_2"),
        ("blocks.{i}.attn.relative_position_bias_table", f"encoder.layer.{{i}}.attention.attention.{TABLE}"),
        ("rel_pos_bias.relative_position_bias_table", f"encoder.{TABLE}"),
    ),
    marks=(PATCHES, "encoder.layer.0.attention.attention.query.bias"),
    unmarks=("encoder.layer.0.attention.attention.key.bias",),
    spellings=(*VIT_IN_MEMORY, (r"^(encoder\.layer\.\d+\.)(relative_position_bias\.)", r"\1attention.attention.\2"),
               (r"^shared_position_bias\.", "encoder.relative_position_bias.")),
    ignored=r"^pooler\.dense\.|^embeddings\.mask_token$|relative_position_index$|^lm_head\.",
    facts=lambda tensors: {} if "pooler.layernorm.weight" in tensors else {"pool": "cls"}, needs=(*NEEDS, "pool"),
)  # fmt: skip

SWIGLU = (
    ("blocks.{i}.mlp.fc1.*", "encoder.layer.{i}.mlp.weights_in.*"),
    ("blocks.{i}.mlp.fc2.*", "encoder.layer.{i}.mlp.weights_out.*"),
    ("blocks.{i}.mlp.fc1.*", ("encoder.layer.{i}.mlp.gate_proj.*", "encoder.layer.{i}.mlp.up_proj.*"), HALVES),
    ("blocks.{i}.mlp.fc2.*", "encoder.layer.{i}.mlp.down_proj.*"),
    ("blocks.{i}.mlp.fc1_g.*", "encoder.layer.{i}.mlp.gate_proj.*"),
    ("blocks.{i}.mlp.fc1_x.*", "encoder.layer.{i}.mlp.up_proj.*"),
)
MLP = twice("mlp.fc{}.*", "mlp.fc1.*", "mlp.fc2.*")


def _dinov2(c: Any) -> tuple:
    mlp = (*SWIGLU, *MLP) if getattr(c, "mlp", "mlp") != "mlp" else (*MLP, *SWIGLU)
    positions = (POSITIONS,) if not c.reg_tokens or not c.pos_embed_registers else ()  # registers have none there
    mask = ((), "embeddings.mask_token", constant(zeros("1", "D")))
    registers = ("reg_token", "embeddings.register_tokens")
    return rows(*EMBEDDINGS, *positions, registers, mask, *DINO_BLOCK, *mlp, CLASSIFIER)


def _dinov2_facts(tensors: Any) -> dict[str, Any]:
    """The classifier reads the class token and the mean of the patches side by side."""
    registers, head = tensors.get("embeddings.register_tokens"), tensors.get("classifier.weight")
    known: dict[str, Any] = {"reg_tokens": registers.shape[1] if registers is not None and registers.ndim == 3 else 0}
    known["pos_embed_registers"] = not known["reg_tokens"]
    token = tensors.get("embeddings.cls_token")
    both = head is not None and token is not None and head.shape[-1] == 2 * token.shape[-1]
    return {**known, "pos_embed_prefix": True, "pool": "cls_mean" if both else "cls"}


_DINOV2: dict[str, Any] = {
    "marks": (PATCHES, "encoder.layer.0.layer_scale1.lambda1"), "facts": _dinov2_facts, "spellings": IN_MEMORY,
}  # fmt: skip
DINOV2 = _family("huggingface_dinov2", "Hugging Face DINOv2", "dinov2.", _dinov2, **_DINOV2,
                 unmarks=("embeddings.register_tokens",))  # fmt: skip
REGISTERS = _family("huggingface_dinov2_with_registers", "Hugging Face DINOv2 with registers", "dinov2_with_registers.",
                    _dinov2, **{**_DINOV2, "marks": (*_DINOV2["marks"], "embeddings.register_tokens")})  # fmt: skip

DINOV3 = Layout(
    name="huggingface_dinov3",
    title="Hugging Face DINOv3 ViT",
    table=rows(
        ("cls_token", "embeddings.cls_token"), ("reg_token", "embeddings.register_tokens"),
        ((), "embeddings.register_tokens", constant(lambda c: None if c.reg_tokens else zeros("1", "0", "D")(c))),
        ((), "embeddings.mask_token", constant(zeros("1", "1", "D"))),
        ("patch_embed.proj.*", "embeddings.patch_embeddings.*"),
        *attention("layer.{i}.attention.", "q_proj", "k_proj", "v_proj", "layer.{i}.attention.o_proj"),
        *((f"blocks.{{i}}.{ours}", f"layer.{{i}}.{theirs}") for ours, theirs in (
            ("norm1.*", "norm1.*"), ("norm2.*", "norm2.*"), ("gamma_1", "layer_scale1.lambda1"),
            ("gamma_2", "layer_scale2.lambda1"), ("ls1.gamma", "layer_scale1.lambda1"),
            ("ls2.gamma", "layer_scale2.lambda1"),
            ("mlp.fc1_g.*", "mlp.gate_proj.*"), ("mlp.fc1_x.*", "mlp.up_proj.*"), ("mlp.fc1.*", "mlp.up_proj.*"),
            ("mlp.fc2.*", "mlp.down_proj.*"))),
        ("norm.*", "norm.*"), CLASSIFIER,
    ),
    marks=("embeddings.patch_embeddings.weight", "layer.0.layer_scale1.lambda1"),
    prefixes=("dinov3_vit.", "vit.", "dinov3.", "model."),
    bare=HEADS,
    needs=(*NEEDS, "image_size", "rope_temperature"),
    fixed={"rope": "dinov3", "rope_half": True, "pos_embed": "none", "pool": "cls"},
    spellings=((r"^model\.layer\.", "layer."),),
    ignored=r"^rope_embeddings\.|inv_freq$",
)  # fmt: skip

DECODER = (
    ("decoder_embed.*", "decoder.decoder_embed.*"), ("mask_token", "decoder.mask_token"),
    ("decoder_pos_embed", "decoder.decoder_pos_embed"), ("decoder_norm.*", "decoder.decoder_norm.*"),
    ("decoder_pred.*", "decoder.decoder_pred.*"),
    *((_decoded(ours, "blocks.{i}"), _decoded(theirs, "encoder.layer.{i}"), *op) for ours, theirs, *op in VIT_BLOCK),
)  # fmt: skip
# Version 5 writes these blocks under the second or third name.
DECODER_SPELLINGS = ((r"^decoder\.decoder_(?:encoder\.layer|layers)\.(\d+)\.", r"decoder.decoder_layers.\1."),
                     (r"^(decoder\.decoder_layers\.\d+\.)mlp\.fc1\.", r"\1intermediate.dense."),
                     (r"^(decoder\.decoder_layers\.\d+\.)mlp\.fc2\.", r"\1output.dense."))  # fmt: skip
MAE = _family("huggingface_mae", "Hugging Face ViT-MAE: the encoder; with a MaeConfig the decoder too", "vit.",
              (*EMBEDDINGS, POSITIONS, *VIT_BLOCK, *DECODER), marks=(PATCHES, "decoder.decoder_embed.weight"),
              prefix=lambda config: "vit.", bare=("decoder.",), spellings=(*VIT_IN_MEMORY, *DECODER_SPELLINGS),
              facts=lambda tensors: {"pool": "cls"}, ignored=r"^decoder\.|^embeddings\.mask_token$")  # fmt: skip

VIT = _family("huggingface_vit", "Hugging Face ViT, and the encoder of ViT-MAE", "vit.",
              lambda c: rows(*EMBEDDINGS, POSITIONS, *VIT_BLOCK, *_pooler(c), CLASSIFIER),
              marks=(PATCHES, "encoder.layer.0.layernorm_before.weight"),
              needs=(*NEEDS, "pool"), facts=_cls)  # fmt: skip

# In the order of recognition.
HUGGINGFACE = (MAE, DEIT, REGISTERS, DINOV2, BEIT, DINOV3, CLIP, SIGLIP, VIT)


def member(config: ViTConfig) -> str:
    """The Hugging Face model that a configuration is written as."""
    if config.rope == "dinov3":
        return DINOV3.name
    if config.pool == "map" or (not config.class_token and config.pos_embed == "learned"):
        return SIGLIP.name
    if config.pre_norm:
        return CLIP.name
    if config.dist_token:
        return DEIT.name
    if config.rel_pos_bias != "none" or config.qkv_bias == "qv":
        return BEIT.name
    if config.reg_tokens:
        return REGISTERS.name
    return DINOV2.name if config.layer_scale is not None or config.pool == "cls_mean" else VIT.name
