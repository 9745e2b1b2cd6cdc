"""The torch engine's options for speed and memory: none changes what is computed, and a step never waits."""

import numpy as np
import pytest
import torch

from benchmarks.gpu_runners import waits_are_errors
from benchmarks.parity import Truth
from numpy_vit.engine import NumpyEngine
from parity_tests.tolerances import unit_roundoff
from torch_vit import compiled, fast_cpu, numerics, predictor
from torch_vit.engine import TorchEngine
from torch_vit.options import TorchOptions
from torch_vit.transfer import Late, Upload
from vit_common import ConfigError, ViTConfig, init_params, make_masks
from vit_common.masks import keyed_rng
from vit_common.recipe import Recipe

CONFIG = ViTConfig(
    image_size=8, patch_size=4, in_channels=1, num_classes=5, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2.0,
    proj_drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.2,
)  # fmt: skip
VARIANT = CONFIG.replace(reg_tokens=2, mlp="glu", patch_drop_rate=0.25)
RECIPE = Recipe(lr=3e-3, label_smoothing=0.1)
GPU = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")),
]


def start(options=None, config=CONFIG, recipe=RECIPE, make=TorchEngine):
    engine = make() if make is NumpyEngine else make(options or TorchOptions(device="cpu"))
    rng = keyed_rng(0, "levers")
    params = init_params(config, 0, recipe.dtype)
    engine.start(config, {n: p + rng.normal(0, 0.02, p.shape).astype(p.dtype) for n, p in params.items()}, recipe)
    return engine


def batch(step=0, config=CONFIG, images=6, dtype=np.float32):
    rng = keyed_rng(1, "batch", step)
    x = rng.standard_normal((images, config.in_channels, *config.image_size)).astype(dtype)
    return x, rng.integers(0, config.num_classes, images), make_masks(config, images, 0, step), 3e-3


def run(engine, steps=4, config=CONFIG):
    losses = [engine.train_step(*batch(step, config)).loss for step in range(steps)]
    return losses, engine.state()


# ---- options


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"precision": "fp16"}, "precision='fp16' is unknown.*float32, tf32, bf16"),
        ({"attention_kernel": "flsh"}, "did you mean 'flash'"),
        ({"compile": True, "compile_mode": "fast"}, "compile_mode='fast' is unknown"),
        ({"compile_mode": "max-autotune"}, "add --compile"),
    ],
)
def test_wrong_options_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        TorchOptions(**fields)


def test_low_precision_is_for_float32_parameters():
    with pytest.raises(ConfigError, match="use --precision float32, or --dtype float32"):
        start(TorchOptions(device="cpu", precision="bf16"), recipe=RECIPE.replace(dtype="float64"))


def test_patch_dropout_is_not_compiled():
    """And says so before the model is built: torch's error would name neither."""
    message = r"patch_drop_rate=0.25 does not go with compile=True.*without --compile, or with patch_drop_rate=0"
    with pytest.raises(ConfigError, match=message):
        start(TorchOptions(device="cpu", compile=True), VARIANT)
    start(TorchOptions(device="cpu", compile=True), VARIANT.replace(patch_drop_rate=0.0))


def test_an_unusable_device_is_named():
    with pytest.raises(ConfigError, match="try --device cpu"):
        TorchEngine(TorchOptions(device="nowhere"))


# ---- the step never waits


def reads(profile):
    """Every tensor element that became a number of the host; but for the count of steps, which the CPU's AdamW kernel
    looks up inside (the GPU's leaves it on the device)."""
    found = [e for e in profile.events() if e.name == "aten::_local_scalar_dense"]
    return [e.name for e in found if "aten::_fused_adamw_" not in ancestors(e)]


def ancestors(event):
    return [] if event.cpu_parent is None else [event.cpu_parent.name, *ancestors(event.cpu_parent)]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_no_number_goes_to_the_host_in_a_step(optimizer, precision):
    engine = start(TorchOptions(device="cpu", precision=precision), recipe=RECIPE.replace(optimizer=optimizer))
    engine.train_step(*batch(0))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        result = engine.train_step(*batch(1))
    seen = {event.key for event in profile.key_averages()}
    assert "aten::_fused_adamw_" in seen or "aten::_fused_sgd_" in seen
    assert reads(profile) == []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert np.isfinite(result.loss)
    assert reads(profile) == ["aten::_local_scalar_dense"], "the profiler sees one"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch's detector of waits is for GPUs, and none is here")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_a_step_on_a_gpu_waits_for_nothing(precision):
    engine = start(TorchOptions(device="cuda", precision=precision, activation_checkpointing=precision == "bf16"))
    for step in range(2):
        engine.train_step(*batch(step))
    torch.cuda.synchronize()
    with waits_are_errors():
        results = [engine.train_step(*batch(step)) for step in range(2, 5)]
    assert all(np.isfinite([*result]).all() for result in results)


