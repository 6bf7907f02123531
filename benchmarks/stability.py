"""Do intervals collapse or run away? python -m benchmarks.stability [--rows=N] [--max_changes=0,0.02]

Small networks on scikit-learn's digits, enlarged to 32 x 32: trained in float by Keras, then self-studying for two
epochs at many learning rates, batch sizes, bit widths and seeds, once for each bound on an interval's change in a step
(--interval_max_change). Of each run: intervals at the floor, the largest growth and shrinkage since calibration, and
whether every picture is given one class. Writes benchmarks/stability/digits.json and prints it; README.md has the
summary. About half a minute a run on two cores.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import functools
import json
import pathlib
import tempfile

import numpy as np
import tf_keras
from sklearn import datasets
from tf_keras import layers

from qkd_tf import fit
from qkd_tf.distillation.collapse import LEFT
from qkd_tf.experiment import ExperimentError
from qkd_tf.quantization.quantizers import SMALLEST_INTERVAL

RESULT = pathlib.Path(__file__).parent / "stability" / "digits.json"
SIDE, NUM_TEST = 32, 360
FLOAT_EPOCHS, EPOCHS = 8, 2
# Network, bits, learning rate, batch size: each with the seed of its place.
GRID = [
    (network, bits, rate, batch)
    for bits, rate, batch in (
        ("w8a8", 0.01, 32),
        ("w4a4", 0.01, 16),
        ("w2a2", 0.01, 32),
        ("w4a4", 0.05, 32),
        ("w2a2", 0.05, 128),
        ("w8a8", 0.05, 16),
        ("w3a3", 0.001, 64),
    )
    for network in ("plain", "depthwise", "residual")
]


def plain(x):
    for filters, strides in ((16, 2), (24, 2), (32, 1)):
        x = layers.Conv2D(filters, 3, strides, "same", activation="relu")(x)
    return x


def depthwise(x):
    x = _batch_norm(layers.Conv2D(16, 3, 2, "same", use_bias=False)(x))
    for filters, strides in ((24, 1), (32, 2), (48, 1), (64, 2)):
        x = _batch_norm(layers.DepthwiseConv2D(3, strides, "same", use_bias=False)(x))
        x = _batch_norm(layers.Conv2D(filters, 1, use_bias=False)(x))
    return x


def residual(x):
    x = _batch_norm(layers.Conv2D(16, 3, 2, "same", use_bias=False)(x))
    for _ in range(3):
        y = _batch_norm(layers.Conv2D(16, 3, padding="same", use_bias=False)(x))
        y = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(16, 3, padding="same", use_bias=False)(y))
        x = layers.ReLU()(layers.Add()([x, y]))
    return x


def _batch_norm(x):
    return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))


NETWORKS = {"plain": plain, "depthwise": depthwise, "residual": residual}


def pictures() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(Images [N, 32, 32, 1] uint8, labels [N]) for training, and for test."""
    digits = datasets.load_digits()
    images = (digits.images * 15.9).astype(np.uint8).repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)[..., np.newaxis]
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], digits.target[order]
    return (images[NUM_TEST:], labels[NUM_TEST:]), (images[:NUM_TEST], labels[:NUM_TEST])


@functools.cache
def trained(network: str) -> tf_keras.Model:
    """A float network that Keras trained."""
    (images, labels), _ = pictures()
    tf_keras.utils.set_random_seed(0)
    pixels = tf_keras.Input((SIDE, SIDE, 1))
    x = NETWORKS[network](layers.Rescaling(1 / 127.5, -1.0)(pixels))
    model = tf_keras.Model(pixels, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)), name=network)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(3e-3), loss)
    model.fit(images.astype(np.float32), labels, 32, FLOAT_EPOCHS, verbose=0)
    return model


def measure(network: str, bits: str, rate: float, batch: int, seed: int, max_change: float) -> dict:
    """What one run came to; `refused` where it ended in a message."""
    train_set, test_set = pictures()
    row = {"network": network, "bits": bits, "rate": rate, "batch": batch, "seed": seed, "max_change": max_change}
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = fit(
                trained(network),
                train_set,
                test_set,
                run_dir=f"{folder}/run",
                bits=bits,
                phases={"self_studying": EPOCHS},
                learning_rates=rate,
                batch_size=batch,
                seed=seed,
                horizontal_flip=False,
                interval_max_change=max_change,
            )
        except ExperimentError as error:
            return {**row, "refused": str(error)}
        results = run.results
        logits = np.load(run.path / "handoff" / "student_logits.npy")
    (phase,) = results["phases"]
    first, seen = np.array(phase["first_intervals"]), np.array([epoch["intervals"] for epoch in phase["history"]])
    return {
        **row,
        "at_floor": int(np.sum(np.any(seen <= 1.001 * SMALLEST_INTERVAL, axis=0))),
        "growth": float(np.max(seen / first)),
        "shrinkage": float(np.max(first / seen)),
        "num_classes": len(np.unique(logits.argmax(-1))),
        "start": results["start_top1"],
        "top1": phase["student_test_top1"],
    }


def table(rows: list[dict]) -> str:
    """Markdown: one line a run, bounds side by side."""
    titles = ("network", "bits", "rate", "batch", "bound", "at floor", "growth", "shrinkage", "classes", "top-1, %")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        told = [row[key] for key in ("network", "bits", "rate", "batch")] + [row["max_change"] or "none"]
        if "refused" in row:
            told += ["", "", "", "", row["refused"][:60]]
        else:
            told += [row["at_floor"], f"{row['growth']:.3g}", f"{row['shrinkage']:.3g}", row["num_classes"]]
            told += [f"{row['top1']:.1f}"]
        lines.append("| " + " | ".join(map(str, told)) + " |")
    return "\n".join(lines)


def summary(rows: list[dict]) -> str:
    """Markdown: one line a bound."""
    titles = ("bound", "runs", "an interval at the floor", "beyond 10 times", "one class for all", "largest change")
    rates = sorted({row["rate"] for row in rows})
    titles += tuple(f"top-1 at rate {rate:g}, %" for rate in rates)
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for bound in sorted({row["max_change"] for row in rows}):
        runs = [row for row in rows if row["max_change"] == bound and "refused" not in row]
        changes = [max(row["growth"], row["shrinkage"]) for row in runs]
        told = [bound or "none", len(runs), sum(row["at_floor"] > 0 for row in runs), sum(c > LEFT for c in changes)]
        told += [sum(row["num_classes"] == 1 for row in runs), f"{max(changes):.3g}"]
        told += [f"{np.mean([row['top1'] for row in runs if row['rate'] == rate]):.1f}" for rate in rates]
        lines.append("| " + " | ".join(map(str, told)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stability", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=len(GRID), help="How many rows of the grid, the first.")
    parser.add_argument("--max_changes", default="0,0.02", help="Bounds to compare, a list; 0 is none.")
    arguments = parser.parse_args()
    rows = []
    for seed, settings in enumerate(GRID[: arguments.rows]):
        for bound in map(float, arguments.max_changes.split(",")):
            rows.append(measure(*settings, seed, bound))
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_text(json.dumps(rows, indent=1) + "\n")
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(table(rows), summary(rows), sep="\n\n")


if __name__ == "__main__":
    main()
