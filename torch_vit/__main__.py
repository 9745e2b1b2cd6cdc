"""`python -m torch_vit train|eval|classify|trace|info`."""

import sys

from torch_vit.engine import TorchEngine
from vit_common.cli import main

if __name__ == "__main__":
    sys.exit(main(TorchEngine, sys.argv[1:]))
