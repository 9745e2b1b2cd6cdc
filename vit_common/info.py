"""The stage table: shapes, parameters, arithmetic and memory, as text."""

import re
from collections.abc import Sequence

from vit_common.config import ViTConfig
from vit_common.cost import model_costs, parameter_counts, totals
from vit_common.errors import ConfigError


def table(header: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str] = ()) -> str:
    """Columns as wide as they need; the first is flush left, the others flush right."""
    lines = [list(header), *map(list, rows), *([list(footer)] if footer else [])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    rule = "-" * max(map(len, text))
    body = [text[0], rule, *text[1 : len(rows) + 1]]
    return "\n".join([*body, rule, text[-1]] if footer else body)


def stage_table(config: ViTConfig, batch_size: int = 1, itemsize: int = 4) -> str:
    """Every stage with its output shape, parameters, forward FLOPs and cache, and what training needs in all."""
    try:
        rows = model_costs(config)
    except ConfigError as error:
        return f"{_parameter_table(config)}\n\n{error}: shown are the parameters alone"
    total = totals(rows, itemsize)
    cells = [
        (
            row.stage,
            f"({', '.join(map(str, (batch_size, *row.shape)))})",
            f"{row.params:,}",
            si(row.flops * batch_size),
            binary(row.cache_bytes(itemsize) * batch_size),
        )
        for row in rows
    ]
    footer = ("total", "", f"{total.params:,}", si(total.flops * batch_size), binary(total.cache_bytes * batch_size))
    text = table(("stage", "output", "parameters", "FLOPs", "cache"), cells, footer)
    weights = total.params * itemsize
    notes = [
        f"blocks.* is the sum over {config.depth} blocks. FLOPs: matrix products of one forward pass, batch "
        f"{batch_size}; a training step takes three times as many, {si(3 * total.flops * batch_size)}.",
        f"Memory to train with AdamW: parameters {binary(weights)}, gradients {binary(weights)}, "
        f"moments {binary(2 * weights)}, cache {binary(total.cache_bytes * batch_size)}.",
    ]
    return text + "\n\n" + "\n".join(notes)


def _parameter_table(config: ViTConfig) -> str:
    sums: dict[str, int] = {}
    for name, count in parameter_counts(config).items():
        stage = re.sub(r"^blocks\.\d+\.", "blocks.*.", re.sub(r"\.(weight|bias)$", "", name))
        sums[stage] = sums.get(stage, 0) + count
    footer = ("total", f"{sum(sums.values()):,}")
    return table(("stage", "parameters"), [(stage, f"{n:,}") for stage, n in sums.items()], footer)


def si(number: float) -> str:
    """1.26 G, 5.7 M, 812."""
    for power, letter in ((12, " T"), (9, " G"), (6, " M"), (3, " k")):
        if number >= 10**power:
            return f"{number / 10**power:.2f}{letter}"
    return f"{number:.0f}"


def binary(size: float) -> str:
    """21.8 MiB, 3.1 KiB, 12 B."""
    for power, letter in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 2**power:
            return f"{size / 2**power:.1f} {letter}"
    return f"{size:.0f} B"
