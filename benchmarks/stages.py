r"""`stages`: every stage forward and backward at the sizes of a preset, both engines, roofline.

Bytes moved are the compulsory ones: each input, parameter and output once, cache and gradients included in
the backward. Operations are those of the matrix products; a stage without any is judged by its bytes alone.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import numpy_vit
from benchmarks import common, machine, plots, results
from benchmarks.measure import interleave
from benchmarks.parity import within
from parity_tests.tolerances import LAMBDA, Probable
from vit_common.config import ViTConfig
from vit_common.masks import keyed_rng
from vit_common.params import param_spec, sub

HELP = "every stage forward and backward, both engines, with a roofline picture"
Array = np.ndarray


class StageCase:
    """One stage at one size: its arrays (float32), options, operations; `x` first."""

    def __init__(
        self, name: str, arrays: dict[str, Array], options: dict[str, Any] | None = None, flops: int = 0
    ):
        from parity_tests.harness import STAGES

        self.stage, self.name, self.arrays, self.options, self.flops = (
            STAGES[name],
            name,
            arrays,
            options or {},
            flops,
        )
        y, self.cache = self.stage.forward(numpy_vit, arrays, self.options)
        dy = keyed_rng(1, name).standard_normal(np.shape(y), np.float32)  # random, never ones
        self.dy = float(dy) if name == "cross_entropy" else dy
        self.y = np.asarray(y)

    @property
    def bytes_forward(self) -> int:
        return sum(a.nbytes for a in self.arrays.values()) + self.y.nbytes

    @property
    def bytes_backward(self) -> int:
        return 2 * sum(a.nbytes for a in self.arrays.values()) + self.y.nbytes

    def numpy_calls(self) -> tuple[Callable, Callable]:
        return (
            lambda: self.stage.forward(numpy_vit, self.arrays, self.options)[0],
            lambda: self.stage.backward(numpy_vit, self.dy, self.cache, self.arrays),
        )

    def torch_calls(self) -> tuple[Callable, Callable]:
        """The forward without a graph, and the backward alone of a graph that is kept."""
        import torch

        leaves = {n: torch.from_numpy(a).requires_grad_() for n, a in self.arrays.items()}
        function = _torch_function(self)
        y = function(leaves)
        dy = torch.as_tensor(self.dy, dtype=y.dtype).reshape(y.shape)

        def forward() -> Any:
            with torch.no_grad():
                return function(leaves)

        def backward() -> dict[str, Any]:
            inputs = list(leaves.values())
            grads = torch.autograd.grad(y, inputs, dy, retain_graph=True, allow_unused=True)
            return {
                n: torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(leaves, grads, strict=True)
            }

        return forward, backward

    def assert_parity(self) -> dict[str, float]:
        """Both engines against the derived bound; see `benchmarks.parity`."""
        inputs = {n: Probable(a, 0.0, np.float32) for n, a in self.arrays.items()}
        with np.errstate(over="ignore", invalid="ignore"):
            y, pullback = self.stage.bounded(inputs, self.options)
            wanted = pullback(Probable(self.dy, 0.0, np.float32))
        if "x" in wanted and "x" not in self.arrays:
            wanted[next(iter(self.arrays))] = wanted.pop("x")
        shares = {}
        for engine, (forward, backward) in {"numpy": self.numpy_calls(), "torch": self.torch_calls()}.items():
            worst = within(f"{engine}: {self.name}", forward(), y.v, LAMBDA * y.e)
            for name, g in backward().items():
                bound = np.broadcast_to(LAMBDA * wanted[name].e, np.shape(wanted[name].v))
                worst = max(
                    worst, within(f"{engine}: gradient of {name} of {self.name}", g, wanted[name].v, bound)
                )
            shares[engine] = worst
        return shares


def _torch_function(case: StageCase) -> Callable[[dict[str, Any]], Any]:
    """The stage as the torch model runs it: the modules, and the fused attention."""
    import torch

    import torch_vit

    modules = {
        "multi_head": torch_vit.MultiHead,
        "mlp": torch_vit.Mlp,
        "encoder_block": torch_vit.EncoderBlock,
    }
    if case.name in modules:
        with torch.device("meta"):
            module = modules[case.name](case.options["config"])
        return lambda leaves: torch.func.functional_call(
            module, {n: t for n, t in leaves.items() if n != "x"}, (leaves["x"],)
        )
    if case.name == "attention":
        return lambda leaves: torch_vit.fused_attention_forward(*leaves.values())
    return lambda leaves: case.stage.torch(leaves, case.options)


def make_cases(config: ViTConfig, batch: int) -> list[StageCase]:
    """The stages at the sizes they have in this model."""
    rng = keyed_rng(0, "stages")
    draw = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    tokens, width, hidden, heads = config.num_tokens, config.embed_dim, config.mlp_dim, config.num_heads
    patches, classes = config.num_patches, config.num_classes
    spec = {
        name: draw(*s.shape) / np.float32(np.prod(s.shape[1:]) ** 0.5)
        for name, s in param_spec(config).items()
    }
    x, block, rows = draw(batch, tokens, width), sub(spec, "blocks.0"), batch * tokens
    product = 2 * rows * width
    attention, linears = 4 * rows * tokens * width, {"attn": 4 * product * width, "mlp": 2 * product * hidden}
    norm = {"x": x, "weight": draw(width), "bias": draw(width)}
    qkv = {n: draw(batch, heads, tokens, config.head_dim) for n in "qkv"}
    fc1 = {"x": x, "weight": block["mlp.fc1.weight"], "bias": block["mlp.fc1.bias"]}
    images = draw(batch, config.in_channels, *config.image_size)
    patch = {
        "x": images,
        "weight": spec["patch_embed.proj.weight"],
        "bias": spec["patch_embed.proj.bias"],
    }
    options = {"config": config}
    whole = attention + sum(linears.values())
    return [
        StageCase("linear", fc1, flops=product * hidden),
        StageCase("patch_embed", patch, flops=2 * batch * patches * config.patch_dim * width),
        StageCase("class_token", {"x": draw(batch, patches, width), "cls_token": draw(1, 1, width)}),
        StageCase("pos_embed", {"x": x, "pos_embed": draw(1, tokens, width)}),
        StageCase("layer_norm", norm, {"eps": config.norm_eps}),
        StageCase("gelu", {"x": draw(batch, tokens, hidden)}),
        StageCase("dropout", {"x": x}, {"mask": rng.random(x.shape) >= 0.1, "rate": 0.1}),
        StageCase("softmax", {"x": draw(batch, heads, tokens, tokens)}),
        StageCase("attention", qkv, flops=attention),
        StageCase("multi_head", {"x": x, **sub(block, "attn")}, options, attention + linears["attn"]),
        StageCase("mlp", {"x": x, **sub(block, "mlp")}, options, linears["mlp"]),
        StageCase("encoder_block", {"x": x, **block}, options, whole),
        StageCase("head", {"x": x, **sub(spec, "head")}, options, 2 * batch * width * classes),
        StageCase(
            "cross_entropy",
            {"x": draw(batch, classes)},
            {"labels": rng.integers(0, classes, batch), "label_smoothing": 0.1},
        ),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_options(parser)
    parser.add_argument("--preset", default="vit_small_patch16_224", help="the model whose sizes are taken")
    parser.add_argument("--batch", type=int, default=8)
    parser.set_defaults(budget=6.0)


def run(args: argparse.Namespace) -> int:
    config = ViTConfig.preset(args.preset)
    with machine.threads(args.threads):
        result = common.start("stages", args)
        result |= {"preset": args.preset, "batch": args.batch, "bandwidth_gbs": machine.bandwidth()}
        peak = result["ceilings_gflops"]
        for case in make_cases(config, args.batch):
            parity = case.assert_parity()
            for i, way in enumerate(("forward", "backward")):
                calls = {"numpy": case.numpy_calls()[i], "torch": case.torch_calls()[i]}
                times = interleave(calls, args.repeats, budget=args.budget / 2)
                moved, flops = (
                    (case.bytes_forward, case.flops) if i == 0 else (case.bytes_backward, 2 * case.flops)
                )
                limits = {"numpy": peak["numpy"], "torch": peak.get("torch oneDNN", peak["torch F.linear"])}
                least = {
                    n: max(flops / limits[n] / 1e9, moved / result["bandwidth_gbs"] / 1e9) for n in times
                }
                row = results.row(
                    f"{case.name}, {way}",
                    times,
                    parity=parity,
                    flops=flops,
                    bytes=moved,
                    ratios=common.ratios(times),
                    efficiency={n: least[n] / t.minimum for n, t in times.items()},
                )
                result["rows"].append(row)
                common.show(row)
    path = results.save(result)
    plots.roofline(result, path.with_suffix(".png"))
    print(f"written to {path} and {path.with_suffix('.png')}")
    return 0
