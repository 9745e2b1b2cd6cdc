"""The cost formulas against what the engines really do: parameters, matrix products, bytes kept."""

import dataclasses

import numpy as np
import pytest

import numpy_vit
from vit_common import ViTConfig, init_params, make_masks, param_spec
from vit_common.cost import model_costs, totals
from vit_common.info import binary, si, stage_table, table

SMALL = ViTConfig(image_size=(8, 12), patch_size=4, in_channels=3, num_classes=5, embed_dim=12, depth=3, num_heads=3)
CONFIGS = {
    "plain": SMALL,
    "mean": SMALL.replace(pool="mean", class_token=False, pos_embed="none", mlp_ratio=1.5),
    "sincos": SMALL.replace(pos_embed="sincos_2d", num_classes=0),
    "shallow": SMALL.replace(depth=0),
    "dropped": SMALL.replace(pos_drop_rate=0.1, attn_drop_rate=0.1, proj_drop_rate=0.2, drop_path_rate=0.3),
}
each = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@each
def test_parameters_add_up_to_the_specification(config):
    expected = sum(int(np.prod(spec.shape)) for spec in param_spec(config).values())
    assert totals(model_costs(config)).params == expected


def kept_bytes(cache, parameters) -> int:
    """Bytes of the buffers that a cache keeps alive, each once, without those of parameters."""
    buffers = {}

    def walk(value):
        if isinstance(value, np.ndarray):
            while isinstance(value.base, np.ndarray):
                value = value.base
            buffers[id(value)] = value
        elif isinstance(value, tuple | list):
            for part in value:
                walk(part)

    walk(cache)
    own = {id(p) for p in parameters.values()} | {id(p.base) for p in parameters.values()}
    return sum(array.nbytes for key, array in buffers.items() if key not in own)


@each
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cache_bytes_are_those_the_numpy_engine_keeps(config, dtype):
    params = init_params(config, 0, dtype)
    images = np.random.default_rng(0).normal(size=(5, config.in_channels, *config.image_size)).astype(dtype)
    _, cache = numpy_vit.vit_forward(params, images, config, make_masks(config, 5, 0, 0))
    itemsize = np.dtype(dtype).itemsize
    assert kept_bytes(cache, params) == 5 * totals(model_costs(config), itemsize).cache_bytes


@each
def test_flops_are_those_that_torch_counts(config):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from torch.utils.flop_counter import FlopCounterMode

    import torch_vit

    model = torch_vit.VisionTransformer(config, attention="explicit").eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, config.in_channels, *config.image_size))
    assert counter.get_total_flops() == 2 * totals(model_costs(config)).flops


def test_shapes_are_those_of_the_tape():
    tape: dict[str, np.ndarray] = {}
    images = np.zeros((1, 3, 8, 12), np.float32)
    numpy_vit.vit_forward(init_params(SMALL, 0), images, SMALL, tape=tape)
    for row in model_costs(SMALL):
        name = "logits" if row.stage == "head" else row.stage.replace("*", "0")
        assert tape[name].shape[1:] == row.shape, name


def test_the_table_shows_every_stage_and_the_totals():
    config = ViTConfig.preset("vit_tiny_patch16_224")
    text = stage_table(config)
    assert all(row.stage in text for row in model_costs(config))
    assert "5,717,416" in text.splitlines()[-4]  # known: timm's vit_tiny_patch16_224
    assert len({len(line.rstrip()) for line in text.splitlines()[2:18]}) == 1  # one right edge


def test_a_variant_gets_its_parameters_and_no_formula_that_is_not_its_own():
    if "norm" not in ViTConfig.__dataclass_fields__:
        pytest.skip("no variants in this configuration class")
    config = SMALL.replace(norm="rms")
    assert dataclasses.asdict(config)["norm"] == "rms"
    text = stage_table(config)
    assert f"{sum(int(np.prod(s.shape)) for s in param_spec(config).values()):,}" in text
    assert "FLOPs" not in text


def test_numbers_are_written_for_people():
    assert [si(n) for n in (812, 5.7e6, 1.264e9)] == ["812", "5.70 M", "1.26 G"]
    assert [binary(n) for n in (12, 3 * 1024, 21.8 * 2**20)] == ["12 B", "3.0 KiB", "21.8 MiB"]
    assert table(("a", "b"), [("x", "10")], ("t", "1")) == "a   b\n-----\nx  10\n-----\nt   1"
