"""oneDNN linear layers: engine plumbing that the stage tests meet only on some processors."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import parity
from benchmarks.contestants import make_case
from parity_tests.tolerances import gamma, unit_roundoff
from torch_vit import VisionTransformer, fast_cpu, linear_forward, to_torch

needs_onednn = pytest.mark.skipif(
    not fast_cpu.available("on"), reason="this torch has no oneDNN linear layers"
)


@pytest.fixture
def onednn(monkeypatch):
    monkeypatch.setattr(fast_cpu, "AVAILABLE", True)
    monkeypatch.setattr(fast_cpu, "LEAST", 0)


def linear_case(lead=(2, 3), inputs=5, outputs=4, bias=True):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return [draw(*lead, inputs), draw(outputs, inputs), draw(outputs) if bias else None], draw(*lead, outputs)


@needs_onednn
@pytest.mark.parametrize("lead", [(7,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_onednn_linear_is_the_linear_map_with_its_gradients(onednn, lead, bias, layout):
    tensors, dy = linear_case(lead, bias=bias)
    if layout == "strided":  # views, as the transposes and slices of a real model
        tensors[0] = torch.stack([tensors[0], tensors[0]], -1)[..., 0]
        dy = dy.expand(3, *dy.shape)[1].transpose(0, -1).contiguous().transpose(0, -1)
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    assert fast_cpu.serves(leaves[0], leaves[1])
    y = linear_forward(*leaves)
    got = [y, *torch.autograd.grad(y, [t for t in leaves if t is not None], dy)]
    double = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    true = torch.nn.functional.linear(*double)
    want = [true, *torch.autograd.grad(true, [t for t in double if t is not None], dy.double())]
    # |error| <= gamma_n * (sum of the terms' magnitudes), Higham 2002, eq. 3.13
    size = [None if t is None else t.detach().double().abs().requires_grad_() for t in tensors]
    whole = torch.nn.functional.linear(*size)
    sizes = [whole, *torch.autograd.grad(whole, [t for t in size if t is not None], dy.double().abs())]
    terms = max(tensors[0].numel(), dy.numel())
    for g, w, s in zip(got, want, sizes, strict=True):
        assert g.shape == w.shape
        assert g.dtype == torch.float32
        assert bool(((g.double() - w).abs() <= gamma(terms, unit_roundoff(np.float32)) * s).all())


@needs_onednn
def test_onednn_linear_gives_only_the_gradients_that_are_asked_for(onednn):
    (x, weight, bias), dy = linear_case()
    for wanted in (x, weight, bias):
        for t in (x, weight, bias):
            t.requires_grad_(t is wanted)
        (grad,) = torch.autograd.grad(linear_forward(x, weight, bias), [wanted], dy)
        assert grad.shape == wanted.shape


@needs_onednn
def test_onednn_linear_has_second_derivatives_and_function_transforms(onednn, monkeypatch):
    (x, weight, bias), dy = linear_case()
    leaves = [t.requires_grad_() for t in (x, weight, bias)]

    def second() -> torch.Tensor:
        (dx,) = torch.autograd.grad(linear_forward(*leaves), [x], dy, create_graph=True)
        return torch.autograd.grad((dx**3).sum(), [weight])[0]

    def functional() -> torch.Tensor:
        loss = lambda w: (linear_forward(x.detach(), w, bias.detach()) ** 2).sum()  # noqa: E731
        return torch.func.grad(loss)(weight.detach())

    fast = second(), functional()
    monkeypatch.setattr(fast_cpu, "AVAILABLE", False)
    for got, want in zip(fast, (second(), functional()), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=gamma(100, unit_roundoff(np.float32)))


@needs_onednn
def test_gelu_is_fused_only_where_nobody_looks(onednn):
    case = make_case("digits", 2)
    network = VisionTransformer(case.config, seed=None)
    network.load_state_dict(to_torch(case.params))
    fc1, x = network.blocks[0].mlp.fc1, torch.randn(2, 17, case.config.embed_dim)
    assert not fast_cpu.fuses_gelu(fc1, x)  # a gradient is wanted
    truth = parity.Truth(case.params, case.images, case.labels, case.config, gradients=False)
    with torch.no_grad():
        assert fast_cpu.fuses_gelu(fc1, x)
        truth.check("fused", network(torch.from_numpy(case.images)).numpy())
        hook = fc1.register_forward_hook(lambda *_: None)
        assert not fast_cpu.fuses_gelu(fc1, x)  # a tape looks
        hook.remove()


def test_the_rule_of_the_fast_path(monkeypatch):
    x, w = torch.zeros(3, 4), torch.zeros(5, 4)
    monkeypatch.setattr(fast_cpu, "LEAST", 60)
    monkeypatch.setattr(fast_cpu, "AVAILABLE", True)
    on = torch.backends.mkldnn.enabled
    assert fast_cpu.serves(x, w) == on
    assert not fast_cpu.serves(x[:2], w)  # too small
    assert not fast_cpu.serves(x.double(), w.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not fast_cpu.serves(x, w)  # autocast has its own way
    with monkeypatch.context() as switched:
        switched.setattr(torch.backends.mkldnn, "enabled", False)
        assert not fast_cpu.serves(x, w)
    monkeypatch.setattr(fast_cpu, "AVAILABLE", False)
    assert not fast_cpu.serves(x, w)
    assert not fast_cpu.available("off")
    for amd, avx512 in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr(fast_cpu, "_is_amd", lambda amd=amd: amd)
        monkeypatch.setattr(fast_cpu, "_has_avx512", lambda avx512=avx512: avx512)
        assert fast_cpu.available("auto") is (amd and avx512 and fast_cpu.available("on"))
    monkeypatch.setattr(fast_cpu.torch.ops, "mkldnn", SimpleNamespace())
    assert not fast_cpu.available("on")  # an older or a stripped torch: the usual way, no error


@needs_onednn
def test_shapes_that_the_operators_declare():
    """What torch.compile goes by, which looks into neither of them."""
    x, weight = torch.empty(2, 3, 5, device="meta"), torch.empty(4, 5, device="meta")
    for post in ("none", "gelu"):
        assert fast_cpu._product(x, weight, None, post).shape == (2, 3, 4)
    drows, rows = torch.empty(6, 4, device="meta"), torch.empty(6, 5, device="meta")
    assert [g.shape for g in fast_cpu._weight_gradient(drows, rows, weight)] == [(4, 5), (4,)]


def test_whose_processor_it_is(monkeypatch, tmp_path):
    """Linux's word on it; where there is none, Python's."""
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(fast_cpu, "Path", lambda path: {"/proc/cpuinfo": info}[path])
    for python in ("AMD64 Family 25 Model 33, AuthenticAMD", "Intel64 Family 6 Model 158, GenuineIntel"):
        monkeypatch.setattr(fast_cpu.platform, "processor", lambda python=python: python)
        assert fast_cpu._is_amd() == ("AuthenticAMD" in python)
    for maker in ("AuthenticAMD", "GenuineIntel"):
        info.write_text(f"processor\t: 0\nvendor_id\t: {maker}\n")
        assert fast_cpu._is_amd() == (maker == "AuthenticAMD")


def test_what_it_takes_to_be_available():
    """The environment says on, off or auto; the two operators are looked for by name."""
    here = torch.backends.mkldnn.is_available()
    here &= hasattr(torch.ops.mkldnn, "_linear_pointwise")
    here &= hasattr(torch.ops.aten, "mkldnn_linear_backward_weights")
    assert fast_cpu.available("on") == here
    assert fast_cpu.available("auto") == (here and fast_cpu._is_amd() and fast_cpu._has_avx512())
    assert not fast_cpu.available("off")
