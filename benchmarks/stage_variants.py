"""The stages that other Vision Transformers are assembled from, at the sizes they would have in a plain preset."""

from typing import Any

import numpy as np

import numpy_vit
from benchmarks.stage_case import Array, StageCase
from vit_common.assembled_spec import BLOCKS, assembled_spec, attention_spec, mlp_spec, norms, patch_spec, pool_spec
from vit_common.config import ViTConfig
from vit_common.masks import keyed_rng
from vit_common.params import ParamSpec, block_spec


class Cases:
    """Draws what the stages read, and keeps their cases in reading order."""

    def __init__(self, config: ViTConfig, batch: int):
        self.config, self.batch, self.found = config, batch, list[StageCase]()
        self.rng = keyed_rng(0, "variants")

    def draw(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape, np.float32)

    def leaf(self, name: str, arrays: dict[str, Array], /, **options: Any) -> None:
        self.found.append(StageCase(name, arrays, options, flops=None))

    def composite(self, name: str, spec: dict[str, ParamSpec], x: Array, /, **options: Any) -> None:
        """Parameters around 0, norm weights around 1, matrices scaled by their fan-in."""
        params = {
            n: (self.draw(*p.shape) / np.float32(max(np.prod(p.shape[1:]), 4) ** 0.5)) + np.float32(p.init == "ones")
            for n, p in spec.items()
        }
        self.leaf(name, {"x": x, **params}, **options)

    def tokens(self) -> Array:
        return self.draw(self.batch, self.config.num_tokens, self.config.embed_dim)

    def half_kept(self) -> Array:
        """(B, N) of bool, half of the patches of every image."""
        ranks = self.rng.random((self.batch, self.config.num_patches)).argsort(axis=1)
        return ranks < self.config.num_patches // 2


def variant_cases(config: ViTConfig, batch: int) -> list[StageCase]:
    """Every variant stage. Grids that are resized grow to one and a half times as many patches a side."""
    cases = Cases(config, batch)
    _elementwise(cases)
    _positions(cases)
    _attention(cases)
    _tokens(cases)
    _blocks(cases)
    return cases.found


def _elementwise(cases: Cases) -> None:
    config = cases.config
    hidden, weight = cases.draw(cases.batch, config.num_tokens, config.mlp_dim), cases.draw(config.embed_dim)
    for name in ("relu", "silu", "quick_gelu", "gelu_tanh"):
        cases.leaf(name, {"x": hidden})
    cases.leaf("activation", {"x": hidden}, name="gelu")
    cases.leaf("layer_scale", {"x": cases.tokens(), "gamma": weight})
    cases.leaf("rms_norm", {"x": cases.tokens(), "weight": weight}, eps=config.norm_eps)
    cases.composite("norm", norms(config, config.embed_dim), cases.tokens(), kind=config.norm, eps=config.norm_eps)


