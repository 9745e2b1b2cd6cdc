"""The torch engine's functions that take the parameters as an argument, against their twins: values and gradients.

The models call modules, so no test of a model reaches these.
"""

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import numpy_vit as nv
import torch_vit as tv
from numpy_vit.silu import sigmoid as numpy_sigmoid
from parity_tests.choices import Smallest
from parity_tests.strategies import normal
from parity_tests.test_assembled import SMALL, VARIANTS, parameters
from parity_tests.test_mae import draw, small
from parity_tests.tolerances import gamma, unit_roundoff
from parity_tests.variant_cases import CASES
from parity_tests.variants import ROUNDS, close
from parity_tests.variants import VARIANTS as STAGES
from torch_vit import to_torch
from torch_vit.assembled import Assembled
from torch_vit.patch_dropout import random_mask
from torch_vit.silu import sigmoid as torch_sigmoid
from vit_common import ViTConfig, make_masks
from vit_common.mae_config import mae_mask

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch's own, in torch.func.jvp
Array = np.ndarray
Named = dict[str, Array]
variants = pytest.mark.parametrize("fields", VARIANTS, ids=lambda f: "-".join(f)[:60])


def compare(params: Named, x: Array, ours: Callable[..., Any], back: Callable[..., Named], theirs: Callable) -> None:
    """`ours` gives (y or several, cache), `back` the gradients from the upstream ones, `theirs` y or several."""
    y, cache = ours(params, x)
    outputs = y if isinstance(y, tuple) else (y,)
    dys = [normal(100 + i, o.shape) for i, o in enumerate(outputs)]
    grads = back(dys, cache)
    leaves = {n: torch.from_numpy(a.copy()).requires_grad_() for n, a in {**params, "x": x}.items()}
    truth = theirs({n: t for n, t in leaves.items() if n != "x"}, leaves["x"])
    truths = truth if isinstance(truth, tuple) else (truth,)
    torch.autograd.backward(truths, [torch.from_numpy(dy) for dy in dys])
    close(dict(enumerate(outputs)), {i: t.detach().numpy() for i, t in enumerate(truths)}, np.float64, True)
    slopes = {n: t.grad.numpy() for n, t in leaves.items() if t.grad is not None}
    assert grads.keys() == slopes.keys()
    close(grads, slopes, np.float64, True)
    along = normal(200, x.shape)  # forward mode: the functions write attention out, for the fused kernel has none
    constant = {n: torch.from_numpy(p) for n, p in params.items()}
    _, tangent = torch.func.jvp(lambda t: theirs(constant, t), (torch.from_numpy(x),), (torch.from_numpy(along),))
    tangents = tangent if isinstance(tangent, tuple) else (tangent,)
    left = [dy * t.numpy() for dy, t in zip(dys, tangents, strict=True)]
    terms = np.concatenate([part.reshape(-1) for part in (*left, -grads["x"] * along)])
    assert abs(terms.sum()) <= ROUNDS * gamma(terms.size, unit_roundoff(np.float64)) * np.abs(terms).sum()


def named(result: tuple[Array, Named]) -> Named:
    return {"x": result[0], **result[1]}


def chosen(params: Named, *names: str) -> Named:
    return {n: p for n, p in params.items() if n.startswith(names)}


DEFAULTS = {"layer": 0, "drop_path_rate": 0.0, "attention": "fused"}
MODULES = [("assembled", "Assembled"), ("assembled_attention", "AssembledAttention"), ("mae", "Mae"),
           ("assembled_block", "AssembledBlock"), ("assembled_encoder", "AssembledEncoder"),
           ("attention_pool", "AttentionPool"), ("parallel_block", "ParallelBlock"),
           ("parallel_things_block", "ParallelThingsBlock"), ("refined_pool", "RefinedPool")]  # fmt: skip
HEAD = "attn_pool.", "fc_norm.", "pre_logits.", "head.", "head_dist."