@pytest.mark.parametrize("device", GPU)
def test_transfers_copy_and_read_late(device):
    upload, array = Upload(torch.device(device)), np.arange(6.0).reshape(2, 3)
    there = upload(array)
    array += 1
    assert there.tolist() == [[0, 1, 2], [3, 4, 5]], "the array's owner may write to it"
    assert upload(there) is there
    assert float(Late(there.sum())) == 15.0


# ---- a step that fails


@pytest.mark.parametrize("make", [TorchEngine, NumpyEngine])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("before", [0, 2], ids=["first", "third"])
def test_a_step_that_is_not_finite_changes_nothing_and_none_after_it_does(make, optimizer, before):
    recipe = RECIPE.replace(optimizer=optimizer, momentum=0.9)
    engine = start(make=make, recipe=recipe)
    for step in range(before):
        engine.train_step(*batch(step))
    kept = engine.state()
    assert before or not any(kept[name].any() for name in kept if name.startswith("optim/"))
    images, labels, masks, lr = batch(before)
    assert np.isnan(engine.train_step(np.full_like(images, np.nan), labels, masks, lr).loss)
    assert np.isfinite(engine.train_step(images, labels, masks, lr).loss)  # the parameters are sound: only not moved
    assert all(np.array_equal(value, kept[name]) for name, value in engine.state().items())
    engine.load_state(kept)
    again = start(make=make, recipe=recipe)
    again.load_state(kept)
    for other in (engine, again):
        other.train_step(*batch(before))
    one, two = engine.state(), again.state()
    assert any(not np.array_equal(one[name], kept[name]) for name in one), "a loaded state is trained again"
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_an_infinite_gradient_of_a_finite_loss_is_not_taken_either():
    engine = start(recipe=RECIPE.replace(clip_norm=0.0))
    kept = engine.state()
    engine.model.norm.weight.register_hook(lambda g: g * torch.inf)
    result = engine.train_step(*batch(0))
    assert np.isfinite(result.loss)
    assert not np.isfinite(result.grad_norm)
    assert all(np.array_equal(value, kept[name]) for name, value in engine.state().items())


def test_where_no_fused_kernel_looks_the_host_does(monkeypatch):
    from torch_vit import update

    monkeypatch.setattr(update, "FUSED", ())
    engine, fused = start(), None
    losses, state = run(engine)
    kept = engine.state()
    images, labels, masks, lr = batch(0)
    engine.train_step(np.full_like(images, np.nan), labels, masks, lr)
    assert all(np.array_equal(value, kept[name]) for name, value in engine.state().items())
    monkeypatch.undo()
    fused, fused_state = run(start())
    assert losses == pytest.approx(fused, rel=1e-5)
    assert state.keys() == fused_state.keys()


# ---- precision


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("device", GPU)
def test_gradients_are_within_the_bound_of_their_precision(precision, device):
    config = CONFIG.replace(proj_drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0)
    recipe = RECIPE.replace(clip_norm=0.0, label_smoothing=0.0)
    engine = start(TorchOptions(device=device, precision=precision), config, recipe)
    params = engine.params()
    images, labels, masks, lr = batch(0, config)
    truth = Truth(params, images, labels, config)
    logits = engine.predict(images)
    engine.train_step(images, labels, masks, lr)
    grads = {name: p.grad.float().cpu().numpy() for name, p in engine.model.named_parameters()}
    truth.check(precision, logits, grads, precision)
    error = max(np.abs(g - truth.grads[name].v).max() / np.abs(truth.grads[name].v).max() for name, g in grads.items())
    if device == "cpu":
        expected = unit_roundoff("bfloat16") if precision == "bf16" else 0.0
        assert error >= expected / 16, "bf16 products were computed, not only asked for"
        assert precision == "bf16" or error <= unit_roundoff("tf32"), "a CPU has no TF32: those are float32 products"


def test_master_weights_and_optimizer_are_float32():
    engine = start(TorchOptions(device="cpu", precision="bf16"))
    _, state = run(engine, 2)
    assert {array.dtype for name, array in state.items() if name != "optim/step"} == {np.dtype(np.float32)}
    assert {p.dtype for p in engine.model.parameters()} == {torch.float32}
    assert engine.predict(batch()[0]).dtype == np.float32


def test_settings_of_torch_are_as_before_outside_a_step(monkeypatch):
    seen = []
    real = torch.nn.functional.scaled_dot_product_attention

    def look(*args, **options):
        priority = torch._C._get_sdp_priority_order()
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, priority[0]))
        return real(*args, **options)

    def settings():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch._C._get_sdp_priority_order()

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", look)
    before, config = settings(), CONFIG.replace(attn_drop_rate=0.0)
    for precision, attention in (("tf32", "efficient"), ("float32", "math")):
        engine = start(TorchOptions(device="cpu", precision=precision, attention_kernel=attention), config)
        engine.train_step(*batch(0, config))
        kernel = int(numerics.KERNELS[attention])
        assert set(seen) == {("high" if precision == "tf32" else "highest", precision == "tf32", kernel)}
        seen.clear()
        assert settings() == before


