"""Images of several sizes in one row: each comes out as it would by itself, and so does every gradient."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import numpy_vit
import torch_vit
from numpy_vit import packed_attention, packed_tokens
from parity_tests.strategies import configs, seeds
from parity_tests.tolerances import gamma, unit_roundoff
from vit_common import ConfigError, DtypeError, ShapeError, ViTConfig, init_params

U = unit_roundoff(np.float64)
CONFIG = ViTConfig(image_size=(4, 6), patch_size=2, in_channels=2, num_classes=5, embed_dim=8, depth=2, num_heads=2)
SIZES = [(2, 4, 6), (2, 2, 2), (2, 8, 4), (2, 4, 6)]


def case(config, sizes, seed=0):
    rng = np.random.default_rng(seed)
    params = {name: p + rng.normal(0, 0.1, p.shape) for name, p in init_params(config, seed, np.float64).items()}
    images = [rng.normal(size=size) for size in sizes]
    return params, images, rng.normal(size=(len(sizes), config.num_classes or config.embed_dim))


def one_by_one(params, images, dlogits, config):
    """Logits, images' gradients, parameters' gradients, what those are made of (each image's own magnitudes), and by
    how much the worst norm magnifies what was rounded before it: the size of its row over the row's deviation."""
    logits, dimages, grads, worst = [], [], [], 1.0
    for image, dy in zip(images, dlogits, strict=True):
        own = config if image.shape[1:] == config.image_size else config.at_image_size(image.shape[1:])
        y, cache = numpy_vit.vit_forward(params, image[None], own, tape=(values := {}))
        for x in (x for name, x in values.items() if re.fullmatch(r"tokens|blocks\.\d+(\.residual)?", name)):
            worst = max(worst, (np.abs(x).max(axis=-1) / np.sqrt(x.var(axis=-1) + config.norm_eps)).max())
        dimage, g = numpy_vit.vit_backward(dy[None], cache)
        logits, dimages, grads = [*logits, y[0]], [*dimages, dimage[0]], [*grads, g]
    total = {name: sum(g[name] for g in grads) for name in params}
    size = {name: sum(np.abs(g[name]).max() for g in grads) for name in params}
    return np.stack(logits), dimages, total, size, worst


@st.composite
def packed(draw):
    """A plain model of any kind, and the sizes of one to four images of whole patches, its own size among them."""
    config = draw(configs())
    config = config.replace(embed_dim=4 * config.num_heads)  # the norm of one or two numbers leaves but rounding
    grids = draw(st.lists(st.tuples(*[st.integers(1, 4)] * 2) | st.just(config.grid_size), min_size=1, max_size=4))
    (height, width), channels = config.patch_size, config.in_channels
    return config, [(channels, rows * height, columns * width) for rows, columns in grids]


def run_numpy(params, images, dlogits, config):
    logits, cache = numpy_vit.packed_forward(params, images, config)
    return logits, *numpy_vit.packed_backward(dlogits, cache)


def run_torch(params, images, dlogits, config):
    leaves = {name: t.requires_grad_() for name, t in torch_vit.to_torch(params).items()}
    pixels = [torch.tensor(image, requires_grad=True) for image in images]
    logits = torch_vit.packed_forward(leaves, pixels, config)
    logits.backward(torch.tensor(dlogits))
    grads = {name: np.zeros(t.shape) if t.grad is None else t.grad.numpy() for name, t in leaves.items()}
    return logits.detach().numpy(), [p.grad.numpy() for p in pixels], grads


def check(params, images, dlogits, config, engines=(run_numpy, run_torch)):
    alone, dalone, total, size, worst = one_by_one(params, images, dlogits, config)
    # The same sums in another order: over rows and widths, some in each of the stages on the way.
    tokens = sum(image[0].size // np.prod(config.patch_size) + 1 for image in images)
    bound = gamma((tokens + config.mlp_dim + config.patch_dim) * 8 * (config.depth + 2), U) * worst
    for run in engines:
        logits, dimages, grads = run(params, images, dlogits, config)
        assert logits.shape == alone.shape
        assert np.all(np.abs(logits - alone) <= bound * np.abs(alone).max(initial=U))
        for mine, own in zip(dimages, dalone, strict=True):
            assert mine.shape == own.shape
            assert np.all(np.abs(mine - own) <= bound * max(np.abs(d).max() for d in dalone))
        assert set(grads) == set(params)
        for name, g in grads.items():
            assert np.all(np.abs(g - total[name]) <= bound * max(size[name], U)), name


@given(drawn=packed(), seed=seeds)
def test_each_image_is_what_it_is_by_itself(drawn, seed):
    config, sizes = drawn
    check(*case(config, sizes, seed), config)


@given(drawn=packed(), seed=seeds)
def test_adjoint_of_complex_step(drawn, seed):
    """No torch: a step along imaginary directions of all inputs, against the gradients along the same directions."""
    config, sizes = drawn
    params, images, dlogits = case(config, sizes, seed)
    _, dimages, grads = run_numpy(params, images, dlogits, config)
    rng, h = np.random.default_rng(seed + 1), 1e-150
    moves = {name: rng.normal(size=p.shape) for name, p in params.items()}
    shifts = [rng.normal(size=image.shape) for image in images]
    moved = {name: p + 1j * h * moves[name] for name, p in params.items()}
    logits, _ = numpy_vit.packed_forward(moved, [i + 1j * h * d for i, d in zip(images, shifts, strict=True)], config)
    left = dlogits * logits.imag / h
    right = [moves[name] * g for name, g in grads.items()] + [d * g for d, g in zip(shifts, dimages, strict=True)]
    terms = np.abs(left).sum() + sum(np.abs(r).sum() for r in right)
    bound = gamma(8 * (config.depth + 2) * (sum(r.size for r in right) + config.mlp_dim), U) * terms
    assert abs(left.sum() - sum(r.sum() for r in right)) <= bound


def packed_wrong(monkeypatch, mistake):
    if mistake == "images read each other":
        monkeypatch.setattr(numpy_vit.packed_block, "packed_attention_forward",
                            lambda q, k, v, lengths: packed_attention.packed_attention_forward(q, k, v, (q.shape[2],)))
    elif mistake == "positions of the first image for all":
        right, seen = packed_tokens.grid_positions, []

        def first(params, grid, config, dtype):
            seen.append(right(params, grid, config, dtype))
            positions, resize = seen[-1]
            return (seen[0][0] if seen[0][0].shape == positions.shape else positions * 1.01), resize

        monkeypatch.setattr(packed_tokens, "grid_positions", first)
    else:
        right = packed_tokens.pos_resize_backward
        monkeypatch.setattr(packed_tokens, "pos_resize_backward", lambda dy, cache: right(dy, cache) * 0)


@pytest.mark.parametrize("mistake", ["images read each other", "positions of the first image for all",
                                     "no gradient for resized positions"])  # fmt: skip
def test_a_mistake_is_seen(mistake, monkeypatch):
    packed_wrong(monkeypatch, mistake)
    with pytest.raises(AssertionError):
        check(*case(CONFIG, SIZES), CONFIG, [run_numpy])


@given(order=st.permutations(range(4)))
def test_the_order_of_the_images_does_not_matter(order):
    params, images, _ = case(CONFIG, SIZES)
    logits, _ = numpy_vit.packed_forward(params, images, CONFIG)
    moved, _ = numpy_vit.packed_forward(params, [images[i] for i in order], CONFIG)
    bound = gamma((40 + CONFIG.mlp_dim) * 8 * 4, U)
    assert np.all(np.abs(moved - logits[list(order)]) <= bound * np.abs(logits).max())


def test_a_module_is_trained_on_packed_images():
    """The parameters of `VisionTransformer`, and autograd, are all that packed training needs."""
    params, images, dlogits = case(CONFIG, SIZES)
    model = torch_vit.VisionTransformer(CONFIG, seed=None).double()
    model.load_state_dict(torch_vit.to_torch(params))
    logits = torch_vit.packed_forward(dict(model.named_parameters()), [torch.tensor(i) for i in images], CONFIG)
    logits.backward(torch.tensor(dlogits))
    _, cache = numpy_vit.packed_forward(params, images, CONFIG)
    grads = numpy_vit.packed_backward(dlogits, cache)[1]
    for name, p in model.named_parameters():
        assert np.abs(p.grad.numpy() - grads[name]).max() <= gamma(10_000, U) * np.abs(grads[name]).max(), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel for rows of segments is for GPUs; none here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_kernel_for_all_segments_on_a_gpu(dtype):
    lengths, generator = (7, 64, 1, 33), torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, sum(lengths), 64, generator=generator) for _ in range(3))
    there = [t.to("cuda", dtype).requires_grad_() for t in (q, k, v)]
    y = torch_vit.packed_attention_forward(*there, lengths)
    dy = torch.randn(y.shape, generator=generator)
    grads = torch.autograd.grad(y, there, dy.to("cuda", dtype))
    here = [t.detach().cpu().double().requires_grad_() for t in there]
    truth = torch_vit.packed_attention_forward(*here, lengths)
    slopes = torch.autograd.grad(truth, here, dy.to(dtype).double())
    u = unit_roundoff("bfloat16" if dtype == torch.bfloat16 else np.float32)
    for got, want in zip((y, *grads), (truth, *slopes), strict=True):
        assert (got.double().cpu() - want).abs().max() <= 32 * gamma(64, u) * want.abs().max()


