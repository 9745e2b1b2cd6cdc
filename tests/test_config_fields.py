"""Every field of a configuration: what it takes, in which type it is kept, and what it refuses by a ConfigError."""

import json
from dataclasses import fields
from typing import get_args

import numpy as np
import pytest

from vit_common import ConfigError, ViTConfig
from vit_common.config import CHECKS
from vit_common.mae_config import MaeConfig

NAN, INF = float("nan"), float("inf")
ODD = ("4", "", "no", b"4", [], (), (2,), (1, 2, 3, 4), {}, {"a": 1}, object(), NAN, INF, -INF, 1j, np.zeros(3),
       np.float64(NAN), np.array("4"), -1, np.int64(-1), 10**400, 10**5000)  # fmt: skip
FLAGS = (True, False, np.bool_(True))
NUMBERS = (0, 1, 0.5, 2.5, 4.0, np.int64(3), np.float32(0.5), np.float64(4.0))


# For each kind of field: its names, the values it takes as they are kept, and what it refuses beside ODD.
KINDS = {
    "size": (("in_channels", "embed_dim", "num_heads", "rope_max_res"),
             [(12, 12), (np.int64(12), 12), (np.uint8(12), 12)], (None, 0, *FLAGS, 1.5, 12.0, np.float64(12.0), 2**63)),
    "count": (("depth", "num_classes", "reg_tokens", "pre_logits"),
              [(0, 0), (2, 2), (np.int32(2), 2)], (None, *FLAGS, 1.5, 2.0, np.float64(2.0))),
    "size or None": (("attn_head_dim", "mlp_hidden", "attn_pool_heads", "num_kv_heads"),
                     [(None, None), (4, 4), (np.int64(4), 4)], (0, np.int64(0), *FLAGS, 2.5, 4.0, np.float32(4.0))),
    "sides": (("image_size", "patch_size"),
              [(12, (12, 12)), ((12, 12), (12, 12)), (np.int64(12), (12, 12)), ((np.int64(12), 12), (12, 12))],
              (None, 0, (0, 0), (-1, 2), (12, 12.0), *FLAGS, 12.0)),
    "sides or None": (("pos_grid", "rope_ref_grid"),
                      [(None, None), (3, (3, 3)), ((2, 3), (2, 3)), ((np.int64(2), 3), (2, 3))],
                      (0, (0, 0), (-1, 2), (2, 3.0), (True, 2), *FLAGS, 3.0)),
    "rate": (("pos_drop_rate", "attn_drop_rate", "proj_drop_rate", "drop_path_rate", "patch_drop_rate"),
             [(0, 0.0), (0.5, 0.5), (np.float64(0.25), 0.25), (np.float32(0.5), 0.5)],
             (None, *FLAGS, 1, 1.0, "0.1", -0.1)),
    "positive": (("mlp_ratio", "norm_eps", "rope_temperature"),
                 [(1, 1.0), (2.5, 2.5), (np.float32(0.5), 0.5), (np.int64(2), 2.0)],
                 (None, *FLAGS, 0, 0.0, "1e-6", -1e-6)),
    "positive or None": (("patch_norm_eps", "attn_pool_mlp_ratio"),
                         [(None, None), (1, 1.0), (0.5, 0.5), (np.float64(0.5), 0.5)], (*FLAGS, 0, 0.0, "1e-6", -1e-6)),
    "finite or None": (("layer_scale",), [(None, None), (1, 1.0), (0, 0.0), (-0.5, -0.5), (np.float32(0.5), 0.5)],
                       FLAGS),
    "finite": (("rope_grid_offset",), [(0, 0.0), (-0.5, -0.5), (np.float64(0.5), 0.5)], (None, *FLAGS)),
    "section": (("rope_section",), [((0, 1, 2), (0, 1, 2)), ((np.int64(1), 1, 1), (1, 1, 1))],
                (None, 1, *FLAGS, (1, 2, 3.0), (-1, 2, 3), (True, 1, 1), "123")),
}  # fmt: skip
CHOICES = {f.name: get_args(f.type) for f in fields(ViTConfig) if f.name not in
           {name for names, _, _ in KINDS.values() for name in names} and f.type is not bool}  # fmt: skip
