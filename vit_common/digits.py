r"""The UCI handwritten digits that scikit-learn ships: 1797 images of 8 x 8, grey values 0..16; no download.

Values are stretched to uint8, u = round(255 v / 16), from which v = round(16 u / 255) comes back exactly. The
split into 1437 training and 360 test images is stratified and fixed.
Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998.
"""

import gzip
import importlib.util
import zlib
from os import PathLike
from pathlib import Path

import numpy as np

from vit_common.errors import DataError
from vit_common.image_folder import stratified_split

Pair = tuple[np.ndarray, np.ndarray]  # images uint8 (N, 1, 8, 8), labels int64 (N,)


def read_digits(data_dir: str | PathLike | None = None) -> tuple[Pair, Pair]:
    """((train images, train labels), (test images, test labels)), from `data_dir` or scikit-learn.

    Raises DataError if the file is missing or is not the table it should be.
    """
    roots = [] if data_dir is None else [Path(data_dir).expanduser() / sub for sub in ("digits", "")]
    sklearn = importlib.util.find_spec("sklearn")  # found, not imported: that would cost half a second
    if sklearn is not None and sklearn.origin:
        roots.append(Path(sklearn.origin).parent / "datasets" / "data")
    path = next((root / "digits.csv.gz" for root in roots if (root / "digits.csv.gz").is_file()), None)
    if path is None:
        raise DataError(
            f"digits.csv.gz is in none of {', '.join(map(str, roots)) or 'the usual places'}; it comes with "
            "scikit-learn: pip install scikit-learn"
        )
    try:
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64, ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as the digits' table ({error}); reinstall scikit-learn"
        ) from error
    if table.shape != (1797, 65) or table.min() < 0 or table[:, :64].max() > 16 or table[:, 64].max() > 9:
        raise DataError(f"{path} holds {table.shape}, expected (1797, 65): 64 values 0..16 and a label 0..9")
    pixels = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = table[:, 64]
    train, test = stratified_split(labels, test_fraction=0.2)
    return (pixels[train], labels[train]), (pixels[test], labels[test])