@variants
def test_assembled(fields):
    """The whole, what comes before the head, the blocks alone, and the head alone."""
    config, rng = ViTConfig(**{**SMALL, **fields}), np.random.default_rng(0)
    params, masks = parameters(config, rng), make_masks(config, 2, 1, 2)
    drawn, images = to_torch(masks), normal(1, (2, 3, *config.image_size))
    compare(params, images, lambda p, x: nv.assembled_forward(p, x, config, masks),
            lambda dys, c: named(nv.assembled_backward(dys[0], c)),
            lambda p, x: tv.assembled_forward(p, x, config, drawn))  # fmt: skip
    body = {n: p for n, p in params.items() if not n.startswith(HEAD)}
    compare(body, images, lambda p, x: nv.assembled_features_forward(p, x, config, masks),
            lambda dys, c: named(nv.assembled_features_backward(dys[0], c)),
            lambda p, x: tv.assembled_features_forward(p, x, config, drawn))  # fmt: skip
    shared = chosen(params, "blocks.", "rope.", "rel_pos_bias.")
    kept = int(masks["patch_drop"][0].sum()) if "patch_drop" in masks else config.num_patches
    tokens = normal(2, (2, config.num_prefix_tokens + kept, config.embed_dim))
    compare(shared, tokens, lambda p, x: nv.assembled_encoder_forward(p, x, config, masks),
            lambda dys, c: named(nv.assembled_encoder_backward(dys[0], c)),
            lambda p, x: tv.assembled_encoder_forward(p, x, config, drawn))  # fmt: skip
    compare(chosen(params, *HEAD), tokens, lambda p, x: nv.assembled_head_forward(p, x, config),
            lambda dys, c: named(nv.assembled_head_backward(dys[0], c)),
            lambda p, x: tv.assembled_head_forward(p, x, config))  # fmt: skip


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("where", ["shared", "block", "both"])
def test_masks_of_attention_join_the_relative_bias(where, padding):
    config = ViTConfig(**{**SMALL, "rel_pos_bias": where})
    params = chosen(parameters(config, np.random.default_rng(0)), "blocks.", "rel_pos_bias.")
    masks = {"attn_mask": normal(3, (1, 1, config.num_tokens, config.num_tokens))}
    if padding:
        masks["padding_mask"] = np.arange(2 * config.num_patches).reshape(2, -1) % 3 > 0
    compare(params, normal(2, (2, config.num_tokens, config.embed_dim)),
            lambda p, x: nv.assembled_encoder_forward(p, x, config, masks),
            lambda dys, c: named(nv.assembled_encoder_backward(dys[0], c)),
            lambda p, x: tv.assembled_encoder_forward(p, x, config, to_torch(masks)))  # fmt: skip


@pytest.mark.parametrize("layout", ["fused", "fused without biases", "query and value bias", "apart", "apart, no bias"])
def test_qkv_project(layout):
    heads, shapes = ((3, 1, 1) if "apart" in layout else (3, 3, 3)), {}
    if "apart" in layout:
        for name, count in zip(("q_proj", "k_proj", "v_proj"), heads, strict=True):
            shapes |= {f"{name}.weight": (2 * count, 5)} | ({} if "no" in layout else {f"{name}.bias": (2 * count,)})
    else:
        shapes = {"qkv.weight": (18, 5)} | ({"qkv.bias": (18,)} if layout == "fused" else {})
        shapes |= {"q_bias": (6,), "v_bias": (6,)} if "query" in layout else {}
    params = {name: normal(i, shape) for i, (name, shape) in enumerate(shapes.items())}
    compare(params, normal(9, (2, 4, 5)), lambda p, x: nv.qkv_project_forward(p, x, heads),
            lambda dys, c: named(nv.qkv_project_backward(*dys, c)),
            lambda p, x: tv.qkv_project_forward(p, x, heads))  # fmt: skip


@pytest.mark.parametrize("fields", [{"qk_norm": True}, {"qk_norm": True, "norm": "rms"}, {"rope": "axial"},
                                    {"rope": "axial", "rope_half": True, "qk_norm": True}, {}], ids=str)  # fmt: skip
