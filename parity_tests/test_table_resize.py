"""Table resize: parity with torch, float32 error ratio, adjoint of the complex step, linearity."""

from parity_tests.variants import variant_tests

test_parity, test_error_ratio, test_adjoint, test_linear_in_upstream = variant_tests("table_resize")
