"""A batch in shares is the batch: same loss, same gradients, whatever the shares, in both engines."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import numpy_vit
from numpy_vit import data_parallel
from numpy_vit.optimizer import adamw_init, adamw_step, sgd_init, sgd_step
from parity_tests.strategies import at_most
from parity_tests.tolerances import gamma, unit_roundoff
from torch_vit import data_parallel as torch_parallel
from torch_vit import to_torch
from vit_common import ViTConfig, init_params, make_masks

U = unit_roundoff(np.float64)
CONFIG = ViTConfig(image_size=(4, 6), patch_size=2, in_channels=2, num_classes=5, embed_dim=8, depth=3, num_heads=2)
DROPPING = CONFIG.replace(pos_drop_rate=0.1, attn_drop_rate=0.2, proj_drop_rate=0.1, drop_path_rate=0.3)
VARIANT = CONFIG.replace(norm="rms", layer_scale=0.1)  # its cache is the assembled model's
WORKERS = (1, 2, 3, 5, 8)


def batch(config, images=5, seed=0):
    rng = np.random.default_rng(seed)
    params = {name: p + rng.normal(0, 0.1, p.shape) for name, p in init_params(config, seed, np.float64).items()}
    x = rng.normal(size=(images, config.in_channels, *config.image_size))
    return params, x, rng.integers(0, config.num_classes, images), make_masks(config, images, seed, 0)


def unsplit(params, x, labels, config, masks, smoothing):
    """Loss and gradients of the whole batch, and how much they are made of: the sum of each image's own magnitudes."""
    logits, cache = numpy_vit.vit_forward(params, x, config, masks)
    loss, loss_cache = numpy_vit.cross_entropy_forward(logits, labels, smoothing)
    dlogits = numpy_vit.cross_entropy_backward(loss_cache)
    _, grads = numpy_vit.vit_backward(dlogits, cache)
    one = [numpy_vit.vit_backward(dlogits * (np.arange(len(x)) == i)[:, None], cache)[1] for i in range(len(x))]
    return loss, grads, {name: sum(np.abs(g[name]).max() for g in one) for name in grads}


@at_most(10)
@given(
    config=st.sampled_from([CONFIG, DROPPING, VARIANT]), images=st.integers(1, 6), workers=st.sampled_from(WORKERS),
    smoothing=st.sampled_from([0.0, 0.1]), seed=st.integers(0, 99),
)  # fmt: skip
def test_shares_are_the_batch(config, images, workers, smoothing, seed):
    params, x, labels, masks = batch(config, images, seed)
    loss, grads, size = unsplit(params, x, labels, config, masks, smoothing)
    got, got_grads = data_parallel.parallel_loss_and_grads(params, x, labels, config, masks, smoothing, workers)
    # The shares sum in another order: some sums over rows and widths in each of the stages on the way.
    longest = images * config.num_tokens + config.mlp_dim + config.patch_dim
    bound = gamma(longest * 8 * (config.depth + 2), U)
    assert abs(got - loss) <= bound * max(1.0, abs(loss))
    assert list(got_grads) == list(grads)
    for name, g in grads.items():
        assert np.all(np.abs(got_grads[name] - g) <= bound * max(size[name], U)), name
    logits = data_parallel.parallel_predict(params, x, config, workers)
    whole, _ = numpy_vit.vit_forward(params, x, config)
    assert logits.shape == whole.shape
    assert np.all(np.abs(logits - whole) <= bound * np.abs(whole).max())


