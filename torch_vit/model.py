r"""The whole Vision Transformer as a torch module, its `state_dict` the project's parameter dict."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.assembled import Assembled
from torch_vit.class_token import class_token_forward
from torch_vit.dropout import dropout_forward
from torch_vit.encoder import Encoder
from torch_vit.head import pool_forward
from torch_vit.layer_norm import LayerNorm
from torch_vit.linear import Linear, linear_forward
from torch_vit.multi_head import AttentionPath
from torch_vit.numerics import check_dtypes
from torch_vit.patch_embed import patch_embed_forward
from torch_vit.pos_embed import pos_embed_forward, sincos_1d, sincos_2d
from torch_vit.tape import Tap
from vit_common.config import ViTConfig
from vit_common.errors import DtypeError, check_shape
from vit_common.masks import BEYOND, check_masks
from vit_common.params import check_params, init_params, sub


class PatchEmbed(nn.Module):
    """Parameters `proj.weight` (D, C, P_h, P_w), `proj.bias` (D,)."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.proj = nn.Conv2d(config.in_channels, config.embed_dim, config.patch_size, stride=config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D)."""
        return patch_embed_forward(images, self.proj.weight, self.proj.bias)


def fixed_pos_embed(config: ViTConfig) -> Tensor:
    """The sin/cos positions of the configuration, (1, T, D) in float64. In 2-D the class token has no place: zeros."""
    if config.pos_embed == "sincos_1d":
        return sincos_1d(config.num_tokens, config.embed_dim)[None]
    patches = sincos_2d(config.grid_size, config.embed_dim)
    return nn.functional.pad(patches, (0, 0, int(config.class_token), 0))[None]


class VisionTransformer(Assembled):
    r"""images (B, C, H, W) -> logits (B, K). The parameter names are those of `param_spec(config)`.

    Args:
        config: the model.
        attention: "fused" (fast), "explicit" (scores and probabilities can be seen) or "manual" (backward by hand).
        seed: the parameters start as `init_params(config, seed)`; None leaves them uninitialised, for a checkpoint.

    In `train()` mode without masks, dropout draws from torch's generator; with masks (of `make_masks`, as tensors) it
    drops exactly what the NumPy engine drops.

    Raises:
        ShapeError: images of another shape than the configuration's.
        DtypeError: images that are not floating point.
        ConfigError: a mask that no stage reads.
    """

    fixed_pos: Tensor  # a buffer, where the positions are sines and cosines

    def __init__(self, config: ViTConfig, attention: AttentionPath = "fused", seed: int | None = 0):
        nn.Module.__init__(self)
        self.config, self.is_plain = config, config.is_plain  # once: torch.compile cannot look into dataclass fields
        with torch.device("meta"):  # torch's own initialisation would be thrown away
            self._build_plain(config, attention) if config.is_plain else self.build(config, attention)
        self.to_empty(device="cpu")
        if config.is_plain and config.pos_embed.startswith("sincos"):
            self.register_buffer("fixed_pos", fixed_pos_embed(config), persistent=False)
        if seed is not None:
            self.load_state_dict(to_torch(init_params(config, seed)))

    def _build_plain(self, config: ViTConfig, attention: AttentionPath) -> None:
        width = config.embed_dim
        self.images, self.class_token, self.tokens, self.pooled, self.logits = (Tap() for _ in range(5))
        self.patch_embed = PatchEmbed(config)
        if config.class_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        if config.pos_embed == "learned":
            self.pos_embed = nn.Parameter(torch.empty(1, config.num_tokens, width))
        self.blocks = Encoder(config, attention)
        self.norm = LayerNorm(width, config.norm_eps)
        if config.num_classes:
            self.head = Linear(width, config.num_classes)

    def forward(self, images: Tensor, masks: Mapping[str, Tensor] | None = None) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        config = self.config.for_images(images.shape)
        check_shape("images", images, ("B", config.in_channels, *config.image_size))
        if not images.is_floating_point():
            raise DtypeError(f"images have dtype {images.dtype}, expected floating point; normalise them first")
        if masks and not torch.compiler.is_compiling():
            check_masks(masks, config)
        if not self.is_plain:
            return super().forward(images, masks)
        if any(name in BEYOND for name in masks or ()):
            return self._beyond(images, masks)
        x = self.patch_embed(self.images(images))  # (B, N, D)
        if config.class_token:
            x = self.class_token(class_token_forward(x, self.cls_token))  # (B, T, D)
        if config.pos_embed != "none":
            learned = config.pos_embed == "learned"
            x = pos_embed_forward(x, self.pos_embed if learned else self.fixed_pos.to(x))
        random = self.training and masks is None
        x = dropout_forward(x, (masks or {}).get("pos_drop"), config.pos_drop_rate, random)
        x = self.blocks(self.tokens(x), None if masks is None else sub(masks, "blocks"))
        x = self.norm(x)
        x = self.pooled(pool_forward(x, config.pool, int(config.class_token)))
        return self.logits(linear_forward(x, self.head.weight, self.head.bias) if config.num_classes else x)

    def _beyond(self, images: Tensor, masks: Mapping[str, Tensor] | None) -> Tensor:
        """The plain model with masks beyond it: assembled, with these parameters, in sight of the same hooks."""
        with torch.device("meta"):  # a shell: the parameters come from outside
            shell = Assembled(self.config, "explicit").train(self.training)
        own = dict(self.named_modules())
        for name, module in shell.named_modules():
            for hook in own[name]._forward_hooks.values() if name and name in own else ():
                module.register_forward_hook(hook)
        return functional_call(shell, dict(self.named_parameters()), (images, masks), strict=True)


def vit_forward(
    params: Mapping[str, Tensor], images: Tensor, config: ViTConfig, masks: Mapping[str, Tensor] | None = None
) -> Tensor:
    """images (B, C, H, W) -> logits (B, K), with the parameters as an argument, as in the NumPy engine.

    Raises:
        CheckpointError, ShapeError, DtypeError: parameters that do not fit the configuration, or not the images.
    """
    check_dtypes(params, images)
    check_params(params, config)
    module = VisionTransformer(config, "explicit", seed=None).eval()
    return functional_call(module, dict(params), (images, masks))


def to_torch(arrays: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """NumPy parameters (or masks) as tensors: copies, the same names, shapes and dtypes."""
    return {name: torch.from_numpy(np.array(array, order="C")).to(device) for name, array in arrays.items()}


def to_numpy(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The inverse of `to_torch`: copies on the CPU; bfloat16, which NumPy lacks, becomes float32."""
    widened = {n: t.float() if t.dtype == torch.bfloat16 else t for n, t in tensors.items()}
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in widened.items()}
