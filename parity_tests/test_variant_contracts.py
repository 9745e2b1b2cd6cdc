"""What both engines promise of the variant stages beside the numbers: what is refused, and by which error."""

import numpy as np
import pytest
import torch

import numpy_vit
import torch_vit
from numpy_vit.attention_mask import attention_mask_bias as numpy_mask_bias
from numpy_vit.patch_dropout import kept_places as numpy_kept_places
from numpy_vit.prefix_tokens import prefix_tokens_forward as numpy_prefix_tokens
from numpy_vit.resize_matrix import resize_matrix as numpy_resize_matrix
from parity_tests.strategies import normal
from parity_tests.test_contracts import both_engines
from torch_vit.attention_mask import attention_mask_bias as torch_mask_bias
from torch_vit.patch_dropout import kept_places as torch_kept_places
from torch_vit.prefix_tokens import prefix_tokens_forward as torch_prefix_tokens
from torch_vit.resize_matrix import resize_matrix as torch_resize_matrix
from vit_common import ConfigError, DtypeError, RangeError, ShapeError, ViTConfig

SEEN = np.array([[True, False, True], [False, True, True]])  # (B, N): two of three patches in each row
CONFIG = ViTConfig(image_size=(4, 6), patch_size=2, in_channels=2, embed_dim=4, num_heads=1, depth=1)


def arrays(shapes, wrap):
    """Numbers for a shape; what is no shape stays."""
    return [wrap(np.asarray(normal(i, s))) if isinstance(s, list) else s for i, s in enumerate(shapes)]


# Stage, its arguments (lists are shapes), the error. Each would pass through, or end in some error of the library's.
REFUSED = [
    ("rms_norm", ([2, 3], [1]), ShapeError), ("rms_norm", ([2, 3], [1, 3]), ShapeError),
    ("layer_scale", ([2, 3], [1]), ShapeError), ("layer_scale", ([2, 3], [2, 3]), ShapeError),
    ("rope", ([2, 3, 4], [1, 3, 2], [1, 3, 2]), ShapeError),
    ("rope", ([2, 3, 5, 4], [1, 1, 1, 2], [1, 1, 1, 2]), ShapeError),
    ("rope", ([2, 3, 5, 4], [2, 3, 5, 2], [1, 3, 5, 2]), ShapeError),
    ("rope", ([2, 3, 5, 4], [3, 1, 5, 2], [3, 1, 5, 2]), ShapeError),
    ("rope", ([2, 3, 5, 5], [1, 1, 5, 2], [1, 1, 5, 2]), (ValueError, RuntimeError)),  # no pairs
    ("rope_mixed", ([1, 2, 3, 4], [5, 2]), ShapeError), ("rope_mixed", ([2, 2, 3, 4], [5, 3]), ShapeError),
    ("rel_pos_bias", ([19, 3], (2, 3)), ShapeError), ("rel_pos_bias", ([17, 3], (2, 3)), ShapeError),
    ("biased_attention", ([2, 3, 4], [2, 5, 4], [2, 5, 4], None), ShapeError),
    ("biased_attention", ([2, 2, 3, 4], [1, 2, 5, 4], [2, 2, 5, 4], None), ShapeError),
    ("biased_attention", ([2, 2, 3, 4], [2, 2, 5, 4], [1, 2, 5, 4], None), ShapeError),
    ("biased_attention", ([1, 1, 3, 4], [1, 1, 5, 4], [1, 1, 5, 4], [2, 1, 3, 5]), ShapeError),
    ("biased_attention", ([1, 1, 3, 4], [1, 1, 5, 4], [1, 1, 5, 4], [1, 1, 3, 4]), ShapeError),
    ("biased_attention", ([1, 1, 3, 4], [1, 1, 5, 4], [1, 1, 5, 4], [1, 1, 2, 5]), ShapeError),
    ("table_resize", ([17, 3], (2, 3), (3, 3), "timm_geometric"), ShapeError),
    ("table_resize", ([18, 3, 1], (2, 3), (3, 3), "timm_geometric"), ShapeError),
    ("grouped_query", ([2, 3, 4], 3), ShapeError), ("grouped_query", ([1, 2, 3, 4], 3), ConfigError),
    ("activation", ([2, 3], "tanh"), ConfigError),
    ("patch_resize", ([2, 4, 3], (2, 2)), ShapeError), ("patch_resize", ([3, 2, 4, 3], (2, 2), "best"), ConfigError),
    ("pos_resize", ([2, 6, 3], (2, 3), (3, 3), "timm_bicubic"), ShapeError),
    ("pos_resize", ([1, 12, 3], (2, 3), (3, 3), "timm_bicubic", 2), ShapeError),
    ("pos_resize", ([1, 6, 3], (2, 3), (3, 3), "best"), ConfigError),
    ("token_pool", ([4, 3], "mean", 1), ShapeError), ("token_pool", ([2, 4, 3], "min", 1), ConfigError),
    ("token_pool", ([2, 1, 3], "mean", 1), ConfigError), ("token_pool", ([2, 0, 3], "mean", 1, True), ConfigError),
]  # fmt: skip


