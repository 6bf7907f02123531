"""Operators that share one name in a file but that runtimes compute differently, and tensors with two names."""

GROUPED_CONVOLUTION = "CONV_2D in groups"
POINTWISE_CONVOLUTION = "CONV_2D of single pixels"  # 1x1, stride 1, no dilation, no groups: a Dense layer at each pixel
REQUANTIZED = "_requantize"  # end of the name of a tensor that repeats another one at its reader's bit width