def test_errors():
    params, images, _ = case(CONFIG, SIZES)
    tensors, pixels = torch_vit.to_torch(params), [torch.tensor(i) for i in images]
    for engine, p, i in ((numpy_vit, params, images), (torch_vit, tensors, pixels)):
        with pytest.raises(ConfigError, match="there is no image to pack"):
            engine.packed_forward(p, [], CONFIG)
        with pytest.raises(ConfigError, match=r"reg_tokens.*at_image_size"):
            engine.packed_forward(p, i, CONFIG.replace(reg_tokens=2))
        with pytest.raises(ConfigError, match="pool='max'"):
            engine.packed_forward(p, i, CONFIG.replace(pool="max"))
        with pytest.raises(ShapeError, match="not divisible into patches of 2x2"):
            engine.packed_forward(p, [i[0], i[1][:, :1]], CONFIG)
        with pytest.raises(ShapeError, match=r"image 1 has shape \(1, 2, 2\)"):
            engine.packed_forward(p, [i[0], i[1][:1]], CONFIG)
        q = i[0].reshape(1, 1, 6, 8)
        for lengths in ((2, 3), (6, 0), (7, -1), ()):
            with pytest.raises(ShapeError, match="do not make a row of 6"):
                engine.packed_attention_forward(q, q, q, lengths)
    with pytest.raises(DtypeError, match="float32"):
        numpy_vit.packed_forward(params, [images[0], images[1].astype(np.float32)], CONFIG)
