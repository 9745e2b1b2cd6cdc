"""The whole model: parity of logits, every gradient and every intermediate; training steps; what must not matter."""

import numpy as np
import pytest
import torch
from hypothesis import given

import torch_vit
from parity_tests import bounds, harness
from parity_tests.generic import stage_tests
from parity_tests.strategies import at_most, composite_cases, dtypes, layouts, normal, seeds
from parity_tests.tolerances import LAMBDA, Probable
from vit_common import (
    CheckpointError,
    DtypeError,
    RangeError,
    ShapeError,
    ViTConfig,
    check_finite,
    init_params,
    make_masks,
)
from vit_common.params import param_spec

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = stage_tests("vit")
STAGE = harness.STAGES["vit"]


def torch_model(case, attention="explicit", dtype=torch.float64):
    model = torch_vit.VisionTransformer(case.options["config"], attention, seed=None).to(dtype).eval()
    model.load_state_dict({n: torch.from_numpy(a).to(dtype) for n, a in case.arrays.items() if n != "x"})
    return model


def torch_masks(masks):
    return None if masks is None else torch_vit.to_torch(masks)


@given(case=composite_cases("vit"), seed=seeds)
def test_every_intermediate_and_its_gradient(case, seed):
    """The same names from both engines, and each value and gradient within the bound of its place in the model."""
    vit_forward = harness.stage_function(harness.ENGINE, "vit_forward")
    vit_backward = harness.stage_function(harness.ENGINE, "vit_backward")
    params = {n: a for n, a in case.arrays.items() if n != "x"}
    config, masks = case.options["config"], case.options["masks"]
    values, grads = {}, {}
    logits, cache = vit_forward(params, case.arrays["x"], config, masks, tape=values)
    dlogits = harness.upstream(logits, seed)
    vit_backward(dlogits, cache, tape=grads)
    with torch_vit.Tape(torch_model(case)) as tape:
        images = torch.from_numpy(case.arrays["x"].copy()).requires_grad_()
        tape.model(images, torch_masks(masks)).backward(torch.from_numpy(dlogits))
    limits = bounds.BoundTape()
    exact = {n: Probable(a, 0.0, np.float64) for n, a in case.arrays.items()}
    _, pullback = bounds.vit({n: p for n, p in exact.items() if n != "x"}, exact["x"], config, masks, limits)
    pullback(Probable(dlogits, 0.0, np.float64))
    for kind, ours in (("values", values), ("grads", grads)):
        theirs, bound = getattr(tape, kind), getattr(limits, kind)
        assert set(ours) == set(theirs) == set(bound)
        for name, value in ours.items():
            limit = 2 * LAMBDA * bound[name].e
            harness.assert_within("tape", f"{kind} {name}", np.float64, value, theirs[name].numpy(), limit)


@pytest.mark.parametrize("attention", ["fused", "explicit", "manual"])
@given(case=composite_cases("vit"), seed=seeds)
@at_most(20)
def test_module_three_ways(attention, case, seed):
    """`VisionTransformer`, its state_dict the parameter dict, with each attention path."""
    model = torch_model(case, attention)
    assert set(model.state_dict()) == set(case.arrays) - {"x"}
    x = torch.from_numpy(case.arrays["x"].copy()).requires_grad_()
    y = model(x, torch_masks(case.options["masks"]))
    dy = harness.upstream(y.detach(), seed)
    y.backward(torch.from_numpy(dy))
    ours, grads = harness.run_numpy(STAGE, case, np.float64, dy)
    bound = harness.derive_bounds(STAGE, case, np.float64, dy)
    harness.assert_within("vit", f"y ({attention})", np.float64, y.detach().numpy(), ours, 2 * bound["y"])
    theirs = {"x": x.grad, **{n: p.grad for n, p in model.named_parameters()}}
    for name, grad in theirs.items():
        harness.assert_within("vit", f"{name} ({attention})", np.float64, grad.numpy(), grads[name], 2 * bound[name])


@given(case=composite_cases("vit"), seed=seeds)
def test_permuting_patches_without_positions(case, seed):
    """With positions zero, the order of the patches reaches the logits only through rounding."""
    config = case.options["config"].replace(pos_embed="none")
    arrays = {n: a for n, a in case.arrays.items() if n != "pos_embed"}
    plain = case._replace(arrays=arrays, options={"config": config, "masks": None})
    patchify, unpatchify = (harness.stage_function(harness.ENGINE, n) for n in ("patchify", "unpatchify"))
    order = np.random.default_rng(seed).permutation(config.num_patches)
    shape = config.in_channels, *config.image_size
    moved = {**arrays, "x": unpatchify(patchify(arrays["x"], config.patch_size)[:, order], shape, config.patch_size)}
    y, cache = STAGE.forward(harness.ENGINE, arrays, plain.options)
    y_moved, cache_moved = STAGE.forward(harness.ENGINE, moved, plain.options)
    dy = harness.upstream(y, seed)
    grads = STAGE.backward(harness.ENGINE, dy, cache, arrays)
    g_moved = STAGE.backward(harness.ENGINE, dy, cache_moved, moved)
    bound = harness.derive_bounds(STAGE, plain, np.float64, dy)
    assert np.all(np.abs(y - y_moved) <= 2 * bound["y"])
    for name in set(arrays) - {"x"}:
        assert np.all(np.abs(grads[name] - g_moved[name]) <= 2 * bound[name]), name