@both_engines
@pytest.mark.parametrize("case", REFUSED, ids=[f"{c[0]}-{i}" for i, c in enumerate(REFUSED)])
def test_what_is_refused(case, engine, wrap):
    stage, shapes, error = case
    with pytest.raises(error):
        getattr(engine, f"{stage}_forward")(*arrays(shapes, wrap))


# The stages that take a mask of patches: stage, arguments before the mask, mask, arguments after it, the error.
MASKED = [
    ("patch_dropout", ([2, 3],), SEEN, (), ShapeError),
    ("patch_dropout", ([2, 4, 3],), SEEN, (), ShapeError), ("patch_dropout", ([2, 3, 3],), SEEN, (1,), ShapeError),
    ("patch_dropout", ([2, 3, 3],), SEEN.astype(np.int64), (), DtypeError),
    ("patch_dropout", ([2, 3, 3],), SEEN[:1] | ~SEEN, (), RangeError),
    ("patch_dropout", ([2, 3, 3],), SEEN & ~SEEN, (), RangeError),
    ("mask_tokens", ([2, 4, 3], [1, 1, 3]), SEEN, (1,), ShapeError),
    ("mask_tokens", ([1, 3, 3], [1, 1, 3]), SEEN, (1,), ShapeError),
    ("mask_tokens", ([2, 3, 3], [1, 1, 1]), SEEN, (1,), ShapeError),
    ("mask_tokens", ([2, 3, 3], [1, 3]), SEEN, (1,), ShapeError),
    ("mae_loss", ([2, 3, 8], [2, 4, 6]), SEEN, ((2, 2),), ShapeError),
    ("mae_loss", ([2, 1, 8], [2, 2, 2, 6]), SEEN, ((2, 2),), ShapeError),
    ("mae_loss", ([2, 3, 8], [2, 2, 2, 6]), SEEN[:, :1], ((2, 2),), ShapeError),
    ("mae_loss", ([2, 3, 8], [2, 2, 2, 6]), SEEN | ~SEEN, ((2, 2),), RangeError),
]  # fmt: skip


@both_engines
@pytest.mark.parametrize("case", MASKED, ids=[f"{c[0]}-{i}" for i, c in enumerate(MASKED)])
def test_masks_that_are_refused(case, engine, wrap):
    stage, before, mask, after, error = case
    with pytest.raises(error):
        getattr(engine, f"{stage}_forward")(*arrays(before, wrap), wrap(mask), *after)


def test_masks_of_two_axes_that_keep_one_at_least():
    for places, wrap in ((numpy_kept_places, np.asarray), (torch_kept_places, torch.from_numpy)):
        assert places(wrap(SEEN & SEEN[::-1])).tolist() == [[2], [2]]
        with pytest.raises(ShapeError, match="patch_drop mask"):
            places(wrap(SEEN[:, :, None]))


