"""What both engines promise beside the numbers: the same defaults, shapes that are refused, copies that are copies."""

import inspect

import numpy as np
import pytest
import torch

import numpy_vit
import torch_vit
from parity_tests.strategies import normal
from vit_common import DtypeError, RangeError, ShapeError, ViTConfig, init_params

ENGINES = [(numpy_vit, np.asarray), (torch_vit, torch.from_numpy)]
both_engines = pytest.mark.parametrize(("engine", "wrap"), ENGINES, ids=["numpy", "torch"])
SHARED = sorted(
    name for name in set(numpy_vit.__all__) & set(torch_vit.__all__)
    if inspect.isfunction(getattr(numpy_vit, name)) and inspect.isfunction(getattr(torch_vit, name))
)  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_the_same_defaults(name):
    """An argument that both engines know has the same default in both."""
    ours, theirs = (inspect.signature(getattr(engine, name)).parameters for engine, _ in ENGINES)
    for argument in set(ours) & set(theirs):
        assert ours[argument].default == theirs[argument].default, argument


def test_defaults_that_stand_in_print():
    """Published values, not only equal ones: LayerNorm's eps of the ViT, Adam's betas, the sinusoids' base."""

    def defaults(name):
        parameters = inspect.signature(getattr(numpy_vit, name)).parameters
        return {n: p.default for n, p in parameters.items() if p.default is not p.empty and p.default is not None}

    assert defaults("layer_norm_forward") == {"eps": 1e-6}
    assert defaults("adamw_step") == {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.05}
    assert defaults("sgd_step") == {"momentum": 0.9, "weight_decay": 0.0}
    assert defaults("sincos_1d") == defaults("sincos_2d") == {"base": 10000.0}
    assert defaults("attention_forward") == {"drop_rate": 0.0}
    assert defaults("encoder_block_forward") == {"drop_path_rate": 0.0}
    assert defaults("cross_entropy_forward") == {"label_smoothing": 0.0}
    for loss in ("cross_entropy", "mae_loss", "mae"):
        assert defaults(f"{loss}_backward") == {"dloss": 1.0}
    assert defaults("pool_forward") == {"pool": "cls", "prefix": 1}


# Shapes that do not fit: stage, then the shapes of its arrays. Many would broadcast without a word.
MISFITS = [
    ("linear", (2, 3), (4, 2)), ("linear", (2, 3), (4, 3), (3,)), ("linear", (2, 3), (4, 3), (1,)),
    ("linear", (2, 3), (3,)), ("linear", (), (4, 3)),
    ("patch_embed", (1, 3, 4, 4), (5, 1, 2, 2)), ("patch_embed", (3, 4, 4), (5, 3, 2, 2)),
    ("patch_embed", (1, 3, 4, 4), (5, 3, 4)), ("patch_embed", (1, 3, 4, 4), (5, 3, 2, 3)),
    ("patch_embed", (1, 3, 4, 4), (5, 3, 3, 2)),
    ("class_token", (2, 4, 3), (1, 3)), ("class_token", (2, 4, 3), (1, 1, 1)), ("class_token", (2, 4, 3), (2, 1, 3)),
    ("class_token", (2, 4, 3), (1, 2, 3)), ("class_token", (4, 3), (1, 1, 3)),
    ("pos_embed", (2, 4, 3), (1, 4, 1)), ("pos_embed", (2, 4, 3), (1, 1, 3)), ("pos_embed", (2, 4, 3), (2, 4, 3)),
    ("pos_embed", (4, 3), (1, 4, 3)),
    ("layer_norm", (2, 3), (1,), (3,)), ("layer_norm", (2, 3), (3,), (1,)), ("layer_norm", (2, 3), (1, 3), (3,)),
    ("layer_norm", (2, 3), (2,), (3,)),
    ("attention", (1, 2, 3, 4), (1, 2, 5, 3), (1, 2, 5, 4)), ("attention", (1, 2, 3, 4), (1, 1, 5, 4), (1, 2, 5, 4)),
    ("attention", (1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 1, 4)), ("attention", (2, 3, 4), (2, 5, 4), (2, 5, 4)),
    ("attention", (1, 2, 3, 4), (1, 2, 5, 4), (1, 1, 5, 4)), ("attention", (2, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4)),
    ("attention", (2, 2, 3, 4), (2, 2, 5, 4), (1, 2, 5, 4)), ("attention", (1, 2, 3, 4), (1, 2, 5, 1), (1, 2, 5, 4)),
    ("pool", (4, 3)),
]  # fmt: skip


@both_engines
@pytest.mark.parametrize("misfit", MISFITS, ids=[f"{m[0]}-{i}" for i, m in enumerate(MISFITS)])
def test_shapes_that_are_refused(misfit, engine, wrap):
    stage, *shapes = misfit
    arrays = [wrap(np.asarray(normal(i, shape))) for i, shape in enumerate(shapes)]
    with pytest.raises(ShapeError):
        getattr(engine, f"{stage}_forward")(*arrays)


@both_engines
@pytest.mark.parametrize(
    ("shape", "image"),
    [((2, 6, 4), (1, 4, 4)), ((2, 4, 3), (1, 4, 4)), ((2, 4, 8), (1, 4, 4)), ((2, 1, 4), (1, 4, 4)),
     ((4, 4), (1, 4, 4)), ((2, 4, 4), (2, 4, 4)), ((2, 2, 8), (1, 4, 4))],
)  # fmt: skip
def test_patches_that_make_no_image(shape, image, engine, wrap):
    """Images of 4x4 in patches of 2x2: four patches of four numbers a channel."""
    with pytest.raises(ShapeError, match="patches has shape"):
        engine.unpatchify(wrap(normal(0, shape)), image, (2, 2))


