"""`gpu`: parity with the NumPy engine, then throughput, memory and efficiency, beside timm.

In this order, in less than ten minutes: (1) float32, TF32 and bfloat16 logits and gradients of ViT-Tiny, each
within its own bound; (2) the rate of one large product in each precision; (3) training steps and inference of
ViT-B/16 and ViT-L/16 in bfloat16 with float32 master weights: eager, compiled, and the whole step as one CUDA
graph, ours and timm's (where it is installed) in turns. Without a GPU it says so and ends with status 0.
`--device cpu --tiny` runs the same code small.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import machine, plots, products, results
from benchmarks.contestants import Case, make_case
from benchmarks.gpu_runners import Runner, autocast, build, ours, product_precision, timms
from benchmarks.measure import Timing, interleave, paired_ratio
from benchmarks.parity import Truth

HELP = "the GPU: parity, throughput, memory and efficiency, beside timm (says so when there is none)"
MODES = ("eager", "default", "max-autotune-no-cudagraphs", "graph")
Array = np.ndarray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and batches: a dry run")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["eager", "default", "graph"])
    parser.add_argument("--batch", type=int, default=0, help="images (default: 256 for ViT-B, 128 for ViT-L)")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--budget", type=float, default=540.0, help="seconds in all; what does not fit is left out, and said"
    )
    parser.add_argument("--label", default=None)
    parser.add_argument("--without-timm", action="store_true")


def run(args: argparse.Namespace) -> int:
    import torch

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "no GPU: torch.cuda.is_available() is False; nothing was measured. A dry run on the CPU: "
            "python -m benchmarks gpu --device cpu --tiny"
        )
        return 0
    begun, device = time.perf_counter(), torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    label = args.label if args.label is not None else ("tiny-" if args.tiny else "") + name.replace(" ", "_")
    result: dict[str, Any] = {
        "command": "gpu",
        "label": label,
        "precision": "bfloat16 products, float32 master weights",
        "device": name,
        "threads": torch.get_num_threads(),
        "machine": machine.describe(),
        "rows": [],
        "left_out": [],
        "cuda": torch.version.cuda,
        "parity": check_precisions(device),
    }
    print("parity, as shares of the bound:", result["parity"])
    result["ceilings_tflops"] = product_rates(device, 256 if args.tiny else 8192)
    print("products, TFLOP/s:", {k: round(v, 2) for k, v in result["ceilings_tflops"].items()})
    presets = {"mnist": 8} if args.tiny else {"vit_base_patch16_224": 256, "vit_large_patch16_224": 128}
    for preset, batch in presets.items():
        case = make_case(preset, args.batch or batch)
        truth = Truth(case.params, case.images[:1], case.labels[:1], case.config, gradients=False)
        for train in (True, False):
            runners = []
            for mode in args.modes:
                for maker in (ours, timms)[: 1 if args.without_timm else 2]:
                    if time.perf_counter() - begun > args.budget:
                        result["left_out"].append(
                            f"{preset}, {'train' if train else 'inference'}, {maker.__name__}, {mode}"
                        )
                        continue
                    runners += build(maker, case, device, mode, train, truth)
            if runners:
                result["rows"].append(
                    measure(case, runners, train, args, device, result["ceilings_tflops"]["bf16"])
                )
            runners.clear()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    result["seconds"] = time.perf_counter() - begun
    path = results.save(result)
    if any("torch, eager" in row["times"] for row in result["rows"]):
        plots.ratios(result["rows"], path.with_suffix(".png"), name, "torch, eager")
    print(*(f"left out for lack of time: {what}" for what in result["left_out"]), sep="\n")
    print(f"written to {path}, after {result['seconds']:.0f} s")
    return 0


# ---- (1) parity ----------------------------------------------------------------------------------


def check_precisions(device: Any) -> dict[str, float]:
    """Logits and gradients in each precision against the truth, NumPy first. Raises ParityError."""
    import torch

    from benchmarks.contestants import numpy_contestant
    from torch_vit import VisionTransformer, to_torch

    case = make_case("vit_tiny_patch16_224" if device.type == "cuda" else "mnist", 2)
    truth = Truth(case.params, case.images, case.labels, case.config)
    ours = numpy_contestant(case)
    shares = {
        "numpy float32": truth.check(
            "numpy", ours.forward(case.images), ours.gradients(case.images, case.labels)
        )
    }
    model = VisionTransformer(case.config, seed=None)
    model.load_state_dict(to_torch(case.params))
    model.to(device)
    images, labels = torch.from_numpy(case.images).to(device), torch.from_numpy(case.labels).to(device)
    for precision in ("float32", "tf32", "bf16"):
        with product_precision(precision), autocast(device, precision == "bf16"):
            model.zero_grad()
            logits = model(images)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        with product_precision(precision):
            loss.backward()
        grads = {name: p.grad.float().cpu().numpy() for name, p in model.named_parameters()}
        found = truth.check(f"torch {precision}", logits.detach().float().cpu().numpy(), grads, precision)
        shares[f"torch {precision}"] = found
    return shares


# ---- (2) ceilings --------------------------------------------------------------------------------


def product_rates(device: Any, size: int) -> dict[str, float]:
    """TFLOP/s of one square product in each precision, at its best."""
    import torch

    rates = {}
    for precision in ("float32", "tf32", "bf16"):
        a, b = (torch.randn(size, size, device=device) for _ in range(2))
        if precision == "bf16":
            a, b = a.bfloat16(), b.bfloat16()
        with product_precision(precision):
            call = {precision: partial(torch.matmul, a, b)}
            best = interleave(call, repeats=30, warmup=5, synchronise=synchronise(device))[precision].minimum
        rates[precision] = 2 * size**3 / best / 1e12
    return rates


def synchronise(device: Any) -> Callable[[], None]:
    import torch

    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


# ---- (3) whole models ----------------------------------------------------------------------


def measure(
    case: Case, runners: list[Runner], train: bool, args: argparse.Namespace, device: Any, peak: float
) -> dict[str, Any]:
    """Everyone in turns; ratios are to timm in the same mode, and to timm at its best."""
    calls = {r.name: r.call for r in runners}
    times: dict[str, Timing] = interleave(calls, args.repeats, synchronise=synchronise(device), budget=60.0)
    flops, batch = products.flops(case.config, len(case.images), train), len(case.images)
    row = results.row(
        f"{case.name}, {'training step' if train else 'inference'}",
        times,
        flops=flops,
        parity={r.name: r.share for r in runners},
        images_per_second={n: batch / t.median for n, t in times.items()},
        efficiency={n: flops / t.median / 1e12 / peak for n, t in times.items()},
        peak_mib={r.name: r.peak_bytes / 2**20 for r in runners},
        sync_free={r.name: r.sync_free for r in runners},
        ratios={},
    )
    theirs = [n for n in times if n.startswith("timm")]
    best = min(theirs, key=lambda n: times[n].median, default=None)
    for name in (n for n in times if n.startswith("torch")):
        for other in {name.replace("torch", "timm"), best} & set(theirs):
            row["ratios"][f"{name} / {other}"] = paired_ratio(times, name, other)
    print(f"\n{row['case']}")
    for name, t in times.items():
        print(
            f"  {name:36} {1e3 * t.median:9.2f} ms  {row['images_per_second'][name]:9.0f} images/s  "
            f"{100 * row['efficiency'][name]:5.1f}% of the product rate  {row['peak_mib'][name]:8.0f} MiB  "
            f"sync-free: {row['sync_free'][name]}"
        )
    return row
