# %% [markdown]
# # Your own model, from Python
#
# The cells below train a small network of your own at 4 bits on pictures that are NumPy arrays, taught by a larger
# one, and write an integer `.tflite` that is proven to be what was trained. Open the file as a notebook (VS Code,
# Jupytext), or run it where you cloned the project: `PYTHONPATH=. .venv/bin/python examples/own_model.py`.

# %%
import pathlib
import tempfile

import numpy as np
from sklearn.datasets import load_digits

from qkd_tf import fit
from tflite_export import export

# %% [markdown]
# Pixels are whole numbers, 0 to 255, as a camera gives them: both networks normalise them inside, and so does the file.

# %%
digits = load_digits()
images = np.round(digits.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
train_set = images[:1400], digits.target[:1400]
test_set = images[1400:], digits.target[1400:]

# %% [markdown]
# A model is one of `tf_keras`, functional or Sequential, from pixels to logits or to a softmax. A `Rescaling` at its
# beginning tells how it wants its pixels. Such short training needs a BatchNormalization with a lower momentum than
# Keras' default of 0.99.

# %%
import tf_keras  # noqa: E402  behind qkd_tf, which chooses the Keras of TFMOT
from tf_keras import layers  # noqa: E402


def build(width: int) -> tf_keras.Model:
    return tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(width, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Conv2D(2 * width, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, name="logits"),
        ],
        name=f"net{width}",
    )


# %% [markdown]
# `phases` says how many epochs each phase has. With `full_precision` first, student and teacher begin from scratch;
# leave it out where both are trained. The same call goes on where a killed one stopped.

# %%
run_dir = pathlib.Path(tempfile.mkdtemp()) / "own_model"
run = fit(
    build(16),
    train_set,
    test_set,
    teacher=build(32),
    pretrained=(),
    bits="w4a4",
    phases={"full_precision": 10, "self_studying": 2, "co_studying": 3, "tutoring": 2},
    learning_rates=[0.1, 0.02, 0.02, 0.02],
    batch_size=64,
    crop_padding=0,
    horizontal_flip=False,
    run_dir=run_dir,
)
print(f"the quantized Keras student: {run.student_top1:.2f} %")

# %% [markdown]
# The export writes the trained integers into a `.tflite`, reads it back, runs it on LiteRT and on TFLM, and compares.

# %%
verification = export(run, target="microcontroller")
print("the file is what was trained:", verification["passed"])
print(*sorted(str(path.relative_to(run_dir)) for path in (run_dir / "export").rglob("*.*")), sep="\n")
