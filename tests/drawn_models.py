"""Small tf_keras models as people write them, drawn by Hypothesis: `models` is the strategy.

A model is made of rows of tables: how pixels are read (FRONTS), layers (LAYERS), what is wired of them (WIRES), how it
ends (HEADS). What Keras does not take at the place is left out, so every model is one that Keras has built.
"""

import contextlib
import dataclasses
import functools
import random
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
import tf_keras
from hypothesis import strategies as st
from tf_keras import layers as L

NUM_PICTURES = 24
MEAN, DEVIATION = (123.675, 116.28, 103.53, 120.0), (58.395, 57.12, 57.375, 60.0)
# What a file's, a graph's or our own names must not be, and what people call layers all the same.
NAMES = (
    *("file", "pixels", "normalization", "normalization_scale", "quant_conv", "stem_requantize", "a/kernel", "kernel"),
    *("block 1", "schicht_größe", "層", "x" * 120, "logits", "logits_flat", "two_logits", "self", "name", "training"),
    *(
        "conv_swish",
        "conv_relu_map",
        "_hidden",
        "a.b",
        "a:0",
        "-",
        "None",
        "again_conv",
        "Model/conv/1",
        "input",
        "quit",
    ),
)
ACTIVATIONS: Mapping[str, Callable[[], object]] = {
    **{f"{name!r}": functools.partial(str, name) for name in ("relu", "swish", "linear", "sigmoid", "relu6")},
    **{f"{name!r}": functools.partial(str, name) for name in ("tanh", "gelu", "elu", "softmax", "hard_sigmoid")},
    "tf.nn.relu": lambda: tf.nn.relu,
    "tf.nn.relu6": lambda: tf.nn.relu6,
    "tf.nn.silu": lambda: tf.nn.silu,
    "tf.nn.leaky_relu": lambda: tf.nn.leaky_relu,
    "activations.relu": lambda: tf_keras.activations.relu,
    "ReLU()": L.ReLU,
    "ReLU(6)": lambda: L.ReLU(6.0),
    "ReLU(3)": lambda: L.ReLU(3.0),
    "LeakyReLU()": L.LeakyReLU,
    "Softmax()": L.Softmax,
    "PReLU()": L.PReLU,
    "Activation('swish')": lambda: L.Activation("swish"),
    "own function": lambda: relu,
    "lambda": lambda: lambda x: tf.nn.relu(x) * 0.5,
    "partial": lambda: functools.partial(tf.nn.leaky_relu, alpha=0.3),
}
ORDINARY_ACTIVATIONS = (
    "'hard_sigmoid'",
    "LeakyReLU()",
    "tf.nn.leaky_relu",
    "partial",
    "ReLU(3)",
    "'relu'",
    "'swish'",
    "'linear'",
    "tf.nn.relu",
    "tf.nn.relu6",
    "ReLU()",
    "ReLU(6)",
    "'sigmoid'",
)
POLICIES = ("mixed_float16", "mixed_bfloat16", "float64")


def relu(x):
    """A user's own, which is not Keras' function of that name."""
    return tf.maximum(x, 0.1 * x)


class OwnLayer(L.Layer):
    def build(self, shape):
        self.scale = self.add_weight("scale", (shape[-1],))

    def call(self, x):
        return x * self.scale


class OwnConv2D(L.Conv2D):
    """A subclass that does something else than its class."""

    def call(self, x):
        return tf.nn.relu(super().call(x))


class OwnBlock(tf_keras.Model):
    def __init__(self, filters: int):
        super().__init__()
        self.conv, self.norm = L.Conv2D(filters, 3, padding="same"), L.BatchNormalization()

    def call(self, x, training=None):
        return tf.nn.relu(self.norm(self.conv(x), training=training))


class OwnFunctional(tf_keras.Model):
    """A functional model with a call of its own."""

    def call(self, x, training=None):
        return 2.0 * super().call(x, training=training)


@dataclasses.dataclass
class Drawn:
    """One model.

    Attributes:
      pictures: [N, H, W, C] uint8.
      num_classes: of its labels.
      head: what it makes of logits, a row of PROBABILITIES.
      shallow: without products and what else makes large numbers.
      bits: of weights and activations, as `qkd_tf.fit` takes them.
      options: for `qkd_tf.fit`: what a model without a normalisation needs.
      lines: how it was made.
      chance: for what else is to be decided.
    """

    model: tf_keras.Model
    pictures: np.ndarray
    num_classes: int
    head: str
    shallow: bool
    bits: str
    options: dict
    lines: list[str]
    chance: random.Random

    def __repr__(self) -> str:
        return "\n    ".join(self.lines)