CONFIG = ViTConfig(image_size=(6, 4), patch_size=(3, 2), in_channels=2, num_classes=5, embed_dim=8, depth=2,
                   num_heads=2, attn_drop_rate=0.1, proj_drop_rate=0.1, pos_drop_rate=0.1,
                   drop_path_rate=0.2)  # fmt: skip


def test_masks_are_keyed():
    """The same key, the same masks, to the bit; another step, seed or site, another mask."""
    a, b = make_masks(CONFIG, 3, seed=1, step=2), make_masks(CONFIG, 3, seed=1, step=2)
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)
    big = CONFIG.replace(embed_dim=64)
    first, other_step, other_seed = (make_masks(big, 9, *key)["pos_drop"] for key in ((1, 2), (1, 3), (2, 2)))
    assert not np.array_equal(first, other_step)
    assert not np.array_equal(first, other_seed)
    # 9 * 5 * 64 draws: six standard deviations of a binomial proportion
    assert abs(first.mean() - 0.9) <= 6 * np.sqrt(0.09 / first.size)


def test_errors():
    vit_forward = harness.stage_function(harness.ENGINE, "vit_forward")
    params, x = init_params(CONFIG, 0, np.float64), normal(0, (2, 2, 6, 4))
    with pytest.raises(ShapeError, match=r"images has shape \(2, 2, 4, 6\)"):
        vit_forward(params, x.transpose(0, 1, 3, 2), CONFIG)
    with pytest.raises(DtypeError, match="float32 but the images"):
        vit_forward(init_params(CONFIG, 0, np.float32), x, CONFIG)
    with pytest.raises(DtypeError, match="images ha(s|ve) dtype int64"):
        vit_forward(params, x.astype(np.int64), CONFIG)
    with pytest.raises(CheckpointError, match="1 missing: norm.weight"):
        vit_forward({n: p for n, p in params.items() if n != "norm.weight"}, x, CONFIG)
    with pytest.raises(CheckpointError, match="not part of this model: extra"):
        vit_forward({**params, "extra": x}, x, CONFIG)
    with pytest.raises(ShapeError, match=r"parameter norm.weight has shape \(1,\), expected \(8,\)"):
        vit_forward({**params, "norm.weight": np.ones(1)}, x, CONFIG)
    model = torch_vit.VisionTransformer(CONFIG)
    with pytest.raises(ShapeError, match="images has shape"):
        model(torch.zeros(2, 2, 4, 6))
    with pytest.raises(DtypeError, match="expected floating point"):
        model(torch.zeros(2, 2, 6, 4, dtype=torch.long))


@given(dtype=dtypes, layout=layouts)
def test_nan_spreads_and_crashes_nothing(dtype, layout):
    """One NaN pixel reaches its own image's logits and no other's; on request it is named."""
    x = normal(0, (3, 2, 6, 4)).astype(dtype)
    x[1, 0, 2, 3] = np.nan
    config = CONFIG.replace(attn_drop_rate=0.0, proj_drop_rate=0.0, pos_drop_rate=0.0, drop_path_rate=0.0)
    vit_forward = harness.stage_function(harness.ENGINE, "vit_forward")
    vit_backward = harness.stage_function(harness.ENGINE, "vit_backward")
    logits, cache = vit_forward(init_params(config, 0, dtype), harness.LAYOUTS[layout](x), config)
    assert np.isnan(logits[1]).all()
    assert np.isfinite(logits[[0, 2]]).all()
    dimages, grads = vit_backward(np.ones_like(logits), cache)
    assert np.isfinite(dimages[[0, 2]]).all()
    assert np.isnan(grads["head.weight"]).any()
    with pytest.raises(RangeError, match=r"images holds 1 non-finite of 144 values, the first at index \(1, 0, 2, 3\)"):
        check_finite(images=x)


def test_torch_module_in_train_mode_draws_its_own_masks():
    """What a torch user expects of `train()`, `eval()` and `manual_seed`."""
    model, x = torch_vit.VisionTransformer(CONFIG, seed=0), torch.from_numpy(normal(0, (4, 2, 6, 4))).float()
    model.train()
    torch.manual_seed(0)
    first, second = model(x), model(x)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(first, model(x))
    assert torch.equal(model(x, masks={}), model.eval()(x))


def test_init_is_keyed_by_name():
    """A deeper model starts with the same first blocks, float32 is float64 rounded once, and decay is set as said."""
    shallow, deep = init_params(CONFIG, 3, np.float64), init_params(CONFIG.replace(depth=4), 3, np.float64)
    assert all(np.array_equal(p, deep[n]) for n, p in shallow.items())
    single = init_params(CONFIG, 3)
    assert all(np.array_equal(single[n], p.astype(np.float32)) for n, p in shallow.items())
    decayed = {name for name, spec in param_spec(CONFIG.replace(depth=1)).items() if spec.decay}
    block = {f"blocks.0.{name}.weight" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert decayed == {"patch_embed.proj.weight", "head.weight", *block}
