"""Arguments of `save_checkpoint` and `load_checkpoint` that are none, each with its own message."""

import numpy as np
import pytest

from vit_common import CheckpointError, ViTConfig, init_params, load_checkpoint, save_checkpoint
from vit_common.checkpoint import MAX_TEXT, read_extra
from vit_common.errors import DataError, DtypeError

CONFIG = ViTConfig(image_size=8, patch_size=4, in_channels=1, embed_dim=12, depth=2, num_heads=3, num_classes=5)


@pytest.fixture
def params():
    return init_params(CONFIG, seed=0)


def test_arrays_that_a_file_cannot_hold(tmp_path, params):
    for dtype in (complex, object, np.longdouble):
        with pytest.raises(DtypeError, match=r"parameter head\.bias holds"):
            save_checkpoint(tmp_path / "w", CONFIG, params | {"head.bias": params["head.bias"].astype(dtype)})
    torch = pytest.importorskip("torch", reason="tensors are torch's")
    leaf = torch.zeros(5, requires_grad=True)
    with pytest.raises(DtypeError, match=r"parameter head\.bias is no NumPy array .*\.detach\(\)"):
        save_checkpoint(tmp_path / "w", CONFIG, params | {"head.bias": leaf})
    assert not list(tmp_path.iterdir())
    save_checkpoint(tmp_path / "w", CONFIG, params | {"head.bias": leaf.detach()})
    assert load_checkpoint(tmp_path / "w")[0] == CONFIG


@pytest.mark.parametrize("name", ["folder", "w.safetensors"])
@pytest.mark.parametrize(("extra", "message"), [
    ({"when": {1, 2}}, "cannot be written as JSON"), ({(1, 2): 3}, "cannot be written as JSON"),
    ({"log": "x" * (2 << 20)}, "extra is too long"), ({"log": '"' * 400_000}, "extra is too long"),
])  # fmt: skip
def test_what_cannot_be_saved_beside_the_model(tmp_path, params, extra, message, name):
    with pytest.raises(DataError, match=message):
        save_checkpoint(tmp_path / name, CONFIG, params, extra)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["folder", "w.safetensors"])
def test_the_longest_that_is_written_is_read(tmp_path, params, name):
    extra = {"log": "x" * (MAX_TEXT - 1000)}
    save_checkpoint(tmp_path / name, CONFIG, params, extra)
    assert read_extra(tmp_path / name) == extra
    assert load_checkpoint(tmp_path / name)[0] == CONFIG


def test_a_configuration_and_a_dtype_that_are_none(tmp_path, params):
    save_checkpoint(tmp_path / "w", CONFIG, params)
    with pytest.raises(CheckpointError, match=r"config='vit': give a ViTConfig"):
        load_checkpoint(tmp_path / "w", config="vit")
    for dtype in ("flaot32", {"a": 1}):
        with pytest.raises(CheckpointError, match=r"is none of NumPy's; choose np\.float32"):
            load_checkpoint(tmp_path / "w", dtype=dtype)
    torch = pytest.importorskip("torch", reason="a dtype of torch's")
    with pytest.raises(CheckpointError, match=r"dtype=torch\.float32 is none of NumPy's"):
        load_checkpoint(tmp_path / "w", dtype=torch.float32)


def test_a_pointer_is_named_before_its_header_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        read_extra(path)
