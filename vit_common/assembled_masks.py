"""Where a configuration that is not plain drops something."""

from collections.abc import Iterator

from vit_common.config import ViTConfig
from vit_common.masks import drop_path_rates

Site = tuple[str, float, tuple[int, ...]]


def assembled_mask_sites(config: ViTConfig, batch: int) -> Iterator[Site]:
    """(site, rate, shape) in the order of the forward pass; after `patch_drop` there are fewer tokens."""
    yield "pos_drop", config.pos_drop_rate, (batch, config.num_tokens, config.embed_dim)
    tokens = config.num_tokens
    if config.patch_drop_rate:
        yield "patch_drop", config.patch_drop_rate, (batch, config.num_patches)
        tokens = config.num_prefix_tokens + max(1, int(config.num_patches * (1.0 - config.patch_drop_rate)))
    for i, path_rate in enumerate(drop_path_rates(config)):
        for site, rate, shape in block_sites(config, batch, tokens, path_rate):
            yield f"blocks.{i}.{site}", rate, shape


def block_sites(config: ViTConfig, batch: int, tokens: int, path_rate: float) -> Iterator[Site]:
    """The sites of one block, below its name."""
    if config.block in ("parallel", "diff_parallel"):
        yield _attn_drop(config, batch, tokens)
        yield "mlp_drop", config.proj_drop_rate, (batch, tokens, config.mlp_dim)
        yield "drop_path", path_rate, (batch,)
        return
    branches = [("", "attn", "drop_path1"), ("", "mlp", "drop_path2")]
    if config.block == "parallel_things":
        branches = [(f"{group}.{j}.", body, "drop_path") for group, body in (("attns", "attn"), ("ffns", "mlp"))
                    for j in range(2)]  # fmt: skip
    for at, body, path in branches:
        if body == "attn":
            name, rate, shape = _attn_drop(config, batch, tokens)
            yield f"{at}attn.{name}", rate, shape
            yield f"{at}attn.proj_drop", config.proj_drop_rate, (batch, tokens, config.embed_dim)
        else:
            yield f"{at}mlp.drop1", config.proj_drop_rate, (batch, tokens, config.mlp_dim)
            yield f"{at}mlp.drop2", config.proj_drop_rate, (batch, tokens, config.embed_dim)
        yield f"{at}{path}", path_rate, (batch,)


def _attn_drop(config: ViTConfig, batch: int, tokens: int) -> Site:
    heads = 2 * config.num_heads if config.uses_diff_attention else config.num_heads
    return "attn_drop", config.attn_drop_rate, (batch, heads, tokens, tokens)
