"""`python -m numpy_vit train|eval|classify|trace|info`."""

import sys

try:
    from numpy_vit.engine import NumpyEngine
    from vit_common.cli import main
except KeyboardInterrupt:  # Ctrl-C before `main` is there to answer it
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(NumpyEngine, sys.argv[1:]))
