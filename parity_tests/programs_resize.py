"""Each program's own function for taking its weights to another size, and the rule here that it goes by."""

import importlib
from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from parity_tests.peers import import_timm, import_transformers
from parity_tests.programs import blank, source
from parity_tests.programs_jax import big_vision_file, exact
from parity_tests.programs_torch import dino_file, dinov2_file

Grid = tuple[int, int]
SQUARES = [((a, a), (b, b)) for a in (1, 2, 3, 4, 7, 14) for b in (1, 2, 3, 5, 7, 8, 14, 16)]
OBLONG = ((4, 4), (3, 5), (1, 6), (7, 2)), ((2, 3), (6, 5), (5, 2), (1, 4))
GRIDS = [*SQUARES, *((old, new) for old in OBLONG[0] for new in OBLONG[1])]
# scipy drops the last row of these: rounding puts it past the border
ZOOMS = [*SQUARES, ((28, 28), (14, 14)), ((16, 16), (30, 30)), ((8, 8), (26, 26))]
TALL = [((4, 4), (6, 5)), ((4, 4), (7, 2)), ((3, 3), (2, 5))]


class Resize(NamedTuple):
    """The program's function of (positions of one class token and of the old grid, old, new), and where it differs."""

    rule: str
    prefix: int
    function: Callable[[Any, Grid, Grid], Any]
    grids: list[tuple[Grid, Grid]]


def _timm(mode: str, antialias: bool) -> Callable:
    def resize(positions: Any, old: Grid, new: Grid) -> Any:
        import_timm()
        resample = importlib.import_module("timm.layers.pos_embed").resample_abs_pos_embed
        return resample(positions, list(new), list(old), 1, interpolation=mode, antialias=antialias)

    return resize


def _torchvision(positions: Any, old: Grid, new: Grid) -> Any:
    import_timm()
    module = importlib.import_module("torchvision.models.vision_transformer")
    state = OrderedDict({"encoder.pos_embedding": positions})
    return module.interpolate_embeddings(8 * new[0], 8, state)["encoder.pos_embedding"]


def _huggingface(library: str, name: str) -> Callable:
    def resize(positions: Any, old: Grid, new: Grid) -> Any:
        import_transformers()
        module = importlib.import_module(f"transformers.models.{library}.modeling_{library}")
        model = blank(position_embeddings=positions, patch_size=8, patch_embeddings=blank(patch_size=(8, 8)))
        tokens = positions.new_zeros((1, 1 + new[0] * new[1], positions.shape[-1]))
        return getattr(module, name).interpolate_pos_encoding(model, tokens, 8 * new[0], 8 * new[1])

    return resize


def _open_clip(positions: Any, old: Grid, new: Grid) -> Any:
    import_timm()
    module = importlib.import_module("open_clip.model")
    state = {"visual.positional_embedding": positions[0]}
    module.resize_pos_embed(state, blank(visual=blank(grid_size=new)))
    return state["visual.positional_embedding"][None]


def _mae(positions: Any, old: Grid, new: Grid) -> Any:
    module = source("mae", "util/pos_embed.py", {"print(": "str("})
    count = new[0] * new[1]
    model = blank(patch_embed=blank(num_patches=count), pos_embed=positions.new_zeros((1, 1 + count, 1)))
    state = {"pos_embed": positions}
    module.interpolate_pos_embed(model, state)
    return state["pos_embed"]


def _meta(load: Callable[[], ModuleType], name: str, **settings: Any) -> Callable:
    """dino and dinov2, whose models resize as they run."""

    def resize(positions: Any, old: Grid, new: Grid) -> Any:
        patches = blank(patch_size=8)
        model = blank(pos_embed=positions, patch_embed=patches, patch_size=8, **settings)
        tokens = positions.new_zeros((1, 1 + new[0] * new[1], positions.shape[-1]))
        return getattr(load(), name).interpolate_pos_encoding(model, tokens, 8 * new[0], 8 * new[1])

    return resize


def _google(positions: Any, old: Grid, new: Grid) -> Any:
    exact()
    stand_ins = {"pandas": blank(), "tensorflow__io": blank(gfile=None), "tqdm": blank()}
    module = source("vision_transformer", "vit_jax/checkpoint.py", {"gfile.GFile(": "open("}, **stand_ins)
    return module.interpolate_posembed(positions, 1 + new[0] * new[1], True)


def _big_vision(positions: Any, old: Grid, new: Grid) -> Any:
    return big_vision_file().resample_posemb(positions, np.zeros((1, new[0] * new[1], positions.shape[-1])))


def _flexivit(positions: Any, old: Grid, new: Grid) -> Any:
    """What the model does with its positions: one call of JAX."""
    exact()
    import jax

    grid = positions.reshape(1, *old, -1)
    return jax.image.resize(grid, (1, *new, grid.shape[-1]), "linear").reshape(1, new[0] * new[1], -1)