@pytest.mark.parametrize("enabled", [True, False])
def test_cudnn_stays_on_or_off(enabled, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "enabled", enabled)
    with numerics.product_precision("tf32"):
        assert torch.backends.cudnn.enabled is enabled


# ---- activation checkpointing


@pytest.mark.parametrize("config", [CONFIG, VARIANT], ids=["plain", "variant"])
def test_recomputing_gives_the_same_run_to_the_bit(config):
    losses, state = run(start(config=config), config=config)
    again, other = run(start(TorchOptions(device="cpu", activation_checkpointing=True), config), config=config)
    assert again == losses
    assert all(np.array_equal(state[name], other[name]) for name in state)


def saved_bytes(engine):
    """What autograd keeps of one forward pass, parameters left out."""
    kept = {}
    parameters = {p.untyped_storage().data_ptr() for p in engine.model.parameters()}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    images, labels, masks, _ = batch(0)
    tensors = torch.tensor(images), torch.tensor(labels), {name: torch.tensor(m) for name, m in masks.items()}
    given = parameters | {t.untyped_storage().data_ptr() for t in (*tensors[:2], *tensors[2].values())}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = engine.objective(*tensors)
    assert loss.requires_grad  # the graph, and what it keeps, is alive until here
    return sum(size for where, size in kept.items() if where not in given)


def test_recomputing_keeps_less():
    deep = CONFIG.replace(depth=6)
    plain = saved_bytes(start(config=deep))
    lean = saved_bytes(start(TorchOptions(device="cpu", activation_checkpointing=True), deep))
    assert lean < plain / 8  # of a block's x, q, k, v, scores, probabilities, hidden and the rest: x


def test_random_dropout_is_the_same_in_both_passes():
    """Without masks the generator decides, and the second pass has to meet it in the state of the first."""
    grads = []
    for recompute in (False, True):
        engine = start(TorchOptions(device="cpu", activation_checkpointing=recompute))
        engine.model.train()
        torch.manual_seed(0)
        engine.model(torch.tensor(batch()[0])).square().sum().backward()
        grads.append([p.grad.clone() for p in engine.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


# ---- compilation


@pytest.fixture
def quick_compiler(monkeypatch):
    """Everything of torch.compile but the C++ or Triton at its end."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_one_graph_for_a_whole_run(quick_compiler, recompute, precision):
    """Steps, evaluation, its smaller last batch, and steps again: after each was seen once, nothing is compiled."""
    options = {"device": "cpu", "precision": precision, "activation_checkpointing": recompute}
    fast, plain = start(TorchOptions(compile=True, **options)), start(TorchOptions(**options))
    images, labels, masks, lr = batch(0)
    fast.train_step(images, labels, masks, lr)
    fast.predict(images)
    with torch.compiler.set_stance("fail_on_recompile"):
        for step in range(1, 4):
            result = fast.train_step(*batch(step))
            few = fast.predict(images[:2])
    plain.train_step(images, labels, masks, lr)
    for step in range(1, 4):
        expected = plain.train_step(*batch(step))
    u = unit_roundoff("bfloat16" if precision == "bf16" else np.float32)
    assert result.loss == pytest.approx(expected.loss, rel=64 * u)
    assert few.shape == (2, CONFIG.num_classes)
    assert np.abs(few - plain.predict(images)[:2]).max() <= 64 * u * np.abs(few).max()


# ---- inference


@pytest.mark.parametrize("low", [True, False])
def test_a_copy_in_bfloat16_follows_the_weights(low, monkeypatch):
    monkeypatch.setattr(predictor.fast_cpu, "multiplies_bf16", lambda: low)
    engine = start(TorchOptions(device="cpu", precision="bf16"))
    images = batch()[0]
    truth = [start().predict(images)]
    found = [engine.predict(images)]
    state = run(engine)[1]
    other = start()
    other.load_state(state)
    truth, found = [*truth, other.predict(images)], [*found, engine.predict(images)]
    engine.load_state(start().state())
    truth, found = [*truth, truth[0]], [*found, engine.predict(images)]
    for got, want in zip(found, truth, strict=True):
        error = np.abs(got - want).max() / np.abs(want).max()
        assert error <= 32 * unit_roundoff("bfloat16")
        assert bool(error > 0) is low, "on a CPU without the instructions, inference is in float32"
    assert np.abs(truth[0] - truth[1]).max() > 0.2 * np.abs(truth[0]).max(), "the weights moved"


def test_the_rule_of_bfloat16_on_a_cpu(monkeypatch):
    assert isinstance(fast_cpu.multiplies_bf16(), bool)
    for avx, amx in ((False, False), (True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
        assert fast_cpu.multiplies_bf16() is (avx or amx)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert not fast_cpu.multiplies_bf16()