def _positions(cases: Cases) -> None:
    config = cases.config
    grid, heads, pairs = config.grid_size, config.num_heads, config.head_dim // 2
    larger = grid[0] * 3 // 2, grid[1] * 3 // 2
    table = cases.draw((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, heads)
    each = cases.draw(cases.batch, heads, config.num_tokens, config.head_dim)
    angles = cases.draw(1, 1, config.num_patches, pairs)
    prefix = config.num_prefix_tokens
    cases.leaf("rope", {"x": each, "sin": np.sin(angles), "cos": np.cos(angles)}, prefix=prefix, half=False)
    cases.leaf("rope_mixed", {"freqs": cases.draw(2, config.depth, heads, pairs)}, points=numpy_vit.patch_grid(grid))
    cases.leaf("rel_pos_bias", {"table": table}, grid=grid)
    cases.leaf("table_resize", {"table": table}, old=grid, new=larger, rule=config.table_resize)
    stored = {"pos_embed": cases.draw(1, config.num_tokens, config.embed_dim)}
    cases.leaf("pos_resize", stored, old=grid, new=larger, rule=config.pos_resize, prefix=prefix)
    weight = cases.draw(config.embed_dim, config.in_channels, *config.patch_size)
    smaller = tuple(max(n * 3 // 4, 1) for n in config.patch_size)
    cases.leaf("patch_resize", {"weight": weight}, new=smaller, rule=config.pos_resize)


def _attention(cases: Cases) -> None:
    config, batch = cases.config, cases.batch
    heads, tokens, width = config.num_heads, config.num_tokens, config.head_dim
    qkv = {n: cases.draw(batch, heads, tokens, width) for n in "qkv"}
    cases.leaf("biased_attention", {**qkv, "bias": cases.draw(1, heads, tokens, tokens)})
    cases.leaf("grouped_query", {"x": cases.draw(batch, 1, tokens, width)}, num_heads=heads)
    twice = {n: cases.draw(batch, 2 * heads, tokens, width) for n in "qk"}
    twice |= {"v": cases.draw(batch, heads, tokens, 2 * width), "sub_norm.weight": cases.draw(2 * width)}
    twice |= {f"lambda_{n}": cases.draw(width) / np.float32(width) for n in ("q1", "k1", "q2", "k2")}
    cases.leaf("diff_attention", twice, layer=1)
    turned = config.replace(rope="axial", qk_norm=True)
    angles = cases.draw(1, 1, config.num_patches, width // 2)
    places = numpy_vit.Positions(1, np.sin(angles), np.cos(angles))
    cases.composite("assembled_attention", attention_spec(turned, 1), cases.tokens(), config=turned, positions=places)
    lengths = tuple(int(n) for n in cases.rng.integers(tokens // 3, tokens + 1, batch))
    packed = sum(lengths)
    cases.leaf("packed_attention", {n: cases.draw(1, heads, packed, width) for n in "qkv"}, lengths=lengths)
    x = cases.draw(1, packed, config.embed_dim)
    cases.composite("packed_block", block_spec(config), x, lengths=lengths, config=config)


def _tokens(cases: Cases) -> None:
    config, keep = cases.config, cases.half_kept()
    prefix, seen = config.num_prefix_tokens, config.num_patches // 2
    images = cases.draw(cases.batch, config.in_channels, *config.image_size)
    normed = config.replace(patch_norm="layer")
    cases.composite("patch_stem", patch_spec(normed), images, config=normed)
    registers = config.replace(reg_tokens=4)
    names = ("cls_token", "reg_token", "pos_embed")
    spec = {n: p for n, p in assembled_spec(registers).items() if n in names}
    patches = cases.draw(cases.batch, config.num_patches, config.embed_dim)
    cases.composite("token_stem", spec, patches, config=registers, masks={})
    cases.leaf("patch_dropout", {"x": cases.tokens()}, mask=keep, prefix=prefix)
    few, token = cases.draw(cases.batch, prefix + seen, config.embed_dim), cases.draw(1, 1, config.embed_dim)
    cases.leaf("mask_tokens", {"x": few, "mask_token": token}, mask=keep, prefix=prefix)
    rebuilt = {"prediction": cases.draw(cases.batch, config.num_patches, config.patch_dim), "images": images}
    cases.leaf("mae_loss", rebuilt, mask=keep, patch_size=config.patch_size, norm_pix=True)
    cases.leaf("token_pool", {"x": cases.tokens()}, pool="avg_max", prefix=prefix, include_prefix=False)
    cases.leaf("refined_pool", {"x": cases.tokens()}, heads=config.num_heads, first=False)
    mapped = config.replace(pool="map")
    cases.composite("attention_pool", pool_spec(mapped), cases.tokens(), config=mapped)
    mean = config.replace(pool="mean", fc_norm=True)
    spec = {n: p for n, p in assembled_spec(mean).items() if n.startswith(("fc_norm.", "head."))}
    cases.composite("assembled_head", spec, cases.tokens(), config=mean)


def _blocks(cases: Cases) -> None:
    config, nowhere = cases.config, numpy_vit.Positions(1)
    cases.composite("activated_mlp", mlp_spec(config), cases.tokens(), config=config)
    gated = config.replace(mlp="glu", activation="silu")
    cases.composite("gated_mlp", mlp_spec(gated), cases.tokens(), config=gated)
    kinds = {"assembled_block": {"layer_scale": 0.1}, "parallel_block": {"block": "parallel"},
             "parallel_things_block": {"block": "parallel_things"}}  # fmt: skip
    for name, fields in kinds.items():
        own = config.replace(**fields)
        cases.composite(name, BLOCKS[own.block](own, 1), cases.tokens(), config=own, positions=nowhere)
