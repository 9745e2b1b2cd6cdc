"""Every architecture of timm's four plain modules, shrunk, and their arguments drawn at random, against timm itself."""

import pytest

from parity_tests.options import sweep
from parity_tests.options_timm import FAMILIES, options_error
from parity_tests.peers import import_timm
from parity_tests.peers_timm import BOUND, RESIZED, errors, names, resized_error
from parity_tests.training_timm import training_error
from vit_common.timm_names import timm_names


@pytest.fixture(scope="module")
def timm():
    try:
        return import_timm()
    except ImportError as error:
        pytest.skip(f"timm and torchvision are not installed (extra 'peers'): {error}")


def test_the_table_holds_exactly_the_names_that_timm_registers(timm):
    assert sorted(timm_names()) == sorted(names(timm))


@pytest.mark.parametrize("name", timm_names())
def test_both_engines_compute_what_timm_computes(timm, name):
    worst = errors(timm, name)
    assert max(worst.values()) <= BOUND, worst


@pytest.mark.parametrize("overrides", [
    {"global_pool": "avgmax"}, {"global_pool": "max"}, {"global_pool": "map"}, {"act_layer": "relu"},
    {"qk_norm": True, "norm_layer": "rmsnorm"}, {"pos_embed": "none"}, {"reg_tokens": 3}, {"qkv_bias": False},
    {"scale_attn_norm": True, "scale_mlp_norm": True}, {"final_norm": False}, {"pre_norm": True, "init_values": 0.1},
    {"global_pool": "avg", "fc_norm": False, "pool_include_prefix": True}, {"attn_layer": "diff", "qk_norm": True},
    {"proj_bias": False, "act_layer": "silu"}, {"no_embed_class": True, "reg_tokens": 2, "num_heads": 2},
], ids=str)  # fmt: skip
def test_constructor_arguments_mean_what_they_mean_in_timm(timm, overrides):
    worst = errors(timm, "vit_base_patch16_224", overrides)
    assert max(worst.values()) <= BOUND, worst


@pytest.mark.parametrize("overrides", [
    {"use_fc_norm": False, "use_post_transformer_norm": True}, {"global_pool": "avgmax"}, {"attn_type": "rope"},
    {"num_reg_tokens": 2, "no_embed_class": True}, {"rope_rotate_half": True, "rope_grid_indexing": "xy"},
    {"rope_type": "mixed", "rope_temperature": 10.0}, {"rope_type": "dinov3", "rope_grid_offset": 0.25},
    {"qkv_fused": False, "attn_type": "rope", "num_kv_heads": 1}, {"swiglu_align_to": 8}, {"use_post_norm": True},
], ids=str)  # fmt: skip
def test_rotary_arguments_mean_what_they_mean_in_timm(timm, overrides):
    worst = errors(timm, "eva02_tiny_patch14_224", overrides)
    assert max(worst.values()) <= BOUND, worst


@pytest.mark.parametrize("check", [options_error, training_error])
@pytest.mark.parametrize("family", FAMILIES)
def test_arguments_drawn_at_random(timm, family, check):
    found = sweep(lambda seed: check(timm, family, seed), range(25))
    assert found["cases"] > 10
    assert not found["failed"]


@pytest.mark.filterwarnings("ignore")  # timm's own, about itself
@pytest.mark.parametrize(("name", "arguments", "old", "new"), RESIZED, ids=str)
def test_a_checkpoint_at_another_image_size(timm, name, arguments, old, new):
    """Positions, rotary tables and relative position tables, as `set_input_size` makes them."""
    assert resized_error(timm, name, arguments, old, new) <= BOUND
