r"""`stages`: every stage forward and backward at the sizes of a preset, both engines, roofline.

The stages of the plain model, or with `--variants` those that the variants are assembled from; not the encoders, which
are blocks in a row. Operations are those of the matrix products; a stage without any is judged by the bytes that it has
to move (`stage_case`).
"""

import argparse

import numpy as np

from benchmarks import common, machine, plots, results
from benchmarks.measure import interleave
from benchmarks.stage_case import StageCase
from benchmarks.stage_variants import variant_cases
from vit_common.config import ViTConfig
from vit_common.masks import keyed_rng
from vit_common.params import param_spec, sub

HELP = "every stage forward and backward, both engines, with a roofline picture"

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
        StageCase("drop_path", {"x": x}, {"mask": rng.random(batch) >= 0.1, "rate": 0.1}),
        StageCase("softmax", {"x": draw(batch, heads, tokens, tokens)}),
        StageCase("attention", qkv, flops=attention),
        StageCase("multi_head", {"x": x, **sub(block, "attn")}, options, attention + linears["attn"]),
        StageCase("mlp", {"x": x, **sub(block, "mlp")}, options, linears["mlp"]),
        StageCase("encoder_block", {"x": x, **block}, options, whole),
        StageCase("pool", {"x": x}, {"pool": "mean", "prefix": 1}),
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
    parser.add_argument("--variants", action="store_true", help="the variants' stages instead; a file of their own")
    parser.set_defaults(budget=6.0)


def run(args: argparse.Namespace) -> int:
    config = ViTConfig.preset(args.preset)
    with machine.threads(args.threads):
        result = common.start("stages", args)
        result |= {"preset": args.preset, "batch": args.batch, "bandwidth_gbs": machine.bandwidth()}
        if args.variants:
            result["label"] = f"variants-{result['label']}"
        peak = result["ceilings_gflops"]
        for case in (variant_cases if args.variants else make_cases)(config, args.batch):
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
