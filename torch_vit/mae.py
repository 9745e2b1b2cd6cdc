r"""Masked autoencoder: the encoder sees some patches, a light decoder paints the pixels of the others."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.assembled import Assembled
from torch_vit.assembled_encoder import AssembledEncoder, encoder_positions
from torch_vit.layer_norm import LayerNorm
from torch_vit.linear import Linear
from torch_vit.mae_loss import mae_loss_forward
from torch_vit.mask_tokens import mask_tokens_forward
from torch_vit.multi_head import AttentionPath
from torch_vit.pos_embed import pos_embed_forward
from torch_vit.tape import Tap
from torch_vit.token_stem import fixed_positions
from vit_common.mae_config import MaeConfig, check_mae_params


class Mae(Assembled):
    """(images, mask) -> (loss, prediction). The parameter names are those of `mae_spec(config)`."""

    def __init__(self, config: MaeConfig, attention: AttentionPath = "fused"):
        super().__init__(config.encoder, attention)
        self.mae, decoder, width = config, config.decoder, config.decoder_dim
        self.decoder_embed = Linear(config.encoder.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.encoder.pos_embed == "learned":
            self.decoder_pos_embed = nn.Parameter(torch.zeros(1, decoder.num_tokens, width))
        self.decoder_tokens = Tap()
        self.decoder_blocks = AssembledEncoder(decoder, attention)
        self.decoder_norm = LayerNorm(width, decoder.norm_eps)
        self.decoder_pred = Linear(width, config.encoder.patch_dim)

    def forward(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """images (B, C, H, W), mask (B, N) of bool, True = seen -> loss (), prediction (B, N, Q)."""
        config, prefix = self.mae, self.mae.encoder.num_prefix_tokens
        x = self.decoder_embed(self.features(images, {"patch_drop": mask}))
        x = mask_tokens_forward(x, self.mask_token, mask, prefix)  # (B, T, DD)
        learned = hasattr(self, "decoder_pos_embed")
        pos = self.decoder_pos_embed if learned else fixed_positions(config.decoder).to(x)
        x = self.decoder_tokens(pos_embed_forward(x, pos))
        x = self.decoder_blocks(x, encoder_positions(config.decoder, None, None, {}, x))
        x = self.decoder_norm(x)
        prediction = self.decoder_pred(x)[:, prefix:]
        loss = mae_loss_forward(prediction, images, mask, config.encoder.patch_size, config.norm_pix)
        return loss, prediction


def mae_forward(
    params: Mapping[str, Tensor], images: Tensor, config: MaeConfig, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """images (B, C, H, W), mask (B, N) -> loss (), prediction (B, N, Q), with the parameters as an argument.

    Raises:
        CheckpointError, ShapeError: parameters of other names or shapes than `mae_spec(config)`.
    """
    check_mae_params(params, config)
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = Mae(config, "explicit").eval()
    return functional_call(module, dict(params), (images, mask), strict=True)
