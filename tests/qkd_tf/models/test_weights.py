"""The same weights in every format that users have; refusals that name everything that does not fit."""

import io
import pathlib
import pickle
import re
import sys
import textwrap
import types
import zipfile

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.evaluate import predict_logits
from qkd_tf.experiment import ExperimentError, NetworkSpec, PixelNormalization
from qkd_tf.experiment.inputs import WEIGHTS
from qkd_tf.models import weights, zoo
from qkd_tf.models.copier import leaves
from tests.docs.pages import BLOCK

UNIT = PixelNormalization((0.0,), (1.0,))
ENDINGS = (".h5", "_weights.h5", ".keras", ".weights.h5", ".npz", "_torch.npz")
ROOT = pathlib.Path(__file__).parents[3]
MODELS = ROOT.parent / "shared" / "models"
TORCH_WORDS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@pytest.fixture
def make_network(chain, randomize):
    """Twelve convolutions of one shape, so that only their order tells them apart, and one of each other kind."""

    def make(seed, prefix="", width=3, depthwise=True, classes=2):
        def name(word):
            return prefix + word

        tail = [
            layers.BatchNormalization(name=name("last_bn")),
            layers.GlobalAveragePooling2D(name=name("pool")),
            layers.Dense(classes, name=name("logits")),
        ]
        if depthwise:
            tail.insert(0, layers.DepthwiseConv2D(3, name=name("depthwise")))
        convs = [layers.Conv2D(width, 1, use_bias=False, name=name(f"conv{i}")) for i in range(12)]
        return randomize(chain(*convs[:1], layers.BatchNormalization(name=name("bn")), *convs[1:], *tail), seed)

    return make


def values(model):
    return [v.numpy() for v in model.variables]


def words(model, torch=False):
    """{"conv1/kernel:0": array} or {"conv1.weight": array}."""
    found = {}
    for layer in model.layers:
        for variable in layer.variables:
            word = variable.name.split("/")[-1].split(":")[0]
            found[f"{layer.name}.{TORCH_WORDS[word]}" if torch else f"{layer.name}/{word}:0"] = variable.numpy()
        if torch and isinstance(layer, layers.BatchNormalization):
            found[f"{layer.name}.num_batches_tracked"] = np.array(7)
    return found


def save(model, folder, ending):
    path = folder / f"net{ending}"
    if ending.endswith(".npz"):
        np.savez(path, **words(model, torch="torch" in ending))
    elif ending.endswith("weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


def load(model, path, **spec):
    return weights.load(model, NetworkSpec("net", spec.pop("normalization", UNIT), str(path), **spec))


def test_what_build_md_says_of_pytorch_gives_the_same_weights(make_network, tmp_path, monkeypatch):
    """With a stand-in for PyTorch, which has the axes of its kernels."""
    network = make_network(1, depthwise=False)
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,), 0: ()}
    state = {
        f"module.{name}": types.SimpleNamespace(numpy=lambda array=array: array.transpose(axes[array.ndim]))
        for name, array in words(network, torch=True).items()
    }
    torch = types.ModuleType("torch")
    torch.load = lambda path, map_location: {"state_dict": state}
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.chdir(tmp_path)
    _, _, section = (ROOT / "BUILD.md").read_text().partition("### Weights from PyTorch\n")
    exec(textwrap.dedent("".join(BLOCK.findall(section.partition("\n### ")[0]))), {})
    other = make_network(2, "other_", depthwise=False)
    load(other, tmp_path / "RESNET20.npz")
    for expected, found in zip(values(network), values(other), strict=True):
        np.testing.assert_array_equal(found, expected)