def test_qk_positions(fields):
    """Query and key as one array, so that one comparison holds both."""
    config = ViTConfig(**{**SMALL, **fields})
    table = nv.rope_table(config) if config.rope == "axial" else (None, None)
    norms = ("weight", "bias") if config.norm == "layer" else ("weight",)
    names = [f"{part}_norm.{n}" for part in "qk" for n in norms] if config.qk_norm else []
    params = {name: normal(i, (config.head_dim,)) for i, name in enumerate(names)}
    ours = nv.Positions(0, *table)
    theirs = tv.Positions(0, *(t if t is None else torch.from_numpy(t) for t in table))

    def forward(p, x):
        q, k, cache = nv.qk_positions_forward(p, x[0], x[1], config, ours)
        return (q, k), cache

    def backward(dys, cache):
        dq, dk, _, _, grads = nv.qk_positions_backward(*dys, cache)
        return {"x": np.stack((dq, dk)), **grads}

    x = normal(9, (2, 2, 2, config.num_tokens, config.head_dim))
    compare(params, x, forward, backward, lambda p, t: tv.qk_positions_forward(p, t[0], t[1], config, theirs))


@pytest.mark.parametrize("body", ["attn", "mlp"])
@pytest.mark.parametrize("fields", [{"layer_scale": 0.1}, {"block": "res_post", "norm": "rms"}, {"mlp": "glu"}],
                         ids=str)  # fmt: skip
def test_branch(fields, body):
    config = ViTConfig(**{**SMALL, **fields, "drop_path_rate": 0.3, "proj_drop_rate": 0.2})
    norm, scale, path = ("norm1", "ls1.gamma", "drop_path1") if body == "attn" else ("norm2", "ls2.gamma", "drop_path2")
    params = parameters(config, np.random.default_rng(0))
    params = {n.removeprefix("blocks.1."): p for n, p in params.items() if n.startswith("blocks.1.")}
    params = chosen(params, norm, scale, body)
    masks = make_masks(config, 2, 1, 2)
    masks = {n.removeprefix("blocks.1."): m for n, m in masks.items() if n.startswith("blocks.1.")}
    names, rate = (norm, body, scale, path), 0.3
    compare(params, normal(9, (2, config.num_tokens, config.embed_dim)),
            lambda p, x: nv.branch_forward(p, x, config, nv.BranchNames(*names), nv.Positions(1), rate, masks),
            lambda dys, c: (lambda dx, _, grads: {"x": dx, **grads})(*nv.branch_backward(dys[0], c)),
            lambda p, x: tv.branch_forward(p, x, config, tv.BranchNames(*names), tv.Positions(1), rate,
                                           to_torch(masks)))  # fmt: skip
    assert path in masks


def test_mae():
    config = small()
    params, mask, images = draw(config), mae_mask(config, 2, 0, 0), normal(1, (2, 3, 16, 24))
    (loss, prediction), _ = nv.mae_forward(params, images, config, mask)
    theirs = tv.mae_forward(to_torch(params), torch.from_numpy(images), config, torch.from_numpy(mask))
    close({0: loss, 1: prediction}, {i: t.numpy() for i, t in enumerate(theirs)}, np.float64, True)


def test_sigmoid():
    x = normal(0, (3, 4))
    close({0: numpy_sigmoid(x)}, {0: torch_sigmoid(torch.from_numpy(x)).numpy()}, np.float64, True)


@pytest.mark.parametrize(("rate", "kept"), [(0.0, 8), (0.3, 5), (0.5, 4), (0.99, 1)])
def test_patches_that_torch_keeps_by_itself(rate, kept):
    """As many in each image, and not the same ones in all."""
    torch.manual_seed(0)
    mask = random_mask(20, 8, rate, torch.device("cpu"))
    assert mask.dtype == torch.bool
    assert mask.shape == (20, 8)
    assert set(mask.sum(dim=1).tolist()) == {kept}
    assert kept == 8 or len({tuple(row) for row in mask.tolist()}) > 1


