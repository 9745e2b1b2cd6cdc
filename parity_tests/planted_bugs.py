r"""Bugs to plant, one at a time, in a copy of the NumPy engine: each must be caught, and in the right stage.

Most were found in published NumPy transformers whose own tests pass. Two ways to write one down:

- `Edit`: a piece of a function's text and what shall stand there; comments and line breaks do not matter, and the piece
  must occur, so that a change of the engine cannot silently disarm a bug;
- `Wrong`: another function in the place of one, which may call the right one under the name `right`.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from parity_tests.planting import engine_with, source_path


class Edit(NamedTuple):
    file: str
    function: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        tree = ast.parse(source)
        function = _function(tree, self.function, self.file)
        text, old = ast.unparse(function), ast.unparse(ast.parse(self.old))
        if old not in text:
            raise LookupError(f"{self.file}.{self.function} no longer says {old!r}: mend the bug that changes it")
        tree.body[tree.body.index(function)] = ast.parse(text.replace(old, self.new)).body[0]
        return ast.unparse(tree)


class Wrong(NamedTuple):
    file: str
    function: str
    code: str  # "(arguments): body"

    def apply(self, source: str) -> str:
        _function(ast.parse(source), self.function, self.file)
        return f"{source}\nright = {self.function}\ndef {self.function}{self.code}\n"


class Bug(NamedTuple):
    name: str
    stage: str  # of the harness: the first, in reading order, whose checks must fail
    story: str
    changes: tuple[Edit | Wrong, ...]


def _function(tree: ast.Module, name: str, file: str) -> ast.FunctionDef:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise LookupError(f"numpy_vit.{file} has no function {name}: mend the bug that changes it")


@cache
def planted(bug: Bug) -> Any:
    """The NumPy engine with this one bug."""
    sources: dict[str, str] = {}
    for change in bug.changes:
        module = f"numpy_vit.{change.file}"
        sources[module] = change.apply(sources.get(module) or Path(source_path(module)).read_text())
    return engine_with(sources)


BUGS = (
    # ---- leaves
    Bug("bias_over_one_axis", "linear", "the bias gradient sums over the batch, not over the tokens",
        (Wrong("linear", "linear_backward", """(dy, cache):
            dx, grads = right(dy, cache)
            return dx, {**grads, "bias": dy.sum(axis=0)} if cache.has_bias else grads"""),)),
    Bug("weight_gradient_transposed", "linear", "x.T @ dy in the place of dy.T @ x",
        (Wrong("linear", "linear_backward", """(dy, cache):
            dx, grads = right(dy, cache)
            return dx, {**grads, "weight": grads["weight"].T}"""),)),
    Bug("patch_grid_exchanged", "patch_embed", "rows and columns of the grid exchanged in the reshape",
        (Edit("patch_embed", "patchify", "grid_h, grid_w = (height // patch_h, width // patch_w)",
              "grid_w, grid_h = (height // patch_h, width // patch_w)"),)),
    Bug("patch_axes_swapped", "patch_embed", "the pixels of a patch read column by column",
        (Edit("patch_embed", "patchify", "blocks.transpose(0, 2, 4, 1, 3, 5)", "blocks.transpose(0, 2, 4, 1, 5, 3)"),)),
    Bug("class_token_written_once", "class_token", "the class token stands in image 0 alone",
        (Wrong("class_token", "class_token_forward", """(x, cls_token):
            y, cache = right(x, cls_token)
            y[1:, 0] = 0
            return y, cache"""),)),
    Bug("class_gradient_of_one_image", "class_token", "the token's gradient is that of image 0, not the sum",
        (Wrong("class_token", "class_token_backward", """(dy, cache):
            return right(dy, cache)[0], {"cls_token": dy[:1, :1].copy()}"""),)),
    Bug("position_gradient_not_summed", "pos_embed", "the positions' gradient is that of image 0, not the sum",
        (Wrong("pos_embed", "pos_embed_backward", """(dy, cache):
            return dy, {"pos_embed": dy[:1].copy()}"""),)),
    Bug("input_written_to", "pos_embed", "x += pos, in the caller's array",
        (Wrong("pos_embed", "pos_embed_forward", """(x, pos_embed):
            _, cache = right(x, pos_embed)
            x += pos_embed
            return x, cache"""),)),
    Bug("norm_other_eps", "layer_norm", "1e-5, torch's default, in the place of the eps asked for",
        (Wrong("layer_norm", "layer_norm_forward", """(x, weight, bias, eps=1e-6):
            return right(x, weight, bias, 1e-5)"""),)),
    Bug("norm_sample_variance", "layer_norm", "the variance divided by D - 1",
        (Wrong("layer_norm", "layer_norm_forward", """(x, weight, bias, eps=1e-6):
            xhat = x - x.mean(axis=-1, keepdims=True)
            width = x.shape[-1]
            variance = (xhat * xhat).sum(axis=-1, keepdims=True) / max(width - 1, 1)
            rstd = 1.0 / np.sqrt(variance + eps)
            return xhat * rstd * weight + bias, LayerNormCache(xhat * rstd, rstd, weight)"""),)),
    Bug("norm_one_pass", "layer_norm", "variance as mean square less squared mean: cancels when the mean is large",
        (Wrong("layer_norm", "layer_norm_forward", """(x, weight, bias, eps=1e-6):
            mean = x.mean(axis=-1, keepdims=True)
            variance = (x * x).mean(axis=-1, keepdims=True) - mean * mean
            rstd = 1.0 / np.sqrt(variance + eps)
            xhat = (x - mean) * rstd
            return xhat * weight + bias, LayerNormCache(xhat, rstd, weight)"""),)),
    Bug("norm_gradient_misses_the_deviation", "layer_norm", "the backward forgets that the deviation depends on x",
        (Wrong("layer_norm", "layer_norm_backward", """(dy, cache):
            grads, dx = right(dy, cache)[1], dy * cache.weight
            return (dx - dx.mean(axis=-1, keepdims=True)) * cache.rstd, grads"""),)),
    Bug("gelu_tanh", "gelu", "the tanh approximation for the exact GELU, forward and slope",
        (Wrong("gelu", "gelu_forward", """(x):
            a, b = math.sqrt(2 / math.pi), 0.044715
            t = np.tanh(a * (x + b * x**3))
            slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * a * (1 + 3 * b * x * x)
            return 0.5 * x * (1 + t), GeluCache(slope)"""),)),
    Bug("gelu_to_float64", "gelu", "a NumPy scalar that promotes float32 to float64",
        (Wrong("gelu", "gelu_forward", """(x):
            y, cache = right(x)
            return y * np.ones(1), cache"""),)),
    Bug("dropout_not_rescaled", "dropout", "kept numbers are not divided by the keep rate",
        (Wrong("dropout", "dropout_forward", """(x, mask, rate):
            y, cache = right(x, mask, rate)
            return (y, cache) if mask is None else (x * mask, cache._replace(scale=1.0))"""),)),
    Bug("dropout_gradient_not_masked", "dropout", "the backward lets gradients through what was dropped",
        (Wrong("dropout", "dropout_backward", """(dy, cache):
            return dy.copy()"""),)),
    Bug("softmax_wrong_axis", "softmax", "the maximum is taken over the batch",
        (Wrong("attention", "softmax_forward", """(x):
            return right(x - x.real.max(axis=0, keepdims=True))"""),)),
    Bug("softmax_not_shifted", "softmax", "no maximum subtracted: overflows",
        (Wrong("attention", "softmax_forward", """(x):
            e = np.exp(x)
            probs = e / e.sum(axis=-1, keepdims=True)
            return probs, SoftmaxCache(probs)"""),)),
    Bug("softmax_backward_zeros", "softmax", "the backward returns zeros",
        (Wrong("attention", "softmax_backward", """(dy, cache):
            return np.zeros_like(dy)"""),)),
    Bug("cache_written_to", "softmax", "the backward works in the cache: right once, wrong when called again",
        (Wrong("attention", "softmax_backward", """(dy, cache):
            dx = right(dy, cache)
            cache.probs[...] = dx
            return dx"""),)),
    Bug("scale_by_heads", "attention", "scores divided by the root of the number of heads, not of their width",
        (Edit("attention", "attention_forward", "math.sqrt(q.shape[3])", "math.sqrt(q.shape[1])"),
         Edit("attention", "attention_backward", "math.sqrt(q.shape[3])", "math.sqrt(q.shape[1])"))),
    Bug("dk_not_transposed", "attention", "dK = dS @ Q in the place of dS.T @ Q",
        (Edit("attention", "attention_backward", "dscores.swapaxes(-1, -2) @ q", "dscores @ q"),)),
    # ---- composites
    Bug("heads_not_transposed_back", "multi_head", "merged by a reshape alone",
        (Wrong("multi_head", "merge_heads", """(x):
            batch, heads, tokens, head_dim = x.shape
            return x.reshape(batch, tokens, heads * head_dim)"""),)),
    Bug("qkv_gradients_exchanged", "multi_head", "dq and dk in each other's place",
        (Edit("multi_head", "multi_head_backward", "(dq, dk, dv) = attention_backward(dheads, cache.attention, tape)",
              "(dk, dq, dv) = attention_backward(dheads, cache.attention, tape)"),)),
    Bug("mlp_dropout_skipped", "mlp", "the backward forgets the dropout after the activation",
        (Edit("mlp", "mlp_backward", "dropout_backward(ddropped, cache.drop1)", "ddropped"),)),
    Bug("residual_dropped", "encoder_block", "the gradient does not flow past the attention",
        (Edit("encoder_block", "encoder_block_backward", "dx += dz", "pass"),)),
    Bug("drop_path_rate_constant", "encoder", "every block gets the last block's rate",
        (Edit("encoder", "encoder_forward", "drop_path_rates(config)", "[config.drop_path_rate] * config.depth"),)),
    Bug("blocks_not_reversed", "encoder", "the backward walks the blocks in the order of the forward",
        (Edit("encoder", "encoder_backward", "reversed(range(len(cache.blocks)))", "range(len(cache.blocks))"),)),
    Bug("mean_with_class_token", "pool", "the class token is averaged in with the patches",
        (Wrong("head", "pool_forward", """(x, pool="cls", prefix=1):
            return right(x, pool, 0)"""),)),
    Bug("softmax_in_the_head", "head", "probabilities in the place of logits: the loss takes the softmax again",
        (Wrong("head", "head_forward", """(params, x, config, tape=None):
            logits, cache = right(params, x, config, tape)
            e = np.exp(logits - logits.real.max(axis=-1, keepdims=True))
            return e / e.sum(axis=-1, keepdims=True), cache"""),)),
    Bug("loss_gradient_not_averaged", "cross_entropy", "not divided by the batch",
        (Wrong("loss", "cross_entropy_backward", """(cache, dloss=1.0):
            return right(cache, dloss) * len(cache.labels)"""),)),
    Bug("loss_log_of_softmax", "cross_entropy", "the logarithm of a softmax: infinite when confident and wrong",
        (Wrong("loss", "cross_entropy_forward", """(logits, labels, label_smoothing=0.0):
            _, cache = right(logits, labels, label_smoothing)
            log_probs = np.log(np.exp(cache.log_probs))
            picked = log_probs[np.arange(len(labels)), labels]
            losses = (1 - label_smoothing) * picked + label_smoothing * log_probs.mean(axis=1)
            return -losses.mean(), cache"""),)),
    Bug("smoothing_not_in_the_gradient", "cross_entropy", "the loss is smoothed, its gradient is not",
        (Wrong("loss", "cross_entropy_backward", """(cache, dloss=1.0):
            return right(cache._replace(label_smoothing=0.0), dloss)"""),)),
    Bug("final_norm_default_eps", "vit", "the last LayerNorm does not get the configuration's eps",
        (Edit("model", "vit_forward",
              "layer_norm_forward(x, params['norm.weight'], params['norm.bias'], config.norm_eps)",
              "layer_norm_forward(x, params['norm.weight'], params['norm.bias'])"),)),
)  # fmt: skip
