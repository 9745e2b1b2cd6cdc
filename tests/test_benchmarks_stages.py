"""The benchmarks of single stages, the variants' too, and of what float32 costs."""

import json
import math

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import accuracy, machine, report, results, stage_case, stages
from benchmarks.contestants import Contestant, make_case
from benchmarks.parity import ParityError
from benchmarks.stage_case import MODULES, StageCase
from benchmarks.stage_variants import variant_cases
from parity_tests.harness import STAGES
from parity_tests.stage_checks import known
from vit_common.config import ViTConfig

SMALL = ViTConfig(image_size=(8, 12), patch_size=4, in_channels=2, num_classes=5, embed_dim=12, depth=2, num_heads=3)
IN_A_ROW = {"encoder", "assembled_encoder", "vit"}  # blocks in a row: `model` times them


@pytest.fixture(scope="module")
def cases():
    return {case.name: case for case in [*stages.make_cases(SMALL, 2), *variant_cases(SMALL, 2)]}


def test_every_stage_is_timed(cases):
    assert set(cases) == set(known()) - IN_A_ROW


@pytest.mark.parametrize("name", sorted(set(known()) - IN_A_ROW))
def test_what_is_timed_is_within_the_bound(cases, name):
    assert all(0 <= share <= 1 for share in cases[name].assert_parity().values())


def test_a_wrong_stage_is_not_timed(cases, monkeypatch):
    case = cases["gated_mlp"]
    wrong = lambda: case.y + 1e-3  # noqa: E731
    monkeypatch.setattr(case, "numpy_calls", lambda: (wrong, lambda: {}))
    with pytest.raises(ParityError, match="gated_mlp"):
        case.assert_parity()


def test_operations_are_those_of_the_formulas(cases):
    batch, tokens, width, hidden = 2, SMALL.num_tokens, SMALL.embed_dim, SMALL.mlp_dim
    rows, attention = batch * tokens, 4 * batch * tokens * tokens * width
    linear = 2 * rows * width
    counted = {case.name: StageCase(case.name, case.arrays, case.options, flops=None).flops for case in cases.values()}
    for name in ("linear", "attention", "multi_head", "mlp", "encoder_block", "head"):
        assert counted[name] == cases[name].flops > 0, name
    assert counted["gated_mlp"] == 3 * linear * hidden
    assert counted["biased_attention"] == counted["refined_pool"] == attention
    assert counted["assembled_block"] == counted["parallel_block"] == counted["encoder_block"]
    assert counted["parallel_things_block"] == 2 * counted["encoder_block"]
    lengths = cases["packed_attention"].options["lengths"]
    assert counted["packed_attention"] == sum(4 * n * n * width for n in lengths)
    assert counted["rope"] == counted["silu"] == counted["layer_scale"] == 0


def test_modules_are_made_once_and_masks_copied_once(cases, monkeypatch):
    made, copied = [], []
    module = stage_case.importlib.import_module("torch_vit.gated_mlp").GatedMlp
    real = module.__init__
    monkeypatch.setattr(module, "__init__", lambda self, *args: (made.append(1), real(self, *args))[1])
    forward = cases["gated_mlp"].torch_calls()[0]
    assert torch.equal(forward(), forward())
    assert made == [1]
    assert "gated_mlp" in MODULES
    from_numpy = torch.from_numpy
    monkeypatch.setattr(torch, "from_numpy", lambda a: (copied.append(a.dtype), from_numpy(a))[1])
    forward = cases["dropout"].torch_calls()[0]
    forward()
    forward()
    assert copied.count(np.dtype(bool)) == 1


def test_commands_write_results(tmp_path, monkeypatch):
    monkeypatch.setattr(results.save, "__defaults__", (tmp_path,))
    monkeypatch.setattr(machine, "ceilings", lambda: {"numpy": 1.0, "torch F.linear": 1.0, "torch oneDNN": 1.0})
    quick = ["--repeats", "1", "--budget", "0", "--threads", "1", "--label", "t"]
    assert command.main(["stages", "--variants", "--preset", "digits", "--batch", "1", *quick]) == 0
    assert command.main(["accuracy", "--presets", "digits", "--batches", "3", "--draws", "2", *quick]) == 0
    rows = json.loads((tmp_path / "stages-variants-t.json").read_text())["rows"]
    wanted = known().keys() - IN_A_ROW - STAGES.keys()
    assert {row["case"] for row in rows} == {f"{name}, {way}" for name in wanted for way in ("forward", "backward")}
    assert all(row["times"].keys() == {"numpy", "torch"} for row in rows)
    assert (tmp_path / "stages-variants-t.png").exists()
    found = json.loads((tmp_path / "accuracy-t.json").read_text())
    assert "gradients" in report.page([found], tmp_path, tmp_path / "page.md")
    assert "| digits, batch 3, 2 draws, gradients |" in report.summary([found])


# ---- accuracy


def test_an_error_is_relative_to_all_numbers_together():
    want = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    assert accuracy.relative({"a": want["a"] + [0.0, 0.3], "b": want["b"] - 0.4}, want) == pytest.approx(0.1)


def test_errors_are_those_of_float32_against_float64(monkeypatch):
    case = make_case("digits", 3)
    engines = {c.name: c for c in accuracy.engines(case)}
    ours, scale = engines["numpy"], iter((1.01, 1.01, 1.07, 1.07))  # of logits and gradients, draw by draw

    def gradients(images, labels):
        factor = next(scale)
        return {name: g * factor for name, g in ours.gradients(images, labels).items()}

    worse = Contestant("worse", "numpy", lambda images: ours.forward(images) * next(scale), gradients)
    monkeypatch.setattr(accuracy, "engines", lambda case: [ours, engines["torch"], worse])
    row = accuracy.measure(case, 2)
    for what, errors in row["errors"].items():
        assert 1e-8 < errors["numpy"] < 1e-5
        assert 1e-8 < errors["torch"] < 1e-5
        assert errors["numpy"] != errors["torch"]
        assert math.isclose(errors["worse"], 0.05, rel_tol=1e-3)  # the root of the mean of 0.01 and 0.07 squared
        assert row["error_ratios"][what]["numpy / worse"] == errors["numpy"] / errors["worse"]