DINO, DINOV2 = (dino_file, "VisionTransformer"), (dinov2_file, "DinoVisionTransformer")
POSITIONS: dict[str, Resize] = {
    "timm, bicubic": Resize("timm_bicubic", 1, _timm("bicubic", True), GRIDS),
    "timm, bicubic, no antialias": Resize("timm_bicubic_no_antialias", 1, _timm("bicubic", False), GRIDS),
    "timm, bilinear": Resize("timm_bilinear", 1, _timm("bilinear", True), GRIDS),
    "timm, bilinear, no antialias": Resize("timm_bilinear_no_antialias", 1, _timm("bilinear", False), GRIDS),
    "torchvision": Resize("torchvision_bicubic", 1, _torchvision, SQUARES),
    "transformers, ViT": Resize("huggingface_bicubic", 1, _huggingface("vit", "ViTEmbeddings"), [*SQUARES, *TALL]),
    "transformers, DINOv2": Resize("huggingface_bicubic", 1, _huggingface("dinov2", "Dinov2Embeddings"),
                                   [*SQUARES, *TALL]),
    "open_clip": Resize("open_clip_bicubic", 1, _open_clip, [*SQUARES, *TALL]),
    "mae": Resize("mae_bicubic", 1, _mae, SQUARES),
    "dino": Resize("dino_bicubic", 1, _meta(*DINO), [*SQUARES, *TALL]),
    "dinov2": Resize("dinov2_bicubic", 1, _meta(*DINOV2, interpolate_offset=0.1, interpolate_antialias=False),
                     [*SQUARES, *TALL]),
    "dinov2, antialias": Resize("dinov2_bicubic_antialias", 1,
                                _meta(*DINOV2, interpolate_offset=0.1, interpolate_antialias=True),
                                [*SQUARES, *TALL]),
    "dinov2, with registers": Resize("dinov2_registers_bicubic", 1,
                                     _meta(*DINOV2, interpolate_offset=0.0, interpolate_antialias=True),
                                     [*SQUARES, *TALL]),
    "vision_transformer": Resize("google_zoom", 1, _google, ZOOMS),
    "big_vision": Resize("google_zoom", 0, _big_vision, ZOOMS),
    "FlexiViT": Resize("flexivit_bilinear", 0, _flexivit, GRIDS),
}  # fmt: skip


def errors(case: Resize) -> dict[str, float]:
    """Largest error of each engine over the grids, relative to the largest position; and of the adjoint."""
    import torch

    import numpy_vit
    import torch_vit

    worst = {"numpy": 0.0, "torch": 0.0, "adjoint": 0.0}
    for old, new in case.grids:
        rng = np.random.default_rng(0)
        positions = rng.normal(size=(1, case.prefix + old[0] * old[1], 4))
        upstream = rng.normal(size=(1, case.prefix + new[0] * new[1], 4))
        given = torch.from_numpy(positions.copy()).requires_grad_()
        slow = case.rule.startswith(("google", "flexivit"))  # no autograd there: the adjoint by its inner products
        theirs = case.function(positions if slow else given, old, new)
        ours, cache = numpy_vit.pos_resize_forward(positions, old, new, case.rule, case.prefix)
        by_torch = torch_vit.pos_resize_forward(given, old, new, case.rule, case.prefix)
        back = numpy_vit.pos_resize_backward(upstream, cache)
        if slow:
            truth = np.asarray(theirs)
            adjoint = (upstream * truth).sum() - (back * positions).sum()
        else:
            truth = theirs.detach().numpy()
            adjoint = back - torch.autograd.grad((theirs * torch.from_numpy(upstream)).sum(), given)[0].numpy()
        scale = np.abs(positions).max()
        parts = {"numpy": ours - truth, "torch": by_torch.detach().numpy() - truth, "adjoint": adjoint}
        for name, part in parts.items():
            worst[name] = max(worst[name], float(np.abs(part).max() / scale))
    return worst


PATCHES = {"timm, bicubic": "timm_bicubic", "timm, bicubic, no antialias": "timm_bicubic_no_antialias",
           "timm, bilinear": "timm_bilinear", "timm, bilinear, no antialias": "timm_bilinear_no_antialias"}  # fmt: skip
# Not to a single column: torch 2.13 resizes such a picture wrongly with antialias, and timm with it.
OLD, NEW = ((8, 8), (4, 6), (1, 5), (16, 16), (7, 7)), ((4, 4), (6, 10), (3, 2), (16, 12))
SIZES = [(old, new) for old in OLD for new in NEW]


def patch_errors(name: str) -> dict[str, float]:
    """The same for a patch projection (FlexiViT's pseudoinverse, in timm's words)."""
    import torch

    import numpy_vit
    import torch_vit

    import_timm()
    resample = importlib.import_module("timm.layers.patch_embed").resample_patch_embed
    mode, antialias = name.split(", ")[1], "no antialias" not in name
    worst = {"numpy": 0.0, "torch": 0.0, "adjoint": 0.0}
    for old, new in SIZES:
        rng = np.random.default_rng(0)
        weight, upstream = rng.normal(size=(3, 2, *old)), rng.normal(size=(3, 2, *new))
        given = torch.from_numpy(weight.copy()).requires_grad_()
        theirs = resample(given, list(new), interpolation=mode, antialias=antialias)
        slope = torch.autograd.grad((theirs * torch.from_numpy(upstream)).sum(), given)[0].numpy()
        ours, cache = numpy_vit.patch_resize_forward(weight, new, PATCHES[name])
        by_torch = torch_vit.patch_resize_forward(given, new, PATCHES[name])
        back = numpy_vit.patch_resize_backward(upstream, cache)
        truth = theirs.detach().numpy()
        for engine, mine, true in (("numpy", ours, truth), ("torch", by_torch.detach().numpy(), truth),
                                   ("adjoint", back, slope)):  # fmt: skip
            worst[engine] = max(worst[engine], float(np.abs(mine - true).max() / np.abs(true).max()))
    return worst
