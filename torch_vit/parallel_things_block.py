r"""Two attentions in parallel, then two MLPs in parallel: half as deep, twice as wide."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torch_vit.assembled_attention import AssembledAttention
from torch_vit.branch import BranchNames, make_mlp, run_branch
from torch_vit.layer_scale import LayerScale
from torch_vit.multi_head import AttentionPath
from torch_vit.norm import make_norm
from torch_vit.positions import Positions
from vit_common.assembled_spec import things_spec
from vit_common.config import ViTConfig
from vit_common.errors import check_names
from vit_common.params import sub
from vit_common.part_names import names_of

PARALLEL = 2


class ThingsBranch(nn.Module):
    """Parameters `norm.*`, `attn.*` or `mlp.*`, `ls.gamma` if there is LayerScale; mask `drop_path` (B,)."""

    def __init__(self, config: ViTConfig, body: str, module: nn.Module, drop_path_rate: float):
        super().__init__()
        self.config, self.rate = config, drop_path_rate
        self.names = BranchNames("norm", body, "ls.gamma", "drop_path")
        self.norm = make_norm(config.embed_dim, config.norm, config.norm_eps)
        setattr(self, body, module)
        self.ls = None if config.layer_scale is None else LayerScale(config.embed_dim, config.layer_scale)

    def forward(self, x: Tensor, positions: Positions, masks: Mapping[str, Tensor] | None) -> Tensor:
        body, gamma = getattr(self, self.names.body), None if self.ls is None else self.ls.gamma
        random = self.training and masks is None
        return run_branch(self.norm, body, gamma, x, self.config, self.names, positions, self.rate, masks, random)


class ParallelThingsBlock(nn.Module):
    """Parameters and masks `attns.0.*`, `attns.1.*`, `ffns.0.*`, `ffns.1.*`: those of `ThingsBranch`."""

    def __init__(
        self, config: ViTConfig, layer: int = 0, drop_path_rate: float = 0.0, attention: AttentionPath = "fused"
    ):
        super().__init__()
        attns = (AssembledAttention(config, layer, attention) for _ in range(PARALLEL))
        mlps = (make_mlp(config) for _ in range(PARALLEL))
        self.attns = nn.ModuleList(ThingsBranch(config, "attn", module, drop_path_rate) for module in attns)
        self.ffns = nn.ModuleList(ThingsBranch(config, "mlp", module, drop_path_rate) for module in mlps)

    def forward(
        self, x: Tensor, positions: Positions = Positions(), masks: Mapping[str, Tensor] | None = None  # noqa: B008
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        for group, branches in (("attns", self.attns), ("ffns", self.ffns)):
            inner = [None if masks is None else sub(masks, f"{group}.{j}") for j in range(PARALLEL)]
            x = x + sum(branch(x, positions, m) for branch, m in zip(branches, inner, strict=True))
        return x


def parallel_things_block_forward(
    params: Mapping[str, Tensor], x: Tensor, config: ViTConfig, positions: Positions = Positions(),  # noqa: B008
    masks: Mapping[str, Tensor] | None = None, drop_path_rate: float = 0.0,
) -> Tensor:  # fmt: skip
    """(B, T, D) -> (B, T, D), with the parameters as an argument, as in the NumPy engine."""
    check_names("parallel_things_block", params, names_of(things_spec, config, positions.layer))
    with torch.device("meta"):  # a shell: the parameters come from outside
        module = ParallelThingsBlock(config, positions.layer, drop_path_rate, "explicit").eval()
    return functional_call(module, dict(params), (x, positions, masks), strict=True)