class Drawer:
    """Draws the parts of a model and writes down what it drew.

    Args:
      chance: where choices come from.
      odd: how much of what people seldom write.
    """

    def __init__(self, chance: random.Random, odd: float):
        self._chance, self.odd, self.lines = chance, odd, []
        self.shallow, self.options = True, {}
        self._named: set[str] = set()

    def one(self, values):
        return self._chance.choice(list(values))

    def number(self, low: int, high: int) -> int:
        return self._chance.randint(low, high)

    def sometimes(self, share: float) -> bool:
        return self._chance.random() < share

    def oddly(self, share: float = 0.1) -> bool:
        """What people seldom write; in an ordinary model never."""
        return self.sometimes(share * self.odd)

    def activation(self, name: str = ""):
        name = name or self.one(ACTIVATIONS if self.oddly(0.4) else ORDINARY_ACTIVATIONS)
        self.lines.append(f"  activation {name}")
        return ACTIVATIONS[name]()

    def common(self) -> dict:
        """Arguments that any layer takes."""
        found = {}
        if self.sometimes(0.06):
            name = self.one(NAMES)
            found |= {} if name in self._named else {"name": name}
            self._named.add(name)
        if self.sometimes(0.04):
            found["trainable"] = False
        if self.oddly(0.03):
            found["dtype"] = self.one(("float64", "float16", *POLICIES))
        return found

    def kernel(self) -> dict:
        """Arguments that any layer with a kernel takes."""
        found = self.common() | {"use_bias": self.sometimes(0.7)}
        if self.sometimes(0.5):
            found["activation"] = self.activation()
        if self.sometimes(0.1):
            found["bias_regularizer" if self.sometimes(0.3) else "activity_regularizer"] = "l2"
        if self.sometimes(0.05):
            found["bias_constraint"] = "non_neg"
        return found

    def conv(self) -> dict:
        found = self.kernel() | {"kernel_size": self.one((1, 3, 3, 3, 2, (1, 3), (3, 2)))}
        found["padding"] = self.one(("same", "valid"))
        if self.sometimes(0.3):
            found["strides"] = self.one((2, 2, 3))
        elif self.oddly():
            found["strides"] = (1, 2)
        elif self.sometimes(0.1):
            found["dilation_rate"] = 2
        if self.oddly(0.03):
            found["data_format"] = "channels_first"
        return found

    def layer(self, kind: type, *positional, **named):
        shown = [*map(repr, positional), *(f"{k}={v!r}" for k, v in named.items())]
        self.lines.append(f"{kind.__name__}({', '.join(shown)})")
        return kind(*positional, **named)

    def apply(self, rows: Mapping, x):
        """A row of a table on a tensor, which stays as it is where Keras does not take that."""
        name = self.one(rows)
        made = self._try(name, lambda: rows[name](self, x))
        return x if made is None else made

    def _try(self, name: str, make: Callable):
        at = len(self.lines)
        try:
            made = make()
            shape = made.shape
            if any(side == 0 for side in shape) or shape.rank is None:
                raise ValueError(f"a tensor of {shape}")
            self.lines.insert(at, f"{name} -> {tuple(shape)}")
            return made
        except (ValueError, TypeError, AttributeError, tf.errors.OpError, NotImplementedError, IndexError):
            del self.lines[at:]
            return None

    def body(self, x, low: int, high: int):
        for _ in range(self.number(low, high)):
            odd = self.oddly(0.25)
            if self.sometimes(0.3):
                x = self.apply(ODD_WIRES if odd else WIRES, x)
            else:
                rows = ODD_LAYERS if odd else LAYERS
                x = self.apply({name: functools.partial(_called, make) for name, make in rows.items()}, x)
        return x


def _called(make: Callable, d: Drawer, x):
    layer = make(d)
    named = {}
    if isinstance(layer, L.BatchNormalization | L.Dropout | L.RandomFlip | L.GaussianNoise) and d.sometimes(0.15):
        named["training"] = d.oddly(0.4)
        d.lines.append(f"  training={named['training']}")
    return layer(x, **named)


def _batch_norm(d: Drawer, **changed):
    named = d.common() | {"momentum": 0.9}
    for what, share in (("scale", 0.1), ("center", 0.1)):
        if d.sometimes(share):
            named[what] = False
    if d.sometimes(0.05):
        named["gamma_initializer"] = "zeros"
    if d.oddly(0.05):
        named["axis"] = d.one((1, [3], 2, [1, 3]))
    return d.layer(L.BatchNormalization, **{**named, **changed})


def _filters(d: Drawer) -> int:
    return d.one((2, 3, 4, 6, 8))


def _pooling(kind: type):
    def make(d: Drawer):
        named = d.common() | {"pool_size": d.one((2, 2, 3, (1, 2))), "padding": d.one(("valid", "same"))}
        if d.sometimes(0.3):
            named["strides"] = d.one((1, 2, 3))
        return d.layer(kind, **named)

    return make


def _grouped(d: Drawer):
    named = d.conv()
    return d.layer(L.Conv2D, d.one((4, 6, 8)), groups=d.one((2, 2, 3, 4)), **named)


def _padding(d: Drawer):
    named = {"data_format": "channels_first"} if d.oddly(0.2) else {}
    return d.layer(L.ZeroPadding2D, d.one((1, 2, (0, 1), ((0, 1), (0, 1)), ((2, 0), (1, 3)))), **named, **d.common())


def _relu(d: Drawer):
    named = {"max_value": d.one((0.5, 1.0, 3.0))} if d.sometimes(0.15) else {}
    named = d.one(({"negative_slope": 0.1}, {"threshold": 0.5})) if d.oddly(0.3) else named
    return d.layer(L.ReLU, *([6.0] if not named and d.sometimes(0.3) else []), **named, **d.common())


