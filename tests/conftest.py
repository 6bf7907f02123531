"""What several test files need: a fast Hypothesis profile, small float models. How the suite keeps two cores busy."""

import gc
import os
import random
import sys
import tempfile

import hypothesis
import numpy as np
import pytest

import qkd_tf  # noqa: F401  chooses Keras 2 before anything imports TensorFlow

hypothesis.settings.register_profile("fast", deadline=None, max_examples=40, derandomize=True, database=None)
hypothesis.settings.load_profile("fast")

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each; more threads would wait for one another
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has this from the process that started it
    CACHE = tempfile.TemporaryDirectory(prefix="qkd_tf_cache")
    os.environ["XDG_CACHE_HOME"] = CACHE.name  # what tests have seen of pictures is no memory of the user's

# Files that take longest, longest first: none of them is left to one worker in the end.
LONG_FILES = (
    "test_end_to_end.py",
    "test_zoo.py",
    "test_drawn_models.py",
    "test_integer_reference.py",
    "test_trainer.py",
    "test_trainer_resume.py",
    "test_trainer_low_bit.py",
    "test_train.py",
    "test_distribution.py",
    "test_rebuild.py",
    "test_scheme.py",
    "test_soak.py",
    "test_ratios.py",
    "test_pipeline.py",
    "test_widths.py",
)


def pytest_collection_modifyitems(items):
    order = {name: index for index, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))  # within a file the order stays


def pytest_collection_finish():
    """TensorFlow's modules are millions of objects that stay: the collector need not look through them ever again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="module", autouse=True)
def each_file_begins_anew():
    """Seeds and deterministic kernels of a file's tests, slow and in want of seeds, would last as long as a worker."""
    if tensorflow := sys.modules.get("tensorflow"):
        sys.modules["tensorflow.python.framework.config"].disable_op_determinism()
        tensorflow.random.set_seed(None)
    if backend := sys.modules.get("tf_keras.src.backend"):
        backend._SEED_GENERATOR.generator = None


def _draw_by(node, name=""):
    """Makes weights, whose seeds both Keras libraries draw by Python's generator, depend on a test's name alone."""
    random.seed(f"{node.nodeid} {name} {node.config.getoption('--weights_seed')}")


