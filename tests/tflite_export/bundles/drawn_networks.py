"""Small networks of convolutions, drawn by Hypothesis: what the kernels of microcontrollers make cases of.

Windows and maps of one row, strides, dilation, padding, groups, multipliers, odd numbers of channels.
"""

import tf_keras
from hypothesis import strategies as st
from tf_keras import layers

WIDTH = st.integers(1, 9)
WINDOW = st.tuples(st.integers(1, 4), st.integers(1, 4))
PADDING = st.sampled_from(("same", "valid"))
# (strides, dilation): Keras does not take both. A depthwise stride is the same both ways.
STEPS = st.sampled_from([((1, 1), (1, 1)), ((2, 2), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (2, 2)), ((1, 1), (1, 2))])
ACTIVATION = st.sampled_from(("relu", "relu6", None))


@st.composite
def convolutions(draw, channels: int) -> layers.Layer:
    strides, dilation = draw(STEPS)
    groups = draw(st.sampled_from([number for number in (1, 2, 3) if channels % number == 0]))
    filters = draw(WIDTH.filter(lambda filters: filters % groups == 0))
    options = {"dilation_rate": dilation, "activation": draw(ACTIVATION), "groups": groups}
    return layers.Conv2D(filters, draw(WINDOW), strides, draw(PADDING), **options)


@st.composite
def depthwise(draw, channels: int) -> layers.Layer:
    strides, dilation = draw(STEPS.filter(lambda steps: steps[0][0] == steps[0][1]))
    options = {"dilation_rate": dilation, "activation": draw(ACTIVATION), "depth_multiplier": draw(st.integers(1, 3))}
    return layers.DepthwiseConv2D(draw(WINDOW), strides, draw(PADDING), **options)


@st.composite
def pooling(draw, channels: int) -> layers.Layer:
    kind = draw(st.sampled_from((layers.MaxPooling2D, layers.AveragePooling2D)))
    return kind(draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(PADDING))


@st.composite
def networks(draw) -> tf_keras.Model:
    """Two to four layers, on maps that may have a single row, and a Dense layer."""
    shape = draw(st.sampled_from((1, 5, 8))), draw(st.integers(4, 10)), draw(st.integers(1, 4))
    x = pixels = tf_keras.Input(shape)
    x = layers.Rescaling(1 / 64, -2.0)(x)
    for _ in range(draw(st.integers(2, 4))):
        kind = draw(st.sampled_from((convolutions, convolutions, depthwise, pooling)))
        layer = draw(kind(x.shape[-1]))
        window = getattr(layer, "kernel_size", None) or layer.pool_size
        if layer.padding == "valid" and any(size < 2 * part for size, part in zip(x.shape[1:3], window, strict=True)):
            layer = layers.ReLU()  # the map is too small for it
        x = layer(x)
    x = draw(st.sampled_from((layers.GlobalAveragePooling2D, layers.Flatten)))()(x)
    return tf_keras.Model(pixels, layers.Dense(draw(WIDTH) + 1)(x))