# Layers of one tensor, which a Sequential model may have too.
LAYERS: Mapping[str, Callable] = {
    "convolution": lambda d: d.layer(L.Conv2D, _filters(d), **d.conv()),
    "convolution again": lambda d: d.layer(L.Conv2D, _filters(d), **d.conv()),
    "convolution of groups": _grouped,
    "depthwise": lambda d: d.layer(L.DepthwiseConv2D, **d.conv()),
    "depthwise with a multiplier": lambda d: d.layer(L.DepthwiseConv2D, depth_multiplier=2, **d.conv()),
    "separable": lambda d: d.layer(L.SeparableConv2D, _filters(d), depth_multiplier=d.number(1, 2), **d.conv()),
    "batch norm": _batch_norm,
    "batch norm again": _batch_norm,
    "relu": _relu,
    "relu again": _relu,
    "activation": lambda d: d.layer(L.Activation, d.activation(), **d.common()),
    "leaky": lambda d: d.layer(L.LeakyReLU, d.one((0.3, 0.1, 0.01))),
    "slopes that are learned": lambda d: d.layer(L.PReLU, **d.one(({}, {"shared_axes": [1, 2]}))),
    "max pooling": _pooling(L.MaxPooling2D),
    "average pooling": _pooling(L.AveragePooling2D),
    "padding": _padding,
    "cropping": lambda d: d.layer(L.Cropping2D, d.one((1, ((0, 1), (1, 0))))),
    "repeated pixels": lambda d: d.layer(L.UpSampling2D, d.one((2, (1, 2), (3, 2)))),
    "dropout": lambda d: d.layer(d.one((L.Dropout, L.SpatialDropout2D, L.GaussianDropout)), 0.2, **d.common()),
    "noise": lambda d: d.layer(L.GaussianNoise, 0.1),
    "activity regularization": lambda d: d.layer(L.ActivityRegularization, 1e-4),
    "identity": lambda d: d.layer(L.Identity, **d.common()),
}
ODD_LAYERS: Mapping[str, Callable] = {
    "upsampling": lambda d: d.layer(L.UpSampling2D, 2, interpolation=d.one(("nearest", "bilinear"))),
    "transposed": lambda d: d.layer(L.Conv2DTranspose, _filters(d), 3),
    "other slopes": lambda d: d.layer(d.one((L.ELU, L.ThresholdedReLU))),
    "norm": lambda d: d.layer(d.one((L.LayerNormalization, L.UnitNormalization))),
    "softmax inside": lambda d: d.layer(L.Softmax, d.one((-1, 1, 3))),
    "dense on a map": lambda d: d.layer(L.Dense, _filters(d), **d.kernel()),
    "flat": lambda d: d.layer(L.Flatten),
    "flat channels first": lambda d: d.layer(L.Flatten, data_format="channels_first"),
    "permute": lambda d: d.layer(L.Permute, d.one(((2, 1, 3), (3, 1, 2), (1, 2, 3)))),
    "reshape": lambda d: d.layer(L.Reshape, d.one(((-1, 2), (-1, 1, 4), (2, -1), (-1,), (1, 1, -1)))),
    "random": lambda d: d.layer(d.one((L.RandomFlip, L.RandomContrast, L.RandomRotation)), d.one(("horizontal", 0.1))),
    "random crop": lambda d: d.layer(L.RandomCrop, d.number(2, 6), d.number(2, 6)),
    "resizing": lambda d: d.layer(L.Resizing, d.number(4, 9), d.number(4, 9)),
    "rescaling inside": lambda d: d.layer(L.Rescaling, d.one((0.5, -1.0, 2)), d.one((0, 0.25))),
    "lambda layer": lambda d: d.layer(L.Lambda, d.one((tf.abs, lambda x: x * 2, tf.nn.relu, lambda x: x[:, 1:]))),
    "masking": lambda d: d.layer(L.Masking, 0.0),
    "own layer": lambda d: d.layer(OwnLayer),
    "own convolution": lambda d: d.layer(OwnConv2D, _filters(d), 3),
    "own block": lambda d: d.layer(OwnBlock, _filters(d)),
    "time distributed": lambda d: L.TimeDistributed(d.layer(L.Dense, 3)),
    "recurrent": lambda d: d.layer(L.ConvLSTM2D, 2, 3),
    "locally connected": lambda d: d.layer(L.LocallyConnected2D, 2, 3),
    "spectral": lambda d: L.SpectralNormalization(d.layer(L.Conv2D, 3, 3)),
    "group norm": lambda d: d.layer(L.GroupNormalization, groups=1),
    "float16 layer": lambda d: d.layer(L.Conv2D, 3, 3, dtype=d.one(("float16", "float64", "mixed_float16"))),
    "einsum": lambda d: d.layer(L.EinsumDense, "bhwc,cd->bhwd", output_shape=(None, None, 3)),
}


def _joined(kind: type):
    """Two or three branches and what joins them."""

    def make(d: Drawer, x):
        ends = [x] if d.sometimes(0.5) else []
        while len(ends) < (2 if d.sometimes(0.85) or kind is L.Subtract else 3):
            named = {"padding": "same", "use_bias": d.sometimes(0.5)}
            y = d.layer(L.Conv2D, x.shape[-1], 3, **named)(x)
            if d.sometimes(0.6):
                y = _batch_norm(d)(y)
            if d.sometimes(0.5):
                y = L.Activation(d.activation())(y)
            ends.append(y)
        if kind is not L.Add and kind is not L.Concatenate:
            d.shallow = False
        return d.layer(kind, **d.common())(ends)

    return make


def _excitation(d: Drawer, x):
    keepdims = d.sometimes(0.5)
    y = d.layer(L.GlobalAveragePooling2D, keepdims=keepdims)(x)
    y = y if keepdims else L.Reshape((1, 1, -1))(y)
    y = L.Conv2D(x.shape[-1], 1, activation=d.one(("sigmoid", "relu")))(y)
    d.shallow = False
    return L.Multiply()([x, y] if d.sometimes(0.5) else [y, x])


def _inner(d: Drawer, x):
    """A model in a model, called once or twice."""
    inputs = tf_keras.Input(x.shape[1:])
    inner = tf_keras.Model(
        inputs, d.body(inputs, 1, 2), **({"name": d.one(("block", "base/net", "file"))} if d.oddly() else {})
    )
    if d.oddly():
        inner.trainable = False
    named = {"training": d.oddly(0.2)} if d.sometimes(0.15) else {}
    d.lines.append(f"  the model before, called {named}, trainable={inner.trainable}")
    y = inner(x, **named)
    return inner(y) if d.oddly(0.15) else y


