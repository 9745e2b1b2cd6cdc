"""Masked autoencoder: both engines, the complex step, and transformers' ViTMAEForPreTraining."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

import numpy_vit
import torch_vit
from parity_tests.peers import fill, float64, import_transformers, relative_errors
from parity_tests.variants import close
from torch_vit.mae import Mae
from vit_common import CheckpointError, DtypeError, ShapeError, ViTConfig
from vit_common.mae_config import MaeConfig, init_mae_params, mae_mask, mae_spec


def small(**fields: Any) -> MaeConfig:
    kind = {name: fields.pop(name) for name in ("pos_embed", "activation", "qkv_bias") if name in fields}
    encoder = ViTConfig(
        image_size=(16, 24), patch_size=(4, 8), num_classes=0, embed_dim=24, depth=2, num_heads=2, **kind
    )
    return MaeConfig(encoder, decoder_dim=16, decoder_depth=1, decoder_heads=4, **fields)


def draw(config: MaeConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {n: (p.init == "ones") + 0.3 * rng.normal(size=p.shape) for n, p in mae_spec(config).items()}


@pytest.mark.parametrize("fields", [
    {}, {"norm_pix": False}, {"pos_embed": "sincos_2d"}, {"activation": "silu", "qkv_bias": "none"},
], ids=str)  # fmt: skip
def test_both_engines_and_the_complex_step(fields):
    config = small(**fields)
    params, rng = draw(config), np.random.default_rng(1)
    images, mask, values, slopes = rng.normal(size=(2, 3, 16, 24)), mae_mask(config, 2, 0, 0), {}, {}
    (loss, prediction), cache = numpy_vit.mae_forward(params, images, config, mask, values)
    dimages, grads = numpy_vit.mae_backward(cache, 1.7, slopes)
    assert set(grads) == set(params)
    assert set(values) == set(slopes)
    model = Mae(config, "explicit").double()
    model.load_state_dict(torch_vit.to_torch(params))
    x = torch.from_numpy(images.copy()).requires_grad_()
    their_loss, their_prediction = model(x, torch.from_numpy(mask))
    (1.7 * their_loss).backward()
    theirs = {n: p.grad.numpy() for n, p in model.named_parameters()}
    close({0: loss, 1: prediction}, {0: their_loss.detach().numpy(), 1: their_prediction.detach().numpy()},
          np.float64, True)  # fmt: skip
    close({"x": dimages, **grads}, {"x": x.grad.numpy(), **theirs}, np.float64, True)
    directions, h = {n: rng.normal(size=p.shape) for n, p in params.items()}, 1e-150
    along = rng.normal(size=images.shape)
    stepped = {n: p + 1j * h * directions[n] for n, p in params.items()}
    jvp = 1.7 * numpy_vit.mae_forward(stepped, images + 1j * h * along, config, mask)[0][0].imag / h
    terms = [dimages * along, *(grads[n] * d for n, d in directions.items())]
    size = sum(np.abs(t).sum() for t in terms)
    assert abs(jvp - sum(t.sum() for t in terms)) <= sum(t.size for t in terms) * np.finfo(float).eps * size


@pytest.mark.parametrize(("engine", "wrap"), [(numpy_vit, np.asarray), (torch_vit, torch.from_numpy)])
def test_parameters_that_do_not_fit_are_refused(engine, wrap):
    """Without the decoder's positions there would be another loss, of fixed ones."""
    config = small()
    params = {name: wrap(p) for name, p in draw(config).items()}
    images, mask = wrap(np.zeros((1, 3, 16, 24))), wrap(mae_mask(config, 1, 0, 0))
    less = {name: p for name, p in params.items() if name != "decoder_pos_embed"}
    more = {**params, "x": params["mask_token"]}
    for wrong, message in ((less, "1 missing: decoder_pos_embed"), (more, "1 not part of this model: x")):
        with pytest.raises(CheckpointError, match=message):
            engine.mae_forward(wrong, images, config, mask)
    with pytest.raises(ShapeError, match="mask_token"):
        engine.mae_forward({**params, "mask_token": wrap(np.zeros((1, 1, 15)))}, images, config, mask)


