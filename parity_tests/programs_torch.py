"""Programs written in torch: torchvision, open_clip, OpenAI's CLIP, vit-pytorch, facebookresearch's mae, dino and
dinov2, the tutorial's model."""

import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from parity_tests.peers import fill, float64, import_timm
from parity_tests.programs import Array, Run, blank, checkout, source

SMALL = {"width": 36, "depth": 2, "heads": 3}


def observe(
    model: Any, images: Array, given: dict[str, Any] | None, blocks: list[Any] | None = None,
    suffix: str = ".safetensors", **more: Any,
) -> Run:  # fmt: skip
    """Fill the model with random numbers, run it forward and backward, and keep what its blocks put out."""
    import torch

    model = model.double().eval()
    fill(model, seed=1)
    for p in model.parameters():
        p.requires_grad_(True)  # positions that a program does not train have a gradient all the same
    seen: dict[str, Any] = {}

    def keep(name: str, value: Any) -> None:
        seen[name] = value.detach().numpy()

    for i, block in enumerate(blocks or []):
        if not i:
            block.register_forward_pre_hook(lambda _, args: keep("tokens", args[0]))
        block.register_forward_hook(lambda _, args, out, i=i: keep(f"blocks.{i}", out))
    x = torch.from_numpy(images.copy()).requires_grad_()
    out = model(x)
    upstream = np.random.default_rng(3).normal(size=tuple(out.shape))
    out.backward(torch.from_numpy(upstream))
    grads = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    tensors = {name: t.detach().numpy() for name, t in model.state_dict().items()}
    return Run(tensors, suffix, given, images, upstream, out.detach().numpy(), x.grad.numpy(), grads, seen, **more)


def pictures(size: int | tuple[int, int] | list[int], channels: int = 3) -> Array:
    height, width = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(2).normal(size=(2, channels, height, width))


# torchvision -----------------------------------------------------------------------------------------------------
TORCHVISION = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 3, "hidden_dim": 36, "mlp_dim": 100,
               "num_classes": 10}  # fmt: skip
TORCHVISION_CASES: dict[str, dict[str, Any]] = {
    "plain": {}, "representation": {"representation_size": 20}, "one patch": {"image_size": 8},
    "one head": {"num_heads": 1}, "one layer": {"num_layers": 1}, "four times": {"mlp_dim": 144},
    "one class": {"num_classes": 1},
}  # fmt: skip


def torchvision(changes: dict[str, Any]) -> Run:
    import_timm()
    module = importlib.import_module("torchvision.models.vision_transformer")
    given = TORCHVISION | changes
    with float64():
        model = module.VisionTransformer(**given)
    return observe(model, pictures(given["image_size"]), given, list(model.encoder.layers), ".pth")


# open_clip, and OpenAI's CLIP -------------------------------------------------------------------------------------
OPEN_CLIP = {"image_size": 32, "patch_size": 8, "width": 36, "layers": 2, "heads": 3, "mlp_ratio": 3.0,
             "output_dim": 10}  # fmt: skip
OPEN_CLIP_CASES: dict[str, dict[str, Any]] = {
    "plain": {}, "quickgelu": {"act_layer": "QuickGELU"}, "gelu": {"act_layer": "GELU"}, "avg": {"pool_type": "avg"},
    "none": {"pool_type": "none"}, "layer scale": {"ls_init_value": 0.1}, "no_ln_pre": {"no_ln_pre": True},
    "final_ln_after_pool": {"final_ln_after_pool": True},
    "avg, final_ln_after_pool": {"final_ln_after_pool": True, "pool_type": "avg"},
    "not square": {"image_size": (32, 24), "patch_size": (8, 6)}, "sin_cos_2d": {"pos_embed_type": "sin_cos_2d"},
    "patch_dropout": {"patch_dropout": 0.5}, "qk_norm": {"qk_norm": True}, "scale_fc": {"scale_fc": True},
    "scale_attn_inner": {"scale_attn_inner": True}, "block_type custom": {"block_type": "custom"},
    "all norms": {"qk_norm": True, "scale_fc": True, "scale_attn_inner": True, "ls_init_value": 0.1,
                  "act_layer": "QuickGELU", "pool_type": "avg", "final_ln_after_pool": True},
    "one patch": {"image_size": 8}, "uneven": {"image_size": (35, 29)}, "mlp_ratio": {"mlp_ratio": 4.3637},
}  # fmt: skip