@pytest.mark.parametrize(
    ("stage", "shapes", "wrong"),
    [("linear", [(2, 5, 3), (4, 3)], [(2, 4), (1, 5, 4), (2, 5, 1), (2, 5, 3)]),
     ("layer_norm", [(2, 5, 3), (3,), (3,)], [(2, 1, 3), (2, 5, 1), (5, 3)]),
     ("gelu", [(2, 5)], [(2, 1), (5,), (1, 5)]),
     ("attention", [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 6)], [(1, 2, 3, 4), (1, 1, 3, 6), (1, 2, 1, 6), (2, 3, 6)]),
     ("pool", [(2, 5, 3)], [(1, 3), (2, 1), (2, 5, 3), (5, 3)])],
)  # fmt: skip
def test_upstream_gradients_that_are_refused(stage, shapes, wrong):
    arrays = [normal(i, shape) for i, shape in enumerate(shapes)]
    _, cache = getattr(numpy_vit, f"{stage}_forward")(*arrays)
    for shape in wrong:
        with pytest.raises(ShapeError, match=f"dy of {stage} has shape"):
            getattr(numpy_vit, f"{stage}_backward")(normal(9, shape), cache)


@pytest.mark.parametrize("name", ["vit_forward", "serve", "packed_forward"])
@pytest.mark.parametrize("dtypes", [(np.float32, np.float64), (np.float64, np.float32), (np.float32, np.uint8)])
def test_torch_takes_images_of_its_parameters_dtype(name, dtypes):
    config = ViTConfig.preset("digits")
    params = torch_vit.to_torch(init_params(config, 0, dtypes[0]))
    images = torch.from_numpy(np.zeros((1, 1, 8, 8), dtypes[1]))
    with pytest.raises(DtypeError, match="have dtype|but the images have"):
        getattr(torch_vit, name)(params, images, config)


def test_conversions_copy():
    """Neither engine sees what the other does to its arrays afterwards; any memory order is welcome."""
    array = np.asfortranarray(normal(0, (2, 3)))
    tensors = torch_vit.to_torch({"a": array, "reversed": array[::-1]})
    back = torch_vit.to_numpy(tensors)
    kept = array.copy()
    array[...] = 7
    assert np.array_equal(tensors["a"].numpy(), kept)
    assert np.array_equal(tensors["reversed"].numpy(), kept[::-1])
    tensors["a"][...] = 8
    assert np.array_equal(back["a"], kept)
    half = torch_vit.to_numpy({"b": torch.ones(2, dtype=torch.bfloat16, requires_grad=True)})["b"]
    assert half.dtype == np.float32


def test_torch_draws_its_own_paths_where_the_input_is():
    """In train mode without masks a path is dropped whole, image by image, at about the rate, and rescaled."""
    torch.manual_seed(0)
    x = torch.ones(4000, 2)
    y = torch_vit.drop_path_forward(x, None, 0.25, training=True)
    assert torch.equal(y[:, 0], y[:, 1])
    assert set(y.unique().tolist()) == {0.0, 1 / 0.75} or torch.allclose(y.unique(), torch.tensor([0.0, 4 / 3]))
    share = float((y[:, 0] > 0).double().mean())
    assert abs(share - 0.75) <= 6 * (0.75 * 0.25 / 4000) ** 0.5  # six standard deviations
    assert torch_vit.drop_path_forward(x, None, 0.0, training=True) is x
    assert torch_vit.drop_path_forward(x, None, 0.25) is x
    dropped = torch_vit.dropout_forward(x, None, 0.25, training=True)
    assert abs(float((dropped > 0).double().mean()) - 0.75) <= 6 * (0.75 * 0.25 / 8000) ** 0.5
    assert torch_vit.dropout_forward(x, None, 0.25) is x


def test_defaults_of_the_torch_modules():
    """Fast attention and no dropped paths, unless asked for."""
    for name in ("MultiHead", "EncoderBlock", "Encoder", "VisionTransformer"):
        parameters = inspect.signature(getattr(torch_vit, name)).parameters
        assert parameters["attention"].default == "fused"
        assert parameters.get("drop_path_rate", inspect.Parameter("none", 1, default=0.0)).default == 0.0
    assert inspect.signature(torch_vit.VisionTransformer).parameters["seed"].default == 0


@both_engines
def test_ranges_to_their_ends(engine, wrap):
    """0 and 1 are legal smoothings, 0 is a legal rate; the next number beyond is not, nor is a rate of 1."""
    logits, labels = wrap(normal(0, (2, 3))), wrap(np.array([0, 2]))
    for smoothing in (0.0, 1.0):
        engine.cross_entropy_forward(logits, labels, smoothing)
    for smoothing in (np.nextafter(0, -1), np.nextafter(1, 2)):
        with pytest.raises(RangeError, match="label_smoothing"):
            engine.cross_entropy_forward(logits, labels, float(smoothing))
    for forward, shape in ((engine.dropout_forward, (2, 3)), (engine.drop_path_forward, (2,))):
        mask = wrap(np.ones(shape, bool))
        for rate in (0.0, float(np.nextafter(1, 0))):
            forward(logits, mask, rate)
        for rate in (float(np.nextafter(0, -1)), 1.0):
            with pytest.raises(RangeError, match="outside"):
                forward(logits, mask, rate)
