"""The tape: every named intermediate of a forward and backward pass, through hooks."""

from typing import Any

from torch import Tensor, nn


class Tap(nn.Identity):
    """Names a value that is no module's output, so that a hook can see it. Costs nothing, compiles away."""


class Tape:
    """Records the output of every module and tap, and the loss's gradient with respect to it.

    >>> with Tape(model) as tape:
    ...     loss(model(images), labels).backward()
    >>> tape.values["blocks.0.attn.q"], tape.grads["blocks.0.attn.q"]

    The names are those of `numpy_vit.vit_forward(..., tape=...)` and `vit_backward(..., tape=...)`. To see `scores` and
    `probs`, the model's attention must be written out: `VisionTransformer(config, attention="explicit")`.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._tensors: dict[str, Tensor] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> "Tape":
        for name, module in self.model.named_modules():
            if name and not isinstance(module, nn.ModuleList):
                self._hooks.append(module.register_forward_hook(self._recorder(name)))
        return self

    def __exit__(self, *exception: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _recorder(self, name: str):
        def record(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            if output.requires_grad:
                output.retain_grad()
            self._tensors[name] = output

        return record

    @property
    def values(self) -> dict[str, Tensor]:
        """Name -> intermediate, detached."""
        return {name: value.detach() for name, value in self._tensors.items()}

    @property
    def grads(self) -> dict[str, Tensor]:
        """Name -> d loss / d intermediate, for those the backward pass reached."""
        return {name: value.grad for name, value in self._tensors.items() if value.grad is not None}
