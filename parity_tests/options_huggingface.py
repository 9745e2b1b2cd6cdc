"""Configuration fields of Hugging Face's plain Vision Transformers, drawn at random, against both engines.

The library saves the model with `save_pretrained`, `load_checkpoint` reads the folder, and every gradient is compared
under the names of the file.
"""

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parity_tests.options import Array, Chooser, Refused, gradient, gradient_error, relative, run_both
from parity_tests.peers import fill, float64
from vit_common import load_checkpoint
from vit_common.layouts import export_layout, find_layout
from vit_common.mae_config import MaeConfig

OTHER_TOWER = ("text_model.", "logit_scale", "logit_bias")
# model type: its configuration, and (model class, what of the output is compared)
KINDS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "vit": ("ViTConfig", (("ViTForImageClassification", "logits"), ("ViTModel", "pooler_output"),
                          ("ViTModel", "last_hidden_state"))),
    "deit": ("DeiTConfig", (("DeiTForImageClassification", "logits"), ("DeiTModel", "pooler_output"),
                            ("DeiTForImageClassificationWithTeacher", "logits"))),
    "beit": ("BeitConfig", (("BeitForImageClassification", "logits"), ("BeitModel", "pooler_output"))),
    "dinov2": ("Dinov2Config", (("Dinov2ForImageClassification", "logits"), ("Dinov2Model", "pooler_output"))),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", (
        ("Dinov2WithRegistersForImageClassification", "logits"), ("Dinov2WithRegistersModel", "pooler_output"))),
    "dinov3_vit": ("DINOv3ViTConfig", (("DINOv3ViTModel", "pooler_output"),)),
    "clip_vision_model": ("CLIPVisionConfig", (
        ("CLIPVisionModel", "pooler_output"), ("CLIPVisionModelWithProjection", "image_embeds"),
        ("CLIPForImageClassification", "logits"))),
    "siglip_vision_model": ("SiglipVisionConfig", (
        ("SiglipVisionModel", "pooler_output"), ("SiglipForImageClassification", "logits"))),
    "vit_mae": ("ViTMAEConfig", (("ViTMAEForPreTraining", "loss"), ("ViTMAEModel", "last_hidden_state"))),
}  # fmt: skip


ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "gelu_fast", "gelu_python",
               "swish")  # fmt: skip
HEADS: dict[str, tuple] = {"qkv_bias": (False,), "head_dim": (8, 16)}
DINOV2: dict[str, tuple] = {**HEADS, "use_swiglu_ffn": (True,), "layerscale_value": (0.5,), "use_mask_token": (False,)}
# Fields that one kind alone has, with what they may be besides their default.
OWN: dict[str, dict[str, tuple]] = {
    "vit": {**HEADS, "pooler_output_size": (20,)}, "deit": {**HEADS, "pooler_output_size": (20,)},
    "beit": {
        "head_dim": (8, 16), "use_mask_token": (True,), "use_absolute_position_embeddings": (True,),
        "use_relative_position_bias": (True,), "use_shared_relative_position_bias": (True,),
        "layer_scale_init_value": (0.0, 1e-4), "use_mean_pooling": (False,), "drop_path_rate": (0.2,),
    },
    "dinov2": DINOV2, "dinov2_with_registers": {**DINOV2, "num_register_tokens": (1, 2)},
    "dinov3_vit": {
        "use_gated_mlp": (True,), "num_register_tokens": (0, 1, 4), "rope_theta": (50.0, 1000.0),
        "query_bias": (False,), "key_bias": (True,), "value_bias": (False,), "proj_bias": (False,),
        "mlp_bias": (False,), "layerscale_value": (0.5,),
    },
    "clip_vision_model": {"projection_dim": (10,)}, "siglip_vision_model": {"vision_use_head": (False,)},
    "vit_mae": {**HEADS, "mask_ratio": (0.5, 0.25), "norm_pix_loss": (True,)},
}  # fmt: skip
# Those that take an attention mask, and the tokens before their patches, which are never padding.
PREFIX = {"vit": 1, "deit": 2, "beit": 1, "dinov2": 1, "dinov2_with_registers": 1, "vit_mae": 1}


class Draw(NamedTuple):
    """Classes, fields of the configuration, the size of the images fed, and whether some patches are padding."""

    kind: str
    model: str
    output: str
    fields: dict[str, Any]
    fed: tuple[int, int]
    padding: bool


