"""The parity report: what is merged, what is marked, what the page holds, and that a failure ends in status 1."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from parity_tests import __main__ as command
from parity_tests import curves, harness, page, report, running


@pytest.fixture
def records(monkeypatch):
    found = {}
    monkeypatch.setattr(harness, "RECORDS", found)
    return found


def measure(error, bound, value=1.0, stage="linear", tensor="x", dtype=np.float64):
    harness.record(stage, dtype, tensor, np.array([error]), np.array([bound]), np.array([value]))


def test_a_record_keeps_the_worst(records):
    eps = np.finfo(np.float64).eps
    measure(eps, 4 * eps)
    measure(6 * eps, 8 * eps, value=2.0)
    measure(eps, 2 * eps, value=0.0)  # nothing but rounding: no size to measure it by
    row = records["linear", "float64", "x"]
    assert row == {"examples": 3, "worst_eps": 3.0, "of_bound": 0.75, "bound_eps": 4.0}


def test_workers_are_merged():
    outcome, key = running.Outcome(), ("linear", "float64", "x")
    outcome.merge({key: {"examples": 3, "worst_eps": 3.0, "of_bound": 0.75, "bound_eps": 4.0}})
    outcome.merge({key: {"examples": 2, "worst_eps": 5.0, "of_bound": 0.5, "bound_eps": 10.0}})
    assert outcome.records[key] == {"examples": 5, "worst_eps": 5.0, "of_bound": 0.75, "bound_eps": 10.0}


def made(tmp_path=None):
    outcome = running.Outcome(passed=3, skipped={"no <CUDA>": 2})
    outcome.merge({
        ("vit", "float64", "y"): {"examples": 9, "worst_eps": 3.0, "of_bound": 0.1, "bound_eps": 30.0},
        ("linear", "float32", "x"): {"examples": 9, "worst_eps": 0.5, "of_bound": 0.001, "bound_eps": 500.0},
        ("sgd", "float64", "p"): {"examples": 9, "worst_eps": 0.0, "of_bound": 0.0, "bound_eps": 1.0},
        ("relu", "float64", "y"): {"examples": 9, "worst_eps": 0.0, "of_bound": 0.0, "bound_eps": 0.0},
    })  # fmt: skip
    outcome.failures.append({"test": "test_x.py::test_y", "message": "linear: y <differs>", "reproduce": "python -m"})
    return report.build(outcome, "smoke", 12.0, curves.trajectories(2))


def test_rows_in_reading_order_and_wide_ones_explained():
    rows = made()["rows"]
    assert [r["stage"] for r in rows] == ["linear", "vit", "relu", "sgd"]
    assert [r["wide"] for r in rows] == [True, False, True, True]
    why = [report.WHY_WIDE[kind] for kind in ("worst case", "exact", "alike")]
    assert [r.get("why") for r in rows] == [why[0], None, *why[1:]]


def test_the_page_stands_alone_and_escapes():
    text = page.render(made())
    assert "<svg" in text
    assert "linear: y &lt;differs&gt;" in text
    assert "no &lt;CUDA&gt;" in text
    assert not re.search(r"<script|(?:src|href)=[\"']?https?:", text)


def test_neither_the_data_nor_the_page_names_a_folder():
    found = made()
    for text in (json.dumps(found), page.render(found)):
        assert str(Path.home()) not in text
        assert str(running.ROOT) not in text


def test_mutation_score(tmp_path):
    assert report.mutation_score(tmp_path / "none.json") is None
    table = {"a.py": {"mutants": 10, "killed": 7, "equivalent": 1, "survived": 1, "not run": 1}}
    assert report.killed_share(table) == 7 / 8
    assert "87.50%" in page.mutation(table)[1]


def test_curves_start_together_and_part():
    found = curves.trajectories(3)
    for dtype, run in found.items():
        assert len(run["losses"]["numpy"]) == 3
        for distances in run["apart"].values():
            assert 0 < distances[0] < 1e6 * np.finfo(dtype).eps


@pytest.mark.parametrize("failing", [False, True])
def test_exit_status_and_files(tmp_path, monkeypatch, capsys, failing):
    outcome = running.Outcome(passed=1)
    if failing:
        outcome.failures.append({"test": "test_x.py::test_y", "message": "linear: wrong", "reproduce": "again"})
    monkeypatch.setattr(running, "run", lambda *_: outcome)
    monkeypatch.setattr(command, "make_curves", lambda: None)
    assert command.main(["--quick", "--out", str(tmp_path)]) == int(failing)
    assert json.loads((tmp_path / "parity_report.json").read_text())["tests"]["failed"] == int(failing)
    assert (tmp_path / "parity_report.html").exists()
    assert ("FAILED test_x.py::test_y\n  linear: wrong" in capsys.readouterr().err) == failing


def test_a_suite_that_could_not_start_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "run", lambda *_: running.Outcome(status=4, output="usage error"))
    monkeypatch.setattr(command, "make_curves", lambda: None)
    assert command.main(["--out", str(tmp_path)]) == 1
