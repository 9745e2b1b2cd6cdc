"""The run folder: files that are whole or absent, and settings that come back as they were."""

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from vit_common import ViTConfig, init_params, load_checkpoint
from vit_common.errors import CheckpointError, ConfigError, DataError
from vit_common.files import read_arrays, read_json, write_arrays, write_atomically, write_json
from vit_common.plots import smooth
from vit_common.recipe import RECIPES, Recipe, config_for_data
from vit_common.run_folder import RunFolder, RunInfo, find_run

CONFIG = ViTConfig(image_size=8, patch_size=4, in_channels=1, num_classes=3, embed_dim=8, depth=1, num_heads=2)
INFO = RunInfo("numpy", CONFIG, Recipe(lr=0.01), "digits", None, ("a", "b", "c"), (0.25,), (0.5,), {"numpy": "2"})


def saved(path) -> RunFolder:
    run = RunFolder.create(path, INFO)
    params = init_params(CONFIG, 0)
    run.save(CONFIG, params, {f"params/{name}": p for name, p in params.items()}, 7)
    return run


def test_settings_and_checkpoint_come_back_as_they_were(tmp_path):
    run = saved(tmp_path / "run")
    assert run.info() == INFO
    config, params = load_checkpoint(tmp_path / "run")
    assert config == CONFIG
    assert all(np.array_equal(p, params[name]) for name, p in init_params(CONFIG, 0).items())
    state, step = run.state()
    assert step == 7
    assert state.keys() == {f"params/{name}" for name in params}


def test_a_checkpoint_tells_its_run_wherever_it_is(tmp_path):
    run = saved(tmp_path / "run")
    away = tmp_path / "elsewhere.safetensors"
    away.write_bytes((run.path / "model.safetensors").read_bytes())
    assert find_run(run.path) == find_run(run.path / "model.safetensors") == find_run(away) == INFO
    assert find_run(tmp_path / "weights.npz") is None