def _inner_sequential(d: Drawer, x):
    made = [LAYERS[d.one(LAYERS)](d) for _ in range(d.number(1, 3))]
    return tf_keras.Sequential(made)(x)


def _twice(d: Drawer, x):
    """One layer on two tensors, or on what it made itself."""
    layer = d.one(
        (lambda: L.ReLU(), lambda: L.MaxPooling2D(2, 1, "same"), lambda: L.ReLU(6.0), lambda: L.Dropout(0.1))
    )()
    if d.oddly(0.3):
        layer = d.layer(L.Conv2D, x.shape[-1], 3, padding="same")
    return layer(d.layer(L.Conv2D, x.shape[-1], 1)(layer(x)))


def _pre_activated(d: Drawer, x):
    """A BatchNormalization that an activation or two read, and often the end of the block as well."""
    x = _batch_norm(d)(d.layer(L.Conv2D, _filters(d), 3, padding="same", use_bias=d.sometimes(0.5))(x))
    ends = [x] if d.sometimes(0.5) else []
    while len(ends) < 2:
        y = _relu(d)(x) if d.sometimes(0.7) else L.Activation(d.activation())(x)
        ends.append(d.layer(L.Conv2D, x.shape[-1], d.one((1, 3)), padding="same")(y))
    return d.layer(d.one((L.Add, L.Concatenate)))(ends)


# Layers over one axis: what is made of a series.
SERIES_LAYERS: Mapping[str, Callable] = {
    "convolution": lambda d: d.layer(L.Conv1D, _filters(d), **_one_axis(d, ("same", "valid", "causal"))),
    "convolution of groups": lambda d: d.layer(
        L.Conv1D, 6, groups=d.one((1, 2, 3)), **_one_axis(d, ("same", "causal"))
    ),
    "depthwise": lambda d: d.layer(
        L.DepthwiseConv1D, depth_multiplier=d.number(1, 2), **_one_axis(d, ("same", "valid"))
    ),
    "separable": lambda d: d.layer(L.SeparableConv1D, _filters(d), **_one_axis(d, ("same", "valid", "causal"))),
    "max pooling": lambda d: d.layer(L.MaxPooling1D, d.one((2, 3)), padding=d.one(("valid", "same"))),
    "average pooling": lambda d: d.layer(L.AveragePooling1D, d.one((2, 3))),
    "padding": lambda d: d.layer(L.ZeroPadding1D, d.one((1, (0, 2)))),
    "dense": lambda d: d.layer(L.Dense, _filters(d), **d.kernel()),
    "batch norm": lambda d: L.BatchNormalization(scale=d.sometimes(0.8)),
    "relu": lambda d: L.ReLU(),
    "dropout": lambda d: L.SpatialDropout1D(0.1),
}


def _one_axis(d: Drawer, paddings: tuple[str, ...]) -> dict:
    found = d.kernel() | {"kernel_size": d.one((1, 2, 3)), "padding": d.one(paddings)}
    if d.sometimes(0.5):
        found |= d.one(({"strides": 2}, {"dilation_rate": 2}))
    return found


def _hard_swish(d: Drawer, x):
    """As tf_keras.applications and people write it."""
    d.shallow = False
    x = d.layer(L.Conv2D, _filters(d), 3, padding="same")(x)
    ways = (
        lambda: L.Multiply()([x, L.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)]),
        lambda: x * tf.nn.relu6(x + 3.0) / 6.0,
        lambda: x * L.Activation("hard_sigmoid")(x),
    )
    return d.one(ways)()


def _series(d: Drawer, x):
    """Layers over one axis between two Reshapes."""
    y = L.Reshape((-1, x.shape[-1]))(x)
    for _ in range(d.number(1, 3)):
        y = d.apply({name: functools.partial(_called, make) for name, make in SERIES_LAYERS.items()}, y)
    return L.Reshape(d.one(((1, -1, y.shape[-1]), (-1, 1, y.shape[-1]))))(y)


# What people wire in the functional API.
WIRES: Mapping[str, Callable] = {
    "residual": _joined(L.Add),
    "residual again": _joined(L.Add),
    "concatenation": _joined(L.Concatenate),
    "product": _joined(L.Multiply),
    "excitation": _excitation,
    "inner model": _inner,
    "inner sequential": _inner_sequential,
    "used twice": _twice,
    "pre-activation": _pre_activated,
    "hard swish": _hard_swish,
    "series": _series,
    "tf.nn.relu": lambda d, x: tf.nn.relu(x),
    "tf.nn.relu6": lambda d, x: tf.nn.relu6(x),
    "x + conv(x)": lambda d, x: x + d.layer(L.Conv2D, x.shape[-1], 3, padding="same", use_bias=False)(x),
    "block": lambda d, x: L.ReLU()(_batch_norm(d)(d.layer(L.Conv2D, _filters(d), 3, padding="same")(x))),
}


def _odd(operation: Callable) -> Callable:
    def make(d: Drawer, x):
        d.shallow = False
        return operation(x)

    return make


def _own_functional(d: Drawer, x):
    inputs = tf_keras.Input(x.shape[1:])
    return OwnFunctional(inputs, L.Conv2D(3, 3)(inputs))(x)


def _dead_end(d: Drawer, x):
    """A layer that nothing reads, and one that two read."""
    L.Conv2D(2, 3)(x)
    y = L.ReLU()(x)
    return L.Concatenate()([y, L.Conv2D(2, 1)(y)])