BOOLS = [f.name for f in fields(ViTConfig) if f.type is bool]
SIGNED = ("layer_scale", "rope_grid_offset")  # -1 is a number like any other there; and lists are for num_kv_heads

TAKEN = [(name, value, kept) for names, taken, _ in KINDS.values() for name in names for value, kept in taken]
TAKEN += [(name, value, bool(value)) for name in BOOLS for value in FLAGS]
REFUSED = {name: (*ODD, *refused) for names, _, refused in KINDS.values() for name in names}
REFUSED |= dict.fromkeys(BOOLS, (*ODD, *NUMBERS, None, "True", "false"))
REFUSED |= {name: (*ODD, *NUMBERS, *FLAGS, "x", *([None] if type(None) not in choices else []))
            for name, choices in CHOICES.items()}  # fmt: skip


def allowed(name, value):
    """What is odd elsewhere and in its place in these fields."""
    negative = isinstance(value, (int, np.integer)) and value == -1
    return (negative and name in SIGNED) or (isinstance(value, (tuple, list)) and name == "num_kv_heads")


def test_every_field_is_of_a_kind():
    assert CHECKS.keys() == set(ViTConfig.__dataclass_fields__) == REFUSED.keys()
    assert {name for name, _, _ in TAKEN} | CHOICES.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_field_refuses(name):
    """By the constructor: the name, and what would do, are in the message."""
    for value in REFUSED[name]:
        if not allowed(name, value):
            with pytest.raises(ConfigError, match=rf"^{name}=.*(must be .*, e\.g\. {name}=|is unknown; .*known: )"):
                ViTConfig(**{name: value})


@pytest.mark.parametrize("name", sorted({name for name, _, _ in TAKEN}))
def test_what_a_field_takes_and_in_which_type_it_is_kept(name):
    """By the field's own check: whether all fields fit together is another question."""
    for value, kept in [(value, kept) for one, value, kept in TAKEN if one == name]:
        found = CHECKS[name](name, value)
        assert found == kept
        assert type(found) is type(kept)
        assert json.loads(json.dumps(found)) == (list(kept) if isinstance(kept, tuple) else kept)


@pytest.mark.parametrize("name", CHOICES)
def test_what_a_choice_takes(name):
    choices = get_args(CHOICES[name][0]) if type(None) in CHOICES[name] else CHOICES[name]
    for choice in choices:
        assert CHECKS[name](name, np.str_(choice)) == choice
        assert type(CHECKS[name](name, np.str_(choice))) is str


def test_sizes_read_off_arrays_make_the_same_configuration():
    sizes = np.array([12, 2, 3])
    odd = ViTConfig(image_size=sizes[:2].max(), patch_size=(sizes[2], sizes[2]), embed_dim=sizes[0], num_heads=sizes[1],
                    depth=sizes[1], mlp_ratio=np.float32(0.5), class_token=np.bool_(True), layer_scale=1,
                    num_kv_heads=[np.int64(1), np.int64(2)], qkv="split")  # fmt: skip
    plain = ViTConfig(image_size=12, patch_size=3, embed_dim=12, num_heads=2, depth=2, mlp_ratio=0.5, layer_scale=1.0,
                      num_kv_heads=(1, 2), qkv="split")  # fmt: skip
    assert odd == plain
    assert hash(odd) == hash(plain)
    assert json.dumps(odd.to_dict()) == json.dumps(plain.to_dict())
    assert ViTConfig.from_dict(json.loads(json.dumps(odd.to_dict()))) == plain
    assert type(odd.num_tokens) is int


