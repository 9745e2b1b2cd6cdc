"""What a stage means, in plain loops: slow, obvious, and shared with neither engine."""

import math

import numpy as np

Array = np.ndarray


def patchify_loops(images: Array, patch: tuple[int, int]) -> Array:
    batch, channels, height, width = images.shape
    rows, columns = height // patch[0], width // patch[1]
    out = np.empty((batch, rows * columns, channels * patch[0] * patch[1]), images.dtype)
    for i in range(rows):
        for j in range(columns):
            block = images[:, :, i * patch[0] : (i + 1) * patch[0], j * patch[1] : (j + 1) * patch[1]]
            out[:, i * columns + j] = block.reshape(batch, -1)
    return out


def unpatchify_loops(patches: Array, image_shape: tuple[int, int, int], patch: tuple[int, int]) -> Array:
    channels, height, width = image_shape
    columns = width // patch[1]
    out = np.empty((len(patches), channels, height, width), patches.dtype)
    for n in range(patches.shape[1]):
        i, j = divmod(n, columns)
        block = patches[:, n].reshape(-1, channels, *patch)
        out[:, :, i * patch[0] : (i + 1) * patch[0], j * patch[1] : (j + 1) * patch[1]] = block
    return out


def sincos_positions(config) -> Array:
    """The fixed positions of a configuration, (1, T, D), number by number."""
    width, (grid_h, grid_w) = config.embed_dim, config.grid_size
    table = np.zeros((config.num_tokens, width))
    if config.pos_embed == "sincos_1d":
        for t in range(config.num_tokens):
            for i in range(width):
                angle = t / 10000.0 ** ((i - i % 2) / width)
                table[t, i] = math.sin(angle) if i % 2 == 0 else math.cos(angle)
        return table[None]
    quarter = width // 4
    for row in range(grid_h):
        for column in range(grid_w):
            t = int(config.class_token) + row * grid_w + column
            for i in range(quarter):
                omega = 10000.0 ** (-i / quarter)
                table[t, i], table[t, quarter + i] = math.sin(column * omega), math.cos(column * omega)
                table[t, 2 * quarter + i], table[t, 3 * quarter + i] = math.sin(row * omega), math.cos(row * omega)
    return table[None]
