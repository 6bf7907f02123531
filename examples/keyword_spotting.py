# %% [markdown]
# # Keyword spotting, on float features
#
# MLPerf Tiny's DS-CNN (Banbury et al. 2021; Zhang et al. 2017, "Hello Edge") recognises 12 words in 49 x 10 MFCC. The
# cells below train it at 4 bits on features of float32, and write a `.tflite` and C++ for a microcontroller. The words
# are generated chirps, so nothing has to be downloaded. Open the file as a notebook (VS Code, Jupytext), or run it in
# the folder where you cloned the project: `PYTHONPATH=. .venv/bin/python examples/keyword_spotting.py`.

# %%
import pathlib
import tempfile

import numpy as np

from qkd_tf import fit
from tflite_export import export

# %% [markdown]
# Features are computed as on the device: 49 windows of 40 ms, 20 ms apart, 10 coefficients each. They are real numbers.

# %%
RATE, NUM_WORDS = 16_000, 12

import tensorflow as tf  # noqa: E402  behind qkd_tf, which chooses the Keras of TFMOT
import tf_keras  # noqa: E402
from tf_keras import layers  # noqa: E402


def mfcc(sound: tf.Tensor) -> tf.Tensor:
    """[N, 16000] -> [N, 49, 10, 1]."""
    spectrum = tf.abs(tf.signal.stft(sound, frame_length=640, frame_step=320, fft_length=1024))
    mel = tf.signal.linear_to_mel_weight_matrix(40, spectrum.shape[-1], RATE, 20.0, 4000.0)
    coefficients = tf.signal.mfccs_from_log_mel_spectrograms(tf.math.log(spectrum @ mel + 1e-6))
    return coefficients[..., :10, tf.newaxis]


def words(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 and labels: a word is where its chirp begins and ends, in one of 4 x 3 ways."""
    random = np.random.default_rng(seed)
    labels = np.arange(number) % NUM_WORDS
    seconds = np.arange(RATE) / RATE
    begin, end = 300 * 1.8 ** (labels % 4), 300 * 1.8 ** (2 * (labels // 4))
    begin, end = (hertz * random.uniform(0.95, 1.05, number) for hertz in (begin, end))
    phase = 2 * np.pi * (begin[:, np.newaxis] * seconds + (end - begin)[:, np.newaxis] * seconds**2 / 2)
    sound = random.uniform(0.3, 1, (number, 1)) * np.sin(phase) + random.normal(0, 0.05, (number, RATE))
    return mfcc(tf.constant(sound, tf.float32)).numpy(), labels


train_set, test_set = words(480, seed=0), words(96, seed=1)

# %% [markdown]
# The network is that of MLPerf Tiny's reference, with a BatchNormalization that forgets its start sooner, as so short a
# training needs. It reads features as they are.


# %%
def ds_cnn(filters: int = 64) -> tf_keras.Model:
    def normalized(x):
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    features = layers.Input((49, 10, 1))
    x = normalized(layers.Conv2D(filters, (10, 4), strides=2, padding="same")(features))
    x = layers.Dropout(0.2)(x)
    for _ in range(4):
        x = normalized(layers.DepthwiseConv2D(3, padding="same")(x))
        x = normalized(layers.Conv2D(filters, 1)(x))
    x = layers.Dropout(0.4)(x)
    x = layers.Flatten()(layers.AveragePooling2D(x.shape[1:3])(x))
    return tf_keras.Model(features, layers.Dense(NUM_WORDS, activation="softmax")(x), name="ds_cnn")


# %% [markdown]
# The input's scale and zero point are chosen from the training set, and a note tells them. Signals are neither cropped
# nor mirrored.

# %%
run_dir = pathlib.Path(tempfile.mkdtemp()) / "keyword_spotting"
run = fit(
    ds_cnn(),
    train_set,
    test_set,
    label_names=[f"word {number}" for number in range(NUM_WORDS)],
    pretrained=(),
    bits="w4a4",
    phases={"full_precision": 4, "self_studying": 1},
    learning_rates=[0.05, 0.02],
    batch_size=32,
    target="microcontroller",
    run_dir=run_dir,
)
print(f"the quantized Keras student: {run.student_top1:.2f} %")

# %% [markdown]
# `export/micro/model.h` has `Quantized(feature)`, which puts a feature on the input's steps as training did.

# %%
verification = export(run)
print("the file is what was trained:", verification["passed"])
print("the input:", run.results["data"]["input"])
