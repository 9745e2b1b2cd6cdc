r"""Attention pooling (MAP): a learned query reads all tokens, and an MLP works on what it read."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.activated_mlp import ActivatedMlp
from torch_vit.attention import attention_forward, fused_attention_forward
from torch_vit.linear import Linear
from torch_vit.multi_head import AttentionPath, known_path, merge_heads, split_heads
from torch_vit.norm import make_norm
from torch_vit.tape import Tap
from vit_common.config import ViTConfig


class AttentionPool(nn.Module):
    """Parameters `latent` (1, 1, D), `q.*`, `kv.*`, `proj.*`, `norm.*`, `mlp.*`."""

    def __init__(self, config: ViTConfig, attention: AttentionPath = "fused"):
        super().__init__()
        width, ratio = config.embed_dim, config.attn_pool_mlp_ratio
        self.heads, self.attention = config.attn_pool_heads or config.num_heads, known_path(attention)
        self.latent = nn.Parameter(torch.empty(1, 1, width))
        self.q, self.kv, self.proj = Linear(width, width), Linear(width, 2 * width), Linear(width, width)
        self.scores, self.probs = Tap(), Tap()
        self.norm = make_norm(width, config.norm, config.norm_eps)
        hidden = int(width * ratio) if ratio else config.mlp_dim
        own = {"mlp_hidden": hidden, "activation": config.attn_pool_activation or config.activation}
        self.mlp = ActivatedMlp(config.replace(**own, mlp_bias=True, mlp_norm=False, proj_drop_rate=0.0, mlp="mlp"))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, D)."""
        parts = (self.q(self.latent.expand(len(x), -1, -1)), *self.kv(x).chunk(2, dim=-1))
        q, k, v = (split_heads(part, self.heads) for part in parts)
        explicit = self.attention == "explicit"
        y = attention_forward(q, k, v, tap=self.tap) if explicit else fused_attention_forward(q, k, v)
        u = self.proj(merge_heads(y))  # (B, 1, D)
        return (u + self.mlp(self.norm(u)))[:, 0]

    def tap(self, name: str, value: Tensor) -> Tensor:
        return getattr(self, name)(value)


def attention_pool_forward(params: Mapping[str, Tensor], x: Tensor, config: ViTConfig) -> Tensor:
    """(B, T, D) -> (B, D), with the parameters as an argument, as in the NumPy engine."""
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = AttentionPool(config, "explicit").eval()
    return functional_call(module, dict(params), (x,), strict=True)