def test_images_of_another_dtype_are_refused():
    config = small()
    with pytest.raises(DtypeError):
        numpy_vit.mae_forward(draw(config), np.zeros((1, 3, 16, 24), np.uint8), config, mae_mask(config, 1, 0, 0))


def test_the_mask_is_keyed_and_hides_the_same_number_everywhere():
    config = small(mask_ratio=0.75)
    mask = mae_mask(config, 64, 3, 5)
    assert np.array_equal(mask, mae_mask(config, 64, 3, 5))
    assert not np.array_equal(mask, mae_mask(config, 64, 3, 6))
    assert set(mask.sum(axis=1)) == {3}
    assert MaeConfig.from_dict(config.to_dict()) == config
    assert set(init_mae_params(config, 0)) == set(mae_spec(config))


@pytest.mark.filterwarnings("ignore")  # transformers' own, about itself
@pytest.mark.parametrize("norm_pix", [True, False])
def test_what_transformers_computes(norm_pix):
    try:
        transformers = import_transformers()
    except ImportError as error:
        pytest.skip(f"transformers is not installed (extra 'peers'): {error}")
    settings = transformers.ViTMAEConfig(
        hidden_size=36, num_hidden_layers=2, num_attention_heads=3, intermediate_size=100, image_size=32, patch_size=8,
        decoder_hidden_size=24, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=40, norm_pix_loss=norm_pix, attn_implementation="sdpa",
    )
    with float64():
        model = transformers.ViTMAEForPreTraining(settings).double().eval()
    for p in model.parameters():
        p.requires_grad_(True)
    fill(model, seed=1)
    rng = np.random.default_rng(2)
    images, noise = rng.normal(size=(2, 3, 32, 32)), rng.random((2, 16))
    x = torch.from_numpy(images.copy()).requires_grad_()
    out = model(x, noise=torch.from_numpy(noise))
    out.loss.backward()
    slopes = copy.deepcopy(model)
    with torch.no_grad():
        for p, q in zip(model.parameters(), slopes.parameters(), strict=True):
            q.copy_(p.grad)
    config = MaeConfig.from_huggingface(settings.to_dict())
    mask = out.mask.numpy() == 0
    (loss, prediction), cache = numpy_vit.mae_forward(ours(model), images, config, mask)
    dimages, grads = numpy_vit.mae_backward(cache)
    truth = {"loss": out.loss.detach().numpy(), "prediction": out.logits.detach().numpy(), "x": x.grad.numpy()}
    assert relative_errors({"loss": loss, "prediction": prediction, "x": dimages}, truth) <= 1e-11
    assert relative_errors(grads, ours(slopes)) <= 1e-11


def ours(model: Any) -> dict[str, np.ndarray]:
    """transformers' tensors under our names."""
    tensors = {n: t.detach().numpy() for n, t in model.state_dict().items()}
    words = {"vit.embeddings.patch_embeddings.projection": "patch_embed.proj", "vit.embeddings.cls_token": "cls_token",
             "vit.embeddings.position_embeddings": "pos_embed", "vit.layernorm": "norm", "vit.layers": "blocks",
             "vit.encoder.layer": "blocks", "decoder.decoder_layers": "decoder_blocks", "decoder.": "",
             "layernorm_before": "norm1", "layernorm_after": "norm2", "attention.o_proj": "attn.proj",
             "attention.": "attn."}  # fmt: skip
    named = {}
    for name, tensor in tensors.items():
        for theirs, here in words.items():
            name = name.replace(theirs, here) if theirs != "decoder." else name.removeprefix(theirs)
        named[name] = tensor
    out = {n: t for n, t in named.items() if "_proj." not in n}
    for name in named:
        if name.endswith((".q_proj.weight", ".q_proj.bias")):
            parts = [named[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            out[name.replace("q_proj", "qkv")] = np.concatenate(parts)
    return out