def complaint(model, path):
    before = values(model)
    with pytest.raises(ExperimentError) as caught:
        load(model, path)
    for old, new in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(new, old)  # nothing is loaded by halves
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "other_"], ids=["by_name", "by_position"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_weights_of_every_format_come_back_bit_for_bit(make_network, tmp_path, ending, prefix):
    depthwise = "torch" not in ending
    source = make_network(1, depthwise=depthwise)
    path = save(source, tmp_path, ending)
    target = make_network(2, prefix, depthwise=depthwise)
    load(target, path)
    for got, expected in zip(values(target), values(source), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_layers_of_equal_names_are_matched_by_name_whatever_their_order(make_network, tmp_path):
    source = make_network(1)
    arrays = words(source)
    np.savez(tmp_path / "net.npz", **{name: arrays[name] for name in reversed(arrays)})
    target = make_network(2)
    load(target, tmp_path / "net.npz")
    for got, expected in zip(values(target), values(source), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_shape_that_does_not_fit_is_listed(make_network, tmp_path, ending):
    depthwise = "torch" not in ending
    path = save(make_network(1, width=4, depthwise=depthwise, classes=5), tmp_path, ending)
    message = complaint(make_network(2, depthwise=depthwise), path)
    assert str(path) in message
    for i in range(1, 12):
        assert f"conv{i}/kernel expects (1, 1, 3, 3)" in message
    for name in ("bn", "last_bn"):
        for word in ("gamma", "beta", "moving_mean", "moving_variance"):
            assert f"{name}/{word} expects (3,)" in message
    assert "has shape (4, 5), logits/kernel expects (3, 2)" in message
    assert "has shape (5,), logits/bias expects (2,)" in message


def test_every_layer_without_a_counterpart_is_listed(make_network, chain, randomize, tmp_path):
    small = randomize(chain(layers.Conv2D(3, 1, use_bias=False, name="only"), layers.Flatten()))
    message = complaint(make_network(2), save(small, tmp_path, ".npz"))
    for name in [f"conv{i}" for i in range(1, 12)] + ["bn", "last_bn", "depthwise", "logits"]:
        assert f"for {name} " in message
    message = complaint(small, save(make_network(1), tmp_path, ".keras"))
    for name in [f"conv{i}" for i in range(1, 12)] + ["bn", "last_bn", "depthwise", "logits"]:
        assert f"{name} (" in message


def test_variables_without_a_counterpart_are_listed(chain, randomize, tmp_path):
    def network(use_bias):
        return randomize(chain(layers.Conv2D(2, 1, use_bias=use_bias, name="conv"), layers.Flatten()))

    assert "conv has no bias for conv" in complaint(network(True), save(network(False), tmp_path, ".npz"))
    assert "conv/bias has no place in conv" in complaint(network(False), save(network(True), tmp_path, ".npz"))


def test_missing_file_is_named(make_network, tmp_path):
    assert "gone.h5 does not exist" in complaint(make_network(0), tmp_path / "gone.h5")
    assert "does not exist" in complaint(make_network(0), tmp_path)


def test_every_known_ending_has_its_reader():
    assert list(weights.READERS) == list(WEIGHTS)


@pytest.mark.parametrize("name", ["net.pt", "net.ckpt", "net", "net.pb", "net.npy"])
def test_unknown_ending_is_answered_with_the_known_ones(make_network, tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    message = complaint(make_network(0), tmp_path / name)
    assert all(ending in message for ending in (".h5", ".keras", ".weights.h5", ".npz"))


@pytest.mark.parametrize("content", ["empty", "text", "cut"])
@pytest.mark.parametrize("ending", [".h5", ".keras", ".weights.h5", ".npz"])
def test_corrupt_file_is_named(make_network, tmp_path, ending, content):
    path = save(make_network(1), tmp_path, ending)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"not weights\n" * 50, "cut": whole[: len(whole) * 2 // 3]}[content])
    assert str(path) in complaint(make_network(2), path)


def test_h5_is_told_by_what_is_in_it_not_by_its_name(make_network, tmp_path):
    model = make_network(1)
    old_format = save(model, tmp_path, "_old.h5").rename(tmp_path / "old.weights.h5")
    new_format = save(model, tmp_path, ".weights.h5").rename(tmp_path / "new.h5")
    for path in (old_format, new_format):
        other = make_network(2)
        load(other, path)
        for loaded, given in zip(other.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(loaded, given)


class Bomb:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("exploded"),)


def test_no_pickle_is_ever_read(make_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("inside.npz", **{"conv/kernel:0": np.array([Bomb()], dtype=object)})
    pathlib.Path("bare.npz").write_bytes(pickle.dumps(Bomb()))
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object))
    pathlib.Path("array.npz").write_bytes(buffer.getvalue())
    for name in ("inside.npz", "bare.npz", "array.npz"):
        assert name in complaint(make_network(0), pathlib.Path(name))
    assert not pathlib.Path("exploded").exists()


def test_no_code_of_a_keras_file_is_ever_run(chain, make_network, tmp_path):
    model = chain(layers.Lambda(lambda x: x + 1), layers.Flatten(), layers.Dense(2))
    model.save(tmp_path / "net.keras")
    assert "net.keras" in complaint(make_network(0), tmp_path / "net.keras")


def test_code_is_run_where_it_is_trusted_and_the_weights_are_read(chain, tmp_path):
    model = chain(layers.Lambda(lambda x: x + 1), layers.Flatten(), layers.Dense(2, name="dense"))
    model.save(tmp_path / "net.keras")
    (dense,) = weights.read(tmp_path / "net.keras", trust_code=True)
    np.testing.assert_array_equal(dense.variables["kernel"], model.get_layer("dense").kernel)


@pytest.mark.parametrize("ending", [".npz", ".h5", ".keras", ".weights.h5"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_array_without_a_number_is_named(make_network, tmp_path, ending, value):
    model = make_network(1)
    layer = next(layer for layer in model.layers if isinstance(layer, layers.Dense))
    kernel, *rest = layer.get_weights()
    kernel[0, 0] = value
    layer.set_weights([kernel, *rest])
    assert re.search(r"\w+/kernel has NaN or infinity; give", complaint(make_network(2), save(model, tmp_path, ending)))


def test_keras_file_without_its_weights_is_named(make_network, tmp_path):
    path = save(make_network(1), tmp_path, ".keras")
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "half.keras", "w") as half:
        for name in whole.namelist():
            if name.endswith(".json"):
                half.writestr(name, whole.read(name))
    assert "half.keras" in complaint(make_network(2), tmp_path / "half.keras")


@pytest.mark.parametrize("ending", [".keras", ".npz"])
def test_layers_of_nested_models_get_their_weights_too(randomize, tmp_path, ending):
    """As a base of tf_keras.applications in a functional model has them."""

    def make(seed):
        inner = tf_keras.Sequential(
            [layers.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="bn")]
        )
        pixels = tf_keras.Input((8, 8, 3))
        x = layers.GlobalAveragePooling2D()(inner(pixels))
        return randomize(tf_keras.Model(pixels, layers.Dense(5, name="logits")(x)), seed)

    source, target = make(1), make(2)
    path = tmp_path / f"net{ending}"
    if ending == ".keras":
        source.save(path)
    else:
        np.savez(
            path, **{f"{layer.name}/{v.name.split('/')[-1]}": v for layer in leaves(source) for v in layer.weights}
        )
    assert load(target, path) == []
    for got, expected in zip(values(target), values(source), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "name, file, normalization, at_least",
    [
        ("resnet8", "mlperf_resnet8.h5", UNIT, 85.0),
        (
            "resnet20",
            "resnet20.npz",
            PixelNormalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
            90.0,
        ),
    ],
)
def test_published_weights_keep_their_accuracy(cifar10, name, file, normalization, at_least):
    if not (MODELS / file).is_file():
        pytest.skip(f"no {file} in {MODELS}")
    model = zoo.build(NetworkSpec(name, normalization), (32, 32, 3), 10)
    weights.load(model, NetworkSpec(name, normalization, str(MODELS / file)))
    logits, labels = predict_logits(model, cifar10.test.take(8))
    assert 100 * np.mean(logits.argmax(-1)[:1000] == labels[:1000]) > at_least


def test_what_does_fit_is_not_complained_about(make_network, tmp_path):
    message = complaint(make_network(2), save(make_network(1, classes=5), tmp_path, ".npz"))
    problems = re.split("; ", message.partition(": ")[2])
    assert len(problems) == 2 == len(set(problems))


@pytest.mark.parametrize("ending", [".keras", ".h5", ".weights.h5"])
def test_files_of_keras_3_are_weights_of_a_known_architecture(chain, tmp_path, ending):
    keras = pytest.importorskip("keras", "3")

    def kinds(library):
        convs = [library.Conv2D(3, 1, use_bias=False) for _ in range(12)]
        head = [library.DepthwiseConv2D(3), library.GlobalAveragePooling2D(), library.Dense(2)]
        return [*convs, library.BatchNormalization(), *head]

    target = chain(*kinds(layers))
    source = keras.Sequential([keras.Input(target.input_shape[1:]), *kinds(keras.layers)])
    rng = np.random.default_rng(0)
    source.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in source.weights])
    path = tmp_path / f"theirs{ending}"
    (source.save_weights if "weights" in ending else source.save)(path)
    weights.load(target, NetworkSpec("mine", UNIT, str(path)))
    for got, expected in zip(target.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)
