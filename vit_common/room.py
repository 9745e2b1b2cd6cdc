"""Whether a model fits into the machine, known before anything is allocated: a depth of 10^9 is refused, not tried.

Counted is only what cannot be done without, so what passes may still be too much; but nothing that fits is refused.
"""

from vit_common.config import ViTConfig
from vit_common.cost import parameter_counts
from vit_common.errors import ConfigError
from vit_common.info import binary
from vit_common.memory import total_memory

# What there is of every parameter: itself, gradient and, of AdamW, two moments. Where another device computes, this
# machine is without the gradient, but to save a run it needs a copy of the rest.
COPIES = {"adamw": 4, "sgd": 3}
TRACED = 2  # without an optimizer


def least_bytes(config: ViTConfig, dtype: str, pictures: int, copies: int, on_host: bool = True) -> int:
    """The least memory of this machine that a step of so many pictures needs.

    Of activations, what enters each block, which those keep that recompute the rest; where another device computes,
    the pictures' bytes alone.
    """
    itemsize = {"float32": 4, "float64": 8}[dtype]
    parameters = sum(parameter_counts(config).values())
    pixels = config.in_channels * config.image_size[0] * config.image_size[1]
    if not on_host:
        return parameters * itemsize * (copies - 1) + pictures * pixels
    tokens = max(1, int(config.num_tokens * (1.0 - config.patch_drop_rate)))
    kept = config.depth * tokens * config.embed_dim
    return itemsize * (parameters * copies + pictures * (pixels + kept))


def check_room(config: ViTConfig, dtype: str, pictures: int, copies: int, on_host: bool = True) -> None:
    """Raise ConfigError if the machine's memory could not hold it, even if it held nothing else."""
    need, have = least_bytes(config, dtype, pictures, copies, on_host), total_memory()
    if have is not None and need > have:
        raise ConfigError(
            f"a model of {sum(parameter_counts(config).values()):,} parameters on {pictures} pictures at a time needs "
            f"at least {binary(need)} of memory and the machine has {binary(have)}; choose a smaller --depth, "
            f"--embed-dim, --image-size or --batch-size"
        )


def no_memory(error: BaseException) -> str:
    """What to say of an allocation that failed, in NumPy or in torch; empty: the error is another one."""
    text = " ".join(str(error).split())
    if not (isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text):
        return ""
    return f"the memory does not suffice ({text[:200]}); choose a smaller --batch-size, model or picture"