@pytest.mark.parametrize("workers", WORKERS)
def test_both_engines_split_alike(workers):
    params, x, labels, masks = batch(DROPPING)
    loss, grads = data_parallel.parallel_loss_and_grads(params, x, labels, DROPPING, masks, 0.1, workers)
    tensors, pixels = to_torch(params), torch.from_numpy(x)
    theirs, their_grads = torch_parallel.parallel_loss_and_grads(
        tensors, pixels, torch.from_numpy(labels), DROPPING, to_torch(masks), 0.1, workers
    )
    assert data_parallel.split(len(x), workers) == torch_parallel.split(len(x), workers)
    _, _, size = unsplit(params, x, labels, DROPPING, masks, 0.1)
    bound = gamma((len(x) * DROPPING.num_tokens + DROPPING.mlp_dim) * 8 * (DROPPING.depth + 2), U)
    assert abs(loss - theirs) <= bound * abs(loss)
    for name, g in grads.items():
        assert np.all(np.abs(g - their_grads[name].numpy()) <= bound * max(size[name], U)), name
    logits = torch_parallel.parallel_predict(tensors, pixels, DROPPING, workers)
    assert np.all(np.abs(logits.numpy() - data_parallel.parallel_predict(params, x, DROPPING, workers)) <= bound * 10)


def test_a_share_of_float32_stays_float32():
    params, x, labels, _ = batch(CONFIG)
    params = {name: p.astype(np.float32) for name, p in params.items()}
    loss, grads = data_parallel.parallel_loss_and_grads(params, x.astype(np.float32), labels, CONFIG, workers=2)
    assert isinstance(loss, float)
    assert {g.dtype for g in grads.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(("count", "workers"), [(0, 2), (1, 4), (7, 3), (8, 2), (3, 3)])
def test_split_covers_once(count, workers):
    shares = data_parallel.split(count, workers)
    sizes = [s.stop - s.start for s in shares]
    assert [i for s in shares for i in range(count)[s]] == list(range(count))
    assert max(sizes) - min(sizes) <= 1
    assert len(shares) == max(1, min(count, workers))


@pytest.mark.parametrize(
    ("module", "ones"), [(data_parallel, np.ones), (torch_parallel, torch.ones)], ids=["numpy", "torch"]
)
def test_a_common_attention_mask_is_not_split(module, ones):
    for shape in ((2, 2), (1, 2, 2), (1, 1, 2, 2)):
        common = ones(shape)
        assert module.share_of({"attn_mask": common}, slice(1, 2))["attn_mask"] is common
    masks = {"attn_mask": ones((4, 1, 2, 2)), "drop_path1": ones(4), "pos_drop": ones((4, 3, 2))}
    shared = module.share_of(masks, slice(1, 3))
    assert list(shared) == list(masks)
    assert [len(mask) for mask in shared.values()] == [2, 2, 2]
    assert module.share_of(None, slice(0, 1)) == {}


def test_an_error_in_one_share_comes_out():
    params, x, labels, _ = batch(CONFIG)
    labels[-1] = 99
    with pytest.raises(ValueError, match="label 99"):
        data_parallel.parallel_loss_and_grads(params, x, labels, CONFIG, workers=2)


@pytest.mark.parametrize(("init", "step"), [(adamw_init, adamw_step), (sgd_init, sgd_step)])
def test_update_by_shares_is_the_update_to_the_bit(init, step):
    params, _, _, _ = batch(CONFIG)
    rng = np.random.default_rng(1)
    decay = {name: p.ndim > 1 for name, p in params.items()}
    ours, state, whole, whole_state = dict(params), init(params), dict(params), init(params)
    before = {name: p.copy() for name, p in params.items()}
    for _ in range(3):
        grads = {name: rng.normal(size=p.shape) for name, p in params.items()}
        options = {"lr": 0.1, "weight_decay": 0.05, "decay": decay}
        state = data_parallel.parallel_update(step, ours, grads, state, workers=3, **options)
        whole, whole_state = step(whole, grads, whole_state, **options)
    assert all(np.array_equal(ours[name], whole[name]) for name in params)
    for field, value in whole_state._asdict().items():
        mine = getattr(state, field)
        assert mine == value if isinstance(value, int) else all(np.array_equal(mine[n], value[n]) for n in value)
    assert all(np.array_equal(params[name], before[name]) for name in params), "an array was written to"


def test_the_last_use_frees():
    """The backward reads each block's cache once, and then nobody holds it."""
    blocks = data_parallel.LastUse(["a", "b"])
    assert (blocks[1], blocks[0], list(blocks)) == ("b", "a", [None, None])
