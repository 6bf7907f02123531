"""Operators with one name in a file that runtimes compute in different ways."""

GROUPED_CONVOLUTION = "CONV_2D in groups"
POINTWISE_CONVOLUTION = "CONV_2D of single pixels"  # 1x1, stride 1, no dilation, no groups: a Dense layer at each pixel
