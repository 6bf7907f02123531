# %% [markdown]
# # Motions, from an inertial sensor
#
# The cells below train a small network of 1D convolutions at 4 bits on windows of 128 samples of accelerometer and
# gyroscope, and write a `.tflite` and C++ for a microcontroller. The motions are generated, so nothing has to be
# downloaded. Open the file as a notebook (VS Code, Jupytext), or run it where you cloned the project:
# `PYTHONPATH=. .venv/bin/python examples/motion.py`.

# %%
import pathlib
import tempfile

import numpy as np

from qkd_tf import fit
from tflite_export import export

# %% [markdown]
# A window is [128, 6]: three accelerations in m/s², three rotations in rad/s, at 50 samples a second.

# %%
MOTIONS = ("still", "walk", "run", "turn", "shake")
HERTZ, ACCELERATION, ROTATION = (0, 1.8, 2.8, 0.5, 5), (0, 2, 8, 0.3, 6), (0, 0.5, 1, 3, 2)


def windows(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows [N, 128, 6] float32 and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(number) % len(MOTIONS)
    hertz, acceleration, rotation = (np.array(values)[labels, None, None] for values in (HERTZ, ACCELERATION, ROTATION))
    phases = random.uniform(0, 2 * np.pi, (number, 1, 6))
    waves = np.sin(2 * np.pi * random.uniform(0.9, 1.1, (number, 1, 1)) * hertz * np.arange(128)[:, None] / 50 + phases)
    size = np.concatenate([acceleration.repeat(3, -1), rotation.repeat(3, -1)], -1)
    gravity = np.array([0, 0, 9.81, 0, 0, 0])
    return (waves * size + gravity + random.normal(0, 0.3, waves.shape)).astype(np.float32), labels


train_set, test_set = windows(400, seed=0), windows(100, seed=1)

# %% [markdown]
# A `Normalization` at the beginning learns each channel's mean and deviation. It becomes a part of the first
# convolution, so the device computes nothing for it.

# %%
import tf_keras  # noqa: E402  behind qkd_tf, which chooses the Keras of TFMOT
from tf_keras import layers  # noqa: E402

normalization = layers.Normalization()
normalization.adapt(train_set[0])
model = tf_keras.Sequential(
    [
        layers.Input((128, 6)),
        normalization,
        layers.Conv1D(16, 9, strides=2, use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(),
        layers.MaxPooling1D(2),
        layers.SeparableConv1D(32, 5, padding="same", use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(),
        layers.GlobalAveragePooling1D(),
        layers.Dense(len(MOTIONS)),
    ],
    name="motion",
)

# %%
run_dir = pathlib.Path(tempfile.mkdtemp()) / "motion"
run = fit(
    model,
    train_set,
    test_set,
    label_names=MOTIONS,
    pretrained=(),
    bits="w4a4",
    phases={"full_precision": 6, "self_studying": 3},
    learning_rates=[0.1, 0.02],
    batch_size=32,
    target="microcontroller",
    run_dir=run_dir,
)
print(f"the quantized Keras student: {run.student_top1:.2f} %")

# %% [markdown]
# The file's input is a window as it is, [1, 128, 6], on the steps that were chosen from the training set.

# %%
verification = export(run)
print("the file is what was trained:", verification["passed"])
print("the input:", run.results["data"]["input"])
