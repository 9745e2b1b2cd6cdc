"""The demo: right engines pass it, engines with a small mistake fail it."""

import math

import numpy as np
import pytest

from demo.train_together import one_ulp_up, train_together
from demo.verdict import judge, parting_step, relative_gap
from numpy_vit.engine import NumpyEngine
from vit_common.config import ViTConfig
from vit_common.data import load_dataset
from vit_common.params import init_params
from vit_common.recipe import Recipe, config_for_data

STEPS = np.arange(400)


def growing(start: float, rate: float) -> np.ndarray:
    """Losses that leave 2.0 exponentially."""
    return 2.0 * (1 + np.minimum(start * np.exp(rate * STEPS), 1.0))


def test_the_gap_is_relative_and_a_loss_that_is_not_finite_is_infinitely_far():
    assert relative_gap([1.0, 2.0, math.nan, 0.0], [1.0, 1.0, 1.0, 0.0]) == pytest.approx([0.0, 1.0, math.inf, 0.0])
    assert parting_step(np.array([0.0, 1e-4, 2e-4])) == 3
    assert parting_step(np.zeros(3)) is None


def test_an_engine_may_part_a_little_sooner_than_the_control_but_not_in_half_the_time():
    reference, control = np.full(400, 2.0), growing(1e-7, 0.05)  # parts after ln(1000) / 0.05 = 138 steps
    assert judge(growing(5e-7, 0.05), reference, control, "float32").agree
    late = judge(growing(5e-8, 0.05), reference, control, "float32")
    assert late.agree
    assert late.engines_part == 154
    assert late.control_parts == 140
    early = judge(growing(1e-5, 0.05), reference, control, "float32")
    assert not early.agree
    assert early.engines_part == 48


def test_a_wrong_start_fails_even_where_nothing_grows():
    reference, control = np.full(400, 2.0), np.full(400, 2.0 * (1 + 1e-7))
    assert judge(control, reference, control, "float32").agree
    assert not judge(np.full(400, 2.0 * (1 + 1e-5)), reference, control, "float32").agree


def test_float64_allows_a_billionth_for_a_hundred_steps():
    reference = np.full(400, 2.0)
    apart = np.where(STEPS < 100, 2.0 * (1 + 1e-10), 3.0)
    assert judge(apart, reference, reference, "float64").agree
    apart[99] = 2.0 * (1 + 2e-9)
    assert not judge(apart, reference, reference, "float64").agree
    apart[99] = math.nan
    assert not judge(apart, reference, reference, "float64").agree


class OtherEpsilon(NumpyEngine):
    """LayerNorm's epsilon 1e-5 for 1e-6."""

    def start(self, config: ViTConfig, params, recipe):
        super().start(config.replace(norm_eps=1e-5), params, recipe)


class ForgottenBias(NumpyEngine):
    """One bias of one layer gets no gradient."""

    def _update(self, grads, lr):
        name = "blocks.0.mlp.fc2.bias"
        super()._update({**grads, name: np.zeros_like(grads[name])}, lr)


class OtherMoment(NumpyEngine):
    """AdamW with beta2 0.99 for 0.999."""

    def start(self, config, params, recipe):
        super().start(config, params, recipe.replace(beta2=0.99))


def torch_engines() -> dict:
    pytest.importorskip("torch", reason="torch is not installed")
    from torch_vit.engine import TorchEngine, TorchOptions

    return {name: TorchEngine(TorchOptions(device="cpu")) for name in ("torch", "control")}


def command(tmp_path, numpy_engine, *flags: str) -> int:
    engines = torch_engines()
    from demo.__main__ import main

    return main(["--out", str(tmp_path), *flags], {"numpy": numpy_engine, **engines})


def test_right_engines_pass_and_leave_a_table_and_a_picture(tmp_path, capsys):
    assert command(tmp_path, NumpyEngine(), "--epochs", "3") == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("test accuracy", "largest parameter difference", "ratio", "the engines agree"))
    assert (tmp_path / "demo-float32.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "demo-float32.json").exists()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_engine_with_a_small_mistake_fails_the_command(tmp_path, capsys, dtype):
    assert command(tmp_path, OtherEpsilon(), "--dtype", dtype, "--epochs", "1") == 1
    assert "DO NOT AGREE" in capsys.readouterr().out


@pytest.mark.parametrize(("dtype", "epochs"), [("float32", 3), ("float64", 1)])
def test_each_small_mistake_is_told_from_rounding(dtype, epochs):
    mistakes = {kind.__name__: kind() for kind in (OtherEpsilon, ForgottenBias, OtherMoment)}
    engines = {"right": NumpyEngine(), **torch_engines(), **mistakes}
    data, config = load_dataset("digits"), config_for_data("digits")
    recipe = Recipe.for_data("digits", epochs=epochs, dtype=dtype, seed=1)
    params = init_params(config, 1, dtype)
    for name, engine in engines.items():
        engine.start(config, one_ulp_up(params) if name == "control" else params, recipe)
    losses = {name: log.losses for name, log in train_together(engines, config, recipe, data, show=False).items()}
    verdicts = {
        name: judge(losses[name], losses["torch"], losses["control"], dtype).agree for name in ("right", *mistakes)
    }
    assert verdicts == {"right": True, "OtherEpsilon": False, "ForgottenBias": False, "OtherMoment": False}


def test_the_control_is_one_ulp_away_in_every_weight():
    config = ViTConfig(image_size=8, patch_size=4, embed_dim=8, num_heads=2, depth=1, num_classes=3)
    params = init_params(config, 0)
    for name, moved in one_ulp_up(params).items():
        assert moved.dtype == params[name].dtype
        assert (moved > params[name]).all()
        assert np.array_equal(np.nextafter(moved, np.float32(-np.inf)), params[name])


def test_a_place_that_cannot_be_written_to_is_told_before_anything_is_trained(tmp_path, capsys):
    from demo.__main__ import main

    (tmp_path / "file").touch()
    nothing = dict.fromkeys(("numpy", "torch", "control"))  # would fail as soon as one is started
    assert main(["--out", str(tmp_path / "file" / "below")], nothing) == 1
    assert "cannot write" in capsys.readouterr().err
