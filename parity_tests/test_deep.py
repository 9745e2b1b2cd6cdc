"""A deep run goes on where it stopped: what was passed is kept while the sources that it depends on are the same."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from parity_tests import deep, depends

HERE = Path(__file__).parent


def item(file, _function="test_it", **params):
    node = f"parity_tests/{file}.py::test_it" + (f"[{'-'.join(map(str, params.values()))}]" if params else "")
    found = SimpleNamespace(path=HERE / f"{file}.py", nodeid=node, fixturenames=[], originalname=_function)
    if params:
        found.callspec = SimpleNamespace(params=params)
    return found


def test_a_stage_depends_on_its_own_files_and_what_they_import():
    found = depends.modules(item("test_rope"))
    assert {"numpy_vit.rope", "torch_vit.rope", "parity_tests.tolerances", "vit_common.errors"} <= found
    assert not {"numpy_vit.gelu", "numpy_vit.model", "torch_vit.attention"} & found
    assert {"numpy_vit.linear", "numpy_vit.attention", "numpy_vit.gelu"} <= depends.modules(item("test_encoder_block"))


def test_a_test_depends_on_what_its_own_function_names():
    """And what that names in turn, decorators and helpers of its file included, wherever the import stands."""
    layout, slope = (depends.modules(item("test_every_variant", f"test_{n}", name="silu"))
                     for n in ("every_layout", "central_differences"))  # fmt: skip
    assert "parity_tests.ridders" in slope - layout
    assert {"parity_tests.test_every_variant:test_every_layout", "parity_tests.test_every_variant:every_variant",
            "parity_tests.variants"} <= layout  # fmt: skip
    assert "parity_tests.test_every_variant:test_central_differences" not in layout
    assert "parity_tests.generic" in depends.modules(item("test_rope", "test_parity"))


def test_names_of_a_file_are_followed(tmp_path, monkeypatch):
    source = tmp_path / "test_it.py"
    source.write_text("from parity_tests import ridders, special as other\nA, B = 1, 2\ndef unused(): ridders\n"
                      "def helper(x=B): other\nprint(A)\ndef test_it(helper): pass\n")  # fmt: skip
    real = depends.source_path
    monkeypatch.setattr(depends, "source_path", lambda name: source if name.endswith("test_it") else real(name))
    found = depends.needs("parity_tests.test_it", "test_it")
    own = {name.partition(":")[2] for name in found if ":" in name}
    assert own == {"test_it", "helper", "A", "B", "#4"}
    assert "parity_tests.special" in found
    assert "parity_tests.ridders" not in found - depends.reached("parity_tests.special")
    depends.top_level.cache_clear()
    depends.needs.cache_clear()


def test_what_decides_nothing_is_left_out():
    """What speaks only after a failure, and what vit_common gathers beyond the names that a test imports."""
    found = depends.modules(item("test_rope"))
    assert not depends.ASIDE & found
    assert not {"vit_common.checkpoint", "vit_common"} & found
    assert "vit_common.checkpoint" in depends.reached("parity_tests.test_oracles")


def test_a_parameter_names_the_stage():
    assert depends.stage_files(item("test_algebra", name="cross_entropy")) == ["loss"]
    assert depends.stage_files(item("test_every_variant", name="silu")) == ["silu"]
    of_all = depends.modules(item("test_contracts"))
    assert {"numpy_vit.gelu", "torch_vit.model", "numpy_vit.rope"} <= of_all


def test_memory_layouts_share_one_property():
    names = {deep.name_of(item("test_every_stage", layout=layout, name="linear")) for layout in ("C", "Fortran")}
    assert names == {"parity_tests/test_every_stage.py::test_it[linear]"}


def test_a_changed_source_is_another_digest(tmp_path, monkeypatch):
    source = tmp_path / "stage.py"
    monkeypatch.setattr(depends, "source_path", lambda name: source)
    marks = set()
    for text in ("a = 1", "a = 2"):
        source.write_text(text)
        depends.digest.cache_clear()
        marks.add(depends.digest(frozenset({"numpy_vit.stage"})))
    depends.digest.cache_clear()
    assert len(marks) == 2
    said = '"""Old."""\ndef f(x: int) -> int:\n    """Said."""\n    return 1  # why'
    assert depends.meaning(said) == depends.meaning("def f(x): return 1") != depends.meaning("def f(x): return 2")
    assert depends.meaning("class C:\n    x: int = 1") != depends.meaning("class C:\n    x: float = 1")


def test_what_has_passed_is_not_run_again(tmp_path, monkeypatch):
    """A line cut short by a kill does not count, nor does a failure, nor what has changed since."""
    tests = [item("test_rope"), item("test_silu"), item("test_relu"), item("test_rms_norm")]
    for test in tests:
        test.fixturenames = ["record_property"]
    marks = [depends.digest(depends.modules(test)) for test in tests]
    lines = [{"test": tests[0].nodeid, "digest": marks[0], "outcome": "passed"},
             {"test": tests[1].nodeid, "digest": "another", "outcome": "passed"},
             {"test": tests[2].nodeid, "digest": marks[2], "outcome": "failed"}]  # fmt: skip
    notes = tmp_path / "deep.jsonl"
    notes.write_text("\n".join(map(json.dumps, lines)) + '\n{"test": "parity_te')
    monkeypatch.setattr(deep, "NOTES", notes)
    config = SimpleNamespace(hook=SimpleNamespace(pytest_deselected=lambda items: None))
    left = list(tests)
    deep.pytest_collection_modifyitems(config, left)
    assert {test.nodeid for test in left} == {test.nodeid for test in tests[1:]}
    assert [len(test.deep) for test in left] == sorted(len(test.deep) for test in left)


def test_only_a_full_profile_is_noted():
    if deep.hypothesis.settings.default.max_examples >= deep.DEEP:
        pytest.skip("this is a deep run")
    with pytest.raises(pytest.UsageError, match="needs HYPOTHESIS_PROFILE=deep"):
        deep.pytest_configure(SimpleNamespace())