def _on_two_sizes(d: Drawer, x):
    """A layer, or a model, that is used on maps of two sizes."""
    made = (L.ReLU, lambda: L.Dropout(0.1), lambda: tf_keras.Sequential([L.ReLU()]), lambda: L.GaussianNoise(0.1))
    layer = d.one((*made, lambda: L.MaxPooling2D(2), L.BatchNormalization, L.LeakyReLU))()
    d.lines.append(f"  a {type(layer).__name__} on two sizes")
    y = layer(L.MaxPooling2D(2)(layer(x)))
    return L.Conv2D(4, 1)(y)


ODD_WIRES: Mapping[str, Callable] = {
    **{f"layers.{kind.__name__}": _joined(kind) for kind in (L.Subtract, L.Average, L.Maximum, L.Minimum, L.Multiply)},
    **{
        name: _odd(operation)
        for name, operation in {
            "x + 1": lambda x: x + 1.0,
            "x * 2": lambda x: x * 2,
            "2 - x": lambda x: 2.0 - x,
            "x / 2": lambda x: x / 2.0,
            "x ** 2": lambda x: x**2,
            "-x": lambda x: -x,
            "x + x": lambda x: x + x,
            "x * x": lambda x: x * x,
            "Add()([x, x])": lambda x: L.Add()([x, x]),
            "Add with a constant": lambda x: L.Add()([x, tf.ones((x.shape[-1],))]),
            "Multiply with a constant": lambda x: L.Multiply()([x, tf.fill((x.shape[-1],), 0.5)]),
            "Concatenate along height": lambda x: L.Concatenate(axis=1)([x, x]),
            "Concatenate of one": lambda x: L.Concatenate()([x]),
            "tf.concat": lambda x: tf.concat([x, tf.nn.relu(x)], -1),
            "x[:, 1:, 1:]": lambda x: x[:, 1:, 1:],
            "x[..., :2]": lambda x: x[..., :2],
            "tf.pad": lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]),
            "tf.image.resize": lambda x: tf.image.resize(x, (6, 6)),
            "tf.image.flip": lambda x: tf.image.flip_left_right(x),
            "tf.nn.max_pool2d": lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME"),
            "tf.reduce_mean": lambda x: tf.reduce_mean(x, (1, 2), keepdims=True),
            "tf.reshape": lambda x: tf.reshape(x, (-1, 1, 1, int(np.prod(x.shape[1:])))),
            "tf.clip_by_value": lambda x: tf.clip_by_value(x, 0.0, 6.0),
            "tf.nn.leaky_relu": lambda x: tf.nn.leaky_relu(x),
            "tf.nn.l2_normalize": lambda x: tf.nn.l2_normalize(x, -1),
            "tf.maximum": lambda x: tf.maximum(x, 0.0),
            "tf.cast": lambda x: tf.cast(tf.cast(x, tf.float16), tf.float32),
            "tf.transpose": lambda x: tf.transpose(x, (0, 2, 1, 3)),
            "tf.nn.silu": lambda x: tf.nn.silu(x),
            "tf.nn.conv2d with a constant": lambda x: tf.nn.conv2d(x, tf.ones((2, 2, x.shape[-1], 3)), 1, "VALID"),
            "tf.stop_gradient": lambda x: tf.stop_gradient(x),
            "tf.math.add_n": lambda x: tf.math.add_n([x, tf.nn.relu(x)]),
            "Dot": lambda x: L.Dot(-1)([x, x]),
            "channel times map": lambda x: L.Multiply()([x, L.GlobalAveragePooling2D(keepdims=True)(x)]),
            "row plus map": lambda x: x + tf.reduce_mean(x, 1, keepdims=True),
            "shared twice": lambda x: L.Add()([relu_layer(x), relu_layer(L.Conv2D(x.shape[-1], 1)(x))]),
        }.items()
    },
    "own functional model": _own_functional,
    "dead end": _dead_end,
    "on two sizes": _on_two_sizes,
    "on two sizes again": _on_two_sizes,
    "empty Sequential": lambda d, x: tf_keras.Sequential()(x),
    "by name": lambda d, x: L.Add()(inputs=[x, L.ReLU()(inputs=x)]),
    "attention": lambda d, x: L.Reshape((*x.shape[1:],))(L.Attention()([L.Reshape((-1, x.shape[-1]))(x)] * 2)),
}
relu_layer = L.ReLU(name="shared_relu")


def _vector(values, d: Drawer, x):
    return list(values[: x.shape[-1]])


def _adapted(d: Drawer, x):
    layer = L.Normalization()
    layer.adapt(d.pictures.astype("float32"))
    return layer(x)


def _per_branch(d: Drawer, x):
    a = L.Conv2D(3, 3, padding="same", activation="relu")(L.Rescaling(1 / 255.0)(x))
    b = L.Conv2D(3, 3, padding="same")(L.Rescaling(1 / 127.5, -1.0)(x))
    return L.Concatenate()([a, b])


def _none(d: Drawer, x):
    """Pixels are normalised before they are fed: by one number or one a channel, told or not."""
    if d.sometimes(0.9):
        one = d.sometimes(0.5)
        pair = (127.5, 127.5) if one else (_vector(MEAN, d, x), _vector(DEVIATION, d, x))
        d.options |= {"student_weights_mean": pair[0], "student_weights_std": pair[1]}
    return x


