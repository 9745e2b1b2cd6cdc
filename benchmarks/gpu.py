"""`gpu`: parity with the NumPy engine, then throughput, memory and efficiency, beside timm.

In this order, in less than ten minutes: (1) float32, TF32 and bfloat16 logits and gradients of ViT-Tiny, each
within its own bound; (2) the rate of one large product in each precision, and of each attention kernel; (3)
training steps and inference of ViT-B/16 and ViT-L/16 in bfloat16 with float32 master weights, by the torch engine
with our model in it and with timm's (where it is installed), the same options for both, in turns; (4) recomputed
blocks, pictures from bytes, packed rows against padded ones. What is measured is written at once: a run broken off
loses only what it was at. Without a GPU it says so and ends with status 0.
`--device cpu --tiny` runs the same code small.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks import machine, products, results
from benchmarks.contestants import Case, make_case
from benchmarks.measure import Timing, interleave, paired_ratio
from benchmarks.parity import Truth

HELP = "the GPU: parity, throughput, memory and efficiency, beside timm (says so when there is none)"
MODES = ("eager", "default", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")
# What the project wants to reach on an H200: (part of a case's name, figure, at least or at most, value).
GOALS = (
    ("vit_base_patch16_224, batch 256, training step", "speedup", 1.15),
    ("vit_large_patch16_224, batch 128, training step", "speedup", 1.15),
    ("vit_large_patch16_224, batch 128, training step", "efficiency", 0.60),
    ("vit_large_patch16_224, batch 128, inference", "efficiency", 0.70),
    ("vit_base_patch16_224, batch 256, training step", "memory_saved", 0.0),
    ("vit_large_patch16_224, batch 128, training step", "memory_saved", 0.0),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and batches: a dry run")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["eager", "max-autotune"])
    parser.add_argument("--batch", type=int, default=0, help="images (default: 256 for ViT-B, 128 for ViT-L)")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--budget", type=float, default=560.0, help="seconds in all; what does not fit is left out, and said"
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
    from benchmarks import gpu_plots

    clock, device = Clock(args.budget), torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    label = args.label if args.label is not None else ("tiny-" if args.tiny else "") + name.replace(" ", "_")
    presets = {"mnist": 8} if args.tiny else {"vit_base_patch16_224": 256, "vit_large_patch16_224": 128}
    cases = {preset: make_case(preset, args.batch or batch) for preset, batch in presets.items()}
    result: dict[str, Any] = {
        "command": "gpu",
        "label": label,
        "precision": "bfloat16 products, float32 master weights",
        "device": name,
        "threads": torch.get_num_threads(),
        "machine": machine.describe(),
        "cuda": torch.version.cuda,
        "finished": False,
        "rows": [],
        "parity": check_precisions(device),
    }
    print("parity, as shares of the bound:", result["parity"])
    result["ceilings_tflops"] = product_rates(device, 256 if args.tiny else 8192)
    print("products, TFLOP/s:", {k: round(v, 2) for k, v in result["ceilings_tflops"].items()})
    for row in whole_models(cases, args, device, result["ceilings_tflops"]["bf16"], clock):
        result["rows"].append(row)
        results.save(result, finished=False)
    for name, value in extras(next(iter(cases.values())), args, device, clock):
        result[name] = value
        results.save(result, finished=False)
    result["summary"], result["goals"] = summary(result["rows"]), goals(summary(result["rows"]))
    result |= {"left_out": clock.left_out, "seconds": clock.elapsed(), "finished": True}
    path = results.save(result)
    if result["rows"]:
        gpu_plots.draw(result, path.with_suffix(".png"))
    print(*result["goals"], sep="\n")
    print(*(f"left out for lack of time: {what}" for what in clock.left_out), sep="\n")
    print(f"written to {path}, after {result['seconds']:.0f} s")
    return 0


class Clock:
    """Whether there is time for one more: as much as the longest of its kind so far, of any kind if it is the first."""

    def __init__(self, budget: float):
        self.begun, self.budget = time.perf_counter(), budget
        self.longest, self.left_out = dict[str, float](), list[str]()

    def elapsed(self) -> float:
        return time.perf_counter() - self.begun

    def spend(self, what: str, work: Callable[[], Any], kind: str = "eager") -> Any:
        """What the work returns; None, and its name kept, if there is no time for it."""
        start = self.elapsed()
        if start + self.longest.get(kind, max(self.longest.values(), default=0.0)) > self.budget:
            self.left_out.append(what)
            return None
        found = work()
        self.longest[kind] = max(self.longest.get(kind, 0.0), self.elapsed() - start)
        return found


# ---- (1) parity ----------------------------------------------------------------------------------


def check_precisions(device: Any) -> dict[str, float]:
    """Logits and gradients in each precision against the truth, NumPy first. Raises ParityError."""
    from benchmarks.contestants import numpy_contestant
    from torch_vit.engine import TorchEngine
    from torch_vit.options import TorchOptions
    from vit_common.recipe import Recipe

    case = make_case("vit_tiny_patch16_224" if device.type == "cuda" else "mnist", 2)
    truth = Truth(case.params, case.images, case.labels, case.config)
    ours = numpy_contestant(case)
    found = ours.forward(case.images), ours.gradients(case.images, case.labels)
    shares = {"numpy float32": truth.check("numpy", *found)}
    for precision in ("float32", "tf32", "bf16"):
        engine = TorchEngine(TorchOptions(device=str(device), precision=precision))
        engine.start(case.config, case.params, Recipe(clip_norm=0.0))
        logits = engine.predict(case.images)
        engine.train_step(case.images, case.labels, None, 0.0)
        grads = {name: p.grad.float().cpu().numpy() for name, p in engine.model.named_parameters()}
        shares[f"torch {precision}"] = truth.check(f"torch {precision}", logits, grads, precision)
    return shares


# ---- (2) ceilings --------------------------------------------------------------------------------


def product_rates(device: Any, size: int) -> dict[str, float]:
    """TFLOP/s of one square product in each precision, at its best."""
    import torch

    from torch_vit.numerics import product_precision

    rates = {}
    for precision in ("float32", "tf32", "bf16"):
        a, b = (torch.randn(size, size, device=device) for _ in range(2))
        if precision == "bf16":
            a, b = a.bfloat16(), b.bfloat16()
        with product_precision(precision):
            call = {precision: partial(torch.matmul, a, b)}
            best = interleave(call, repeats=30, warmup=5, synchronise=synchronise(device), pause=0.0)[precision].minimum
        rates[precision] = 2 * size**3 / best / 1e12
    return rates


def synchronise(device: Any) -> Callable[[], None]:
    import torch

    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None


# ---- (3) whole models ----------------------------------------------------------------------------


def whole_models(
    cases: dict[str, Case], args: argparse.Namespace, device: Any, peak: float, clock: Clock
) -> Iterator[dict[str, Any]]:
    """Training before inference, eager before compiled: what there is no time for is what matters least."""
    truths = {n: Truth(c.params, c.images[:1], c.labels[:1], c.config, gradients=False) for n, c in cases.items()}
    for mode in args.modes:
        for train in (True, False):
            for preset, case in cases.items():
                what = f"{preset}, {'training step' if train else 'inference'}, {mode}"
                row = clock.spend(what, partial(race, case, truths[preset], train, mode, args, device, peak), mode)
                if row:
                    yield row


def race(
    case: Case, truth: Truth, train: bool, mode: str, args: argparse.Namespace, device: Any, peak: float
) -> dict[str, Any] | None:
    """Our model and timm's in turns; nothing may be compiled while the clock runs."""
    import torch

    from benchmarks.gpu_runners import TimmEngine, build, options
    from torch_vit.engine import TorchEngine

    engines = (TorchEngine,) if args.without_timm else (TorchEngine, TimmEngine)
    built = [build(e, f"{e.name}, {mode}", case, options(device, mode), train, truth) for e in engines]
    runners = [r for r in built if r is not None]
    if not runners:
        return None
    with torch.compiler.set_stance("fail_on_recompile" if mode != "eager" else "default"):
        calls = {r.name: r.call for r in runners}
        wait = synchronise(device)
        times: dict[str, Timing] = interleave(calls, args.repeats, synchronise=wait, budget=20.0, pause=0.0)
    flops, batch = products.flops(case.config, len(case.images), train), len(case.images)
    row = results.row(
        f"{case.name}, {'training step' if train else 'inference'}",
        times,
        mode=mode,
        flops=flops,
        parity={r.name: r.share for r in runners},
        images_per_second={n: batch / t.median for n, t in times.items()},
        efficiency={n: flops / t.median / 1e12 / peak for n, t in times.items()},
        peak_mib={r.name: r.peak_bytes / 2**20 for r in runners},
        waits={r.name: r.waits for r in runners},
        ratios={},
    )
    if len(runners) == 2:
        row["ratios"] = {" / ".join(times): paired_ratio(times, *times)}
    print(f"\n{row['case']}")
    for name, t in times.items():
        waits = ", ".join(row["waits"][name]) or "nothing"
        print(
            f"  {name:36} {1e3 * t.median:9.2f} ms  {row['images_per_second'][name]:9.0f} images/s  "
            f"{100 * row['efficiency'][name]:5.1f}% of the product rate  {row['peak_mib'][name]:8.0f} MiB  "
            f"waits for {waits}"
        )
    del built, runners, calls
    if device.type == "cuda":
        torch.compiler.reset()  # CUDA graphs hold their memory
        torch.cuda.empty_cache()
    return row