@pytest.mark.parametrize(
    ("bias", "wrap", "dtype"),
    [(numpy_mask_bias, np.asarray, np.dtype("float64")), (torch_mask_bias, torch.from_numpy, torch.float64)],
    ids=["numpy", "torch"],
)
def test_padding_that_is_refused(bias, wrap, dtype):
    with pytest.raises(ShapeError, match="padding mask"):
        bias(None, wrap(SEEN[0]), 1, dtype)
    with pytest.raises(DtypeError, match="padding mask has dtype"):
        bias(None, wrap(SEEN.astype(np.int64)), 1, dtype)
    with pytest.raises(RangeError, match="may read no key"):
        bias(None, wrap(SEEN & ~SEEN), 0, dtype)
    mask = np.ones((3, 3), bool)
    mask[1] = False
    for one in (mask, np.where(mask, 0.5, -np.inf)):  # one query of three
        with pytest.raises(RangeError, match="may read no key"):
            bias(wrap(one), None, 0, dtype)
    assert bias(None, wrap(SEEN & ~SEEN), 1, dtype).shape == (2, 1, 1, 4)  # the prefix token is still there
    assert bias(None, None, 1, dtype) is None


@pytest.mark.parametrize(
    ("prefix_tokens", "wrap"), [(numpy_prefix_tokens, np.asarray), (torch_prefix_tokens, torch.from_numpy)],
    ids=["numpy", "torch"],
)  # fmt: skip
def test_prefix_tokens_that_are_refused(prefix_tokens, wrap):
    x, token = wrap(normal(0, (2, 3, 4))), wrap(normal(1, (1, 1, 4)))
    for wrong in (wrap(normal(1, (2, 1, 4))), wrap(normal(1, (1, 4)))):
        with pytest.raises(ShapeError):
            prefix_tokens(x, {"cls_token": wrong})
    with pytest.raises(ShapeError):
        prefix_tokens(x[0], {"cls_token": token})


@pytest.mark.parametrize("resize_matrix", [numpy_resize_matrix, torch_resize_matrix], ids=["numpy", "torch"])
def test_resize_rules_that_are_refused(resize_matrix):
    with pytest.raises(ConfigError, match="unknown"):
        resize_matrix(2, 3, "best")


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (2, 1, 4, 6), (2, 2, 6), (2, 2, 6, 4)])
def test_images_that_the_patch_stem_refuses(shape):
    params = {"proj.weight": normal(0, (4, 2, 2, 2)), "proj.bias": normal(1, (4,))}
    with pytest.raises(ShapeError, match="images"):
        numpy_vit.patch_stem_forward(params, normal(2, shape), CONFIG)
    with pytest.raises(ShapeError, match="images"):
        torch_vit.patch_stem_forward(torch_vit.to_torch(params), torch.from_numpy(normal(2, shape)), CONFIG)


@pytest.mark.parametrize(
    ("stage", "shapes", "options", "wrong"),
    [("gelu_tanh", [(2, 5)], (), [(2, 1), (5,)]), ("silu", [(2, 5)], (), [(2, 1), (5,)]),
     ("quick_gelu", [(2, 5)], (), [(2, 1), (5,)]), ("relu", [(2, 5)], (), [(2, 1), (5,)]),
     ("rms_norm", [(2, 5), (5,)], (), [(2, 1), (5,)]), ("layer_scale", [(2, 5), (5,)], (), [(2, 1), (5,)]),
     ("biased_attention", [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 6)], (None,), [(1, 2, 3, 4), (1, 1, 3, 6)]),
     ("token_pool", [(2, 5, 3)], ("cls_mean", 1), [(2, 3), (2, 1), (1, 6)]),
     ("token_pool", [(2, 5, 3)], ("mean", 1), [(2, 6), (2, 1), (1, 3)]),
     ("patch_dropout", [(2, 3, 3)], (SEEN,), [(2, 3, 3), (1, 2, 3), (2, 3)])],
)  # fmt: skip
def test_upstream_gradients_that_are_refused(stage, shapes, options, wrong):
    _, cache = getattr(numpy_vit, f"{stage}_forward")(*(normal(i, shape) for i, shape in enumerate(shapes)), *options)
    for shape in wrong:
        with pytest.raises(ShapeError, match=f"dy of {stage} has shape"):
            getattr(numpy_vit, f"{stage}_backward")(normal(9, shape), cache)


def test_upstream_gradients_that_mixed_rotary_positions_refuse():
    _, cache = numpy_vit.rope_mixed_forward(normal(0, (2, 2, 3, 4)), normal(1, (5, 2)))
    with pytest.raises(ShapeError, match="dsin of rope_mixed"):
        numpy_vit.rope_mixed_backward(normal(2, (1, 4)), normal(3, (1, 4)), cache)