FRONTS: Mapping[str, Callable] = {
    "Rescaling(1 / 255)": lambda d, x: L.Rescaling(1 / 255.0, **d.common())(x),
    "Rescaling(1 / 127.5, -1)": lambda d, x: L.Rescaling(1 / 127.5, offset=-1.0, **d.common())(x),
    "x / 127.5 - 1": lambda d, x: x / 127.5 - 1.0,
    "(x - 127) / 64": lambda d, x: (x - 127.0) / 64.0,
    "Normalization": lambda d, x: L.Normalization(
        mean=_vector(MEAN, d, x), variance=np.square(_vector(DEVIATION, d, x))
    )(x),
    "Normalization, adapted": _adapted,
    "none": _none,
}
ODD_FRONTS: Mapping[str, Callable] = {
    "Rescaling of a vector": lambda d, x: L.Rescaling([1 / 200, 1 / 255, 1 / 100, 1 / 128][: x.shape[-1]], -0.5)(x),
    "Rescaling of a vector's offset": lambda d, x: L.Rescaling(1 / 128, [-1.0, -0.9, -1.1, 0.0][: x.shape[-1]])(x),
    "Rescaling, negative": lambda d, x: L.Rescaling(-1 / 255.0, 1.0)(x),
    "Rescaling, one negative": lambda d, x: L.Rescaling([-1 / 128, 1 / 128, 1 / 128, 1 / 128][: x.shape[-1]])(x),
    "Rescaling of nothing": lambda d, x: L.Rescaling(0.0)(x),
    "Rescaling(1)": lambda d, x: L.BatchNormalization(name="stem")(L.Rescaling(1.0)(x)),
    "Normalization of one": lambda d, x: L.Normalization(axis=None, mean=120.0, variance=3600.0)(x),
    "Normalization of each pixel": lambda d, x: L.Normalization(
        axis=(1, 2, 3), mean=np.full(x.shape[1:], 99.0), variance=np.full(x.shape[1:], 4000.0)
    )(x),
    "Normalization, inverted": lambda d, x: L.Normalization(mean=0.5, variance=0.1, axis=None, invert=True)(
        L.Rescaling(1 / 255.0)(x)
    ),
    "BatchNormalization": lambda d, x: _batch_norm(d)(x),
    "Rescaling and BatchNormalization": lambda d, x: _batch_norm(d)(L.Rescaling(1 / 255.0)(x)),
    "Rescaling and Normalization": lambda d, x: L.Normalization(axis=None, mean=0.4, variance=0.06)(
        L.Rescaling(1 / 255.0)(x)
    ),
    "one a branch": _per_branch,
    "augmentation first": lambda d, x: L.Rescaling(1 / 255.0)(L.RandomContrast(0.2)(L.RandomFlip("horizontal")(x))),
    "augmentation later": lambda d, x: L.RandomRotation(0.1)(L.Rescaling(1 / 255.0)(x)),
    "padding first": lambda d, x: L.Rescaling(1 / 127.5, -1.0)(L.ZeroPadding2D(1)(x)),
    "resizing first": lambda d, x: L.Rescaling(1 / 255.0)(L.Resizing(8, 8)(x)),
    "preprocess_input, caffe": lambda d, x: tf_keras.applications.resnet.preprocess_input(x) / 64.0,
    "preprocess_input, tf": lambda d, x: tf_keras.applications.mobilenet_v2.preprocess_input(x),
    "preprocess_input, torch": lambda d, x: tf_keras.applications.densenet.preprocess_input(x),
    "per image": lambda d, x: tf.image.per_image_standardization(x),
    "Lambda": lambda d, x: L.Lambda(lambda x: x / 255.0)(x),
    "grey": lambda d, x: tf.image.rgb_to_grayscale(L.Rescaling(1 / 255.0)(x)),
    "cast": lambda d, x: tf.cast(x, tf.float32) / 255.0,
    "convert_image_dtype": lambda d, x: tf.image.convert_image_dtype(tf.cast(x, tf.uint8), tf.float32),
    "Sequential": lambda d, x: tf_keras.Sequential([L.RandomFlip("horizontal"), L.Rescaling(1 / 255.0)])(x),
    "ReLU first": lambda d, x: L.ReLU()(L.Rescaling(1 / 127.5, -1.0)(x)),
    "max pooling first": lambda d, x: L.MaxPooling2D(2)(L.Rescaling(1 / 127.5, -1.0)(x)),
    "average first": lambda d, x: L.AveragePooling2D(2)(L.Normalization(mean=99.0, variance=4000.0, axis=None)(x)),
    "two readers": lambda d, x: L.Concatenate()([L.Rescaling(1 / 255.0)(x), L.Conv2D(2, 3, padding="same")(x / 255.0)]),
    "clipped": lambda d, x: L.ReLU(6.0)(x / 40.0),
    "one channel": lambda d, x: (x / 255.0)[..., :1],
}


# What a model's outputs are of the logits [N, K] that its file gives.
def _softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


PROBABILITIES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "logits": lambda logits: logits,
    "softmax": _softmax,
    "sigmoid": lambda logits: 1 / (1 + np.exp(-logits)),
    "one logit": lambda logits: logits[:, 1:] - logits[:, :1],
    "one sigmoid": lambda logits: _softmax(logits)[:, 1:],
}


def _vectored(d: Drawer, x):
    """A vector of a map, in one of the ways there are."""
    if len(x.shape) != 4:
        return x if len(x.shape) == 2 else L.Flatten()(x)
    ways = (L.GlobalAveragePooling2D, L.GlobalAveragePooling2D, L.Flatten, L.GlobalMaxPooling2D)
    if None in x.shape[1:3]:
        ways = (L.GlobalAveragePooling2D, L.GlobalMaxPooling2D)
    if d.sometimes(0.3):
        x = L.Dropout(0.3)(d.layer(d.one(ways), **d.common())(x))
        named = d.kernel()
        return d.layer(L.Dense, 6, **named)(x)
    return d.layer(d.one(ways), **d.common())(x)