def test_a_run_is_not_overwritten_unless_asked(tmp_path):
    saved(tmp_path / "run")
    with pytest.raises(DataError, match=r"--resume .*--overwrite.*--out"):
        RunFolder.create(tmp_path / "run", INFO)
    run = RunFolder.create(tmp_path / "run", INFO, overwrite=True)
    with pytest.raises(CheckpointError, match="before its first checkpoint"):
        run.state()


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(DataError, match=r"no run.json"):
        RunFolder(tmp_path).info()
    (tmp_path / "run.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="another version"):
        RunFolder(tmp_path).info()
    (tmp_path / "run.json").write_text('{"format": ')
    with pytest.raises(DataError, match="JSON"):
        RunFolder(tmp_path).info()


def test_metrics_survive_a_cut_last_line_and_are_rewound(tmp_path):
    run = RunFolder.create(tmp_path / "run", INFO)
    for step in range(1, 5):
        run.log(step=step, loss=1.0 / step)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "lo')
    assert [m["step"] for m in run.metrics()] == [1, 2, 3, 4]
    assert [m["step"] for m in run.rewind(2)] == [1, 2]
    assert (run.path / "metrics.jsonl").read_text().count("\n") == 2


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})

    def half(temporary):
        temporary.write_text("{ half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]
    with pytest.raises(DataError, match="cannot write"):
        write_json(path / "below", {})


def test_arrays_keep_shape_dtype_and_metadata_and_damage_is_told(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {"scalar": np.array(3), "turned": np.arange(6.0).reshape(2, 3).T, "mask": np.array([True, False])}
    write_arrays(path, arrays, {"step": "1"})
    found, header = read_arrays(path)
    assert header == {"step": "1"}
    assert all(np.array_equal(found[k], a) and found[k].dtype == a.dtype for k, a in arrays.items())
    (tmp_path / "b").touch()
    assert path.stat().st_mode == (tmp_path / "b").stat().st_mode
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_arrays(path)


def test_the_picture_is_drawn_even_of_nothing(tmp_path):
    run = RunFolder.create(tmp_path / "run", INFO)
    run.draw()
    run.log(step=1, epoch=1, loss=2.0, grad_norm=1.0, lr=0.1, seconds=0.1)
    run.log(epoch=1, step=1, train_loss=2.0, test_loss=2.1, test_accuracy=0.5, seconds=1.0)
    run.draw()
    assert (run.path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_running_mean_keeps_the_mean_of_a_line_and_the_length():
    line = np.arange(200.0)
    assert np.allclose(smooth(line, 0.1)[10:-10], line[10:-10], rtol=1e-12)
    assert len(smooth([1.0])) == 1


@pytest.mark.parametrize("data", [*RECIPES, "some/folder"])
def test_every_dataset_has_a_model_and_a_recipe_that_round_trip(data):
    recipe, config = Recipe.for_data(data), config_for_data(data)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert ViTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="did you mean 'lr'"):
        Recipe.from_dict({"lrr": 1})


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"lr": float("nan")}, {"lr": -1.0}, {"min_lr": 1.0}, {"beta1": 1.0}, {"clip_norm": -1.0},
              {"optimizer": "adam"}, {"augment": "shfit"}, {"dtype": "float16"}, {"batch_size": 2.5}],
    ids=str,
)  # fmt: skip
def test_an_illegal_recipe_names_its_field(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**wrong)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "curves.png", "metrics.jsonl", "state.safetensors"]
)
def test_files_that_a_run_would_replace_are_not_replaced_unless_asked(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(DataError, match=rf"holds {name}, replace it \(--overwrite\)"):
        RunFolder.create(tmp_path, INFO)
    assert (tmp_path / name).read_text() == "mine"
    RunFolder.create(tmp_path, INFO, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_place_that_cannot_hold_a_run_is_an_error_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(DataError, match="file/run"):
        RunFolder.create(tmp_path / "file" / "run", INFO)
    with pytest.raises(DataError, match="name too long"):
        RunFolder.create(tmp_path / ("x" * 300), INFO)
    for read in (find_run, lambda path: RunFolder(path).info(), lambda path: RunFolder(path).state()):
        with contextlib.suppress(CheckpointError, DataError):  # newer Pythons say that no such thing exists
            read(tmp_path / ("x" * 300))
    with pytest.raises(DataError, match=r"metrics.jsonl is a folder"):
        RunFolder.create(tmp_path / "folder", INFO, overwrite=True)
    with pytest.raises(DataError, match=r"cannot read .*metrics.jsonl"):
        RunFolder(tmp_path / "folder").metrics()

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    saved(tmp_path / "run")
    for method, use in (("unlink", lambda: RunFolder.create(tmp_path / "run", INFO, overwrite=True)),
                        ("is_file", lambda: RunFolder(tmp_path / "run").info()),
                        ("exists", lambda: RunFolder(tmp_path / "run").state()),
                        ("is_dir", lambda: find_run(tmp_path / "run"))):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, refuse)
            with pytest.raises(DataError, match=r"run.*: Permission denied"):
                use()


DEEP = '{"a":' * 100_000


@pytest.mark.parametrize(
    "line", ['{"step": 2, "lo', "[1]", '{"step": "2"}', '{"loss": 1.0}', '{"step": 2, "loss": null}', DEEP, "\xff", ""],
    ids=lambda line: line[:20],
)  # fmt: skip
def test_a_damaged_line_in_the_middle_of_the_metrics_is_told_and_at_the_end_left_out(tmp_path, line):
    run = RunFolder.create(tmp_path / "run", INFO)
    path = run.path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line.encode("latin1") + b'\n{"step": 3}\n')
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2 is damaged"):
        run.rewind(3)
    assert path.read_bytes() == before
    path.write_bytes(b'{"step": 1}\n' + line.encode("latin1"))
    assert run.metrics() == [{"step": 1}]


GOOD = INFO.to_dict()


