"""What a check for NaN and infinities takes: NumPy's arrays, torch's tensors, and a typed error for the rest."""

import numpy as np
import pytest

from vit_common import DtypeError, RangeError, check_finite


@pytest.mark.parametrize("given", ["a", [object()], np.array(["a"]), None, [[1.0], [1.0, 2.0]]],
                         ids=["string", "objects", "strings", "nothing", "ragged"])
def test_what_is_no_array_of_numbers_is_not_checked(given):
    with pytest.raises(DtypeError, match="weight is no array of numbers"):
        check_finite(weight=given)


def test_numbers_of_any_kind_are_checked():
    check_finite(a=np.zeros((0, 2)), b=3, c=[1.0, 2.0], d=np.arange(3))
    with pytest.raises(RangeError, match=r"x holds 1 non-finite of 2 values, the first at index \(1,\): inf"):
        check_finite(x=[1.0, float("inf")])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64", "int64", "bool"])
def test_a_tensor_is_checked_like_an_array(dtype):
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype)
    values = torch.ones(2, 3, dtype=kind, requires_grad=kind.is_floating_point)
    check_finite(x=values, y=values.detach().conj())
    if kind.is_floating_point or kind.is_complex:
        with torch.no_grad():
            values[1, 2] = float("nan")
        with pytest.raises(RangeError, match=r"x holds 1 non-finite of 6 values, the first at index \(1, 2\): "):
            check_finite(x=values)


def test_a_tensor_without_numbers_is_said_to_have_none():
    torch = pytest.importorskip("torch")
    with pytest.raises(DtypeError, match="x is no array of numbers"):
        check_finite(x=torch.empty(2, device="meta"))
