"""Inference: the weights in the form that the device multiplies fastest, and one shape for the compiler."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_vit import fast_cpu
from torch_vit.compiled import begin, compiled
from torch_vit.data_parallel import batch_shares, run
from torch_vit.numerics import numerics
from torch_vit.options import TorchOptions
from vit_common.config import ViTConfig


class Predictor:
    """images (B, C, H, W) -> logits (B, K), nothing dropped; on a CPU by threads, each with a share of the batch.

    With `precision="bf16"` from a copy of the weights in bfloat16, which saves the cast in front of every product: on
    a GPU, and on a CPU that has instructions for it. On another CPU bfloat16 is slower than float32 (each number is
    widened before it is multiplied), so there the weights stay as they are.
    """

    def __init__(self, model: nn.Module, options: TorchOptions, device: torch.device, config: ViTConfig):
        self.source, self.options, self.device, self.config = model, options, device, config
        self.low = options.precision == "bf16" and (device.type != "cpu" or fast_cpu.multiplies_bf16())
        self.model: nn.Module | None = None  # made at the first call: who only trains needs no copy
        self.stale, self.size = False, 0

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        model = self.current()
        if model.training:  # to look at every module takes half a millisecond
            model.eval()
        count = len(images)
        if self.options.compile:  # the last batch of a split is smaller: filled up, it needs no compilation of its own
            self.size = max(self.size, count)
            images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, self.size - count))
        begin(self.options, self.device)
        with numerics(self.options):
            logits = self.in_shares(images.to(torch.bfloat16) if self.low else images)[:count]
        return logits.float() if self.low else logits

    def in_shares(self, images: Tensor) -> Tensor:
        shares = [] if self.options.compile else batch_shares(images, self.config)
        if len(shares) < 2:
            return self.forward(images)
        work = torch.inference_mode()(lambda share: self.forward(images[share]))
        return torch.cat(run(work, shares))

    def current(self) -> nn.Module:
        """The model to run. A copy follows the weights in place, so that what was compiled for it still holds."""
        if self.model is None:
            self.model = deepcopy(self.source).to(torch.bfloat16) if self.low else self.source
            self.forward = compiled(self.model, self.options)
        elif self.low and self.stale:
            for mine, theirs in zip(self.model.parameters(), self.source.parameters(), strict=True):
                mine.copy_(theirs)
        self.stale = False
        return self.model