def test_patches_are_dropped_in_train_mode_only():
    config = ViTConfig(**{**SMALL, "patch_drop_rate": 0.5})
    model = Assembled(config).double()
    model.load_state_dict(to_torch(parameters(config, np.random.default_rng(0))))
    images = torch.from_numpy(normal(0, (2, 3, 16, 24)))
    with torch.no_grad():
        assert model.train().features(images).shape[1] == 1 + 3
        assert model.eval().features(images).shape[1] == 1 + 6


@pytest.mark.parametrize("name", ["assembled_attention", "assembled_block", "parallel_block", "parallel_things_block",
                                  "attention_pool"])  # fmt: skip
def test_forward_mode(name):
    """Through what calls attention; against the gradient, which test_parity of each has compared."""
    for seed in range(6):
        case, stage = CASES[name](Smallest(seed)), STAGES[name]
        leaves = {n: torch.from_numpy(a.copy()).requires_grad_() for n, a in case.arrays.items()}
        x, along = leaves.pop("x"), torch.from_numpy(normal(seed, case.arrays["x"].shape))
        forward = partial(stage.torch, options=case.options)
        y = forward({"x": x, **leaves})
        dy = torch.from_numpy(normal(seed + 1, tuple(y.shape)))
        (dx,) = torch.autograd.grad(y, x, dy)
        constant = {n: t.detach() for n, t in leaves.items()}
        _, tangent = torch.func.jvp(lambda t, f=forward, k=constant: f({"x": t, **k}), (x.detach(),), (along,))
        terms = torch.cat([(tangent * dy).reshape(-1), -(dx * along).reshape(-1)]).numpy()
        assert abs(terms.sum()) <= ROUNDS * gamma(terms.size, unit_roundoff(np.float64)) * np.abs(terms).sum()


DEVICES = [{}, {"pos_embed": "sincos_2d", "reg_tokens": 1}, {"rope": "axial"}, {"rope": "mixed"},
           {"rel_pos_bias": "both"}, {"pool": "map"}, {"pos_grid": (3, 3)}]  # fmt: skip


@pytest.mark.parametrize("fields", DEVICES, ids=str)
def test_everything_is_computed_where_the_input_is(fields):
    """On torch's meta device, which refuses whatever is made elsewhere; masks and all are drawn there too."""
    rates = {"pos_drop_rate": 0.1, "attn_drop_rate": 0.2, "proj_drop_rate": 0.1, "drop_path_rate": 0.3}
    model = tv.VisionTransformer(ViTConfig(**{**SMALL, **fields, **rates}), seed=None).to("meta")
    assert model.train()(torch.empty(2, 3, 16, 24, device="meta")).device.type == "meta"
    assert random_mask(2, 3, 0.5, torch.device("meta")).device.type == "meta"


def test_defaults_of_the_modules():
    """The first block, nothing dropped, and the fast attention, unless asked for."""
    modules = [getattr(importlib.import_module(f"torch_vit.{stage}"), name) for stage, name in MODULES]
    for module in modules:
        for name, parameter in inspect.signature(module).parameters.items():
            if name in DEFAULTS:
                assert parameter.default == DEFAULTS[name], (module, name)


@pytest.mark.parametrize("fields", [{}, {"norm": "rms"}, {"block": "parallel"}, {"pool": "map"}, {"attention": "diff"}],
                         ids=str)  # fmt: skip
def test_only_explicit_attention_writes_its_scores_out(fields):
    config = ViTConfig(**{**SMALL, **fields})
    for attention, each in (("fused", 0), ("explicit", 2 if config.attention == "diff" else 1)):
        with tv.Tape(model := tv.VisionTransformer(config, attention)) as tape:
            model(torch.zeros(1, 3, 16, 24))
        assert not any(module._forward_hooks for module in model.modules())  # the tape is off
        places = each * (config.depth + (config.pool == "map"))
        assert [sum(name.endswith(kind) for name in tape.values) for kind in ("scores", "probs")] == [places, places]
