"""Every Hugging Face vision model type that is a plain ViT, small, against both engines: outputs and all gradients.

The library saves the model, `load_checkpoint` reads the folder, and so it reads the gradients: saved like a model they
come back under our names. `python -m parity_tests.peers_huggingface` prints the numbers and writes
benchmarks/results/peers_huggingface.json.
"""

import copy
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from parity_tests.options import sweep
from parity_tests.options_huggingface import KINDS, options_error
from parity_tests.peers import engine_results, fill, float64, import_transformers, relative_errors
from vit_common import load_checkpoint

BOUND = 1e-11
DRAWS = 60
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "peers_huggingface.json"
SMALL = {"hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 100,
         "image_size": 32, "patch_size": 8, "num_channels": 3, "num_labels": 10}  # fmt: skip

# title: (config class, model class, further arguments of the config, what of the output is compared)
MODELS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "vit": ("ViTConfig", "ViTForImageClassification", {}, "logits"),
    "vit without qkv bias, relu": ("ViTConfig", "ViTForImageClassification",
                                   {"qkv_bias": False, "hidden_act": "relu"}, "logits"),
    "deit": ("DeiTConfig", "DeiTForImageClassification", {}, "logits"),
    "deit with teacher": ("DeiTConfig", "DeiTForImageClassificationWithTeacher", {}, "logits"),
    "beit": ("BeitConfig", "BeitForImageClassification", {"use_relative_position_bias": True}, "logits"),
    "beit shared, absolute": ("BeitConfig", "BeitForImageClassification",
                              {"use_shared_relative_position_bias": True, "use_absolute_position_embeddings": True,
                               "use_mean_pooling": False}, "logits"),
    "dinov2": ("Dinov2Config", "Dinov2ForImageClassification", {"mlp_ratio": 4}, "logits"),
    "dinov2 swiglu": ("Dinov2Config", "Dinov2ForImageClassification",
                      {"mlp_ratio": 4, "use_swiglu_ffn": True}, "logits"),
    "dinov2 with registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersForImageClassification",
                              {"mlp_ratio": 4, "num_register_tokens": 3}, "logits"),
    "dinov3": ("DINOv3ViTConfig", "DINOv3ViTModel", {"num_register_tokens": 4}, "pooler_output"),
    "dinov3 gated": ("DINOv3ViTConfig", "DINOv3ViTModel",
                     {"num_register_tokens": 2, "use_gated_mlp": True, "hidden_act": "silu"}, "pooler_output"),
    "clip vision": ("CLIPVisionConfig", "CLIPVisionModel", {}, "pooler_output"),
    "clip vision with projection": ("CLIPVisionConfig", "CLIPVisionModelWithProjection",
                                    {"projection_dim": 10}, "image_embeds"),
    "siglip vision": ("SiglipVisionConfig", "SiglipVisionModel", {}, "pooler_output"),
    "siglip vision without head": ("SiglipVisionConfig", "SiglipVisionModel", {"vision_use_head": False},
                                   "last_hidden_state"),
    "vit mae encoder": ("ViTMAEConfig", "ViTMAEModel", {"mask_ratio": 0.0}, "last_hidden_state"),
}  # fmt: skip


def errors(transformers: Any, title: str) -> dict[str, float]:
    """The largest relative error of each engine against the library, over logits, input and parameter gradients."""
    import torch

    config_name, model_name, extra, output = MODELS[title]
    settings = getattr(transformers, config_name)(**{**SMALL, **extra}, attn_implementation="sdpa")
    with float64():
        model = getattr(transformers, model_name)(settings).double().eval()
    fill(model, seed=1)
    for p in model.parameters():
        p.requires_grad_(True)
    x = np.random.default_rng(2).normal(size=(2, 3, 32, 32))
    images = torch.from_numpy(x.copy()).requires_grad_()
    noise = {"noise": torch.arange(16.0).expand(2, -1)} if "MAE" in model_name else {}
    out = getattr(model(images, **noise), output)
    out = out[:, 0] if "MAE" in model_name else out
    dlogits = np.random.default_rng(3).normal(size=tuple(out.shape))
    out.backward(torch.from_numpy(dlogits))
    slopes = copy.deepcopy(model)
    with torch.no_grad():
        for (_, p), (_, q) in zip(model.named_parameters(), slopes.named_parameters(), strict=True):
            q.copy_(torch.zeros_like(p) if p.grad is None else p.grad)
    config, params = _saved(model)
    grads = _saved(slopes, config)[1]
    truth = {"logits": out.detach().numpy(), "gx": images.grad.numpy()} | {f"g/{n}": g for n, g in grads.items()}
    results = engine_results(config, params, x, dlogits)
    return {engine: relative_errors(result, truth) for engine, result in results.items()}


def _saved(model: Any, config: Any = None) -> tuple[Any, dict[str, np.ndarray]]:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_checkpoint(folder, config=config)


def main() -> int:
    import torch

    transformers = import_transformers()
    found: dict[str, Any] = {}
    for title in MODELS:
        try:
            found[title] = errors(transformers, title)
        except Exception as error:
            found[title] = f"{type(error).__name__}: {error}"
        print(f"{title}: {found[title]}")
    good = [n for n, row in found.items() if isinstance(row, dict) and max(row.values()) <= BOUND]
    print(f"{len(good)}/{len(found)} Hugging Face models reproduced by both engines (relative error at most {BOUND:g})")
    options = {}
    for kind in KINDS:
        options[kind] = sweep(lambda seed, kind=kind: options_error(transformers, kind, seed), range(DRAWS))
        print(f"{kind}, fields drawn at random: {options[kind]['reproduced']}/{options[kind]['cases']}")
    report = {
        "what": "largest relative error over outputs, input gradient and every parameter's gradient, float64",
        "bound": BOUND, "reproduced": len(good), "models": len(found),
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__,
                     "python": platform.python_version()},
        "errors": found, "fields_drawn_at_random": options,
    }  # fmt: skip
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(temporary, RESULTS)
    return 0 if len(good) == len(found) and not any(o["failed"] for o in options.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
