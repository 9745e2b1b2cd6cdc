"""Other people's Vision Transformers, run by their own programs in float64, against both engines.

Each case is one file of the oracle folder (its README says what is in it): loaded by layout, run forward and backward,
and the gradients exported back into the library's own names and shapes. The folder is `oracles` under VIT_SHARED
(default: ../shared beside the checkout).
"""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import numpy_vit
from vit_common import load_checkpoint
from vit_common.layouts import export_layout, find_layout

SHARED = Path(os.environ.get("VIT_SHARED", Path(__file__).parents[2] / "shared"))
FOLDER = SHARED / "oracles"
CASES = sorted(f.stem for f in FOLDER.glob("*.npz") if not f.stem.endswith(".ckpt") and f.stem != "posresize")
BOUND = 1e-11
# A gradient that is zero by mathematics (a key's bias) is rounding alone, on both sides: it is measured against the
# largest gradient of the case.
FLOOR = 1e-4

pytestmark = pytest.mark.skipif(not CASES, reason=f"no oracle files in {FOLDER}; set VIT_SHARED")


class Case:
    """One oracle file, loaded through its layout."""

    def __init__(self, name: str, folder: Path):
        with np.load(FOLDER / f"{name}.npz") as file:
            self.data = {key: file[key] for key in file.files}
        self.meta = json.loads(str(self.data["meta"]))
        self.theirs = {key[2:]: value for key, value in self.data.items() if key.startswith("p/")}
        self.layout = find_layout(self.theirs)
        path, given = write(name, self.theirs, self.meta, folder)
        self.config, self.params = load_checkpoint(path, config=given, dtype=np.float64)
        self.images = self.data["x"].astype(np.float64)

    def gradients(self, ours: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Our gradients under the library's names: for Hugging Face, those it uses in memory."""
        exported = export_layout(ours, self.config, self.layout.name)
        out = {}
        for name, gradient in exported.items():
            other = self.meta.get("hub_to_inmem", {}).get(name, name)
            if isinstance(other, list):
                out |= zip(other, np.split(gradient, len(other)), strict=True)
            else:
                out[other] = gradient
        return out


def write(name: str, tensors: dict, meta: dict, folder: Path) -> tuple[Path, dict | None]:
    """The case as its library publishes it, and the library's own arguments where there is no file for them."""
    from safetensors.numpy import save_file

    weights = folder / "model.safetensors"
    hub, released = FOLDER / f"{name}.hub.safetensors", FOLDER / f"{name}.ckpt.npz"
    if released.exists():
        return released, None
    if hub.exists():
        weights.write_bytes(hub.read_bytes())
        (folder / "config.json").write_text(json.dumps(meta["config"]))
        return folder, None
    save_file({key: np.ascontiguousarray(value).reshape(value.shape) for key, value in tensors.items()}, weights)
    if "overrides" not in meta:
        return weights, meta["args"]
    overrides = meta["overrides"]
    settings = {"architecture": meta["model"], "num_classes": overrides.get("num_classes"), "model_args": overrides}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder, None


def run_numpy(case: Case) -> dict:
    tape: dict = {}
    logits, cache_ = numpy_vit.vit_forward(case.params, case.images, case.config, tape=tape)
    loss, loss_cache = numpy_vit.cross_entropy_forward(logits, case.data["y"])
    gx, grads = numpy_vit.vit_backward(numpy_vit.cross_entropy_backward(loss_cache), cache_)
    return {"logits": logits, "loss": loss, "gx": gx, "grads": grads, "tape": tape}


def run_torch(case: Case) -> dict:
    torch = pytest.importorskip("torch", reason="the torch engine needs torch")
    import torch_vit

    model = torch_vit.VisionTransformer(case.config).double().eval()
    model.load_state_dict(torch_vit.to_torch(case.params))
    images = torch.from_numpy(case.images).requires_grad_()
    with torch_vit.Tape(model) as tape:
        logits = model(images)
        loss = torch_vit.cross_entropy_forward(logits, torch.from_numpy(case.data["y"]))
        loss.backward()
    grads = {name: p.grad.numpy() for name, p in model.named_parameters()}
    values = {name: value.detach().numpy() for name, value in tape.values.items()}
    gx = images.grad.numpy()
    return {"logits": logits.detach().numpy(), "loss": loss.item(), "gx": gx, "grads": grads, "tape": values}


ENGINES = {"numpy": run_numpy, "torch": run_torch}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    @cache
    def case(name: str) -> Case:
        return Case(name, tmp_path_factory.mktemp(name))

    @cache
    def result(name: str, engine: str) -> dict:
        return ENGINES[engine](case(name))

    return lambda name, engine: (case(name), result(name, engine))


def error(ours, theirs, least: float = 0.0) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    if not ours.size:
        return 0.0
    return float(abs(ours - theirs).max() / max(abs(theirs).max(), least)) if ours.any() or theirs.any() else 0.0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_logits_loss_and_input_gradient(cases, name, engine):
    case, got = cases(name, engine)
    for key in ("logits", "loss", "gx"):
        assert error(got[key], case.data[key]) <= BOUND, key


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_every_gradient_in_the_librarys_own_names(cases, name, engine):
    case, got = cases(name, engine)
    ours = case.gradients(got["grads"])
    theirs = {key[2:]: value for key, value in case.data.items() if key.startswith("g/")}
    assert set(theirs) <= set(ours)
    least = FLOOR * max(abs(g).max() for g in theirs.values() if g.size)
    wrong = {key: e for key, g in theirs.items() if not (e := error(ours[key], g, least)) <= BOUND}
    assert not wrong
    for key in set(ours) - set(theirs):  # what the library has and does not use, or does not train
        assert not ours[key].any() or key in ("pos_embed", "positional_embeddings"), key


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_intermediates(cases, name, engine):
    case, got = cases(name, engine)
    tape = dict(got["tape"], tokens_in=got["tape"]["tokens"], prelogits=prelogits(got["tape"], case.config))
    seen = {key[4:]: value for key, value in case.data.items() if key.startswith("act/")}
    for key, value in seen.items():
        if key.startswith("block"):
            part = ".mlp" if case.layout.name in ("lucidrains", "simple_vit") else ""
            ours = f"blocks.{key.removeprefix('block')}{part}"
        elif key in tape:
            ours = key
        else:
            continue  # tables that only the other library keeps
        assert error(tape[ours], value) <= BOUND, key


def prelogits(tape: dict, config) -> np.ndarray:
    """What the head reads; where two heads read two tokens, timm hands out their mean."""
    if config.dist_head:
        return tape["norm"][:, :2].mean(axis=1)
    return next(tape[name] for name in ("pre_logits", "fc_norm", "pooled") if name in tape)


@pytest.mark.parametrize("name", CASES)
def test_exported_is_what_was_loaded(cases, name):
    """Every tensor of the published file comes back to the bit, except those that are no part of the model."""
    case = cases(name, "numpy")[0]
    exported = case.gradients(case.params)
    for key, value in case.theirs.items():
        if not key.endswith("mask_token"):
            np.testing.assert_array_equal(exported[key], value, err_msg=key)
    assert set(exported) == set(case.theirs)
