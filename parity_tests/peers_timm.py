"""Every plain Vision Transformer of timm, shrunk, against both engines: outputs and all gradients in float64.

`python -m parity_tests.peers_timm` prints k/251, what became of arguments drawn at random, and writes
benchmarks/results/peers_timm.json.
"""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from parity_tests.options import gradient, relative, run_both, sweep
from parity_tests.options_timm import FAMILIES, options_error
from parity_tests.peers import engine_results, fill, float64, import_timm, relative_errors
from parity_tests.training_timm import training_error
from vit_common import ViTConfig
from vit_common.timm_names import timm_args

MODULES = ("vision_transformer", "deit", "eva", "beit")
BOUND = 1e-11
DRAWS = 150
# Name, further arguments, image size of the parameters, image size of the model.
RESIZED: tuple[tuple[str, dict[str, Any], tuple[int, int], tuple[int, int]], ...] = (
    ("beit_base_patch16_224", {}, (32, 32), (48, 48)), ("beit_base_patch16_224", {}, (24, 8), (16, 24)),
    ("beit_base_patch16_224", {"use_shared_rel_pos_bias": True}, (32, 24), (24, 48)),
    ("beit_base_patch16_224", {"use_abs_pos_emb": True}, (48, 48), (32, 24)),
    ("beit_base_patch16_224", {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}, (32, 32), (32, 48)),
    ("vit_base_patch16_224", {}, (32, 32), (48, 40)), ("deit_tiny_distilled_patch16_224", {}, (32, 32), (48, 24)),
    ("vit_base_patch16_224", {"no_embed_class": True, "reg_tokens": 2}, (32, 24), (24, 32)),
    ("vit_base_patch16_siglip_224", {}, (32, 32), (24, 40)), ("eva02_tiny_patch14_224", {}, (32, 32), (48, 24)),
    ("vit_small_patch16_rope_mixed_ape_224", {}, (32, 32), (48, 24)),
    ("vit_small_patch16_dinov3", {}, (32, 32), (48, 24)),
)  # fmt: skip
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "peers_timm.json"


def names(timm: Any) -> list[str]:
    """All architectures registered by timm's four modules."""
    return [name for module in MODULES for name in timm.list_models(module=module)]


def shrunk(name: str) -> dict[str, Any]:
    """Constructor arguments that make the architecture small and leave its kind as it is.

    Three heads of 12: divisible by 4, as rotary embedding needs. Not square, so that mixed-up axes show. An image that
    the patch does not divide stays so.
    """
    args = timm_args(name)[1]
    image, patch = args["img_size"], args["patch_size"]
    cropped = isinstance(image, int) and image % patch
    small: dict[str, Any] = {
        "img_size": (35, 29) if cropped else (32, 24), "patch_size": 8, "embed_dim": 36, "depth": 2, "num_heads": 3,
        "num_classes": 10,
    }  # fmt: skip
    if name.endswith("sapiens2"):  # timm lists one number for each of its own blocks
        small["num_kv_heads"] = (3, 1)
    if "attn_pool_num_heads" in args:
        small["attn_pool_num_heads"] = 2
    return small


def errors(timm: Any, name: str, overrides: dict[str, Any] | None = None) -> dict[str, float]:
    """The largest relative error of each engine against timm, over logits, input gradient and every parameter's."""
    import torch

    overrides = shrunk(name) | (overrides or {})
    with float64():
        model = timm.create_model(name, pretrained=False, **overrides).eval()
    fill(model, seed=1)
    config = ViTConfig.from_timm(name, **overrides)
    rng = np.random.default_rng(2)
    x, dlogits = rng.normal(size=(2, 3, *config.image_size)), rng.normal(size=(2, 10))
    images = torch.from_numpy(x.copy()).requires_grad_()
    out = model(images)
    out.backward(torch.from_numpy(dlogits))
    params = {n: p.detach().numpy() for n, p in model.named_parameters()}
    truth = {"logits": out.detach().numpy(), "gx": images.grad.numpy()}
    truth |= {f"g/{n}": p.grad.numpy() for n, p in model.named_parameters()}
    results = engine_results(config, params, x, dlogits)
    return {engine: relative_errors(result, truth) for engine, result in results.items()}


def resized_error(
    timm: Any, name: str, arguments: dict[str, Any], old: tuple[int, int], new: tuple[int, int]
) -> float:
    """Logits and input gradient of parameters for one image size in a model for another."""
    import torch

    args = {"patch_size": 8, "embed_dim": 36, "num_heads": 3, "depth": 2, "num_classes": 10, **arguments}
    with float64():
        model = timm.create_model(name, img_size=old, **args).double().eval()
        fill(model, seed=1)
        params = {n: p.detach().numpy().copy() for n, p in model.named_parameters()}
        model.set_input_size(img_size=new)
    rng = np.random.default_rng(2)
    x, dlogits = rng.normal(size=(2, 3, *new)), rng.normal(size=(2, 10))
    images = torch.from_numpy(x.copy()).requires_grad_()
    out = model(images)
    out.backward(torch.from_numpy(dlogits))
    config = ViTConfig.from_timm(name, img_size=old, **args).at_image_size(new)
    results = list(run_both(config, params, x, dlogits, None))
    logits, gx = out.detach().numpy(), gradient(images)
    return max(e for got in results for e in (relative(got["logits"], logits), relative(got["gx"], gx)))


def drawn(timm: Any) -> dict[str, Any]:
    """What became of arguments drawn at random, by what was done with them and by class."""
    out: dict[str, Any] = {}
    for title, check in (("evaluation", options_error), ("training", training_error)):
        for family in FAMILIES:
            found = sweep(lambda seed, check=check, family=family: check(timm, family, seed), range(DRAWS))
            out.setdefault(title, {})[family] = found
            print(f"{title}, {family}: {found['reproduced']}/{found['cases']}, worst {found['worst']:.1e}")
            for seed, why in found["failed"].items():
                print(f"  seed {seed}: {why}")
    return out


def main() -> int:
    import torch

    timm = import_timm()
    found: dict[str, Any] = {}
    for name in names(timm):
        try:
            found[name] = errors(timm, name)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
        row = found[name]
        if isinstance(row, str) or not max(row.values()) <= BOUND:
            print(f"{name}: {row}")
    good = [n for n, row in found.items() if isinstance(row, dict) and max(row.values()) <= BOUND]
    print(f"{len(good)}/{len(found)} timm names reproduced by both engines (relative error at most {BOUND:g})")
    options = drawn(timm)
    failed = sum(len(f["failed"]) for kind in options.values() for f in kind.values())
    report = {
        "what": "largest relative error over logits, input gradient and every parameter's gradient, float64",
        "bound": BOUND, "reproduced": len(good), "names": len(found),
        "versions": {"timm": timm.__version__, "torch": torch.__version__, "numpy": np.__version__,
                     "python": platform.python_version()},
        "errors": found, "arguments_drawn_at_random": options,
    }  # fmt: skip
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(temporary, RESULTS)
    return 0 if len(good) == len(found) and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
