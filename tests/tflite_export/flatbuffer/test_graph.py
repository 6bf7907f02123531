import numpy as np
import pytest

from tflite_export.flatbuffer.graph import IntegerGraph, Tensor, constant


def test_two_tensors_of_one_name_are_refused():
    graph = IntegerGraph()
    assert graph.add_tensor(constant("axes", np.array([1], np.int32))) == "axes"
    with pytest.raises(ValueError, match="two tensors are named axes"):
        graph.add_tensor(Tensor("axes", (1,), "int8", np.array([1.0])))
    assert graph.tensors["axes"].dtype == "int32"


def test_constant_takes_shape_and_type_from_its_data():
    tensor = constant("kernel", np.zeros((2, 3), np.int8), [0.5, 0.25], axis=0)
    assert (tensor.shape, tensor.dtype, tensor.zero_point, tensor.axis) == ((2, 3), "int8", 0, 0)
    assert tensor.scales.dtype == np.float32
    assert constant("axes", np.array([1, 2], np.int32)).scales.size == 0


def test_graphs_share_nothing():
    first, second = IntegerGraph(), IntegerGraph()
    first.add_tensor(constant("axes", np.array([1], np.int32)))
    assert second.tensors == {} and second.operators == []