@pytest.mark.parametrize(
    "values",
    [{k: v for k, v in GOOD.items() if k != "config"}, {k: v for k, v in GOOD.items() if k != "recipe"},
     {k: v for k, v in GOOD.items() if k != "engine"}, [GOOD], 3, None, {**GOOD, "config": 3}, {**GOOD, "recipe": [1]},
     {**GOOD, "config": {"depth": "2"}}, {**GOOD, "config": {"mlp_ratio": "2"}}, {**GOOD, "recipe": {"lr": "fast"}},
     {**GOOD, "engine": 3}, {**GOOD, "data": None}, {**GOOD, "data_dir": 3}, {**GOOD, "class_names": "abc"},
     {**GOOD, "class_names": [1]}, {**GOOD, "mean": ["x"]}, {**GOOD, "std": 3}, {**GOOD, "versions": 3},
     {**GOOD, "train_images": "many"}, {**GOOD, "more": 1}],
    ids=lambda values: str(values)[-40:],
)  # fmt: skip
def test_a_damaged_run_json_is_one_error_that_names_the_file(tmp_path, values):
    (tmp_path / "run.json").write_text(json.dumps(values))
    for read in (find_run, lambda path: RunFolder(path).info()):
        with pytest.raises(DataError, match=r"/run.json is not a run.json"):
            read(tmp_path)


def test_a_run_json_that_is_nested_too_deep_is_refused(tmp_path):
    (tmp_path / "run.json").write_text(DEEP)
    with pytest.raises(DataError, match="cannot be read as JSON"):
        RunFolder(tmp_path).info()


@pytest.mark.parametrize(
    ("step", "taken"), [("²", 2), ("-1", -1), ("", 0), ("9" * 5000, 2), ("2", -2), ("2", 3), ("2", [2, 2]), ("2", 2.5)]
)
def test_a_state_that_contradicts_itself_about_its_step_is_refused(tmp_path, step, taken):
    write_arrays(tmp_path / "state.safetensors", {"optim/step": np.array(taken)}, {"step": step})
    with pytest.raises(CheckpointError, match="state.safetensors"):
        RunFolder(tmp_path).state()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"recipe": INFO.recipe.replace(batch_size=8)}, "batch_size was 64 and is now 8"),
     ({"recipe": INFO.recipe.replace(seed=1)}, "seed was 0 and is now 1"),
     ({"recipe": INFO.recipe.replace(dtype="float64")}, "dtype was 'float32'"),
     ({"recipe": INFO.recipe.replace(optimizer="sgd")}, "optimizer was 'adamw'"),
     ({"config": CONFIG.replace(depth=2)}, "depth was 1 and is now 2"),
     ({"data": "mnist"}, "data was 'digits' and is now 'mnist'"),
     ({"class_names": ("a", "c")}, "it lacks b;"),
     ({"class_names": ("a", "b", "d")}, "lacks c and also has d;"),
     ({"class_names": ("c", "b", "a")}, "another order"),
     ({"train_images": 11}, "11 training pictures, the run began with 10")],
    ids=str,
)  # fmt: skip
def test_a_run_is_resumed_as_what_it_is(changes, words):
    before = dataclasses.replace(INFO, train_images=10)
    with pytest.raises((ConfigError, DataError), match=words):
        dataclasses.replace(before, **changes).check_continues(before)


def test_a_run_goes_on_with_more_epochs_another_rate_and_its_pictures_moved():
    before = dataclasses.replace(INFO, data="here/pets", train_images=10)
    recipe = INFO.recipe.replace(epochs=99, lr=0.5)
    dataclasses.replace(before, data="there/pets", recipe=recipe, engine="torch").check_continues(before)
    dataclasses.replace(INFO, train_images=10).check_continues(INFO)  # a run.json from before pictures were counted


def test_settings_of_a_resumed_run_are_written_with_its_next_checkpoint(tmp_path):
    run = saved(tmp_path / "run")
    after = dataclasses.replace(INFO, recipe=INFO.recipe.replace(epochs=99))
    run.go_on(after)
    assert run.info() == INFO
    params = init_params(CONFIG, 0)
    run.save(CONFIG, params, {f"params/{name}": p for name, p in params.items()}, 8)
    assert run.info() == find_run(run.path / "model.safetensors") == after
