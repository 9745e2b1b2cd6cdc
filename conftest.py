"""Test set-up that must come before anything imports torch."""

import os

# OpenMP's threads spin while they wait. Where the tests share their cores with other programs, that makes their small
# parallel regions a hundred times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
