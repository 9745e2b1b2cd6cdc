r"""What a model costs, by formula: parameters, arithmetic and memory of each stage.

FLOPs are those of the matrix products, a multiply-add counting 2: $2 R I O$ for $R$ rows through a linear map, and
$4 T^2 D$ for the two products inside attention. What is done element by element (norms, GELU, softmax, residuals) is
left out, as usual. A backward pass makes two products of each one, so a training step costs three times the forward.

Cache bytes are what the NumPy engine keeps from the forward for the backward: its `...Cache` tuples, without the
parameters they refer to. Every array is counted once, in the stage that holds it.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from vit_common.config import ViTConfig
from vit_common.errors import ConfigError
from vit_common.masks import mask_sites
from vit_common.params import param_spec


@dataclass(frozen=True)
class StageCost:
    """One row of the table, for one image. The shape is without the batch axis; numbers are sums over all blocks."""

    stage: str
    shape: tuple[int, ...]
    params: int = 0
    flops: int = 0
    cache_numbers: int = 0  # floats kept for the backward
    mask_bytes: int = 0  # bools kept for the backward

    def cache_bytes(self, itemsize: int = 4) -> int:
        return self.cache_numbers * itemsize + self.mask_bytes


def model_costs(config: ViTConfig) -> list[StageCost]:
    """A row a stage, in the order of the forward pass; those of the blocks, `blocks.*`, once for all.

    Raises:
        ConfigError: a variant of the model for which there are no formulas here.
    """
    if not getattr(config, "is_plain", True):
        raise ConfigError("the cost formulas are those of the plain model; this configuration has stages beyond it")
    tokens, width, patches = config.num_tokens, config.embed_dim, config.num_patches
    rows = [
        StageCost(
            "patch_embed", (patches, width), flops=_linear(patches, config.patch_dim, width),
            cache_numbers=patches * config.patch_dim,
        )
    ]  # fmt: skip
    if config.class_token:
        rows.append(StageCost("class_token", (tokens, width)))
    rows += [
        StageCost("tokens", (tokens, width)),
        *_block_costs(config),
        StageCost("norm", (tokens, width), cache_numbers=tokens * (width + 1)),
        StageCost("pooled", (width,)),
    ]
    if config.num_classes:
        classes = config.num_classes
        rows.append(StageCost("head", (classes,), flops=_linear(1, width, classes), cache_numbers=width))
    return [_with_params_and_masks(row, config) for row in rows]


def _block_costs(config: ViTConfig) -> Iterator[StageCost]:
    tokens, width, hidden, heads = config.num_tokens, config.embed_dim, config.mlp_dim, config.num_heads
    kept, product = tokens * width, 2 * tokens * tokens * width
    if not config.depth:
        return

    def stage(name: str, shape: tuple[int, ...], flops: int = 0, cache: int = 0) -> StageCost:
        return StageCost(f"blocks.*.{name}", shape, flops=flops * config.depth, cache_numbers=cache * config.depth)

    yield stage("norm1", (tokens, width), cache=kept + tokens)  # xhat and rstd
    yield stage("attn.qkv", (tokens, 3 * width), _linear(tokens, width, 3 * width), kept)
    yield stage("attn.scores", (heads, tokens, tokens), product, 3 * kept)  # q, k and v
    yield stage("attn.probs", (heads, tokens, tokens), cache=heads * tokens * tokens)
    yield stage("attn.context", (tokens, width), product)
    yield stage("attn.proj", (tokens, width), _linear(tokens, width, width), kept)
    yield stage("norm2", (tokens, width), cache=kept + tokens)
    yield stage("mlp.fc1", (tokens, hidden), _linear(tokens, width, hidden), kept)
    yield stage("mlp.act", (tokens, hidden), cache=tokens * hidden)  # the slope of GELU
    yield stage("mlp.fc2", (tokens, width), _linear(tokens, hidden, width), tokens * hidden)


def _linear(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs


# Stages whose parameters are called otherwise, and the stages that keep the masks.
PARAM_NAMES = {"class_token": "cls_token", "tokens": "pos_embed"}
MASK_STAGES = {
    "pos_drop": "tokens", "attn.attn_drop": "attn.probs", "attn.proj_drop": "attn.proj", "drop_path1": "attn.proj",
    "mlp.drop1": "mlp.act", "mlp.drop2": "mlp.fc2", "drop_path2": "mlp.fc2",
}  # fmt: skip


def _with_params_and_masks(row: StageCost, config: ViTConfig) -> StageCost:
    owner, few = PARAM_NAMES.get(row.stage, row.stage), _few_blocks(config)
    params = sum(count for name, count in parameter_counts(config).items() if _owner(name) == owner)
    masks = [
        math.prod(shape) * _times(site, config)
        for site, rate, shape in mask_sites(few, 1)
        if rate > 0 and _holder(site) == row.stage
    ]
    return replace(row, params=params, mask_bytes=sum(masks))


def parameter_counts(config: ViTConfig) -> dict[str, int]:
    """Numbers by the parameter's name; `blocks.1` stands for all blocks after the first, for there may be 10^9."""
    specs = param_spec(_few_blocks(config)).items()
    return {name: math.prod(spec.shape) * _times(name, config) for name, spec in specs}


def _few_blocks(config: ViTConfig) -> ViTConfig:
    """With two blocks at most, unless the blocks were given one by one: all but the first are alike."""
    alike = not isinstance(config.num_kv_heads, tuple)
    return config.replace(depth=2) if alike and config.depth > 2 else config


def _times(name: str, config: ViTConfig) -> int:
    alike = not isinstance(config.num_kv_heads, tuple)
    return config.depth - 1 if alike and name.startswith("blocks.1.") else 1


def _holder(site: str) -> str:
    """The stage that keeps a mask: blocks.3.mlp.drop1 -> blocks.*.mlp.act."""
    inner = re.sub(r"^blocks\.\d+\.", "", site)
    return ("" if inner == site else "blocks.*.") + MASK_STAGES[inner]


def _owner(parameter: str) -> str:
    """The stage of a parameter: blocks.3.attn.qkv.weight -> blocks.*.attn.qkv, cls_token -> cls_token."""
    stage = re.sub(r"^blocks\.\d+\.", "blocks.*.", parameter)
    stage = re.sub(r"\.(weight|bias)$", "", stage)
    return "patch_embed" if stage == "patch_embed.proj" else stage


@dataclass(frozen=True)
class Totals:
    """Sums over the whole model."""

    params: int
    flops: int
    cache_bytes: int


def totals(rows: list[StageCost], itemsize: int = 4) -> Totals:
    """Everything of one image."""
    return Totals(
        sum(row.params for row in rows),
        sum(row.flops for row in rows),
        sum(row.cache_bytes(itemsize) for row in rows),
    )
