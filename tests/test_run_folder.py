"""The run folder: files that are whole or absent, and settings that come back as they were."""

import json

import numpy as np
import pytest

from vit_common import ViTConfig, init_params, load_checkpoint
from vit_common.errors import CheckpointError, DataError
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
