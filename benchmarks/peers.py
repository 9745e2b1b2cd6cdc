"""`peers`: our engines beside timm, Hugging Face, onnxruntime and jax (extra `bench-peers`).

All hold the same parameters, and each is held against the same bound before it is timed.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, machine, plots, products, results
from benchmarks.contestants import (
    LR,
    Case,
    Contestant,
    make_case,
    numpy_contestant,
    stock_linear_layers,
    torch_contestant,
)
from benchmarks.measure import interleave
from benchmarks.peers_jax import jax
from vit_common.files import write_arrays

HELP = "beside timm, Hugging Face, onnxruntime and jax, where they are installed"
Array = np.ndarray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser, "vit_tiny_patch16_224 vit_small_patch16_224 vit_base_patch16_224", "8")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--compile", action="store_true", help="timm also under torch.compile (minutes)")
    parser.add_argument("--no-train", action="store_true", help="forward alone")


def run(args: argparse.Namespace) -> int:
    from torch_vit import fast_cpu

    with machine.threads(args.threads):
        result = common.start("peers", args)
        for preset in args.presets:
            for batch in args.batches:
                case = make_case(preset, batch)
                exact = [numpy_contestant(case), torch_contestant(case)]
                exact += available(case, args.only, args.threads, args.compile)
                # where the processor has no instructions for bfloat16 it takes 8 times as long: not what is compared
                low = [bfloat16(case)] if fast_cpu.multiplies_bf16() else []
                contestants = exact + low
                parity = common.assert_parity(case, exact, gradients=not args.no_train)
                parity |= common.assert_parity(case, low, gradients=False, precision="bf16")
                for way in ("forward",) if args.no_train else ("forward", "training step"):
                    calls = common.calls(contestants, case, "forward" if way == "forward" else "step")
                    times = interleave(calls, args.repeats, budget=args.budget)
                    flops = products.flops(case.config, batch, train=way != "forward")
                    row = results.row(
                        f"{case.name}, {way}",
                        times,
                        parity=parity,
                        flops=flops,
                        ratios=common.ratios(times, ("numpy", "torch", "torch bf16")),
                        efficiency=common.efficiency(times, contestants, result["ceilings_gflops"], flops),
                    )
                    result["rows"].append(row)
                    common.show(row)
    path = results.save(result)
    plots.ratios(result["rows"], path.with_suffix(".png"), "whole models, the same parameters", "torch")
    print(f"written to {path} and {path.with_suffix('.png')}")
    return 0


def available(case: Case, names: list[str], threads: int, compile_too: bool = False) -> list[Contestant]:
    """The peers that can be imported; says of the others why not."""
    found = []
    for name in names:
        try:
            found += PEERS[name](case, threads)
            if name == "timm" and compile_too:
                found += timm(case, threads, compiled=True)
        except (ImportError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            print(f"{name} does not take part: {reason}; pip install 'vit-written-twice[bench-peers]'")
    return found


def bfloat16(case: Case) -> Contestant:
    """Our own torch model with parameters and arithmetic in bfloat16: inference alone."""
    import torch

    from torch_vit import VisionTransformer, to_torch

    model = VisionTransformer(case.config, seed=None)
    model.load_state_dict(to_torch(case.params))
    model = model.bfloat16().eval()

    @torch.inference_mode()
    def forward(images: Array) -> Array:
        return model(torch.from_numpy(images).bfloat16()).float().numpy()

    return Contestant("torch bf16", "torch bf16", forward)


def of_module(
    name: str,
    model: Any,
    logits: Callable[[Any], Any] = lambda out: out,
    rename: Mapping[str, str] | None = None,
) -> Contestant:
    """A torch module of someone else's, trained as its users do. `rename`: its parameters' names -> ours."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), LR, fused=True)
    saved = {n: p.detach().clone() for n, p in model.named_parameters()}

    def loss_and_backward(images: Array, labels: Array) -> float:
        loss = torch.nn.functional.cross_entropy(
            logits(model(torch.from_numpy(images))), torch.from_numpy(labels)
        )
        loss.backward()
        return loss.item()

    @torch.inference_mode()
    def forward(images: Array) -> Array:
        return logits(model(torch.from_numpy(images))).numpy()

    def gradients(images: Array, labels: Array) -> dict[str, Array]:
        model.load_state_dict(saved, strict=False)
        model.zero_grad()
        loss_and_backward(images, labels)
        named = {n.removeprefix("_orig_mod."): p.grad.numpy() for n, p in model.named_parameters()}
        return named if rename is None else {ours: named[theirs] for theirs, ours in rename.items()}

    def step(images: Array, labels: Array) -> float:
        optimizer.zero_grad()
        loss = loss_and_backward(images, labels)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return Contestant(name, "torch F.linear", forward, gradients, step)


def timm(case: Case, threads: int, compiled: bool = False) -> list[Contestant]:
    import torch

    from torch_vit import to_torch

    _mend_torchvision()
    import timm as library

    config = case.config
    model = library.models.vision_transformer.VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        in_chans=config.in_channels,
        num_classes=config.num_classes,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
    )
    model.load_state_dict(to_torch(case.params))
    return [of_module("timm, compiled", torch.compile(model)) if compiled else of_module("timm", model)]


def huggingface(case: Case, threads: int) -> list[Contestant]:
    from vit_common.layouts import export_layout

    _mend_torchvision()
    import transformers

    config = case.config
    settings = transformers.ViTConfig(
        hidden_size=config.embed_dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.num_heads,
        intermediate_size=config.mlp_dim,
        layer_norm_eps=config.norm_eps,
        image_size=config.image_size[0],
        patch_size=config.patch_size[0],
        num_channels=config.in_channels,
        num_labels=config.num_classes,
    )
    with tempfile.TemporaryDirectory() as folder:  # a file in the hub's names: every version reads it
        settings.save_pretrained(folder)
        hub = export_layout(case.params, config, "huggingface_vit")
        write_arrays(Path(folder) / "model.safetensors", hub, {"format": "pt"})
        model = transformers.ViTForImageClassification.from_pretrained(folder)
    same = {
        "classifier.weight": "head.weight",
        "classifier.bias": "head.bias",
        "vit.embeddings.cls_token": "cls_token",
        "vit.embeddings.position_embeddings": "pos_embed",
        "vit.layernorm.weight": "norm.weight",
    }
    return [of_module("Hugging Face", model.train(), lambda out: out.logits, same)]


def onnxruntime(case: Case, threads: int) -> list[Contestant]:
    """Our own torch model, exported."""
    import onnxruntime as library
    import torch

    from torch_vit import VisionTransformer, to_torch

    model = VisionTransformer(case.config, seed=None)
    model.load_state_dict(to_torch(case.params))
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        stock_linear_layers(),  # an exporter knows F.linear
    ):
        warnings.simplefilter("ignore")  # of the exporter, on the checks of shapes
        file = str(Path(folder) / "model.onnx")
        torch.onnx.export(
            model.eval(), (torch.from_numpy(case.images),), file, input_names=["images"], dynamo=False
        )
        session = library.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return [Contestant("onnxruntime", "none", lambda images: session.run(None, {"images": images})[0])]


PEERS: dict[str, Callable[[Case, int], list[Contestant]]] = {
    "timm": timm,
    "huggingface": huggingface,
    "onnxruntime": onnxruntime,
    "jax": jax,
}
_KEPT: list[Any] = []


def _mend_torchvision() -> None:
    """A torchvision built for another torch lacks its operators; timm needs the import, not them."""
    import torch

    if _KEPT:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # lives as long as its operators are needed
