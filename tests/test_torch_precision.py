"""torch's settings of precision are the caller's: a call of the engine sets its own and puts them back, whichever of
torch's two ways of setting them the process has used."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torch_vit.numerics import precision_switches, product_precision

HAS_SWITCHES = hasattr(torch.backends.cuda.matmul, "fp32_precision")
needs_switches = pytest.mark.skipif(not HAS_SWITCHES, reason="this torch has no fp32_precision: 2.9 and newer do")
# In a process of its own, as no setting can be undone in full: what an engine's calls see, and what they leave behind.
SCRIPT = """
import sys, torch
from torch_vit.engine import TorchEngine
from torch_vit.options import TorchOptions
from vit_common import ViTConfig, init_params
from vit_common.recipe import Recipe
import numpy as np

b = torch.backends

def settings():
    new = [b.fp32_precision, b.cuda.matmul.fp32_precision, b.cudnn.fp32_precision, b.cudnn.conv.fp32_precision,
           b.cudnn.rnn.fp32_precision, b.mkldnn.matmul.fp32_precision]
    old = []
    for get in (torch.get_float32_matmul_precision, lambda: b.cuda.matmul.allow_tf32, lambda: b.cudnn.allow_tf32):
        try:
            old.append(get())
        except RuntimeError:
            old.append("contradicts")
    return new, old

exec(sys.argv[1])
before = settings()
config = ViTConfig(image_size=4, patch_size=2, in_channels=1, num_classes=3, embed_dim=8, depth=1, num_heads=2)
images, labels = np.zeros((2, 1, 4, 4), np.float32), np.arange(2)
for precision in ("float32", "tf32"):
    engine = TorchEngine(TorchOptions(device="cpu", precision=precision))
    engine.start(config, init_params(config, 0), Recipe())
    seen, tf32 = [], precision == "tf32"
    engine.model.blocks.register_forward_hook(lambda *_: seen.append(settings()))
    engine.train_step(images, labels, None, 0.1)
    engine.predict(images)
    engine.trace(images, labels)
    assert len(seen) == 2
    for new, old in seen:
        assert (new[1] == "tf32", new[3] == "tf32") == (tf32, tf32), new
        assert old == (["high", True, True] if tf32 else ["highest", False, False]), old  # torch's compiler reads these
    assert settings() == before, (before, settings())
if "torch.backends.fp32_precision" in sys.argv[1]:  # its children follow it still
    b.fp32_precision = "ieee" if b.fp32_precision == "tf32" else "tf32"
    assert b.cuda.matmul.fp32_precision == b.fp32_precision
"""


@needs_switches
@pytest.mark.parametrize(
    "setting",
    [
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.cudnn.fp32_precision = 'tf32'",
        "torch.backends.fp32_precision = 'ieee'",
        "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
        "torch.set_float32_matmul_precision('medium')",
    ],
)
def test_an_engine_leaves_the_settings_of_the_process_as_they_are(setting):
    command = [sys.executable, "-c", SCRIPT, setting]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_settings_are_put_back_after_an_error_too():
    before = [s.fp32_precision for s in precision_switches()], torch.get_float32_matmul_precision()
    with pytest.raises(ZeroDivisionError), product_precision("tf32"):
        _ = 1 / 0
    assert ([s.fp32_precision for s in precision_switches()], torch.get_float32_matmul_precision()) == before


def test_a_torch_without_switches_keeps_the_old_settings(monkeypatch):
    monkeypatch.setattr("torch_vit.numerics.precision_switches", tuple)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with product_precision("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