def open_clip(changes: dict[str, Any]) -> Run:
    import_timm()
    module = importlib.import_module("open_clip.transformer")
    import torch

    given = OPEN_CLIP | changes
    act = {"QuickGELU": module.QuickGELU}.get(given.get("act_layer", "GELU"), torch.nn.GELU)
    with float64():
        model = module.VisionTransformer(**{**given, "act_layer": act})
    return observe(model, pictures(given["image_size"]), given, list(model.transformer.resblocks))


CLIP = {"input_resolution": 32, "patch_size": 8, "width": 36, "layers": 2, "heads": 3, "output_dim": 10}
CLIP_CASES: dict[str, dict[str, Any]] = {
    "plain": {}, "one layer, one head": {"layers": 1, "heads": 1}, "one patch": {"input_resolution": 8},
    "uneven": {"input_resolution": 35},
}  # fmt: skip


def clip(changes: dict[str, Any]) -> Run:
    """As it is published, under `visual.`."""
    module = source("CLIP", "clip/model.py", {"x.type(torch.float32)": "x.type(torch.float64)"})
    given = CLIP | changes
    with float64():
        model = module.VisionTransformer(**given)
    run = observe(model, pictures(given["input_resolution"]), given)
    tower = {f"visual.{name}": tensor for name, tensor in run.tensors.items()}
    text = {"positional_embedding": np.ones((7, 9)), "logit_scale": np.ones(())}
    return run._replace(tensors=tower | text, suffix=".pth")


# vit-pytorch ------------------------------------------------------------------------------------------------------
LUCIDRAINS = {"image_size": 32, "patch_size": 8, "num_classes": 10, "dim": 36, "depth": 2, "heads": 3, "mlp_dim": 100,
              "dim_head": 12}  # fmt: skip
LUCIDRAINS_CASES: dict[str, dict[str, Any]] = {
    "plain": {}, "mean": {"pool": "mean"}, "cls": {"pool": "cls"}, "wider inside": {"dim_head": 20},
    "narrower inside": {"dim_head": 5}, "channels": {"channels": 1}, "five channels": {"channels": 5},
    "not square": {"image_size": (32, 24), "patch_size": (8, 6)},
    "not square, mean": {"image_size": (16, 40), "patch_size": (4, 8), "pool": "mean", "channels": 2},
    "no projection": {"heads": 1, "dim_head": 36}, "one head": {"heads": 1}, "one patch": {"image_size": 8},
    "one head, wider": {"heads": 1, "dim_head": 50, "pool": "mean"}, "depth 3": {"depth": 3, "mlp_dim": 144},
    "default dim_head": {"dim_head": 64}, "one layer": {"depth": 1}, "dropout": {"dropout": 0.1, "emb_dropout": 0.1},
}  # fmt: skip


def lucidrains(changes: dict[str, Any]) -> Run:
    module = importlib.import_module("vit_pytorch.vit")
    given = LUCIDRAINS | changes
    with float64():
        model = module.ViT(**given)
    return observe(model, pictures(given["image_size"], given.get("channels", 3)), given)


SIMPLE_CASES = {name: changes for name, changes in LUCIDRAINS_CASES.items()
                if not changes.keys() & {"pool", "dropout"} and name != "no projection"}  # fmt: skip


