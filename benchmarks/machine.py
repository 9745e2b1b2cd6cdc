"""What a figure holds for: processor, libraries, BLAS, kernel, threads; each library's own ceiling."""

import datetime
import importlib.metadata
import os
import platform
import re
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import interleave
from vit_common.errors import require

LIBRARIES = ("numpy", "torch", "timm", "transformers", "onnxruntime", "jax", "scipy", "threadpoolctl")
VARIABLES = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NPY_DISABLE_CPU_FEATURES",
    "TORCH_VIT_ONEDNN",
)
CEILING = (1576, 768, 3072)  # rows, inputs, outputs: fc1 of ViT-B/16 at batch 8


def describe() -> dict[str, Any]:
    """The machine and all on it that changes a figure. Loads torch, so that its libraries are listed."""
    require("torch", extra="torch")
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": _memory(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
        "blas": blas(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def blas() -> list[dict[str, Any]]:
    """Every BLAS and OpenMP in this process: who loaded it, its kernel, its threads."""
    info = require("threadpoolctl", extra="bench").threadpool_info()
    keys = ("user_api", "internal_api", "version", "architecture", "num_threads")
    return [{**{k: lib.get(k) for k in keys}, "of": Path(lib["filepath"]).parent.name} for lib in info]


def kernel() -> str:
    """The kernel of NumPy's BLAS, e.g. "haswell"."""
    names = [lib["architecture"] for lib in blas() if lib["user_api"] == "blas" and lib["architecture"]]
    return names[0].lower() if names else "unknown"


def label() -> str:
    """For the names of result files, so that another machine's are not overwritten: "amd-epyc-avx2-haswell"."""
    words = re.findall(r"[a-z0-9]+", f"{_processor()} {kernel()}".lower())
    return "-".join(dict.fromkeys(words))


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(count: int) -> AbstractContextManager:
    """Both engines on this many threads: torch for good, every BLAS inside the `with`."""
    require("torch", extra="torch").set_num_threads(count)
    return require("threadpoolctl", extra="bench").threadpool_limits(limits=count)


def ceilings(budget: float = 10.0) -> dict[str, float]:
    """GFLOP/s of one large float32 product in each library, as good as it gets: the best of many turns."""
    import torch

    from torch_vit import fast_cpu

    rows, inputs, outputs = CEILING
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, np.float32) for shape in ((rows, inputs), (outputs, inputs)))
    tx, tw = torch.from_numpy(x), torch.from_numpy(w)
    out = np.empty((rows, outputs), np.float32)
    contestants = {
        "numpy": lambda: np.matmul(x, w.T, out=out),
        "torch F.linear": lambda: torch.nn.functional.linear(tx, tw),
        "torch bf16": partial(torch.nn.functional.linear, tx.bfloat16(), tw.bfloat16()),
    }
    if fast_cpu.AVAILABLE:
        contestants["torch oneDNN"] = lambda: fast_cpu.linear(tx, tw)
    with torch.inference_mode():
        times = interleave(contestants, repeats=40, budget=budget)
    return {name: 2 * rows * inputs * outputs / t.minimum / 1e9 for name, t in times.items()}


def bandwidth(budget: float = 3.0) -> float:
    """GB/s read plus written by copying an array far larger than the caches."""
    source = np.ones(64 * 2**20 // 4, np.float32)
    target = np.empty_like(source)
    best = interleave({"copy": lambda: np.copyto(target, source)}, repeats=30, budget=budget, pause=0.0)["copy"].minimum
    return 2 * source.nbytes / best / 1e9


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = (
        "AVX-512"
        if "avx512f" in fields.get("flags", "")
        else "AVX2"
        if "avx2" in fields.get("flags", "")
        else ""
    )
    return f"{fields.get('model name', platform.processor())} {flags}".strip()


def _memory() -> float | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
