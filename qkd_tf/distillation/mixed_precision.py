"""Half precision for training alone: TensorFlow's graph rewrite, and the loss scale that float16 needs.

The rewrite puts convolutions and matrix products into half precision, and what follows them up to the next quantizer or
loss: BatchNormalization, additions, a teacher's logits and their log-softmax. It leaves in float32 the variables, the
learned intervals, the rounding to their grids, the student's logits (they pass a quantizer) and cross-entropy. For
this, quantizers round with Rint, which the rewrite leaves alone. It does rewrite Round, which took kernels just above
a half for halves and rounded them down. Evaluation and handoff run outside of the rewrite.
"""

import contextlib
from collections.abc import Iterator, Mapping

import tensorflow as tf

from qkd_tf.experiment import require

# The rewrite that Grappler applies, and the devices that it is for.
REWRITES: Mapping[str, tuple[str, str]] = {
    "bfloat16": ("auto_mixed_precision_onednn_bfloat16", "CPU"),
    "float16": ("auto_mixed_precision", "GPU"),
}
FIRST_SCALE = 2.0**15
GROWTH_STEPS = 2000


def check_device(precision: str) -> None:
    """Raises ExperimentError if this machine trains on a device for which the rewrite is not made."""
    if precision in REWRITES:
        device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        wanted = REWRITES[precision][1]
        other = next(name for name, (_, kind) in REWRITES.items() if kind == device)
        require(
            device == wanted,
            f"--mixed_precision={precision} needs a {wanted}, and training runs on the {device} here; "
            f"use --mixed_precision={other} or float32",
        )


@contextlib.contextmanager
def training_in(precision: str) -> Iterator[None]:
    """Rewrites what runs in this context to `precision`; "float32" changes nothing."""
    options = {REWRITES[precision][0]: True} if precision in REWRITES else {}
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options(options)
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before.get(name) for name in options})


class LossScale(tf.Module):
    """Keeps float16 gradients from vanishing: the loss is multiplied, gradients are divided again.

    A step whose gradients overflow is skipped and halves the scale; GROWTH_STEPS good ones double it (Micikevicius et
    al. 2018, section 3.2).
    """

    def __init__(self, first_scale: float = FIRST_SCALE, growth_steps: int = GROWTH_STEPS):
        super().__init__()
        self.scale = tf.Variable(first_scale, trainable=False)
        self.good_steps = tf.Variable(0, trainable=False)
        self._growth_steps = growth_steps

    def unscale(self, gradients: list[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Gradients of the unscaled loss, and whether all of them are finite; updates the scale."""
        gradients = [gradient / self.scale for gradient in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
        good_steps = tf.where(finite, self.good_steps + 1, 0)
        grown = good_steps >= self._growth_steps
        self.scale.assign(tf.maximum(1.0, self.scale * tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)))
        self.good_steps.assign(tf.where(grown, 0, good_steps))
        return gradients, finite
