"""Operators that share one name in a file but that runtimes compute differently, and tensors with two names."""

GROUPED_CONVOLUTION = "CONV_2D in groups"
POINTWISE_CONVOLUTION = "CONV_2D of single pixels"  # 1x1, stride 1, no dilation, no groups: a Dense layer at each pixel
REQUANTIZED = "_requantize"  # how the name of a tensor ends that is another once more, at the bits of who reads it
