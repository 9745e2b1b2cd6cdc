"""`python -m torch_vit train|eval|classify|trace|info`."""

import sys

try:
    from torch_vit.engine import TorchEngine
    from vit_common.cli import main
except KeyboardInterrupt:  # Ctrl-C before `main` is there to answer it
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(TorchEngine, sys.argv[1:]))
