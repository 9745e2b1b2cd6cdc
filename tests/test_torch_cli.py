"""The torch engine's options, as a user types them."""

import json

import pytest
import torch

from torch_vit import compiled
from torch_vit.engine import TorchEngine
from vit_common.cli import main

SMALL = ("--epochs", "1", "--depth", "1", "--embed-dim", "8", "--num-heads", "2", "--batch-size", "128")


def torch_vit(*argv):
    return main(TorchEngine, [str(word) for word in argv])


def losses(folder):
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


def test_training_with_every_lever_that_a_cpu_has(tmp_path, capsys):
    plain, fast = tmp_path / "plain", tmp_path / "fast"
    assert torch_vit("train", *SMALL, "--device", "cpu", "--out", plain) == 0
    levers = "--precision", "bf16", "--activation-checkpointing", "--attention-kernel", "efficient"
    assert torch_vit("train", *SMALL, "--device", "cpu", *levers, "--out", fast) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert len(losses(plain)) == len(losses(fast)) > 5
    assert losses(fast) == pytest.approx(losses(plain), rel=2.0**-6)  # four roundings to bfloat16
    assert losses(fast) != losses(plain)
    assert torch_vit("eval", "--checkpoint", fast, "--device", "cpu", "--precision", "bf16") == 0


def test_a_compiled_run_compiles_two_graphs(tmp_path, monkeypatch):
    """One for the steps, one for the evaluations, whose last batch is smaller: 360 pictures by 256."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")  # all of torch.compile but the C++ at its end
    torch.compiler.reset()
    plain, fast = tmp_path / "plain", tmp_path / "fast"
    two = (*SMALL, "--epochs", "2", "--device", "cpu", "--drop-path-rate", "0.1")
    assert torch_vit("train", *two, "--out", plain) == 0
    torch._dynamo.utils.counters.clear()
    assert torch_vit("train", *two, "--compile", "--out", fast) == 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert losses(fast) == pytest.approx(losses(plain), rel=1e-4)
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--precision", "bf16", "--dtype", "float64"), "use --precision float32, or --dtype float32"),
        (("--compile-mode", "max-autotune"), "add --compile"),
        (("--device", "nowhere"), "try --device cpu"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_way_out(words, said, tmp_path, capsys):
    try:
        status = torch_vit("train", *SMALL, "--device", "cpu", *words, "--out", tmp_path / "run")
    except SystemExit as stop:  # of the parser
        status = stop.code
    printed = capsys.readouterr()
    assert status
    assert said in " ".join((printed.err + printed.out).replace("│", " ").split())
    assert "Traceback" not in printed.err
    assert not (tmp_path / "run").exists()