def _dense(activation=None):
    return lambda d, x: d.layer(L.Dense, d.num_outputs, activation=activation, **d.common())(_vectored(d, x))


def _pooled(d: Drawer, x, activation="softmax"):
    x = L.Conv2D(d.num_outputs, 1)(x)
    return L.Activation(activation)(L.GlobalAveragePooling2D()(x))


def _map_head(d: Drawer, x):
    """Logits of rank 4, one pixel."""
    return L.Conv2D(d.num_outputs, 1)(L.GlobalAveragePooling2D(keepdims=True)(x))


def _cast_after(d: Drawer, x):
    x = L.Softmax()(L.Dense(d.num_outputs)(_vectored(d, x)))
    return tf.cast(x, tf.float32) if d.sometimes(0.5) else L.Activation("linear", dtype="float32")(x)


# How a model ends -> (number of outputs for two classes, row of PROBABILITIES, what makes them).
HEADS: Mapping[str, tuple[str, Callable]] = {
    "logits": ("logits", _dense()),
    "logits again": ("logits", _dense()),
    "softmax": ("softmax", _dense("softmax")),
    "softmax layer": ("softmax", lambda d, x: L.Softmax()(_dense()(d, x))),
    "softmax activation": ("softmax", lambda d, x: L.Activation("softmax", dtype="float32")(_dense()(d, x))),
    "sigmoid": ("sigmoid", _dense("sigmoid")),
    "one sigmoid": ("one sigmoid", _dense("sigmoid")),
    "one logit": ("one logit", _dense()),
    "pooled convolution": ("softmax", _pooled),
    "pooled logits": ("logits", functools.partial(_pooled, activation="linear")),
    "map of one pixel": ("logits", _map_head),
}
ODD_HEADS: Mapping[str, tuple[str, Callable]] = {
    "tf.nn.softmax": ("softmax", lambda d, x: tf.nn.softmax(_dense()(d, x))),
    "softmax, axis": ("softmax", lambda d, x: L.Softmax(axis=d.one((1, -1)))(_dense()(d, x))),
    "softmax of a map": ("softmax", lambda d, x: L.Softmax(axis=d.one((-1, 3)))(_map_head(d, x))),
    "flat softmax of a map": ("softmax", lambda d, x: L.Flatten()(L.Softmax()(_map_head(d, x)))),
    "cast after softmax": ("softmax", _cast_after),
    "dropout after logits": ("logits", lambda d, x: L.Dropout(0.1)(_dense()(d, x))),
    "logits / 2": ("logits", lambda d, x: _dense()(d, x) / 2.0),
    "softmax of logits / 2": ("softmax", lambda d, x: tf.nn.softmax(_dense()(d, x) / 2.0)),
    "relu logits": ("logits", _dense("relu")),
    "tanh logits": ("logits", _dense("tanh")),
    "rank 4": ("logits", lambda d, x: L.Conv2D(d.num_outputs, 1)(x)),
    "rank 3": ("logits", lambda d, x: L.Dense(d.num_outputs)(L.Reshape((-1, x.shape[-1]))(x))),
    "rank 3 of one": ("logits", lambda d, x: L.Reshape((1, d.num_outputs))(_dense()(d, x))),
    "rank 2 of a reshape": ("logits", lambda d, x: L.Reshape((d.num_outputs,))(_map_head(d, x))),
    "log softmax": ("logits", lambda d, x: tf.nn.log_softmax(_dense()(d, x))),
    "batch norm at the end": ("logits", lambda d, x: _batch_norm(d)(_dense()(d, x))),
    "one number": ("logits", lambda d, x: tf.reduce_mean(x, range(1, len(x.shape)))),
    "reshaped": ("logits", lambda d, x: L.Reshape((-1,))(_map_head(d, x))),
    "sum of two": ("logits", lambda d, x: L.Add()([_dense()(d, x), L.Dense(d.num_outputs)(L.Flatten()(x))])),
    "average of two softmaxes": (
        "softmax",
        lambda d, x: L.Average()([L.Softmax()(L.Dense(d.num_outputs)(L.Flatten()(x))) for _ in range(2)]),
    ),
    "softmax twice": ("softmax", lambda d, x: L.Softmax()(L.Softmax()(_dense()(d, x)))),
    "nested head": ("softmax", lambda d, x: _nested_head(d, _vectored(d, x))),
    "softmax of one": ("one sigmoid", _dense("softmax")),
    "pooled after softmax": (
        "softmax",
        lambda d, x: L.GlobalAveragePooling2D()(L.Conv2D(d.num_outputs, 1, activation="softmax")(x)),
    ),
    "lambda": ("softmax", lambda d, x: L.Lambda(tf.nn.softmax)(_dense()(d, x))),
    "wrong classes": ("logits", lambda d, x: L.Dense(7)(_vectored(d, x))),
    "max at the end": ("logits", lambda d, x: L.GlobalMaxPooling2D()(L.Conv2D(d.num_outputs, 1)(x))),
    "half logits": ("logits", lambda d, x: L.Dense(d.num_outputs, dtype="float16")(_vectored(d, x))),
    "identity": ("softmax", lambda d, x: tf.identity(L.Softmax()(_dense()(d, x)))),
}


def _nested_head(d: Drawer, x):
    inputs = tf_keras.Input(x.shape[1:])
    return tf_keras.Model(inputs, L.Dense(d.num_outputs, activation="softmax", name="logits")(inputs), name="head")(x)