TOGETHER = [
    ({"rope": "mixed", "qkv": "split", "num_kv_heads": 1}, "num_kv_heads=1 must be None, or take rope='axial'"),
    ({"rope": "mixed", "qkv": "split", "num_kv_heads": (3, 1)}, r"num_kv_heads=\(3, 1\) must be None"),
    ({"num_kv_heads": (), "qkv": "split"}, r"num_kv_heads=\(\) must be one number, or 2"),
    ({"num_kv_heads": (1, "3"), "qkv": "split"}, "num_kv_heads='3' must be an integer of at least 1"),
    ({"num_kv_heads": (2, 0), "qkv": "split"}, "num_kv_heads=0 must be an integer of at least 1"),
    ({"num_kv_heads": 2, "qkv": "split"}, "each dividing num_heads=3"),
    ({"attn_pool_heads": 5}, "attn_pool_heads a divisor of it, e.g. attn_pool_heads=1"),
    ({"attn_head_dim": 4, "num_heads": 8, "pool": "map"}, "by 8 heads .* e.g. attn_pool_heads=4"),
    ({"attn_pool_mlp_ratio": 0.01}, "attn_pool_mlp_ratio=0.01 gives a hidden width of 0.12"),
    ({"attn_pool_mlp_ratio": 1e308}, "gives a hidden width of inf"),
    ({"mlp_ratio": 0.01}, "mlp_ratio=0.01 gives a hidden width of 0.12; expected at least 1"),
    ({"mlp_ratio": 1e308}, "gives a hidden width of inf"),
    ({"embed_dim": 2**62 + 2, "num_heads": 5}, "num_heads=5 does not divide"),  # and the divisors are found at once
]


@pytest.mark.parametrize(("given", "message"), TOGETHER, ids=[str(given) for given, _ in TOGETHER])
def test_what_does_not_go_together(given, message):
    with pytest.raises(ConfigError, match=message):
        ViTConfig(**{"image_size": 8, "patch_size": 4, "embed_dim": 12, "num_heads": 3, "depth": 2, **given})


def test_key_and_value_heads_as_many_as_query_heads_go_with_mixed_positions():
    config = ViTConfig(embed_dim=12, num_heads=3, depth=2, rope="mixed", qkv="split", num_kv_heads=(3, 3))
    assert config.kv_heads == (3, 3)
    assert ViTConfig(embed_dim=12, num_heads=8, attn_head_dim=4).num_heads == 8  # no pooling by heads, none to divide


CALLS = [
    (lambda: ViTConfig.from_dict([("depth", 1)]), r"values=\[\('depth', 1\)\] must be a dict of fields"),
    (lambda: ViTConfig.from_dict(None), "values=None must be a dict of fields"),
    (lambda: ViTConfig.from_dict({3: 1}), "ViTConfig has no field 3; "),
    (lambda: ViTConfig.from_dict({"deepth": 1}), "ViTConfig has no field 'deepth'; did you mean 'depth'"),
    (lambda: ViTConfig().replace(deepth=1), "ViTConfig has no field 'deepth'; did you mean 'depth'"),
    (lambda: ViTConfig.preset(3), "preset=3 is unknown; known: digits"),
    (lambda: ViTConfig.preset(["digits"]), "preset=.* is unknown; did you mean 'digits'"),
    (lambda: ViTConfig.preset("digit"), "preset='digit' is unknown; did you mean 'digits'"),
    (lambda: ViTConfig.from_timm(3), "name=3 must be the name of a timm architecture"),
    (lambda: ViTConfig.from_huggingface("vit"), "values='vit' must be the dict that a config.json holds"),
    (lambda: MaeConfig.from_dict({"encoder": {}, "mask": 1}), "MaeConfig has no field 'mask'; did you mean 'mask"),
    (lambda: MaeConfig.from_dict({"norm_pix": True}), "lack 'encoder'"),
    (lambda: MaeConfig.from_dict(3), "values=3 must be a dict"),
    (lambda: MaeConfig(encoder={"depth": 1}), "encoder=.* must be a ViTConfig"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[message for _, message in CALLS])
def test_a_table_of_fields_is_one_of_known_names(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(("name", "value"), [
    ("decoder_dim", 0), ("decoder_dim", 8.0), ("decoder_heads", None), ("decoder_depth", -1), ("decoder_depth", True),
    ("decoder_mlp_ratio", NAN), ("decoder_mlp_ratio", "4"), ("mask_ratio", "0.5"), ("mask_ratio", 1), ("norm_pix", 1),
])  # fmt: skip
def test_what_a_field_of_a_masked_autoencoder_refuses(name, value):
    encoder = ViTConfig(image_size=8, patch_size=4, embed_dim=12, num_heads=3, depth=1, num_classes=0)
    with pytest.raises(ConfigError, match=rf"^{name}=.* must be .*, e\.g\. {name}="):
        MaeConfig(encoder, **{name: value})
