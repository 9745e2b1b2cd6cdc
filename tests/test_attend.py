"""Attention maps: the rollout against its definition, and the `attend` and `convert` commands on a small model."""

import numpy as np
import pytest

from numpy_vit.engine import NumpyEngine
from vit_common import ConfigError, ViTConfig, init_params, load_checkpoint, save_checkpoint
from vit_common.attention_maps import attention_probs, class_attention, rollout
from vit_common.cli import main

CONFIG = ViTConfig(image_size=(12, 8), patch_size=4, embed_dim=8, depth=3, num_heads=2, num_classes=4)


def stochastic(seed, tokens=7, heads=3, batch=2):
    rows = np.random.default_rng(seed).random((batch, heads, tokens, tokens))
    return rows / rows.sum(-1, keepdims=True)


def test_rollout_by_its_definition():
    blocks = [stochastic(seed) for seed in range(4)]
    flow = rollout(blocks, prefix=1)
    for b in range(2):
        total = np.eye(7)
        for block in blocks:
            total = (0.5 * np.eye(7) + 0.5 * sum(block[b]) / 3) @ total
        assert np.allclose(flow[b], total[0, 1:], rtol=32 * np.finfo(float).eps, atol=0)
    # Each mixed matrix has rows that sum to one, so what the patches do not get is the class token's own.
    assert np.all(flow.sum(1) < 1)


def test_attention_of_the_identity_stays_where_it_is():
    """Tokens that attend to themselves alone pass nothing on to the class token."""
    itself = np.broadcast_to(np.eye(5), (1, 2, 5, 5))
    assert not rollout([itself] * 3, prefix=1).any()
    assert not class_attention(itself, prefix=1).any()


def test_models_without_probabilities_say_so():
    with pytest.raises(ConfigError, match="blocks.1.attn.probs"):
        attention_probs({"blocks.0.attn.probs": stochastic(0)}, depth=2)
    with pytest.raises(ConfigError, match="no blocks"):
        attention_probs({}, depth=0)


@pytest.fixture
def photo(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_attend(tmp_path, photo, capsys):
    save_checkpoint(tmp_path / "model", CONFIG, init_params(CONFIG, 0))
    out = tmp_path / "attention.png"
    argv = ["attend", str(photo), str(photo), "--checkpoint", str(tmp_path / "model"), "--out", str(out)]
    assert main(NumpyEngine, argv) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("of 3x2") == 2
    config = CONFIG.replace(class_token=False, pool="mean")
    save_checkpoint(tmp_path / "mean", config, init_params(config, 0))
    assert main(NumpyEngine, ["attend", str(photo), "--checkpoint", str(tmp_path / "mean")]) == 1
    assert "has none" in capsys.readouterr().err


def test_convert(tmp_path, capsys):
    params = init_params(CONFIG, 0)
    save_checkpoint(tmp_path / "model", CONFIG, params)
    argv = ["convert", str(tmp_path / "model"), str(tmp_path / "hub"), "--layout", "huggingface"]
    assert main(NumpyEngine, argv) == 0
    assert "to the bit" in capsys.readouterr().out
    config, back = load_checkpoint(tmp_path / "hub")
    untold = {name: getattr(CONFIG, name) for name in ("mlp_hidden", "pos_resize", "table_resize")}
    assert config.replace(**untold) == CONFIG
    assert back.keys() == params.keys()
    assert all(np.array_equal(back[name], p) for name, p in params.items())
    assert main(NumpyEngine, [*argv[:2], "--layout", "huggingface"]) == 1
    assert "expected IN and OUT" in capsys.readouterr().err
    assert main(NumpyEngine, [*argv[:3], "--layout", "hugingface"]) == 1
    assert "did you mean" in capsys.readouterr().err