@contextlib.contextmanager
def _policy(name: str):
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def pictures(shape: tuple[int, int, int], num: int = NUM_PICTURES, seed: int = 0) -> np.ndarray:
    """[N, H, W, C] uint8 of coarse blocks and noise, each with a colour and a contrast of its own."""
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    blocks = rng.integers(0, 256, (num, -(-height // 4), -(-width // 4), channels)).repeat(4, 1).repeat(4, 2)
    colour, contrast = rng.integers(0, 256, (num, 1, 1, channels)), rng.uniform(0.1, 0.7, (num, 1, 1, 1))
    mixed = contrast * blocks[:, :height, :width] + (0.9 - contrast) * colour
    return (mixed + 0.1 * rng.integers(0, 256, (num, *shape))).astype(np.uint8)


def settle(model: tf_keras.Model, seed: int) -> None:
    """Weights as of a training: outputs of a layer of the size of its inputs, statistics that are not 0 and 1."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        name, shape = variable.name.split("/")[-1], variable.shape
        before = np.asarray(variable)
        kept = not variable.dtype.is_floating or name.startswith(("mean", "variance", "count", "sn_u", "alpha"))
        if kept or name.startswith("gamma") and not before.any():
            continue
        if name.startswith(("moving_variance", "gamma")):
            values = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            fan_in = shape[0] * shape[1] if name.startswith("depthwise") else np.prod(shape[:-1])
            values = rng.normal(0.0, 1.4 / np.sqrt(fan_in), shape)
        else:
            values = rng.normal(0.0, 0.2, shape)
        if name.startswith("bias"):
            values = np.abs(values)  # as constraints want it
        variable.assign(values.astype(before.dtype))


def _sequential(d: Drawer, shape) -> tf_keras.Model:
    made = [L.Rescaling(1 / 255.0)] if d.sometimes(0.8) else []
    made += [LAYERS[d.one(LAYERS)](d) for _ in range(d.number(1, 4))]
    made += [L.GlobalAveragePooling2D(), L.Dense(d.num_outputs)]
    if d.sometimes(0.5):
        return tf_keras.Sequential([L.Input(shape), *made])
    model = tf_keras.Sequential(made)  # of no input shape
    model.build((None, *shape))
    return model


def _functional(d: Drawer, shape, make_head: Callable) -> tf_keras.Model:
    unknown = (None, None, shape[-1]) if d.oddly() else shape
    inputs = tf_keras.Input(unknown, dtype=d.one(("uint8", "float16", "int32")) if d.oddly() else None)
    d.lines.append(f"Input({unknown}, dtype={inputs.dtype.name})")
    x = d.apply(
        ODD_FRONTS if d.oddly(0.4) else FRONTS, tf.cast(inputs, tf.float32) if inputs.dtype != "float32" else inputs
    )
    x = d.body(x, 1, 6)
    outputs = make_head(d, x)
    if d.oddly(0.03):
        return tf_keras.Model(inputs, [outputs, x])
    if d.oddly(0.02):
        return (
            tf_keras.Model({"image": inputs}, outputs) if d.sometimes(0.5) else tf_keras.Model(inputs, {"a": outputs})
        )
    if d.oddly(0.02):
        more = tf_keras.Input((d.num_outputs,))
        return tf_keras.Model([inputs, more], L.Add()([outputs, more]))
    model = tf_keras.Model(inputs, outputs, **({"name": d.one(NAMES)} if d.oddly() else {}))
    if d.oddly(0.15):  # transfer learning
        outer = tf_keras.Input(shape)
        named = {"training": False} if d.sometimes(0.5) else {}
        model.trainable = d.sometimes(0.5)
        x = model(outer, **named)
        d.lines.append(f"that model in a model, called {named}, trainable={model.trainable}")
        model = tf_keras.Model(outer, x)
    if d.oddly(0.05):
        model.trainable = False
        d.lines.append("model.trainable = False")
    return model


def drawn(seed: int, odd: float) -> Drawn | None:
    """The model of a number; None for what Keras itself does not take.

    Args:
      odd: how much of what people seldom write.
    """
    chance = random.Random(seed)
    d = Drawer(chance, odd * chance.choice((0, 1, 1)))  # a third are of ordinary parts alone
    shape = (d.number(4, 20), d.number(4, 20), d.one((3, 3, 3, 1, 2, 4)))
    d.pictures = pictures(shape)
    heads = ODD_HEADS if d.oddly(0.4) else HEADS
    name = d.one(heads)
    head, make_head = heads[name]
    d.num_classes = 2 if head.startswith("one") else d.one((3, 3, 2, 5))
    d.num_outputs = 1 if head.startswith("one") else d.num_classes
    policy = d.one(POLICIES) if d.oddly(0.12) else "float32"
    bits = "w8a8" if d.sometimes(0.6) else f"w{d.number(2, 8)}a{d.number(2, 8)}"
    d.lines.append(f"drawn({seed}, {odd:g}): pictures {shape}, {d.num_classes} classes, head {name!r}, policy {policy}")
    sequential = d.sometimes(0.12)
    with _policy(policy):
        try:
            model = _sequential(d, shape) if sequential else _functional(d, shape, make_head)
        except (ValueError, TypeError, AttributeError, IndexError, tf.errors.OpError):
            return None
    settle(model, d.number(0, 99))
    if sequential:
        head = "one logit" if d.num_outputs == 1 else "logits"
    return Drawn(model, d.pictures, d.num_classes, head, d.shallow, bits, d.options, d.lines, chance)


def models(odd: float) -> st.SearchStrategy[Drawn | None]:
    """Models, each of one number: of many, Hypothesis would change some and draw much the same model again."""
    return st.integers(0, 2**32 - 1).map(functools.partial(drawn, odd=odd))
