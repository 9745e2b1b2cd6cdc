"""What the PyTorch modules promise beside their numbers: found by changing them."""

import importlib
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import numpy_vit
import torch_vit
from parity_tests.packed_bounds import packed_attention
from parity_tests.strategies import normal
from parity_tests.tolerances import Bounded
from torch_vit import to_torch
from torch_vit.branch import make_mlp
from torch_vit.mae import Mae
from torch_vit.multi_head import ManualMultiHead
from torch_vit.patch_dropout import random_mask
from vit_common import CheckpointError, ConfigError, ShapeError, ViTConfig, init_params
from vit_common.mae_config import MaeConfig, init_mae_params, mae_mask

DIGITS = ViTConfig.preset("digits")
packed = importlib.import_module("torch_vit.packed_attention")
both_engines = pytest.mark.parametrize(("engine", "wrap"), [(numpy_vit, np.asarray), (torch_vit, torch.from_numpy)],
                                       ids=["numpy", "torch"])  # fmt: skip


def scores_seen(model, images):
    with torch_vit.Tape(model) as tape:
        model(images)
    return any(name.endswith("scores") for name in tape.values)


def test_attention_is_fused_unless_weights_are_dropped():
    """A rate alone does not make a model that predicts write its scores out."""
    model = torch_vit.VisionTransformer(DIGITS.replace(attn_drop_rate=0.5))
    images = torch.zeros(1, 1, 8, 8)
    assert not scores_seen(model.eval(), images)
    assert scores_seen(model.train(), images)
    assert not scores_seen(torch_vit.VisionTransformer(DIGITS).train(), images)
    assert scores_seen(torch_vit.VisionTransformer(DIGITS, "explicit").eval(), images)


@pytest.mark.parametrize("fields", [{}, {"reg_tokens": 1}, {"pool": "map"}], ids=str)
def test_an_unknown_attention_path_is_refused(fields):
    with pytest.raises(ConfigError, match="attention='flash' is unknown; .*explicit"):
        torch_vit.VisionTransformer(DIGITS.replace(**fields), "flash")


def test_nothing_is_dropped_at_random_unless_it_trains():
    q, k, v = (torch.from_numpy(normal(i, (1, 2, 3, 4))) for i in range(3))
    attend = torch_vit.biased_attention_forward
    assert torch.equal(attend(q, k, v, drop_rate=0.5), attend(q, k, v))
    config = DIGITS.replace(attention="diff", embed_dim=8, num_heads=2, depth=1)
    lambdas = to_torch({n.removeprefix("blocks.0.attn."): p for n, p in init_params(config, 0, np.float64).items()
                        if "attn.lambda" in n or "attn.sub_norm" in n})  # fmt: skip
    q, k, v = (torch.from_numpy(normal(i, (1, n, 3, 2 if n == 4 else 4))) for i, n in enumerate((4, 4, 2)))
    attend = partial(torch_vit.diff_attention_forward, lambdas, q, k, v, 0)
    assert torch.equal(attend(drop_rate=0.5), attend())


def test_a_branch_drops_no_path_that_no_mask_drops():
    config = DIGITS.replace(reg_tokens=1)
    params = {n.removeprefix("blocks.0."): torch.from_numpy(p) for n, p in init_params(config, 0).items()}
    names = torch_vit.BranchNames("norm2", "mlp", "ls2.gamma", "drop_path2")
    x = torch.from_numpy(normal(0, (8, 3, config.embed_dim))).float()
    run = partial(torch_vit.branch_forward, params, x, config, names, torch_vit.Positions())
    assert run(0.0, {}).abs().amin(dim=(1, 2)).all()  # each image has a branch to lose
    assert torch.equal(run(0.5, {}), run(0.0, {}))


def test_the_fast_path_of_a_linear_layer_is_asked_about_input_and_weight(monkeypatch):
    asked = []
    monkeypatch.setattr("torch_vit.linear.fast_cpu.serves", lambda x, weight: asked.append((x, weight)))
    x, weight = torch.zeros(2, 3), torch.zeros(4, 3)
    torch_vit.linear_forward(x, weight, torch.zeros(4))
    assert asked[0][0] is x
    assert asked[0][1] is weight


def test_which_rows_of_segments_torchs_own_kernel_takes(monkeypatch):
    monkeypatch.setattr(packed, "HAS_VARLEN", True)

    def row(cuda=True, dtype=torch.bfloat16, batch=1, width=16):
        shape = batch, 2, 5, width
        return type("Row", (SimpleNamespace,), {"__len__": lambda _: batch})(is_cuda=cuda, dtype=dtype, shape=shape)

    assert packed.serves_varlen(row())
    assert packed.serves_varlen(row(dtype=torch.float16, width=24))
    assert packed.serves_varlen(row(width=256))
    assert not packed.serves_varlen(row(width=264))
    for other in ({"cuda": False}, {"dtype": torch.float32}, {"batch": 2}, {"width": 20}, {"width": 21}, {"width": 17}):
        assert not packed.serves_varlen(row(**other)), other
    monkeypatch.setattr(packed, "HAS_VARLEN", False)
    assert not packed.serves_varlen(row())


