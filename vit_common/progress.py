"""The progress bar: live on a terminal, a line now and then in a log file."""

import sys
from typing import Any

from vit_common.errors import require


def progress_bar(total: int, description: str, initial: int = 0, position: int = 0, show: bool = True) -> Any:
    """A tqdm bar of `total` steps. With `show=False` it keeps silent."""
    tqdm = require("tqdm", extra="cli")
    live = sys.stderr.isatty()
    return tqdm.tqdm(
        total=total, desc=description, initial=initial, position=position if live else None, disable=not show,
        mininterval=0.2 if live else 15.0, maxinterval=1.0 if live else 60.0, dynamic_ncols=live, unit="step",
    )  # fmt: skip
