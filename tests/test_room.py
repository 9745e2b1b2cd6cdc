"""What cannot fit into the machine is refused before it is tried; what might is not."""

import sys
import types

import numpy as np
import pytest

from numpy_vit.engine import NumpyEngine
from vit_common import ConfigError, DataError, ViTConfig, param_spec
from vit_common import images as images_module
from vit_common.cli import main
from vit_common.commands.common import make_engine
from vit_common.cost import model_costs, parameter_counts, totals
from vit_common.images import resize_center_crop
from vit_common.memory import total_memory
from vit_common.room import COPIES, check_room, least_bytes, no_memory

SMALL = ViTConfig(image_size=8, patch_size=2, in_channels=1, num_classes=10, embed_dim=8, depth=3, num_heads=2)
MANY = ("--depth", "1000000000")


@pytest.mark.parametrize(
    "argv",
    [
        ("train", *MANY),
        ("train", *MANY, "--layer-scale", "0.1"),  # a variant, whose specification is another
        ("train", "--image-size", "1000000", "1000000", "--pos-embed", "none"),  # the parameters alone would fit
        ("trace", *MANY),
    ],
)
def test_what_cannot_fit_is_refused_in_one_line_before_it_is_tried(argv, tmp_path, capsys):
    assert main(NumpyEngine, [*argv, "--out", str(tmp_path / "out.safetensors")]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "GiB of memory and the machine has" in said
    assert "choose a smaller --depth" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [(), ("--layer-scale", "0.1")])
def test_the_table_of_a_billion_blocks_is_a_formula(more, capsys):
    assert main(NumpyEngine, ["info", *MANY, *more]) == 0
    assert "000,0" in capsys.readouterr().out


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
@pytest.mark.parametrize("fields", [{}, {"layer_scale": 0.1}, {"qkv": "split", "num_kv_heads": 1}])
def test_parameters_are_counted_from_two_blocks(depth, fields):
    config = SMALL.replace(depth=depth, **fields)
    expected = sum(int(np.prod(spec.shape)) for spec in param_spec(config).values())
    assert sum(parameter_counts(config).values()) == expected


def test_blocks_with_heads_of_their_own_are_each_counted():
    config = SMALL.replace(qkv="split", num_kv_heads=(2, 1, 1))
    expected = sum(int(np.prod(spec.shape)) for spec in param_spec(config).values())
    assert sum(parameter_counts(config).values()) == expected


def test_masks_of_many_blocks_are_counted_from_two():
    config = SMALL.replace(depth=5, proj_drop_rate=0.1, drop_path_rate=0.2)
    tokens = config.num_tokens
    inside = 5 * tokens * (config.embed_dim * 2 + config.mlp_dim)
    assert sum(row.mask_bytes for row in model_costs(config)) == inside + 2 * 4  # the first block drops no path


def test_the_bound_is_below_what_the_numpy_engine_keeps():
    cost = totals(model_costs(SMALL))
    least = least_bytes(SMALL, "float32", 4, COPIES["adamw"])
    assert least == 16 * cost.params + 4 * 4 * (64 + 3 * 17 * 8)  # pixels; blocks, tokens, width
    assert least < 16 * cost.params + 4 * cost.cache_bytes
    assert least_bytes(SMALL, "float64", 4, COPIES["adamw"]) == 2 * least
    assert least_bytes(SMALL, "float32", 4, COPIES["adamw"], on_host=False) == 12 * cost.params + 4 * 64


def test_the_machine_decides_and_one_that_does_not_tell_refuses_nothing(monkeypatch):
    need = least_bytes(SMALL, "float32", 4, 4)
    for have, fits in ((need, True), (need - 1, False), (None, True)):
        monkeypatch.setattr("vit_common.room.total_memory", lambda have=have: have)
        if fits:
            check_room(SMALL, "float32", 4, 4)
        else:
            with pytest.raises(ConfigError, match="--batch-size"):
                check_room(SMALL, "float32", 4, 4)


@pytest.mark.skipif(sys.platform == "win32", reason="has no sysconf")
def test_a_containers_limit_is_the_machines(tmp_path):
    limit = tmp_path / "memory.max"
    whole = total_memory(())
    assert whole > 2**27
    for text, expected in (("1048576\n", 2**20), ("max\n", whole), (str(2**62), whole)):
        limit.write_text(text)
        assert total_memory((str(tmp_path / "absent"), str(limit))) == expected


def test_a_resized_image_that_cannot_fit_is_refused(monkeypatch):
    with pytest.raises(DataError, match="resized to 1000000x1500000"):
        resize_center_crop(np.zeros((20, 30, 3), np.uint8), 8, resize=1_000_000)
    pytest.importorskip("PIL", reason="Pillow is not installed")
    for channels, bytes_each in ((1, 2), (3, 7)):
        for have, fits in ((64 * bytes_each, True), (64 * bytes_each - 1, False)):
            monkeypatch.setattr(images_module, "total_memory", lambda have=have: have)
            picture = np.zeros((4, 4, channels), np.uint8)
            if fits:
                assert resize_center_crop(picture, 8).shape == (8, 8, channels)
            else:
                with pytest.raises(DataError, match="4x4 image"):
                    resize_center_crop(picture, 8)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 PiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"),
    ],
)
def test_an_allocation_that_fails_is_an_error_of_one_line(error, capsys):
    class Greedy(NumpyEngine):
        def train_step(self, *batch):
            raise error

    assert no_memory(ValueError("out of range")) == ""
    argv = ["train", "--epochs", "1", "--depth", "1", "--overwrite"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vit_common.commands.train.train", lambda engine, *rest: engine.train_step())
        patch.setattr("vit_common.commands.train.RunFolder.create", lambda *rest: types.SimpleNamespace(path="run"))
        assert main(Greedy, argv) == 1
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert "choose a smaller --batch-size" in said
        error.args = ("something else",)
        if type(error) is RuntimeError:
            with pytest.raises(RuntimeError, match="something else"):
                main(Greedy, argv)


def test_a_device_without_numbers_and_an_error_of_a_page_are_refused_in_one_line():
    class Meta(NumpyEngine):
        device = "meta"

    with pytest.raises(ConfigError, match="try --device cpu"):
        make_engine(Meta, None)

    def broken(options):
        raise ConfigError("device 'xla' cannot be used: none. This is\nthe page\n; try --device cpu")

    with pytest.raises(ConfigError) as caught:
        make_engine(broken, None)
    assert str(caught.value) == "device 'xla' cannot be used: none; try --device cpu"