@pytest.hookimpl(tryfirst=True)
def pytest_make_collect_report(collector):
    _draw_by(collector)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef, request):
    _draw_by(request.node, fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    _draw_by(item)


def pytest_addoption(parser):
    parser.addoption("--weights_seed", type=int, default=0, help="which weights tests draw that name no seed")
    parser.addoption("--fuzz_inputs", type=int, default=200, help="damaged files of a stranger that are tried")
    parser.addoption("--fuzz_seed", type=int, default=0, help="which ones")
    parser.addoption("--drawn_models", type=int, default=16, help="models that are drawn: students, and teachers")
    parser.addoption("--drawn_seed", type=int, default=0, help="which ones")
    parser.addoption("--drawn_results", default="", help="file for what became of them")
    parser.addoption("--tflm", default="", help="checkout of tflite-micro with its downloads")
    parser.addoption("--processor", default="", help="ARM64 processor, emulated, whose LiteRT is asked, not this one's")


def _chain(*layers, input_shape=(8, 8, 3)):
    import tf_keras

    x = inputs = tf_keras.Input(input_shape, name="pixels")
    for layer in layers:
        x = layer(x)
    return tf_keras.Model(inputs, x)


def _randomize(model, seed=0):
    """Gives every variable a value of its own; variances stay positive, biases are not left at 0."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        values = rng.normal(0.0, 0.5, variable.shape)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.name or "gamma" in variable.name else values)
    return model


@pytest.fixture(scope="session")
def chain():
    """chain(*layers, input_shape): functional model that applies the layers one after the other."""
    return _chain


@pytest.fixture(scope="session")
def randomize():
    """randomize(model, seed): the model with random weights and batch statistics."""
    return _randomize


@pytest.fixture(scope="session")
def make_residual_student():
    """Makes an inverted residual in small: requantized, depthwise, signed and pooled tensors are all in it."""
    import tf_keras
    from tf_keras import layers

    def make(seed=0):
        inputs = tf_keras.Input((8, 8, 3), name="pixels")
        x = layers.Rescaling(1 / 64, -2.0, name="normalization")(inputs)
        x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(x)
        x = shortcut = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
        x = layers.ReLU(name="depthwise_relu")(layers.BatchNormalization(name="depthwise_bn")(x))
        x = layers.Conv2D(4, 1, use_bias=False, name="linear")(x)
        x = layers.BatchNormalization(name="linear_bn")(x)
        x = layers.Add(name="add")([shortcut, x])
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        return _randomize(tf_keras.Model(inputs, layers.Dense(5, name="logits")(x), name="residual"), seed)

    return make


@pytest.fixture
def images():
    """Four pictures of 8 x 8 pixels, 0..255."""
    return np.random.default_rng(7).integers(0, 256, (4, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def make_splits():
    """make_splits(**fields): 24 training pictures of 8 x 8 pixels in batches of 8, 5 classes, two short splits."""
    import tensorflow as tf

    from qkd_tf.data import Splits

    def make(**fields):
        rng = np.random.default_rng(3)
        pictures, labels = rng.integers(0, 256, (47, 8, 8, 3)).astype(np.uint8), rng.integers(0, 5, 47)

        def batches(part):
            return tf.data.Dataset.from_tensor_slices((pictures[part], labels[part])).batch(8)

        return Splits(
            **{
                "train": lambda epoch, step=0, share=(0, 1): batches(np.random.default_rng(epoch).permutation(24)).skip(
                    step
                ),
                "calibration": batches(np.arange(24)),
                "validation": batches(np.arange(24, 35)),
                "test": batches(np.arange(35, 47)),
                "num_train": 24,
                "batch_size": 8,
                "image_shape": (8, 8, 3),
                "label_names": ["ant", "bee", "cat", "dog", "elk"],
                "fingerprint": {"name": "tiny", "num_test": 12},
                **fields,
            }
        )

    return make


@pytest.fixture(scope="session")
def make_quantized_student(make_residual_student, make_splits):
    """make_quantized_student(seed, bits): the residual student, quantized, to W3A4 where not told, and calibrated."""
    from qkd_tf.experiment import QuantizationSpec
    from qkd_tf.quantization.calibration import calibrate
    from qkd_tf.quantization.scheme import quantize_student

    def make(seed=0, bits=(3, 4)):
        spec = QuantizationSpec(weight_bits=bits[0], activation_bits=bits[1])
        student = quantize_student(make_residual_student(seed), spec)
        calibrate(student, [images for images, _ in make_splits().calibration], "minmax")
        return student

    return make


# Opens a page in a frame of the width that is asked for, and writes what can be measured there as JSON.
FRAME = """<!doctype html><body style="margin: 0">
<iframe src="{page}" style="border: 0; width: {width}px; height: 4000px"></iframe><pre id="found"></pre><script>
onload = () => {{
  const frame = document.querySelector("iframe").contentWindow, page = frame.document;
  page.querySelectorAll("details").forEach(part => {{ part.open = true; }});
  const text = {{ IMG: "alt", svg: "aria-label" }};
  document.getElementById("found").textContent = JSON.stringify({{
    width: page.documentElement.clientWidth,
    scroll_width: page.documentElement.scrollWidth,
    scrolled_tables: [...page.querySelectorAll(".wide")].filter(part => part.scrollWidth > part.clientWidth).length,
    background: frame.getComputedStyle(page.body).backgroundColor,
    requests: frame.performance.getEntriesByType("resource").map(entry => entry.name),
    pictures: page.querySelectorAll("img, svg").length,
    without_text: [...page.querySelectorAll("img, svg")].filter(p => !p.getAttribute(text[p.tagName])).length,
    broken: [...page.images].filter(picture => !picture.naturalWidth).length,
    invisible: [...page.querySelectorAll("svg")].filter(p => p.getBoundingClientRect().width < 20).length,
  }});
}};
</script>"""


@pytest.fixture(scope="session")
def browse(tmp_path_factory):
    """browse(page, width, dark): what a browser finds in a page of `width` pixels, `console` lines included."""
    import html
    import json
    import re
    import shutil
    import subprocess

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium is installed; on Debian: apt-get install chromium")

    def browse(page, width=1100, dark=False):
        folder = tmp_path_factory.mktemp("browser")
        (folder / "frame.html").write_text(FRAME.format(page=page.resolve().as_uri(), width=width))
        command = [
            *(program, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"),
            *("--disable-background-networking", "--hide-scrollbars", "--allow-file-access-from-files"),
            *("--enable-logging=stderr", f"--blink-settings=preferredColorScheme={0 if dark else 1}"),
            *("--dump-dom", (folder / "frame.html").as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        found = re.search('<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
        assert found and found[1], done.stderr[-2000:]
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return {**json.loads(html.unescape(found[1])), "console": console}

    return browse


def _write_tar(target, members):
    """A tar file of {name: bytes}."""
    import io
    import tarfile

    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _encode(rng, mode, size, kind="JPEG"):
    """A picture of coarse random blocks, (width, height) pixels, as the bytes of a file."""
    import io

    from PIL import Image

    shape = (size[1] // 8 + 1, size[0] // 8 + 1, len(mode))
    blocks = rng.integers(0, 256, shape).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks.squeeze(-1) if len(mode) == 1 else blocks, mode).resize(size).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="session")
def encode_picture():
    """encode_picture(rng, mode, (width, height), kind): a file's bytes; mode "L", "RGB", "RGBA" or "CMYK"."""
    return _encode


@pytest.fixture(scope="session")
def make_imagenet():
    """make_imagenet(folder, num_train, num_validation, num_test, num_classes): data_dir of a small "imagenet2012".

    TFDS's own builder prepares it, from tar files laid out as ImageNet's: 1,000 synset names as classes, of
    which the first `num_classes` have training pictures; JPEGs of many sizes, some grey, some CMYK. The test
    split, which has no labels, is there if it has pictures.
    """
    import io

    import tensorflow_datasets as tfds

    def make(folder, num_train=40, num_validation=12, num_test=0, num_classes=8):
        rng = np.random.default_rng(0)
        names = tfds.core.tfds_path("datasets/imagenet2012/labels.txt").read_text().split()

        def picture(index):
            size = tuple(int(side) for side in rng.integers(24, 90, 2))
            return _encode(rng, ("RGB", "RGB", "L", "RGB", "CMYK")[index % 5], size)

        classes = {}
        for index in range(num_classes):
            pictures = {f"{names[index]}_{k}.JPEG": picture(k) for k in range(index, num_train, num_classes)}
            inner = io.BytesIO()
            _write_tar(inner, pictures)
            classes[f"{names[index]}.tar"] = inner.getvalue()
        parts = {"train": classes}
        for part, number in (("val", num_validation), ("test", num_test)):
            parts[part] = {f"ILSVRC2012_{part}_{k + 1:08d}.JPEG": picture(k) for k in range(number)}
        manual_dir = folder / "manual"
        manual_dir.mkdir()
        for part, members in parts.items():
            if members:
                with open(manual_dir / f"ILSVRC2012_img_{part}.tar", "wb") as file:
                    _write_tar(file, members)
        builder = tfds.builder("imagenet2012", data_dir=folder)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir, num_shards=4))
        return str(folder)

    return make


@pytest.fixture(scope="session")
def imagenet_dir(tmp_path_factory, make_imagenet):
    """data_dir of a set named imagenet2012 with 40 training and 12 validation pictures."""
    return make_imagenet(tmp_path_factory.mktemp("imagenet"))


@pytest.fixture(scope="session")
def cifar10():
    """CIFAR-10 as `data.load` opens it; skips where the set is not at hand."""
    import pathlib

    from qkd_tf import data
    from qkd_tf.experiment import DataSpec

    folder = pathlib.Path(__file__).parents[2] / "shared" / "data" / "tfds"
    if not (folder / "cifar10").is_dir():
        pytest.skip(f"no CIFAR-10 in {folder}")
    return data.load(DataSpec("cifar10", data_dir=str(folder), validation_fraction=0.05))