def simple_vit(changes: dict[str, Any]) -> Run:
    import torch

    module = importlib.import_module("vit_pytorch.simple_vit")
    given = LUCIDRAINS | changes
    with float64():
        module.posemb_sincos_2d = partial(module.posemb_sincos_2d, dtype=torch.float64)  # its own default is float32
        model = module.SimpleViT(**given)
    return observe(model, pictures(given["image_size"], given.get("channels", 3)), given, suffix=".pth")


# facebookresearch -------------------------------------------------------------------------------------------------
def _mae_files() -> ModuleType:
    """mae was written for timm 0.3: its blocks took `qk_scale`, and NumPy had `np.float`."""
    import_timm()
    positions = source("mae", "util/pos_embed.py", {"np.float)": "float)"})
    return source("mae", "models_mae.py", {"qk_scale=None, ": ""}, util__pos_embed=positions)


MAE = {"img_size": 32, "patch_size": 8, "embed_dim": 36, "depth": 2, "num_heads": 3, "mlp_ratio": 3.0}
DECODER = {"decoder_embed_dim": 24, "decoder_depth": 1, "decoder_num_heads": 2}
PRETRAINING_CASES: dict[str, dict[str, Any]] = {
    "plain": {}, "norm_pix_loss": {"norm_pix_loss": True}, "deeper": {"decoder_depth": 3, "norm_pix_loss": True},
    "mlp_ratio 4": {"mlp_ratio": 4.0}, "half": {"mask_ratio": 0.5}, "36 patches": {"img_size": 48},
}  # fmt: skip


