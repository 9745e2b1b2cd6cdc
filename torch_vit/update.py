"""The update: torch's fused optimizers, which leave everything as it is where the device says that a step failed."""

from collections.abc import Mapping

import torch
from torch import Tensor

from torch_vit.optimizer import parameter_groups
from vit_common.recipe import Recipe

FUSED = ("cpu", "cuda")  # one kernel for all parameters, which looks at `found_inf` itself


class Update:
    """AdamW or SGD, the clipping before it, and the latch: after a step that is not finite, no other is taken."""

    def __init__(self, named: Mapping[str, Tensor], recipe: Recipe, decay: Mapping[str, bool], device: torch.device):
        self.params, self.clip = list(named.values()), recipe.clip_norm or float("inf")
        self.fused = device.type in FUSED
        groups = parameter_groups(named.items(), recipe.weight_decay, decay)
        if recipe.optimizer == "adamw":
            betas = recipe.beta1, recipe.beta2
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, recipe.lr, betas, fused=self.fused)
        else:
            self.optimizer = torch.optim.SGD(groups, recipe.lr, recipe.momentum, fused=self.fused)
            for p in self.params:  # torch would make it in the first step, and leave it unwritten if that one fails
                self.optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
        self.failed = torch.zeros((), device=device)

    def step(self, loss: Tensor, lr: float) -> Tensor:
        """Clip, update unless loss or norm is not finite, and return the norm before; no number goes to the host."""
        norm = torch.nn.utils.clip_grad_norm_(self.params, self.clip)
        finite = torch.isfinite(loss.detach()) & torch.isfinite(norm)
        self.failed = torch.maximum(self.failed, (~finite).float())
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.fused:
            self.optimizer.found_inf, self.optimizer.grad_scale = self.failed, None  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not self.failed:  # another device's optimizer does not look: the host has to, and waits
            self.optimizer.step()
        return norm

    def reset(self) -> None:
        """A state was loaded: steps are taken again."""
        self.failed = torch.zeros_like(self.failed)
