"""The layers of a float model as a graph: which layers form one operator, and which layer reads what."""

from collections.abc import Iterable, Mapping

import numpy as np
import tf_keras

from qkd_tf.models.activations import activation_name, is_relu, slope, upper_end
from qkd_tf.quantization.roles import parents, role, scales_channels

_layers = tf_keras.layers
# For x * sigmoid(x) and its hard form: an eighth of the levels is below 0. At 4 bits, for normal x with a deviation of
# 1 to 4, the mean square error is then less than half that of a symmetric grid; for a deviation of 0.5 it is a little
# more (test_plan.py).
SWISH_SHARE = 1 / 7
PRELU_SHARE = 0.25  # the slope with which its authors begin (He et al. 2015, arXiv 1502.01852); a plan is made once


def ends_by_grid(function: str) -> bool:
    """Whether a ReLU ends where no TFLite operator clips, so that its tensor's grid must end there."""
    return upper_end(function) not in (None, 6.0)


class LayerGraph:
    """The layers of a functional model, with what the plan needs to know about them."""

    def __init__(self, model: tf_keras.Model):
        self.layers = model.layers
        self.outputs = set(model.output_names)
        self.parents = {layer.name: [p.name for p in parents(layer)] for layer in self.layers}
        self.by_name = {layer.name: layer for layer in self.layers}
        self.consumers = {layer.name: [] for layer in self.layers}
        for layer in self.layers:
            for parent in self.parents[layer.name]:
                self.consumers[parent].append(layer.name)
        self._roles: dict[str, str] = {}
        for layer in self.layers:
            clips = role(layer) == "fold" and not isinstance(layer, _layers.BatchNormalization)
            self._roles[layer.name] = "arithmetic" if clips and not self._clips_in_operator(layer.name) else role(layer)

    def role(self, name: str) -> str:
        """`roles.role` of the layer; but arithmetic for an activation function that no operator before it can apply."""
        return self._roles[name]

    def _clips_in_operator(self, name: str) -> bool:
        """Whether the operator before an activation applies it: one with a kernel or an Add, read by nothing else.

        A ReLU with another upper end than 6 is the last in its operator, whose grid ends there.
        """
        (parent,) = self.parents[name]
        chain = [self.by_name[n] for n in self.operator(parent)]
        if any(ends_by_grid(activation_name(layer)) for layer in chain):
            return False
        root = chain[0]
        return len(self.consumers[parent]) == 1 and (role(root) == "compute" or isinstance(root, _layers.Add))

    def clips_alone(self, name: str) -> bool:
        """Whether the layer is an activation function that is an operator of its own."""
        return self.only_clips(name) and self.role(name) == "arithmetic"

    def ends_operator(self, name: str) -> bool:
        """Whether the layer's output is a tensor of the integer graph with a grid of its own."""
        consumers = self.consumers[name]
        if self.role(name) == "pass":
            return False
        if self.role(name) == "pixels":
            return not (len(consumers) == 1 and self.role(consumers[0]) == "pixels")
        return not (len(consumers) == 1 and self.role(consumers[0]) == "fold")

    def operator(self, name: str) -> list[str]:
        """The layers of the operator that `name` ends, root first."""
        chain = [name]
        while self.role(chain[0]) == "fold":
            chain.insert(0, self.parents[chain[0]][0])
        return chain

    def readers(self, name: str) -> list[str]:
        """Compute and arithmetic layers that read the tensor, directly or through pass layers."""
        found = []
        for consumer in self.consumers[name]:
            found += self.readers(consumer) if self.role(consumer) == "pass" else [consumer]
        return found

    def moved_by(self, name: str) -> list[str]:
        """The layers that only move integers before a layer's input, last first."""
        (parent,) = self.parents[name]
        return [parent, *self.moved_by(parent)] if self.role(parent) == "pass" else []

    def only_computes(self, name: str) -> bool:
        """Whether the layer's input or output is used only as input of compute layers."""
        names = [name] if self.role(name) != "pass" else self.readers(name)
        return bool(names) and all(self.role(n) == "compute" for n in names)

    def only_clips(self, name: str) -> bool:
        """Whether the layer does nothing but apply a ReLU."""
        layer = self.by_name.get(name)
        return isinstance(layer, (_layers.ReLU, _layers.Activation)) and is_relu(activation_name(layer))

    def is_output(self, name: str) -> bool:
        return name in self.outputs or any(self.is_output(c) for c in self.consumers[name] if self.role(c) == "pass")

    def negative_shares(self, zero_pixel: int) -> dict[str, float]:
        """How far each layer's output reaches below 0, as a share of how far above: 0 means never, 1 equally far."""
        shares: dict[str, float] = {}
        for name in self.by_name:
            shares[name] = self._negative_share(name, [shares[parent] for parent in self.parents[name]], zero_pixel)
        return shares

    def _negative_share(self, name: str, read: list[float], zero_pixel: int) -> float:
        """`negative_shares` of one layer; `read` are those of its inputs."""
        layer = self.by_name[name]
        function = activation_name(layer)
        if self.role(name) == "pixels":
            return float(zero_pixel != 0)
        if function.startswith(("relu", "sigmoid")):
            return 0.0
        if self.role(name) == "compute" or isinstance(layer, _layers.BatchNormalization):
            return 1.0
        if (alpha := slope(function)) is not None:
            return max(read) * min(max(alpha, 0.0), 1.0)
        if isinstance(layer, _layers.PReLU):
            return max(read) * PRELU_SHARE
        if isinstance(layer, _layers.Multiply):
            product = max(read) if min(read) == 0 else 1.0
            return min(product, SWISH_SHARE) if min(read) == 0 and self._gates_itself(name) else product
        return max(read)

    def _gates_itself(self, name: str) -> bool:
        """Whether one of two factors is a non-decreasing function of the other, value by value, as in swish."""
        a, b = self.parents[name]
        return a in self._origins(b) or b in self._origins(a)

    def _origins(self, name: str) -> list[str]:
        """The layers of which this one is a non-decreasing function, value by value."""
        layer = self.by_name[name]
        scales = scales_channels(layer) and not layer.trainable and np.all(layer.depthwise_kernel.numpy() >= 0)
        if not (scales or isinstance(layer, _layers.ReLU | _layers.Activation)):
            return []
        (parent,) = self.parents[name]
        return [parent, *self._origins(parent)]

    def first_computes(self) -> set[str]:
        """Compute layers with no other before them on any path; a scale for each channel does not count."""
        return self._without_computes(self.by_name, self.parents)

    def last_computes(self) -> set[str]:
        """Compute layers with no other after them on any path; a scale for each channel does not count."""
        return self._without_computes(reversed(self.by_name), self.consumers)

    def _without_computes(self, order: Iterable[str], neighbours: Mapping[str, list[str]]) -> set[str]:
        """Compute layers that have no other compute layer on that side.

        Args:
          order: all layers, each after its `neighbours`.
        """
        computes = {n for n in self.by_name if self.role(n) == "compute" and not scales_channels(self.by_name[n])}
        found, beyond = set(), {}  # whether there is a compute layer on that side
        for name in order:
            beyond[name] = any(n in computes or beyond[n] for n in neighbours[name])
            if name in computes and not beyond[name]:
                found.add(name)
        return found
