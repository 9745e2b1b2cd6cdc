"""`python -m numpy_vit train|eval|classify|trace|info`."""

import sys

from numpy_vit.engine import NumpyEngine
from vit_common.cli import main

if __name__ == "__main__":
    sys.exit(main(NumpyEngine, sys.argv[1:]))