def draw(kind: str, seed: int) -> Draw:
    """The case of this number."""
    choose = Chooser(seed, list(KINDS).index(kind))
    model, output = choose.one(*KINDS[kind][1])
    width, heads = choose.one((36, 3), (48, 4), (48, 2))
    image, patch = choose.one((32, 8), (24, 8), (35, 8), (32, 4))
    fields: dict[str, Any] = {
        "hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": choose.one(1, 2, 3),
        "image_size": image, "patch_size": patch, "intermediate_size": choose.one(40, 100, 4 * width),
        "num_labels": choose.one(10, 10, 2, 3),
    }  # fmt: skip
    fields |= choose.some(0.3, layer_norm_eps=(1e-5, 1e-3), num_channels=(1, 4), hidden_act=ACTIVATIONS)
    fields |= choose.some(0.4, **OWN[kind])
    if kind.startswith("dinov2"):
        del fields["intermediate_size"]
        fields["mlp_ratio"] = choose.one(4, 4, 2, 3)
    if kind == "vit_mae":
        fields |= {"decoder_hidden_size": choose.one(24, 32), "decoder_num_hidden_layers": choose.one(1, 2),
                   "decoder_num_attention_heads": choose.one(2, 4), "decoder_intermediate_size": choose.one(50, 64)}
    if not fields.get("vision_use_head", True) and output == "pooler_output":
        output = "last_hidden_state"  # there is nothing pooled
    fed = (image, image)
    if kind != "vit_mae" and choose.chance(0.3):
        fed = choose.one((40, 24), (24, 40), (40, 40), (16, 32))
    padded = kind in PREFIX and model != "ViTMAEForPreTraining" and choose.chance(0.3)
    return Draw(kind, model, output, fields, fed, padded)


class Case(NamedTuple):
    """What the library computes, and the model that did."""

    model: Any
    images: Array
    dlogits: Array
    masks: dict[str, Array]
    values: dict[str, Array]
    grads: dict[str, Array]


def run_library(transformers: Any, case: Draw, seed: int = 1) -> Case:
    """The library's own results.

    Raises:
        Refused: it raises something about these fields.
    """
    import torch

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, case.fields.get("num_channels", 3), *case.fed))
    images = torch.from_numpy(x.copy()).requires_grad_()
    try:
        model = _model(transformers, case)
        fill(model, seed)
        for p in model.parameters():
            p.requires_grad_(True)
        options, masks = _masks(case, model, rng)
        result = model(images, **options)
        out = result[case.output]
    except Exception as error:
        raise Refused(f"{type(error).__name__}: {str(error)[:60]}") from error
    values = {}
    if case.output == "last_hidden_state" and case.kind != "siglip_vision_model":
        out = out[:, 0]
    if "last_hidden_state" in result and case.kind != "vit_mae":  # there the patches are shuffled
        values["last_hidden_state"] = result["last_hidden_state"].detach().numpy()
    if case.output == "loss":
        values["prediction"] = result["logits"].detach().numpy()
    dlogits = np.asarray(rng.normal(size=tuple(out.shape)))
    out.backward(torch.from_numpy(dlogits))
    values |= {"logits": out.detach().numpy(), "gx": gradient(images)}
    return Case(model, x, dlogits, masks, values, _saved_slopes(model))


def _model(transformers: Any, case: Draw) -> Any:
    # BEiT adds its relative positions to the mask, which for sdpa is bool: padding would be read, at a score less 1.
    how = "eager" if case.kind == "beit" and case.padding else "sdpa"
    config = getattr(transformers, KINDS[case.kind][0])(**case.fields, attn_implementation=how)
    if case.model in ("CLIPForImageClassification", "SiglipForImageClassification"):  # one tower of two
        outer = transformers.CLIPConfig if "CLIP" in case.model else transformers.SiglipConfig
        small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        config = outer(vision_config=config.to_dict(), text_config=small, num_labels=case.fields["num_labels"])
    pooled = {"add_pooling_layer": case.output == "pooler_output"}
    more = pooled if case.model in ("ViTModel", "DeiTModel", "BeitModel") else {}
    with float64():
        return getattr(transformers, case.model)(config, **more).double().eval()