def mae_pretraining(changes: dict[str, Any]) -> Run:
    import torch

    module = _mae_files()
    given = MAE | DECODER | changes
    ratio = given.pop("mask_ratio", 0.75)
    with float64():
        model = module.MaskedAutoencoderViT(**given, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
    masks = []

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            torch.manual_seed(4)
            loss, _, mask = self.model(x, mask_ratio=ratio)
            masks.append(mask == 0)
            return loss

    with float64():
        run = observe(Loss(), pictures(given["img_size"]), given, suffix=".pth")
    tensors, grads = ({n.removeprefix("model."): t for n, t in table.items()} for table in (run.tensors, run.grads))
    return run._replace(tensors=tensors, grads=grads, mask=masks[0].numpy(), layout="mae")


FINETUNE = {**MAE, "num_classes": 10, "qkv_bias": True}
FINETUNE_CASES: dict[str, dict[str, Any]] = {
    "cls": {}, "global_pool": {"global_pool": True}, "one head": {"num_heads": 1}, "no bias": {"qkv_bias": False},
    "not square": {"img_size": (32, 24), "global_pool": True},
}  # fmt: skip


def mae_finetune(changes: dict[str, Any]) -> Run:
    """timm's forward has changed since: the program's own features, then the head."""
    import torch

    import_timm()
    module = source("mae", "models_vit.py")
    given = FINETUNE | changes
    Model = type("Model", (module.VisionTransformer,), {"forward": lambda self, x: self.head(self.forward_features(x))})
    with float64():
        model = Model(**given, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
    return observe(model, pictures(given["img_size"]), given, list(model.blocks), ".pth", layout="mae")


DINO = {"img_size": [32], "patch_size": 8, "embed_dim": 36, "depth": 2, "num_heads": 3, "mlp_ratio": 4.0,
        "qkv_bias": True}  # fmt: skip
DINO_CASES: dict[str, dict[str, Any]] = {
    "plain": {}, "no bias": {"qkv_bias": False}, "one channel": {"in_chans": 1},
    "one layer": {"depth": 1, "mlp_ratio": 2.0},
}  # fmt: skip


def dino_file() -> ModuleType:
    import torch

    return source("dino", "vision_transformer.py", utils=blank(trunc_normal_=torch.nn.init.trunc_normal_))


def dino(changes: dict[str, Any]) -> Run:
    import torch

    module = dino_file()
    given = DINO | changes
    with float64():
        model = module.VisionTransformer(**given, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
    images = pictures(given["img_size"][0], given.get("in_chans", 3))
    return observe(model, images, given, suffix=".pth", layout="dino")


DINOV2 = {"img_size": 32, "patch_size": 8, "embed_dim": 36, "depth": 2, "num_heads": 3, "mlp_ratio": 4.0,
          "init_values": 1.0, "block_chunks": 0}  # fmt: skip
DINOV2_CASES: dict[str, dict[str, Any]] = {
    "plain": {}, "registers": {"num_register_tokens": 4}, "swiglu": {"ffn_layer": "swiglufused"},
    "chunked": {"block_chunks": 2}, "one chunk": {"block_chunks": 1, "num_register_tokens": 2},
    "no layer scale": {"init_values": None},
}  # fmt: skip


def dinov2_file() -> ModuleType:
    os.environ["XFORMERS_DISABLED"] = "1"
    folder = str(checkout("dinov2"))
    sys.path.insert(0, folder)
    try:
        layers = importlib.import_module("dinov2.layers")
    finally:
        sys.path.remove(folder)
    # its positions are resized in float32
    return source("dinov2", "dinov2/models/vision_transformer.py", {".float()": ".double()"}, dinov2__layers=layers)


def dinov2(changes: dict[str, Any]) -> Run:
    module = dinov2_file()
    given = DINOV2 | changes
    with float64():
        model = module.DinoVisionTransformer(**given)
    return observe(model, pictures(given["img_size"]), given, suffix=".pth")


# The tutorial -----------------------------------------------------------------------------------------------------
TUTORIAL = {"chw": (1, 28, 28), "n_patches": 7, "n_blocks": 2, "hidden_d": 8, "n_heads": 2, "out_d": 10}
TUTORIAL_CASES: dict[str, dict[str, Any]] = {
    "plain": {}, "three channels": {"chw": (3, 12, 12), "n_patches": 4, "hidden_d": 12, "n_heads": 3},
    "one head": {"n_heads": 1}, "not square": {"chw": (3, 16, 24), "n_patches": 4},
    "wide": {"hidden_d": 36, "n_heads": 6},
}  # fmt: skip


def tutorial(changes: dict[str, Any]) -> Run:
    stand_ins = {"torchvision__datasets__mnist": blank(MNIST=None), "torchvision__transforms": blank(ToTensor=None),
                 "tqdm": blank(tqdm=None, trange=None)}  # fmt: skip
    loose = {
        "    assert h == w, ": "    assert h or w, ",
        "patch_size = h // n_patches": "ph, pw = h // n_patches, w // n_patches",
        "i * patch_size : (i + 1) * patch_size": "i * ph : (i + 1) * ph",
        "j * patch_size : (j + 1) * patch_size": "j * pw : (j + 1) * pw",
    }
    module = source("PapersReimplementations", "src/cv/vit/vit_torch.py", loose, **stand_ins)
    given = TUTORIAL | changes
    with float64():
        model = module.MyViT(**given)
        return observe(model, pictures(given["chw"][1:], given["chw"][0]), given, list(model.blocks), ".pth")


PROGRAMS: dict[str, tuple[Callable[[dict[str, Any]], Run], dict[str, dict[str, Any]]]] = {
    "torchvision": (torchvision, TORCHVISION_CASES), "open_clip": (open_clip, OPEN_CLIP_CASES),
    "OpenAI CLIP": (clip, CLIP_CASES), "vit-pytorch ViT": (lucidrains, LUCIDRAINS_CASES),
    "vit-pytorch SimpleViT": (simple_vit, SIMPLE_CASES), "mae pre-training": (mae_pretraining, PRETRAINING_CASES),
    "mae fine-tuning": (mae_finetune, FINETUNE_CASES), "dino": (dino, DINO_CASES), "dinov2": (dinov2, DINOV2_CASES),
    "tutorial": (tutorial, TUTORIAL_CASES),
}  # fmt: skip
