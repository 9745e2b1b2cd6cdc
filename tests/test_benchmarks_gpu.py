"""`python -m benchmarks gpu`: what it does without a GPU, and the same code run small on the CPU."""

import json
from importlib.util import find_spec

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu, gpu_runners, results
from torch_vit import compiled


@pytest.fixture
def results_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(results.save, "__defaults__", (tmp_path,))
    return tmp_path


def run(*words: str) -> int:
    return command.main(list(words))


def test_gpu_without_a_gpu_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run("gpu") == 0
    assert "no GPU" in capsys.readouterr().out


def test_gpu_dry_run_on_the_cpu(results_folder, capsys):
    words = "--device", "cpu", "--tiny", "--modes", "eager", "--repeats", "2", "--without-timm", "--label", "dry"
    assert run("gpu", *words) == 0
    result = json.loads((results_folder / "gpu-dry.json").read_text())
    assert set(result["parity"]) == {"numpy float32", "torch float32", "torch tf32", "torch bf16"}
    assert all(0 < share <= 1 for share in result["parity"].values())
    assert [row["case"] for row in result["rows"]] == [
        "mnist, batch 8, training step",
        "mnist, batch 8, inference",
    ]
    assert all(row["waits"] == {"torch, eager": []} for row in result["rows"])
    assert set(result["attention_kernels_ms"]) == {"cudnn", "flash", "efficient", "math"}
    assert result["attention_kernels_ms"]["math"] > 0
    assert set(result["levers"]["ms"]) == {"kept", "from bytes", "recomputed"}
    assert set(result["packing"]["ms"]) == {"padded", "packed"}
    assert result["left_out"] == []
    assert result["finished"] is True
    assert len((results_folder / "history.jsonl").read_text().splitlines()) == 1
    assert (results_folder / "gpu-dry.png").stat().st_size > 1000
    assert "waits for nothing" in capsys.readouterr().out


def test_gpu_dry_run_compiled(results_folder, monkeypatch):
    """Nothing is compiled while the clock runs, or this fails."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")  # all of torch.compile but the C++ at its end
    monkeypatch.setattr(gpu, "extras", lambda *_: {})
    torch.compiler.reset()
    words = "--device", "cpu", "--tiny", "--modes", "default", "--repeats", "2", "--label", "compiled"
    assert run("gpu", *words, *([] if find_spec("timm") else ["--without-timm"])) == 0
    rows = json.loads((results_folder / "gpu-compiled.json").read_text())["rows"]
    assert [row["mode"] for row in rows] == ["default", "default"]
    assert not any(waits for row in rows for waits in row["waits"].values())
    torch.compiler.reset()


@pytest.mark.skipif(not find_spec("timm"), reason="timm is not there: pip install 'vit-written-twice[peers]'")
def test_gpu_beside_timm(results_folder):
    words = "--device", "cpu", "--tiny", "--modes", "eager", "--repeats", "3", "--label", "timm"
    assert run("gpu", *words) == 0
    result = json.loads((results_folder / "gpu-timm.json").read_text())
    for row in result["rows"]:
        assert set(row["times"]) == {"torch, eager", "timm, eager"}
        assert row["ratios"]["torch, eager / timm, eager"]["median_of_rounds"] > 0
    assert all({"speedup", "efficiency", "memory_saved"} == set(found) for found in result["summary"].values())


def test_gpu_leaves_out_what_does_not_fit(results_folder, capsys):
    words = "--device", "cpu", "--tiny", "--modes", "eager", "--repeats", "2", "--without-timm", "--label", "late"
    assert run("gpu", *words, "--budget", "0") == 0
    result = json.loads((results_folder / "gpu-late.json").read_text())
    assert len(result["left_out"]) == 5
    assert result["rows"] == []
    assert "left out for lack of time: mnist, training step, eager" in capsys.readouterr().out


def test_gpu_keeps_what_is_measured_when_it_is_broken_off(results_folder, monkeypatch):
    """By Ctrl-C, a scheduler or an error: here in the second race."""
    real, raced = gpu.race, []

    def race(*args):
        raced.append(args)
        if len(raced) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(gpu, "race", race)
    words = "--device", "cpu", "--tiny", "--modes", "eager", "--repeats", "2", "--without-timm", "--label", "short"
    assert run("gpu", *words) == 130
    result = json.loads((results_folder / "gpu-short.json").read_text())
    assert [row["case"] for row in result["rows"]] == ["mnist, batch 8, training step"]
    assert result["finished"] is False
    assert not (results_folder / "history.jsonl").exists(), "only a whole run is compared with others"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch's own, when its compiler is imported
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # float32 is meant where it is asked for
def test_gpu_step_waits_for_nothing(results_folder):
    words = "--tiny", "--modes", "eager", "reduce-overhead", "--repeats", "3", "--without-timm", "--label", "dry"
    assert run("gpu", *words) == 0
    rows = json.loads((results_folder / "gpu-dry.json").read_text())["rows"]
    assert not any(waits for row in rows for waits in row["waits"].values())


def test_gpu_says_which_goals_are_reached():
    def row(case, mode, ours, theirs):
        figures = {f"torch, {mode}": ours, f"timm, {mode}": theirs}
        names = "images_per_second", "efficiency", "peak_mib"
        return {"case": case, **{name: {n: f[i] for n, f in figures.items()} for i, name in enumerate(names)}}

    case = "vit_large_patch16_224, batch 128, training step"
    eager, compiled = ((90, 0.5, 70), (100, 0.5, 80)), ((120, 0.7, 90), (80, 0.6, 60))
    found = gpu.summary([row(case, "eager", *eager), row(case, "default", *compiled)])
    assert found[case]["speedup"] == pytest.approx(1.2)  # our best over timm's best, whatever the mode
    assert found[case]["efficiency"] == 0.7
    assert found[case]["memory_saved"] == pytest.approx(1 - 90 / 80)
    said = "\n".join(gpu.goals(found))
    assert "goal reached: " + case + ", speedup 1.200" in said
    assert "goal NOT reached: " + case + ", memory_saved -0.125" in said


def test_a_read_in_the_step_is_seen():
    number = torch.ones(())
    assert gpu_runners.host_waits(lambda: number + 1, torch.device("cpu")) == []
    waits = gpu_runners.host_waits(lambda: (number + 1).item(), torch.device("cpu"))
    assert waits == ["aten::_local_scalar_dense"]
