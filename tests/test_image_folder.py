"""Folders of class folders: found, split, decoded when asked for, and errors that name the folder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_common.data import load_dataset
from vit_common.errors import ConfigError, DataError
from vit_common.image_folder import FolderSplit, find_images
from vit_common.images import IMAGENET_MEAN, IMAGENET_STD


def picture(path: Path, colour=(10, 200, 30), size=(20, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def two_classes(root: Path, each: int = 5) -> Path:
    for i in range(each):
        picture(root / "cat" / f"{i}.png", (i, 0, 0))
        picture(root / "dog" / "deeper" / f"{i}.PNG", (0, i, 0))
    return root


def test_folder_is_split_by_class_and_decoded_when_asked(tmp_path):
    two_classes(tmp_path, each=10)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("not a class")
    data = load_dataset(tmp_path, image_size=(8, 10))
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (16, 4)
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert not set(data.train.paths) & set(data.test.paths)
    batch = data.train.images(np.array([3, 0]))
    assert batch.shape == (2, 3, 8, 10)
    assert batch.dtype == np.uint8
    own = np.asarray(Image.open(data.train.paths[3]))[0, 0]
    assert (batch[0] == own[:, None, None]).all()
    assert data.normalise(batch).dtype == np.float32
    np.testing.assert_array_equal(data.mean, [0.5] * 3)
    again = find_images(tmp_path)
    assert again.test[0] == list(data.test.paths)


def test_folder_already_split(tmp_path):
    two_classes(tmp_path / "train")
    picture(tmp_path / "val" / "dog" / "x.png")
    found = find_images(tmp_path)
    assert len(found.train[0]) == 10
    assert found.test[1].tolist() == [1], (
        "a test folder may lack a class, and labels follow the training classes"
    )
    picture(tmp_path / "val" / "bird" / "x.png")
    with pytest.raises(DataError, match="bird"):
        find_images(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "tram"):
        for i in range(2):
            picture(tmp_path / name / f"{i}.png")
    assert find_images(tmp_path).class_names == ("train", "tram")


@pytest.mark.parametrize(
    ("files", "folders", "words"),
    [
        ([], [], "holds no images"),
        (["a.png", "b.png"], [], "2 images but no class folders"),
        ([], ["cat", "dog"], "holds no images"),
        (["cat/a.png"], [], "one class folder only, 'cat'"),
        (["cat/a.png", "cow/b.png"], ["dog"], "without an image: dog"),
    ],
)
def test_folder_errors(tmp_path, files, folders, words):
    for name in files:
        picture(tmp_path / name)
    for name in folders:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=words) as caught:
        load_dataset(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_folder_that_is_a_file_or_not_there(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match="is a file"):
        load_dataset(tmp_path / "a.png")
    with pytest.raises(DataError, match="no folder"):
        load_dataset(tmp_path / "absent")


def test_an_unreadable_image_is_named_when_its_turn_comes(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    data = load_dataset(tmp_path, image_size=8)
    damaged = next(split for split in (data.train, data.test) if tmp_path / "cat" / "2.png" in split.paths)
    with pytest.raises(DataError, match=r"2\.png"):
        damaged.images(np.arange(len(damaged)))


def test_folder_cache_gives_the_same_pixels(tmp_path):
    two_classes(tmp_path)
    files = find_images(tmp_path).train
    for room, kept in ((0, 0), (3 * 8 * 8 * 4, 4), (1 << 20, 8)):
        split = FolderSplit(*files, (8, 8), cache_bytes=room)
        first = split.images(np.arange(len(split)))
        np.testing.assert_array_equal(split.images(np.arange(len(split))), first)
        assert len(split._cache) == kept


def test_folder_statistics_and_channels(tmp_path):
    two_classes(tmp_path)
    data = load_dataset(tmp_path, image_size=8, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    np.testing.assert_array_equal(data.mean, IMAGENET_MEAN)
    assert load_dataset(tmp_path, image_size=8, in_channels=1).train.images([0]).shape == (1, 1, 8, 8)
    grey = load_dataset(tmp_path, image_size=8, in_channels=1, mean=(0.5, 0.25, 0.75))
    np.testing.assert_allclose(
        grey.mean, [0.299 * 0.5 + 0.587 * 0.25 + 0.114 * 0.75], rtol=4 * np.finfo(float).eps
    )
    with pytest.raises(ConfigError, match="mean has shape"):
        load_dataset(tmp_path, mean=[0.1, 0.2])
