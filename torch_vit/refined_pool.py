r"""Refined pooling: the tokens read each other once more, with no weights at all, before one of them is read."""

from torch import Tensor, nn

from torch_vit.attention import attention_forward, fused_attention_forward
from torch_vit.multi_head import AttentionPath, known_path, merge_heads, split_heads
from torch_vit.tape import Tap
from vit_common.errors import check_shape


class RefinedPool(nn.Module):
    """(B, T, D) -> (B, D); no parameters."""

    def __init__(self, heads: int, first: bool, attention: AttentionPath = "fused"):
        super().__init__()
        self.heads, self.first, self.attention = heads, first, known_path(attention)
        self.scores, self.probs = Tap(), Tap()

    def forward(self, x: Tensor) -> Tensor:
        check_shape("x of refined_pool", x, ("B", "T", "D"))
        each = split_heads(x, self.heads)
        explicit = self.attention == "explicit"
        y = attention_forward(each, each, each, tap=self.tap) if explicit else fused_attention_forward(each, each, each)
        refined = merge_heads(y)  # (B, T, D)
        return refined[:, 0] if self.first else refined.mean(dim=1)

    def tap(self, name: str, value: Tensor) -> Tensor:
        return getattr(self, name)(value)


def refined_pool_forward(x: Tensor, heads: int, first: bool) -> Tensor:
    """(B, T, D) -> (B, D), as in the NumPy engine."""
    return RefinedPool(heads, first, "explicit")(x)
