"""Keyed randomness and masks: what a seed, a key, a batch and a mask may be. The draws are those of every release."""

import re

import numpy as np
import pytest

from vit_common import ConfigError, RangeError, ViTConfig, keyed_rng, make_masks
from vit_common.masks import check_masks

CONFIG = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=2, drop_path_rate=0.5)

# Drawn before integers of other kinds were taken: a run that is resumed goes on with the masks it began with.
KNOWN = [((0,), 2748127362102375290), ((-3,), 3583459313632846536), ((0, "mask", 3, "pos_drop"), 2056361490920646693),
         ((10**30, -1, "x"), 1491913975305622781)]  # fmt: skip


@pytest.mark.parametrize(("key", "first"), KNOWN, ids=str)
def test_the_draws_stay_what_they_were(key, first):
    assert int(keyed_rng(*key).bit_generator.random_raw()) == first


def drawn(*key):
    return keyed_rng(*key).bit_generator.random_raw(4).tolist()


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.array])
def test_numpys_integers_draw_what_pythons_do(kind):
    assert drawn(kind(7), "mask", kind(3), np.str_("a")) == drawn(7, "mask", 3, "a")
    assert drawn(7, 3) != drawn(7, "3")


@pytest.mark.parametrize("key", [
    (1.7,), (1.0,), ("1",), (None,), (True,), (np.float64(1),), (np.bool_(True),), (0, 1.5), (0, None), (0, b"a"),
    (0, False), (0, (1, 2)), (0, np.array([1, 2])),
], ids=str)  # fmt: skip
def test_a_seed_or_key_of_another_kind_is_refused(key):
    message = "seed=.* must be an integer, e.g. seed=0" if len(key) == 1 else "key=.* must be an integer or a string"
    with pytest.raises(RangeError, match=message):
        keyed_rng(*key)


@pytest.mark.parametrize("batch", [-1, 2.0, "2", None, True])
def test_masks_are_made_for_a_number_of_images(batch):
    with pytest.raises(ConfigError, match="batch=.* must be an integer of at least 0"):
        make_masks(CONFIG, batch, 0, 0)
    counted = make_masks(CONFIG, np.int64(2), np.int64(5), np.int64(1))
    assert counted.keys() == {"blocks.1.drop_path1", "blocks.1.drop_path2"}
    for name, mask in make_masks(CONFIG, 2, 5, 1).items():
        np.testing.assert_array_equal(counted[name], mask)


@pytest.mark.parametrize("config", [CONFIG, CONFIG.replace(reg_tokens=1)], ids=["plain", "variant"])
def test_a_mask_where_the_rate_is_0_is_refused(config):
    """The first block has no stochastic depth, and this model no dropout at all."""
    check_masks(make_masks(config, 2, 0, 0), config)
    check_masks(["attn_mask", "padding_mask", "patch_drop"], config)  # these have no rate to be rescaled by
    for site in ("blocks.0.drop_path1", "blocks.1.mlp.drop1", "pos_drop"):
        with pytest.raises(ConfigError, match=f"{re.escape(repr(site))}, whose rate is 0 .* leave the mask out"):
            check_masks(["blocks.1.drop_path2", site], config)