def _masks(case: Draw, model: Any, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Array]]:
    """The library's arguments, and our masks."""
    import torch

    patch, options, masks = case.fields["patch_size"], dict[str, Any](), dict[str, Array]()
    count = (case.fed[0] // patch) * (case.fed[1] // patch)
    if case.padding:
        masks["padding_mask"] = rng.random((2, count)) < 0.7
        prefix = PREFIX[case.kind] + getattr(model.config, "num_register_tokens", 0)
        whole = np.pad(masks["padding_mask"], ((0, 0), (prefix, 0)), constant_values=True)
        options["attention_mask"] = torch.from_numpy(whole)
    if case.kind == "vit_mae":
        noise = rng.random((2, count))
        keep = int(count * (1 - model.config.mask_ratio))
        masks["patch_drop"], options["noise"] = noise.argsort(1).argsort(1) < keep, torch.from_numpy(noise)
        if case.padding:  # the library's mask is of the patches seen, in the order that it shuffles them into
            seen = np.take_along_axis(whole, np.pad(1 + noise.argsort(1)[:, :keep], ((0, 0), (1, 0))), 1)
            options["attention_mask"] = torch.from_numpy(seen)
    another = case.fed != (case.fields["image_size"],) * 2
    if another and case.kind in ("vit", "deit", "clip_vision_model", "siglip_vision_model"):
        options["interpolate_pos_encoding"] = True
    return options, masks


def _saved_slopes(model: Any) -> dict[str, Array]:
    """The gradients under the names of the file: saved like a model."""
    import torch
    from safetensors.numpy import load_file

    slopes = copy.deepcopy(model)
    with torch.no_grad():
        for (_, p), (_, q) in zip(model.named_parameters(), slopes.named_parameters(), strict=True):
            q.copy_(torch.zeros_like(p) if p.grad is None else p.grad)
    with tempfile.TemporaryDirectory() as folder:
        slopes.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


def options_error(transformers: Any, kind: str, seed: int) -> float:
    """The largest relative error of either engine, over everything that is compared.

    Raises:
        Refused: the library does not take the fields of this draw.
    """
    case = draw(kind, seed)
    truth = run_library(transformers, case)
    with tempfile.TemporaryDirectory() as folder:
        truth.model.save_pretrained(folder)
        config, params = load_checkpoint(folder)
    layout = find_layout(truth.grads)
    theirs = {layout.plain_name(name): g for name, g in truth.grads.items() if not name.startswith(OTHER_TOWER)}
    worst = 0.0
    for got in (run_mae if isinstance(config, MaeConfig) else run_vit)(config, params, truth, case):
        worst = max(worst, *(relative(got[name], value) for name, value in truth.values.items()))
        exported = export_layout(got["grads"], config, layout.name)
        ours = {layout.plain_name(name): g for name, g in exported.items()}
        worst = max(worst, gradient_error(ours, theirs))
    return worst


def run_vit(config: Any, params: dict[str, Array], truth: Case, case: Draw) -> Iterator[dict[str, Any]]:
    if config.image_size != case.fed and not config.dynamic_image_size:
        config = config.at_image_size(case.fed)
    for got in run_both(config, params, truth.images, truth.dlogits, truth.masks or None):
        tape, last = got["tape"], f"blocks.{config.depth - 1}"
        before = case.kind == "clip_vision_model" or not config.final_norm  # CLIP hands out what its norm reads
        yield {**got, "last_hidden_state": tape[last] if before else tape["norm"]}


def run_mae(config: Any, params: dict[str, Array], truth: Case, case: Draw) -> Iterator[dict[str, Any]]:
    import torch

    import numpy_vit
    import torch_vit

    mask, slope = truth.masks["patch_drop"], float(truth.dlogits)
    (loss, prediction), cache = numpy_vit.mae_forward(params, truth.images, config, mask)
    gx, grads = numpy_vit.mae_backward(cache, slope)
    yield {"logits": loss, "prediction": prediction, "gx": gx, "grads": grads}
    leaves = {name: p.requires_grad_() for name, p in torch_vit.to_torch(params).items()}
    x = torch.from_numpy(truth.images.copy()).requires_grad_()
    loss, prediction = torch_vit.mae_forward(leaves, x, config, torch.from_numpy(mask))
    (loss * slope).backward()
    yield {"logits": loss.detach().numpy(), "prediction": prediction.detach().numpy(), "gx": gradient(x),
           "grads": {name: gradient(p) for name, p in leaves.items()}}  # fmt: skip
