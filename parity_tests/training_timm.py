"""timm in training mode, made to drop what our masks drop: dropout, stochastic depth and patch dropout."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

from parity_tests.options import Array, Chooser, Refused, gradient, gradients, relative, run_both
from parity_tests.options_timm import draw
from parity_tests.peers import fill, float64
from vit_common import ViTConfig, make_masks

RATES = {"pos_drop_rate": (0.1,), "proj_drop_rate": (0.15,), "attn_drop_rate": (0.2,), "drop_path_rate": (0.3,)}


@contextlib.contextmanager
def dropping(timm: Any, masks: dict[str, Array]) -> Iterator[None]:
    """Within it timm takes the masks, in the order of the forward pass, where it would draw its own.

    Raises:
        AssertionError: it drops at another place, or not at one of ours.
    """
    import torch

    left = {site: torch.from_numpy(mask) for site, mask in masks.items() if site != "patch_drop"}

    def taken(shape: tuple[int, ...]) -> Any:
        site = next(iter(left))
        mask = left.pop(site)
        assert tuple(mask.shape) == tuple(shape), f"timm drops {tuple(shape)} where {site} is {tuple(mask.shape)}"
        return mask

    def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        return x if not p or not training else x * taken(x.shape) / (1 - p)

    def drop_path(x: Any, drop_prob: float = 0.0, training: bool = False, scale_by_keep: bool = True) -> Any:
        if not drop_prob or not training:
            return x
        return x * taken(x.shape[:1]).reshape(-1, 1, 1) / (1 - drop_prob)

    def patch_dropout(x: Any, prob: float, num_prefix_tokens: int, ordered: bool, training: bool) -> Any:
        if not training or not prob:
            return x, None
        keep = torch.from_numpy(np.nonzero(masks["patch_drop"])[1].reshape(len(x), -1))
        patches = x[:, num_prefix_tokens:].gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[2]))
        return torch.cat((x[:, :num_prefix_tokens], patches), dim=1), keep

    with (
        mock.patch.object(torch.nn.functional, "dropout", dropout),
        mock.patch.object(timm.layers.drop, "drop_path", drop_path),
        mock.patch.object(timm.layers.patch_dropout, "patch_dropout_forward", patch_dropout),
    ):
        yield
    assert not left, f"timm never dropped at {', '.join(left)}"


def training_error(timm: Any, family: str, seed: int) -> float:
    """As `options_error`, of logits and gradients of a training pass.

    Raises:
        Refused: timm does not take the arguments of this draw.
    """
    import torch

    case, choose = draw(family, seed), Chooser(seed, 99)
    args = {**case.arguments, "drop_rate": 0.0, **choose.some(0.6, **RATES)}
    if case.name.endswith("sapiens2"):  # no random zoom of the rotary coordinates, which is augmentation
        args["rope_rescale_coords"] = 1.0
    if family in ("vit", "eva"):
        args |= choose.some(0.5, patch_drop_rate=(0.4,))
    images = choose.rng.normal(size=(2, args.get("in_chans", 3), *case.fed))
    try:
        timm.layers.set_fused_attn(False)  # the fused kernel draws its dropout itself
        with float64():
            model = timm.create_model(case.name, pretrained=False, **args).double().eval()
        fill(model, seed)
        with torch.no_grad():
            model(torch.from_numpy(images))
    except Exception as error:
        raise Refused(f"{type(error).__name__}: {str(error)[:60]}") from error
    finally:
        timm.layers.set_fused_attn(True)
    config = ViTConfig.from_timm(case.name, **args)
    masks = make_masks(config.for_images(images.shape), len(images), seed, 0)
    x = torch.from_numpy(images.copy()).requires_grad_()
    with dropping(timm, masks):
        out = model.train()(x)
    dlogits = choose.rng.normal(size=tuple(out.shape))
    out.backward(torch.from_numpy(dlogits))
    params, truth = {n: p.detach().numpy() for n, p in model.named_parameters()}, gradients(model)
    size, worst = max(float(abs(g).max()) for g in truth.values()), 0.0
    for got in run_both(config, params, images, dlogits, masks, training=True):
        worst = max(worst, relative(got["logits"], out.detach().numpy()), relative(got["gx"], gradient(x)))
        worst = max(worst, *(relative(got["grads"][name], g, 1e-4 * size) for name, g in truth.items()))
    return worst
