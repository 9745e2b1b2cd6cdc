"""What `numpy_vit` and `vit_common` do with NumPy alone: import, forward, backward, training, prediction.

`python tests/numpy_only.py`, in any environment that has NumPy, prints what it saw as one line of JSON. An import hook
refuses every module that is not NumPy, the standard library or these two packages, so that it is the same test in an
environment that has everything. `python tests/numpy_only.py MODULE` imports that module as well.
"""

import importlib
import importlib.abc
import json
import pkgutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ALLOWED = set(sys.stdlib_module_names) | {"numpy", "numpy_vit", "vit_common"}
# What a browser's Python has not, or what does not work there.
ABSENT = {"multiprocessing", "socket", "sqlite3", "ssl", "subprocess"}


class Refuse(importlib.abc.MetaPathFinder):
    """First in `sys.meta_path`: whatever else is installed cannot be found."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"{name} is refused here: NumPy alone", name=name)


class Watch:
    """Audit events of starting a process, opening a socket or writing a file; Python offers no way to end an audit."""

    def __init__(self):
        self.on, self.seen = False, []
        sys.addaudithook(self.hear)

    def hear(self, event, args):
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if self.on and (writes or event.split(".")[0] in {"subprocess", "socket"} or event in {"os.system", "os.fork"}):
            self.seen.append(f"{event}{args[:2]}")


def at_import() -> dict:
    """Import both packages; NumPy is there already, and what it does is not theirs."""
    import numpy  # noqa: F401

    before, watch = set(sys.modules), Watch()
    watch.on = True
    import numpy_vit  # noqa: F401
    import vit_common  # noqa: F401

    watch.on = False
    new = {name.split(".")[0] for name in set(sys.modules) - before}
    return {"events": watch.seen, "absent in a browser": sorted(new & ABSENT)}


def every_module() -> list[str]:
    """Import every module of both packages; nothing but NumPy is needed for that."""
    found = [
        info.name
        for package in ("numpy_vit", "vit_common")
        for info in pkgutil.walk_packages([str(ROOT / package)], package + ".")
    ]
    return [importlib.import_module(name).__name__ for name in found if not name.endswith("__main__")]


def forward_and_backward(dtype: str) -> dict:
    """Loss and gradients of several configurations; in float64 the error of a directional derivative over its bound."""
    import numpy as np

    import numpy_vit
    from vit_common import ViTConfig, init_params, keyed_rng, make_masks

    errors = {}
    for name, changes in {
        "plain": {},
        "sincos_1d, mean": {"pos_embed": "sincos_1d", "pool": "mean"},
        "sincos_2d, no class token": {"pos_embed": "sincos_2d", "pool": "mean", "class_token": False},
        "dropout": {"pos_drop_rate": 0.1, "attn_drop_rate": 0.1, "proj_drop_rate": 0.1, "drop_path_rate": 0.2},
    }.items():
        config = ViTConfig.preset("digits", depth=2).replace(**changes)
        rng = keyed_rng(0, "numpy only", name)
        params = init_params(config, seed=0, dtype=np.float64)
        params = {key: (p + 0.1 * rng.standard_normal(p.shape)).astype(dtype) for key, p in params.items()}
        images = rng.standard_normal((6, 1, 8, 8)).astype(dtype)
        labels, masks = np.arange(6), make_masks(config, 6, seed=0, step=0)

        def loss(params, images, config=config, labels=labels, masks=masks):
            logits, cache = numpy_vit.vit_forward(params, images, config, masks)
            value, loss_cache = numpy_vit.cross_entropy_forward(logits, labels, 0.1)
            return value, loss_cache, cache

        value, loss_cache, cache = loss(params, images)
        dimages, grads = numpy_vit.vit_backward(numpy_vit.cross_entropy_backward(loss_cache), cache)
        assert grads.keys() == params.keys()
        assert {g.dtype for g in grads.values()} | {dimages.dtype} == {np.dtype(dtype)}
        stepped, _ = numpy_vit.adamw_step(params, grads, numpy_vit.adamw_init(params), lr=1e-3)
        assert loss(stepped, images)[0] < value
        if dtype == "float64":  # complex step along one random direction of everything: no subtraction, no cancellation
            direction = {key: rng.standard_normal(p.shape) for key, p in params.items()}
            tilted = {key: p + 1e-30j * direction[key] for key, p in params.items()}
            true = loss(tilted, images.astype(complex))[0].imag / 1e-30
            terms = np.concatenate([(grads[key] * direction[key]).ravel() for key in grads])
            # Roundings of either sign add up like a random walk: the root of their number.
            bound = terms.size**0.5 * np.finfo(np.float64).eps * np.abs(terms).sum()
            errors[name] = float(abs(true - terms.sum()) / bound)
    return errors


def main(extra: list[str]) -> dict:
    sys.dont_write_bytecode = True
    before = {name.split(".")[0] for name in sys.modules}  # what the interpreter's own start brought in
    sys.path.insert(0, str(ROOT))
    sys.meta_path.insert(0, Refuse())
    report = {"import": at_import(), "modules": every_module()}
    for name in extra:
        importlib.import_module(name)
    report["float32"] = forward_and_backward("float32")
    report["float64"] = forward_and_backward("float64")
    modules = {name.split(".")[0] for name, module in sys.modules.items() if getattr(module, "__spec__", None)}
    report["foreign"] = sorted(modules - ALLOWED - before)
    report["versions"] = [sys.version.split()[0], sys.modules["numpy"].__version__]
    return report


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