@pytest.mark.parametrize(("capability", "old"), [((7, 5), True), ((8, 0), False), ((8, 6), False), ((9, 0), False)])
def test_the_kernel_for_segments_needs_a_gpu_of_its_time(monkeypatch, capability, old):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert packed.too_old(SimpleNamespace(type="cuda")) is old
    assert not packed.too_old(SimpleNamespace(type="cpu"))


def test_the_kernel_for_segments_is_called_as_it_is_documented(monkeypatch):
    """(T, NH, HD) each, where segments end, and the longest: here it is written out for the CPU."""
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="this torch has no kernel for rows of segments")

    def written_out(q, k, v, ends_q, ends_k, most_q, most_k):
        assert ends_q is ends_k
        assert ends_q.dtype == torch.int32
        assert most_q == most_k == int(ends_q.diff().max())
        bounds = list(zip(ends_q.tolist()[:-1], ends_q.tolist()[1:], strict=True))
        assert (bounds[0][0], bounds[-1][1]) == (0, len(q))
        one = [torch_vit.attention_forward(*(t[a:b].transpose(0, 1)[None] for t in (q, k, v))) for a, b in bounds]
        return torch.cat([part[0].transpose(0, 1) for part in one])

    monkeypatch.setattr(varlen, "varlen_attn", written_out)
    q, k, v = (torch.from_numpy(normal(i, (1, 2, 9, 8))) for i in range(3))
    want = torch_vit.packed_attention_forward(q, k, v, (2, 4, 3))
    monkeypatch.setattr(packed, "serves_varlen", lambda _: True)
    got = torch_vit.packed_attention_forward(q, k, v, (2, 4, 3))
    bound, _ = packed_attention(*(Bounded(t.numpy(), 0.0, np.float64) for t in (q, k, v)), (2, 4, 3))
    assert (np.abs((got - want).numpy()) <= 2 * bound.e).all()


@both_engines
def test_packed_queries_keys_and_values_name_which_does_not_fit(engine, wrap):
    q, k, v = (wrap(normal(i, (1, 2, 3, 4))) for i in range(3))
    with pytest.raises(ShapeError, match=r"^q has shape \(2, 3, 4\)"):
        engine.packed_attention_forward(q[0], k, v, (3,))
    with pytest.raises(ShapeError, match=r"^k has shape \(1, 2, 3, 2\), expected \(1, 2, \w+, 4\)"):
        engine.packed_attention_forward(q, k[..., :2], v, (3,))
    with pytest.raises(ShapeError, match=r"^v has shape \(1, 1, 3, 4\), expected \(1, 2, 3, \w+\)"):
        engine.packed_attention_forward(q, k, v[:, :1], (3,))
    longer = [wrap(normal(i, (1, 2, 4, 4))) for i in range(2)]  # as long as asked for, once it is cut into segments
    for row in ((q, longer[0], v), (q, k, longer[1]), (q, *longer)):
        with pytest.raises(ShapeError):
            engine.packed_attention_forward(*row, (3,))
    with pytest.raises(ShapeError, match="each has at least one"):
        engine.packed_attention_forward(q[:, :, :0], k[:, :, :0], v[:, :, :0], ())


@both_engines
def test_packed_positions_and_logits_have_the_images_dtype(engine, wrap):
    config = ViTConfig(image_size=4, patch_size=2, embed_dim=8, num_heads=2, depth=1, pos_embed="sincos_2d")
    params = {n: wrap(p) for n, p in init_params(config, 0).items()}
    images = [wrap(np.zeros((3, 4, n), np.float32)) for n in (4, 2)]
    logits = engine.packed_forward(params, images, config)
    assert (logits[0] if engine is numpy_vit else logits).dtype == images[0].dtype
    parts = importlib.import_module(f"{engine.__name__}.packed_tokens")
    if engine is numpy_vit:
        positions, _ = parts.grid_positions(params, (2, 2), config, np.dtype("float32"))
    else:
        positions = parts.grid_positions(params, (2, 2), config)
    assert positions.dtype == images[0].dtype
    with pytest.raises(CheckpointError, match="missing"):
        engine.packed_forward({n: p for n, p in params.items() if n != "norm.bias"}, images, config)


def test_positions_of_a_masked_autoencoder_have_the_images_dtype():
    encoder = ViTConfig(image_size=8, patch_size=4, num_classes=0, embed_dim=8, depth=1, num_heads=2,
                        pos_embed="sincos_2d")  # fmt: skip
    config = MaeConfig(encoder, decoder_dim=8, decoder_depth=1, decoder_heads=2)
    model = Mae(config)
    model.load_state_dict(to_torch(init_mae_params(config, 0)))
    loss, prediction = model(torch.zeros(2, 3, 8, 8), torch.from_numpy(mae_mask(config, 2, 0, 0)))
    assert loss.dtype == prediction.dtype == torch.float32


