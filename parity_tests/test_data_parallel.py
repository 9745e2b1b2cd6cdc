"""A batch in shares is the batch: same loss, same gradients, whatever the shares, in both engines."""

import threading

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
from torch_vit.engine import TorchEngine
from torch_vit.options import TorchOptions
from vit_common import ViTConfig, init_params, make_masks
from vit_common.errors import ShapeError
from vit_common.recipe import Recipe

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


def test_no_two_gradients_share_memory():
    """Autograd's of a single image may: those of positions and class token are views of one array."""
    params, x, labels, _ = batch(CONFIG, images=1)
    tensors = to_torch(params)
    _, grads = torch_parallel.parallel_loss_and_grads(tensors, torch.from_numpy(x), torch.from_numpy(labels), CONFIG)
    assert len({g.untyped_storage().data_ptr() for g in grads.values()}) == len(grads)


def test_an_error_in_one_share_comes_out():
    params, x, labels, _ = batch(CONFIG)
    labels[-1] = 99
    with pytest.raises(ValueError, match="label 99"):
        data_parallel.parallel_loss_and_grads(params, x, labels, CONFIG, workers=2)


def test_an_empty_batch_is_an_error_that_says_so():
    params, x, labels, _ = batch(CONFIG)
    with pytest.raises(ShapeError, match="nothing has no mean"):
        data_parallel.parallel_loss_and_grads(params, x[:0], labels[:0], CONFIG)


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


def test_numpy_takes_no_more_threads_than_have_enough_to_do(monkeypatch):
    monkeypatch.setattr(data_parallel, "blas_threads", lambda: 4)
    monkeypatch.setattr(data_parallel, "LEAST_TOKENS", 2 * CONFIG.num_tokens * CONFIG.embed_dim)  # two images
    shares = {count: len(data_parallel.batch_shares(np.empty(count), CONFIG)) for count in (0, 1, 3, 4, 5, 7, 8, 99)}
    assert shares == {0: 1, 1: 1, 3: 1, 4: 2, 5: 2, 7: 3, 8: 4, 99: 4}
    assert len(data_parallel.batch_shares(np.empty(3), CONFIG, workers=3)) == 3  # asked for is asked for
    counts, run = [], data_parallel.run
    monkeypatch.setattr(data_parallel, "run", lambda work, shares: counts.append(len(shares)) or run(work, shares))
    params = {"a": np.ones(6), "b": np.ones(2), "c": np.ones(1)}
    for least in (9, 4, 3):
        monkeypatch.setattr(data_parallel, "LEAST_PARAMS", least)
        data_parallel.parallel_update(sgd_step, dict(params), params, sgd_init(params), lr=0.1)
        data_parallel.sum_grads([dict(params), params])
    assert counts == [1, 1, 2, 2, 3, 3]


