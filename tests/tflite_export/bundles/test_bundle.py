"""Facts and small notations of the bundles."""

import numpy as np
import pytest

from tflite_export.bundles import bundle


@pytest.mark.parametrize("scale", [0.0078125, 1 / 255, 0.1, 3e-7, 12345.678])
def test_scales_in_digits_are_the_same_float32(scale):
    scales = np.array([scale], np.float32)
    assert np.float32(bundle.number(scales)) == scales[0]


def test_c_strings_keep_every_byte():
    assert bundle.c_string("cat") == '"cat"'
    assert bundle.c_string('a "b" \\ ??/ é1\n') == r'"a \042b\042 \134 \077\077/ \303\2511\012"'


def test_c_arrays_are_lines_of_decimals():
    assert bundle.c_array(bytes(range(21))).splitlines() == [", ".join(map(str, range(20))) + ",", "20,"]
    assert bundle.c_array(np.array([[-1, 2]], np.int8)) == "-1, 2,"