@pytest.mark.parametrize("fields", [{}, {"mlp": "glu"}, {"mlp": "glu_packed"}], ids=str)
def test_an_mlp_drops_at_random_in_train_mode_without_masks(fields):
    config = DIGITS.replace(proj_drop_rate=0.5, **fields)
    mlp, x = make_mlp(config), torch.ones(2, 5, config.embed_dim)
    for p in mlp.parameters():
        torch.nn.init.normal_(p)
    assert not torch.equal(mlp.train()(x), mlp(x))
    assert torch.equal(mlp(x, {}), mlp(x, {}))
    assert torch.equal(mlp.eval()(x), mlp(x))


def test_the_backward_by_hand_is_used_unless_weights_are_dropped(monkeypatch):
    calls = []
    real = ManualMultiHead.apply
    monkeypatch.setattr(ManualMultiHead, "apply", lambda *a: calls.append(1) or real(*a))
    model = torch_vit.VisionTransformer(DIGITS.replace(attn_drop_rate=0.5), "manual")
    model.eval()(torch.zeros(1, 1, 8, 8))
    assert len(calls) == DIGITS.depth
    model.train()(torch.zeros(1, 1, 8, 8))
    assert len(calls) == DIGITS.depth


def test_biased_attention_is_fused_unless_weights_are_dropped_or_looked_at(monkeypatch):
    calls = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr("torch_vit.biased_attention.F.scaled_dot_product_attention",
                        lambda *a, **k: calls.append(1) or real(*a, **k))  # fmt: skip
    q, k, v = (torch.from_numpy(normal(i, (1, 2, 3, 4))) for i in range(3))
    for options, fused in (({}, 1), ({"drop_rate": 0.5}, 1), ({"training": True}, 1), ({"tap": lambda _, t: t}, 0),
                           ({"drop_rate": 0.5, "training": True}, 0),
                           ({"drop_mask": torch.ones(1, 2, 3, 3, dtype=torch.bool)}, 0)):  # fmt: skip
        calls.clear()
        torch_vit.biased_attention_forward(q, k, v, **{"tap": None, **options})
        assert len(calls) == fused, options


def test_masks_and_copies_are_made_where_they_are_asked_for():
    closed = importlib.import_module("torch_vit.attention_mask")._closed
    assert closed(torch.ones(2, dtype=torch.bool, device="meta"), torch.float32).device.type == "meta"
    assert to_torch({"a": np.zeros(2)}, "meta")["a"].device.type == "meta"


def test_how_many_patches_torch_keeps():
    assert set(random_mask(3, 100, 0.5, torch.device("cpu")).sum(dim=1).tolist()) == {50}


def test_a_missing_parameter_is_named():
    params = to_torch(init_params(DIGITS, 0))
    del params["norm.bias"]
    with pytest.raises(CheckpointError, match="missing"):
        torch_vit.vit_forward(params, torch.zeros(1, 1, 8, 8), DIGITS)


def test_an_optimizers_result_has_no_history():
    params, grads = ({n: torch.ones(2, requires_grad=True) for n in "ab"} for _ in range(2))
    for name in ("sgd", "adamw"):
        state = getattr(torch_vit, f"{name}_init")(params)
        new, state = getattr(torch_vit, f"{name}_step")(params, grads, state, lr=0.1)
        held = [*new.values(), *(t for field in state if isinstance(field, dict) for t in field.values())]
        assert not any(t.requires_grad for t in held)


def test_the_kernel_for_segments_is_given_where_its_input_is(monkeypatch):
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="this torch has no kernel for rows of segments")
    seen = []
    monkeypatch.setattr(varlen, "varlen_attn", lambda q, k, v, *rest: seen.extend(rest) or q)
    monkeypatch.setattr(packed, "serves_varlen", lambda _: True)
    q = torch.empty(1, 2, 5, 8, device="meta")
    torch_vit.packed_attention_forward(q, q, q, (2, 3))
    assert [ends.device.type for ends in seen[:2]] == ["meta", "meta"]


def test_packed_tokens_have_the_patches_dtype():
    """Under autocast the projection gives 16 bits, and the class token has 32."""
    config = ViTConfig(image_size=4, patch_size=2, embed_dim=8, num_heads=2, depth=1, pos_embed="none")
    params, images = to_torch(init_params(config, 0)), [torch.zeros(3, 4, 4), torch.zeros(3, 2, 4)]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch_vit.packed_tokens_forward(params, images, config).dtype == torch.bfloat16


def test_the_kernel_for_segments_is_looked_for_under_its_name():
    assert not packed.serves_varlen(torch.zeros(1, 1, 2, 8))  # on the CPU there is none
    assert (tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 10)) == packed.HAS_VARLEN