# ---- (4) the other levers ------------------------------------------------------------------------


def extras(case: Case, args: argparse.Namespace, device: Any, clock: Clock) -> Iterator[tuple[str, Any]]:
    """Attention kernels, recomputed blocks, bytes and packed rows, each in milliseconds; and memory in MiB."""
    from benchmarks import gpu_extras

    def timed(make: Callable[[], tuple[gpu_extras.Calls, dict[str, float]]]) -> dict[str, Any]:
        calls, more = make()
        times = interleave(calls, args.repeats, synchronise=synchronise(device), budget=20.0, pause=0.0)
        return {"ms": gpu_extras.medians(times), **more}

    work: dict[str, Callable[[], Any]] = {
        "attention_kernels_ms": lambda: gpu_extras.attention_kernels(case, device, synchronise(device)),
        "levers": lambda: timed(lambda: gpu_extras.levers(case, device, "eager")),
        "packing": lambda: timed(lambda: gpu_extras.packed(case, device)),
    }
    for name, call in work.items():
        if (value := clock.spend(name, call)) is not None:
            print(f"{name}: {value}")
            yield name, value


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each case, over all modes: our best over timm's best, our efficiency, the memory of both at their best."""
    best: dict[str, dict[str, tuple[float, float, float]]] = {}
    for row in rows:
        for name, rate in row["images_per_second"].items():
            who = name.split(",")[0]
            mine = rate, row["efficiency"][name], row["peak_mib"][name]
            known = best.setdefault(row["case"], {})
            known[who] = max(known.get(who, mine), mine)
    found = {}
    for case, known in best.items():
        ours, theirs = known.get("torch"), known.get("timm")  # one of the two may have run out of memory
        found[case] = {"efficiency": ours[1]} if ours else {}
        if ours and theirs:
            (rate, _, memory), (their_rate, _, their_memory) = ours, theirs
            found[case] |= {"speedup": rate / their_rate, "memory_saved": 1 - memory / max(their_memory, 1e-9)}
    return found


def goals(found: dict[str, dict[str, float]]) -> list[str]:
    """One line a goal whose case was measured."""
    lines = []
    for case, figure, least in GOALS:
        if figure in found.get(case, {}):
            value = found[case][figure]
            verdict = "reached" if value >= least else "NOT reached"
            lines.append(f"goal {verdict}: {case}, {figure} {value:.3f}, wanted {least:.2f}")
    return lines
