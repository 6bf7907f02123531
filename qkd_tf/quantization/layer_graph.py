"""The layers of a float model as a graph: which of them are one operator, and who reads what."""

from collections.abc import Iterable, Mapping

import tf_keras

from qkd_tf.models.activations import activation_name, is_relu, upper_end
from qkd_tf.quantization.roles import parents, role, scales_channels

_layers = tf_keras.layers


def ends_by_grid(function: str) -> bool:
    """Whether a ReLU ends where no operator of TFLite's clips: its tensor's grid must end there."""
    return upper_end(function) not in (None, 6.0)


class LayerGraph:
    """The layers of a functional model with the questions that the plan asks of them."""

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
        """That of `plan.role`; but an activation function that no operator before it can apply is arithmetic."""
        return self._roles[name]

    def _clips_in_operator(self, name: str) -> bool:
        """Whether the operator before an activation layer applies it: a kernel's or an Add, read by nothing else.

        A ReLU that ends elsewhere than at 6 is the last of its operator, whose grid ends there.
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
        """Whether the layer's output is a tensor of the integer graph that has a grid of its own."""
        consumers = self.consumers[name]
        if self.role(name) == "pass":
            return False
        if self.role(name) == "pixels":
            return not (len(consumers) == 1 and self.role(consumers[0]) == "pixels")
        return not (len(consumers) == 1 and self.role(consumers[0]) == "fold")

    def operator(self, name: str) -> list[str]:
        """The layers that are one operator with `name`, which ends it: root first."""
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
        """The layers that only move integers between a layer's input and the layer that made it, last first."""
        (parent,) = self.parents[name]
        return [parent, *self.moved_by(parent)] if self.role(parent) == "pass" else []

    def only_computes(self, name: str) -> bool:
        """Whether all that is made of the layer's input or output are inputs of compute layers."""
        names = [name] if self.role(name) != "pass" else self.readers(name)
        return bool(names) and all(self.role(n) == "compute" for n in names)

    def only_clips(self, name: str) -> bool:
        """Whether the layer does nothing but apply a ReLU."""
        layer = self.by_name.get(name)
        return isinstance(layer, (_layers.ReLU, _layers.Activation)) and is_relu(activation_name(layer))

    def is_output(self, name: str) -> bool:
        return name in self.outputs or any(self.is_output(c) for c in self.consumers[name] if self.role(c) == "pass")

    def is_non_negative(self, name: str, zero_pixel: int) -> bool:
        if self.role(name) == "pixels":
            return zero_pixel == 0
        chain = self.operator(name)
        if any(activation_name(self.by_name[n]).startswith(("relu", "sigmoid")) for n in chain):
            return True
        return self.role(chain[0]) in ("arithmetic", "pass") and all(
            self.is_non_negative(parent, zero_pixel) for parent in self.parents[chain[0]]
        )

    def first_computes(self) -> set[str]:
        """Compute layers that no other one comes before, on any path; a scale for each channel is none."""
        return self._without_computes(self.by_name, self.parents)

    def last_computes(self) -> set[str]:
        """Compute layers that no other one comes after, on any path; a scale for each channel is none."""
        return self._without_computes(reversed(self.by_name), self.consumers)

    def _without_computes(self, order: Iterable[str], neighbours: Mapping[str, list[str]]) -> set[str]:
        """Compute layers that have no other one on that side.

        Args:
          order: all layers, so that `neighbours` of each come before it.
        """
        computes = {n for n in self.by_name if self.role(n) == "compute" and not scales_channels(self.by_name[n])}
        found, beyond = set(), {}  # whether there is a compute layer on that side
        for name in order:
            beyond[name] = any(n in computes or beyond[n] for n in neighbours[name])
            if name in computes and not beyond[name]:
                found.add(name)
        return found