def test_both_engines_split_from_the_size_on_that_was_measured(monkeypatch):
    """docs/speed.md names it: 50,000 numbers, here of images that have one each."""
    monkeypatch.setattr(data_parallel, "blas_threads", lambda: 2)
    assert torch_parallel.LEAST_TOKENS == 50_000
    one = ViTConfig(image_size=1, patch_size=1, embed_dim=1, num_heads=1, class_token=False, pool="mean")
    counts = 99_997, 99_998, 99_999, 100_000
    found = [len(data_parallel.batch_shares(np.empty(count), one)) for count in counts]
    assert found == [1, 1, 1, 2]
    shares = []
    monkeypatch.setattr(data_parallel, "run", lambda work, split: shares.append(len(split)) or [sgd_init({})])
    for size in (9_999_998, 10_000_000):  # of two parameters, arrays without memory
        params = {name: np.broadcast_to(0.0, size // 2) for name in "ab"}
        data_parallel.parallel_update(sgd_step, params, params, sgd_init({}), lr=0.1)
    assert shares == [1, 2]


@pytest.fixture
def three_threads(monkeypatch):
    """Torch with three threads, and every share large enough for one."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(torch_parallel, "LEAST_TOKENS", 1)
    yield
    torch.set_num_threads(before)


def test_torch_takes_no_more_threads_than_have_enough_to_do(monkeypatch, three_threads):
    monkeypatch.setattr(torch_parallel, "LEAST_TOKENS", 2 * CONFIG.num_tokens * CONFIG.embed_dim)  # two images
    shares = {count: len(torch_parallel.batch_shares(torch.empty(count), CONFIG)) for count in (0, 1, 3, 4, 5, 6, 99)}
    assert shares == {0: 1, 1: 1, 3: 1, 4: 2, 5: 2, 6: 3, 99: 3}
    assert len(torch_parallel.batch_shares(torch.empty(3), CONFIG, workers=3)) == 3
    assert torch_parallel.batch_shares(torch.empty(99, device="meta"), CONFIG) == [slice(0, 99)]


def test_threads_of_torch_have_one_core_each_and_leave_no_trace(three_threads):
    seen = torch_parallel.run(lambda share: (share.start, threading.get_ident(), torch.get_num_threads()), split_in(4))
    assert [start for start, _, _ in seen] == [0, 1, 2, 3]
    assert {threads for _, _, threads in seen} == {1}
    assert threading.get_ident() not in {ident for _, ident, _ in seen}
    with pytest.raises(ZeroDivisionError):
        torch_parallel.run(lambda share: 1 // share.start, split_in(2))
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), later) == (3, [3])
    assert torch_parallel.run(lambda share: torch.get_num_threads(), split_in(1)) == [3]


def split_in(count):
    return torch_parallel.split(count, count)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_torch_engine_by_threads_is_itself_without(checkpointing, three_threads, monkeypatch):
    """A step's loss and gradients, with dropout and smoothing, and what is predicted after it."""
    params, x, labels, masks = batch(DROPPING)
    found, shares = [], count_shares(monkeypatch)
    for least in (1, 10**9):
        monkeypatch.setattr(torch_parallel, "LEAST_TOKENS", least)
        engine = TorchEngine(TorchOptions(device="cpu", activation_checkpointing=checkpointing))
        engine.start(DROPPING, params, Recipe(dtype="float64", label_smoothing=0.1))
        engine.model.train()
        loss = engine.backward(torch.from_numpy(x), torch.from_numpy(labels), to_torch(masks))
        grads = {name: p.grad.numpy() for name, p in engine._named.items()}
        assert not loss.requires_grad
        found.append((loss.item(), grads, engine.predict(x)))
    assert shares == [3, 3]
    (loss, grads, logits), (whole_loss, whole_grads, whole_logits) = found
    _, _, size = unsplit(params, x, labels, DROPPING, masks, 0.1)
    bound = gamma((len(x) * DROPPING.num_tokens + DROPPING.mlp_dim) * 8 * (DROPPING.depth + 2), U)
    assert abs(loss - whole_loss) <= bound * abs(whole_loss)
    for name, g in grads.items():
        assert np.all(np.abs(g - whole_grads[name]) <= bound * max(size[name], U)), name
    assert np.all(np.abs(logits - whole_logits) <= bound * 10)


def test_bfloat16_products_are_those_of_every_thread(three_threads, monkeypatch):
    params, x, labels, _ = batch(CONFIG)
    shares, seen = count_shares(monkeypatch), []
    engine = TorchEngine(TorchOptions(device="cpu", precision="bf16"))
    engine.start(CONFIG, params, Recipe())
    note = lambda module, inputs, output: seen.append((len(output), output.dtype))  # noqa: E731
    engine.model.blocks[0].mlp.fc1.register_forward_hook(note)
    engine.train_step(x.astype(np.float32), labels, None, 0.1)
    assert (shares, sorted(seen, key=str)) == ([3], [(1, torch.bfloat16), (2, torch.bfloat16), (2, torch.bfloat16)])


def test_the_torch_engine_keeps_freed_memory(monkeypatch):
    calls = []
    monkeypatch.setattr("torch_vit.engine.keep_freed_memory", lambda: calls.append(True))
    TorchEngine(TorchOptions(device="cpu")).load(CONFIG, init_params(CONFIG, 0))
    assert calls == [True]


def count_shares(monkeypatch):
    """The number of shares, whenever the torch engine runs some side by side."""
    counts, run = [], torch_parallel.run
    for module in ("engine", "predictor"):
        counted = lambda work, shares: counts.append(len(shares)) or run(work, shares)  # noqa: E731
        monkeypatch.setattr(f"torch_vit.{module}.run", counted)
    return counts
