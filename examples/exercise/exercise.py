r"""Write a Vision Transformer's backward passes yourself, one stage at a time.

    pytest parity_tests --engine examples/exercise/exercise.py

Every function below is a blank: the suite calls a blank "not tested". Fill in one and run the suite again; it compares
your numbers with torch's, to the last digits, and says what a wrong gradient looks like. Start with any backward: while
its forward is blank, it gets the NumPy engine's forward and cache (see `numpy_vit` for the cache's fields). With a
forward of your own, put into the cache whatever your backward needs.

`dy` is the gradient of the loss with respect to the stage's output, and has its shape. Give new arrays back, write to
none that you were given, and keep the dtype. For one stage alone: `pytest parity_tests/test_linear.py --engine ...`.
"""


def linear_forward(x, weight, bias=None):
    """(..., I), (O, I), (O,) -> (y (..., O), cache). Hint: make all leading axes one, and it is a matrix product."""
    raise NotImplementedError


def linear_backward(dy, cache):
    """(..., O) -> (dx, {"weight": (O, I), "bias": (O,)}); no "bias" if the forward had none.

    Hint: y = x W^T + b. Only one order of factors and transposes gives each gradient its shape. What the forward
    repeats (b, for every row) the backward sums.
    """
    raise NotImplementedError


def class_token_forward(x, cls_token):
    """(B, N, D), (1, 1, D) -> (y (B, 1 + N, D), cache). Hint: the same token in front of every image."""
    raise NotImplementedError


def class_token_backward(dy, cache):
    """(B, 1 + N, D) -> (dx, {"cls_token": (1, 1, D)}). Hint: one token, used B times."""
    raise NotImplementedError


def pos_embed_forward(x, pos_embed):
    """(B, T, D), (1, T, D) -> (y (B, T, D), cache)."""
    raise NotImplementedError


def pos_embed_backward(dy, cache):
    """(B, T, D) -> (dx, {"pos_embed": (1, T, D)}). Hint: what was broadcast is summed."""
    raise NotImplementedError


def layer_norm_forward(x, weight, bias, eps=1e-6):
    """(..., D), (D,), (D,) -> (y, cache). Hint: the variance divides by D, and eps goes under the root."""
    raise NotImplementedError


def layer_norm_backward(dy, cache):
    """(..., D) -> (dx, {"weight": (D,), "bias": (D,)}).

    Hint: mean and variance depend on x too. With h = dy * weight, the result is the part of h that is orthogonal to
    1 and to xhat, divided by the deviation.
    """
    raise NotImplementedError


def gelu_forward(x):
    """(...) -> (y, cache): x * Phi(x), exact. Hint: `math.erf` takes one number; `numpy_vit.erf` takes an array."""
    raise NotImplementedError


def gelu_backward(dy, cache):
    """(...) -> dx. Hint: the product rule; the derivative of Phi is the bell curve exp(-x^2 / 2) / sqrt(2 pi)."""
    raise NotImplementedError


def dropout_forward(x, mask, rate):
    """x (...), mask (...) of bool (True = keep) or None -> (y, cache). Hint: what is kept grows by 1 / (1 - rate)."""
    raise NotImplementedError


def dropout_backward(dy, cache):
    """(...) -> dx. Hint: the forward is linear."""
    raise NotImplementedError


def softmax_forward(x):
    """(..., T) -> (probs, cache), over the last axis. Hint: exp(1000) is infinite; subtract the row's maximum."""
    raise NotImplementedError


def softmax_backward(dy, cache):
    """(..., T) -> dx. Hint: d p_i / d x_j = p_i (delta_ij - p_j); each row of dx sums to zero."""
    raise NotImplementedError


def attention_forward(q, k, v, drop_mask=None, drop_rate=0.0):
    """(B, NH, T, HD) each -> (y, cache). Hint: divide by the root of HD; dropout acts on the probabilities."""
    raise NotImplementedError


def attention_backward(dy, cache):
    """(B, NH, T, HD) -> (dq, dk, dv). Hint: two matrix products, a softmax and a dropout, backwards; dk needs dS^T."""
    raise NotImplementedError


def pool_forward(x, pool="cls", prefix=1):
    """(B, T, D) -> (y (B, D), cache): token 0, or the mean of the tokens from `prefix` on."""
    raise NotImplementedError


def pool_backward(dy, cache):
    """(B, D) -> dx (B, T, D). Hint: tokens that were not read get zeros."""
    raise NotImplementedError


def cross_entropy_forward(logits, labels, label_smoothing=0.0):
    """(B, K), (B,) -> (mean loss, cache). Hint: log p = z - logsumexp(z), never log(softmax(z))."""
    raise NotImplementedError


def cross_entropy_backward(cache, dloss=1.0):
    """() -> dlogits (B, K). Hint: probabilities less targets, over the batch size, times dloss."""
    raise NotImplementedError


def encoder_block_forward(params, x, config, masks=None, drop_path_rate=0.0):
    """(B, T, D) -> (y, cache). Hint: `numpy_vit` offers every part; x + attention(norm1(x)), then + mlp(norm2(.))."""
    raise NotImplementedError


def encoder_block_backward(dy, cache):
    """(B, T, D) -> (dx, gradients with the parameters' names). Hint: where a value forks, its gradients add up."""
    raise NotImplementedError
