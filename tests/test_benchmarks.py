"""The benchmarks' machinery. Nothing here asserts how long anything takes."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import (
    cold,
    common,
    history,
    machine,
    measure,
    model,
    parity,
    products,
    report,
    results,
    scale,
)
from benchmarks.contestants import Contestant, engines, make_case, numpy_contestant, torch_contestant
from benchmarks.measure import Timing
from torch_vit import VisionTransformer
from vit_common.config import ViTConfig
from vit_common.cost import model_costs, totals
from vit_common.errors import DataError

SMALL = ViTConfig(
    image_size=(8, 12),
    patch_size=(4, 2),
    in_channels=2,
    num_classes=5,
    embed_dim=12,
    depth=2,
    num_heads=3,
    mlp_ratio=2,
)


@pytest.fixture
def results_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(results.save, "__defaults__", (tmp_path,))
    return tmp_path


def run(*words: str) -> int:
    return command.main(list(words))


# ---- timing


def test_contestants_take_turns_and_each_round_starts_with_another(monkeypatch):
    monkeypatch.setattr(measure, "SHORTEST", 0.0)
    calls = []
    three = {n: (lambda n=n: calls.append(n)) for n in "abc"}
    timings = measure.interleave(three, repeats=3, warmup=1, pause=0.0)
    assert "".join(calls[3:]) == "abcbcacab"
    assert all(len(t.samples) == 3 and t.minimum > 0 for t in timings.values())


def test_a_budget_stops_after_three_rounds_and_synchronisation_brackets_each_sample(monkeypatch):
    monkeypatch.setattr(measure, "SHORTEST", 0.0)
    log = []
    timings = measure.interleave(
        {"a": lambda: log.append("a")}, 50, 1, lambda: log.append("sync"), budget=0.0, pause=0.0
    )
    assert len(timings["a"].samples) == 3
    assert log == ["sync", "a", "sync"] * 4


def test_quick_calls_are_repeated_inside_a_sample(monkeypatch):
    clock = iter(np.arange(0, 100, 1e-4))  # every look at the clock is 0.1 ms later
    monkeypatch.setattr(measure.time, "perf_counter", lambda: float(next(clock)))
    calls = []
    measure.interleave({"a": lambda: calls.append(1)}, repeats=1, warmup=1, pause=0.0)
    assert len(calls) == 1 + math.ceil(measure.SHORTEST / 1e-4)


@pytest.mark.parametrize(("slow", "untimed"), [(False, 1), (True, 0)])
def test_a_contestant_starts_when_the_threads_of_the_one_before_are_asleep(slow, untimed, monkeypatch):
    """And warm: quick ones are called once more, before the clock is looked at."""
    log, now = [], [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: log.append("clock") or now[0])
    monkeypatch.setattr(measure.time, "sleep", lambda seconds: log.append(seconds))

    def call():
        log.append("call")
        now[0] += 0.2 if slow else 0.1

    measure.interleave({"a": call}, repeats=1, warmup=1)
    once = ["clock", "call", "clock"]
    assert log == [*once, "clock", measure.PAUSE, *["call"] * untimed, *once]


def test_statistics_of_a_timing():
    timing = Timing((1.0, 2.0, 3.0, 4.0, 5.0))
    assert (timing.minimum, timing.median, timing.spread) == (1.0, 3.0, pytest.approx(1 / 3))
    assert math.isnan(Timing((1.0,)).spread)
    assert Timing((1.0,)).to_dict()["spread"] is None  # JSON has no NaN
    ratio = measure.paired_ratio({"a": timing, "b": Timing((2.0, 2.0, 2.0, 2.0, 2.0))}, "a", "b")
    assert ratio == {"of_minima": 0.5, "median_of_rounds": 1.5}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_that_of_the_child_not_of_the_parent():
    code = "import numpy; from benchmarks.measure import peak_memory; a = numpy.ones({} << 17); print(peak_memory())"
    weight = np.ones(300 << 17)  # 300 MiB here, which getrusage in the child would count
    peaks = []
    for mib in (1, 101):
        done = measure.subprocess.run(
            [sys.executable, "-c", code.format(mib)],
            cwd=measure.ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert weight.nbytes > peaks[1]
    assert 95 < (peaks[1] - peaks[0]) / 2**20 < 110


# ---- parity


@pytest.fixture(scope="module")
def case():
    from benchmarks import contestants

    contestants.SMALL["small"] = SMALL
    return make_case("small", 3)


def test_everyone_is_within_the_bound(case):
    shares = common.assert_parity(case, engines(case), gradients=True)
    assert set(shares) == {"numpy", "torch", "torch stock", "torch stock, explicit"}
    assert all(0 < share < 1 for share in shares.values())


@pytest.mark.parametrize("name", ["blocks.1.mlp.fc2.bias", "norm.weight", "cls_token"])
def test_a_planted_error_in_the_logits_is_caught(case, name):
    wrong = make_case("small", 3)
    wrong.params[name].flat[0] += 1e-3
    with pytest.raises(parity.ParityError, match="numpy: logits"):
        common.assert_parity(case, [numpy_contestant(wrong)], gradients=False)


def test_a_planted_error_in_a_gradient_or_a_loss_is_caught(case):
    right = numpy_contestant(case)

    def gradients(images, labels):
        grads = dict(right.gradients(images, labels))
        grads["blocks.0.attn.proj.weight"] = grads["blocks.0.attn.proj.weight"] * np.float32(1.001)
        return grads

    with pytest.raises(parity.ParityError, match=r"gradient of blocks\.0\.attn\.proj\.weight"):
        common.assert_parity(case, [Contestant("wrong", "numpy", right.forward, gradients)], gradients=True)
    loss = Contestant("wrong", "numpy", right.forward, right.gradients, lambda images, labels: 1.0)
    with pytest.raises(parity.ParityError, match="first step of wrong"):
        common.assert_parity(case, [right, loss], gradients=True)


def test_nan_and_shape_never_pass():
    want, bound = np.zeros(2), np.ones(2)
    assert parity.within("y", want + 0.5, want, bound) == 0.5
    for bad in (np.array([0.0, np.nan]), np.zeros(3), np.array([0.0, 1.5])):
        with pytest.raises(parity.ParityError):
            parity.within("y", bad, want, bound)
    assert parity.within("y", want, want, np.zeros(2)) == 0.0  # what only moves numbers is exact


def test_bfloat16_passes_its_own_bound_and_not_that_of_float32(case):
    from benchmarks.peers import bfloat16

    common.assert_parity(case, [bfloat16(case)], gradients=False, precision="bf16")
    with pytest.raises(parity.ParityError):
        common.assert_parity(case, [bfloat16(case)], gradients=False)


def test_the_timed_step_leaves_the_checked_parameters_alone(case):
    for contestant in (numpy_contestant(case), torch_contestant(case)):
        before = np.array(contestant.forward(case.images))
        losses = [contestant.step(case.images, case.labels) for _ in range(2)]
        assert losses[0] != losses[1]
        if contestant.name == "torch":
            np.testing.assert_array_equal(contestant.forward(case.images), before)


# ---- the cost model


def counted(config: ViTConfig, batch: int, train: bool) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    network, images = (
        VisionTransformer(config, "explicit"),
        torch.randn(batch, config.in_channels, *config.image_size),
    )
    images.requires_grad_()  # the cost model counts the patches' gradient too
    with FlopCounterMode(display=False) as counter:
        y = network(images)
        if train:
            y.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "changes", [{}, {"class_token": False, "pool": "mean", "depth": 3}, {"mlp_ratio": 3.0, "num_heads": 4}]
)
@pytest.mark.parametrize("train", [False, True])
def test_the_cost_model_counts_what_torch_counts(changes, train):
    config = SMALL.replace(**changes)
    assert counted(config, 3, train) == products.flops(config, 3, train)


def test_the_list_of_products_is_that_of_the_cost_model():
    for config in (SMALL, ViTConfig.preset("vit_base_patch16_224")):
        forward = sum(p.flops for p in products.forward(config, 5))
        assert forward == 5 * totals(model_costs(config)).flops
        assert sum(p.flops for p in products.backward(config, 5)) == 2 * forward
    assert products.numpy_time(list(products.forward(SMALL, 1)), 0.0) > 0
    assert products.torch_time(list(products.forward(SMALL, 1)), 0.0) > 0


def test_the_measured_cache_is_that_of_the_cost_model(case):
    assert scale.cache_bytes(case) == pytest.approx(
        totals(model_costs(SMALL)).cache_bytes * len(case.images), rel=0.25
    )


def test_exponents_are_those_of_a_power():
    assert scale.exponent([1, 2, 4, 8], [3 * n**1.5 for n in (1, 2, 4, 8)]) == pytest.approx(1.5)


# ---- results, history, report


def a_result(median: float = 10.0, spread: float = 0.01, **more) -> dict:
    time = {"min_ms": median, "median_ms": median, "spread": spread, "samples": 9}
    rows = [{"case": "x", "times": {"numpy": time, "torch": time | {"median_ms": 5.0}}}]
    return {"command": "model", "label": "test", "precision": "float32", "threads": 2, "rows": rows,
            "machine": machine.describe(), **more}  # fmt: skip


def test_a_result_is_whole_atomic_and_enters_the_history(tmp_path):
    path = results.save(a_result(), tmp_path)
    assert json.loads(path.read_text())["machine"]["versions"]["numpy"] == np.__version__
    results.save(a_result(20.0), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.jsonl", "model-test.json"]
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["times"]["x / numpy"]["median_ms"] for line in lines] == [10.0, 20.0]
    assert {"date", "processor", "versions", "threads", "precision"} <= lines[0].keys()
    incomplete = a_result()
    del incomplete["machine"]
    with pytest.raises(ValueError, match="machine"):
        results.save(incomplete, tmp_path)


def test_the_machine_names_blas_kernel_and_threads():
    found = machine.describe()
    assert found["processor"]
    assert any(lib["user_api"] == "blas" and lib["num_threads"] for lib in found["blas"])
    assert {"numpy", "torch"} <= found["versions"].keys()


@pytest.mark.parametrize(
    ("after", "spread", "real"),
    [(20.0, 0.01, True), (10.1, 0.001, False), (12.0, 0.5, False), (5.0, 0.1, True)],
)
def test_compare_tells_change_from_noise(after, spread, real):
    changes = history.compare(a_result(10.0, spread), a_result(after, spread))
    assert [c.what for c in changes if c.real] == (["x / numpy"] if real else [])
    text = history.report(changes)
    assert ("slower" in text or "faster" in text) == real
    assert f"{2 - real} of 2 figures unchanged" in text


def test_compare_reads_files_and_lines_of_the_history(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    path = results.save(a_result(10.0), tmp_path)
    results.save(a_result(20.0, label="other"), tmp_path)
    assert run("compare", str(path), "-1") == 0
    assert "x2.000 (slower" in capsys.readouterr().out
    assert run("compare", "-2", "-1") == 0
    assert "x2.000 (slower" in capsys.readouterr().out
    assert run("compare", "0", "7") == 1
    assert "has 2 lines" in capsys.readouterr().err
    with pytest.raises(DataError, match="cannot be read"):
        history.read(str(tmp_path / "none.json"), tmp_path / "history.jsonl")


def test_the_report_rewrites_only_what_stands_between_the_markers(tmp_path, capsys):
    results.save(a_result(), tmp_path)
    readme, page = tmp_path / "README.md", tmp_path / "page.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    words = "report", "--results", str(tmp_path), "--readme", str(readme), "--page", str(page)
    assert run(*words) == run(*words) == 0
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| x | 10 | 10 |" in text
    assert "model-test" in page.read_text()
    with pytest.raises(DataError, match="has no"):
        report.between(f"a {report.BEGIN} b", "")


def test_the_report_shows_our_torch_beside_its_peers():
    times = {name: {"min_ms": 10.0} for name in ("numpy", "torch", "timm", "jax jit")}
    ratios = {"torch / timm": {"median_of_rounds": 0.5}, "timm / torch": {"median_of_rounds": 2.0}}
    lines = list(report._peers([{"case": "x", "times": times, "ratios": ratios}]))
    assert lines[0] == "| case | torch, ms | torch / timm | torch / jax jit |"
    assert lines[2] == "| x | 10 | 0.50 |  |"  # jax took no part in this row


# ---- the commands


def test_small_runs_of_the_commands_write_results(results_folder, monkeypatch):
    monkeypatch.setattr(
        machine, "ceilings", lambda: {"numpy": 1.0, "torch F.linear": 1.0, "torch oneDNN": 1.0}
    )
    quick = "--repeats", "2", "--budget", "0", "--threads", "1", "--label", "t"
    assert run("model", "--presets", "digits", "--batches", "2", *quick) == 0
    assert run("train", "--presets", "digits", "--batch", "2", *quick) == 0
    assert run("stages", "--preset", "digits", "--batch", "2", *quick) == 0
    assert run("shares", "--cases", "digits:3", *quick) == 1  # one thread
    assert run("shares", "--cases", "digits:3", *quick, "--threads", "2") == 0
    written = {path.name for path in results_folder.iterdir()}
    commands = {"model-t.json", "train-t.json", "shares-t.json", "stages-t.json"}
    assert written == {*commands, "stages-t.png", "history.jsonl"}
    both = json.loads((results_folder / "shares-t.json").read_text())["rows"]
    assert [set(row["ratios"]) for row in both] == [{f"{e} shares / {e} whole" for e in ("numpy", "torch")}] * 2
    row = json.loads((results_folder / "model-t.json").read_text())["rows"][0]
    assert {"case", "times", "parity", "ratios", "efficiency", "flops"} <= row.keys()


def test_wrong_parity_is_an_error_and_nothing_is_written(results_folder, monkeypatch, capsys):
    monkeypatch.setattr(machine, "ceilings", lambda: {"numpy": 1.0})
    wrong = Contestant("wrong", "numpy", lambda images: np.zeros((len(images), 10)))
    monkeypatch.setattr(model, "engines", lambda case: [wrong])
    assert run("model", "--presets", "digits", "--batches", "2", "--threads", "1") == 1
    assert "nothing was timed" in capsys.readouterr().err
    assert not list(results_folder.iterdir())


def test_cold_reads_and_compares_what_the_programs_print():
    printed = "cat.png\n   0.9000     3  cat\n   0.0500     7  dog\n"
    answer = cold.probabilities(printed)
    assert answer == {3: 0.9, 7: 0.05}
    cold.check_answers({"numpy": answer, "torch": answer | {7: 0.0501}})
    for other in ({3: 0.9}, answer | {3: 0.8}, {}):
        with pytest.raises(parity.ParityError):
            cold.check_answers({"numpy": other, "torch": answer})


def test_every_command_has_help_and_wrong_ones_are_refused(capsys):
    for name in (*command.COMMANDS, "erf", "compare"):
        with pytest.raises(SystemExit) as stop:
            run(name, "--help")
        assert stop.value.code == 0
    with pytest.raises(SystemExit) as stop:
        run("modle")
    assert stop.value.code == 2
    assert run("cost") == 0
    assert "vit_base_patch16_224" in capsys.readouterr().out


def test_the_cpu_set_is_made_of_commands(monkeypatch):
    seen = []
    monkeypatch.setattr(command, "main", lambda words: seen.append(words[0]) or 0)
    assert command.cpu_set() == 0
    assert {"stages", "model", "train", "memory", "cold", "scale", "ladder", "report"} <= set(seen)
