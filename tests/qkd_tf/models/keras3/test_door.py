"""Models of Keras 3 from files and from memory: told apart, taken over, proven, or refused in one line."""

import json
import random
import re
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from qkd_tf.experiment import NetworkSpec, PixelNormalization
from qkd_tf.models import own
from qkd_tf.models.keras3 import door, proof
from qkd_tf.models.keras3.refusal import RefusalError

ENDINGS = (".keras", ".h5")


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    """(Model, folder with mine.keras, mine.h5 and mine.weights.h5)."""
    folder, model = tmp_path_factory.mktemp("door"), network()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((4, 8, 8, 3)), np.zeros(4), verbose=0)  # an optimizer has arrays of its own
    for ending in (*ENDINGS, ".weights.h5"):
        (model.save_weights if "weights" in ending else model.save)(folder / f"mine{ending}")
    return model, folder


def pictures():
    return np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype(np.float32)


def outputs(model):
    return np.asarray(model(pictures(), training=False))


@pytest.mark.parametrize("ending", ENDINGS)
def test_file_is_taken_over_and_proven(saved, ending):
    model, folder = saved
    path = folder / f"mine{ending}"
    assert door.is_file(path)
    converted, (note,) = door.of_file(path).in_tf_keras()
    assert re.fullmatch(
        r"note: mine is a model of Keras 3, rebuilt in tf_keras; outputs differ by at most \S+ of the .*", note
    )
    np.testing.assert_allclose(outputs(converted), outputs(model), atol=1e-6)


@pytest.mark.parametrize("ending", ENDINGS)
def test_shapes_are_seen_before_any_proof(saved, ending, monkeypatch):
    model, folder = saved
    monkeypatch.setattr(door, "prove", None)
    spec = NetworkSpec(f"{folder}/mine{ending}", PixelNormalization((0.0,), (1.0,)))
    assert own.saved_shapes(spec) == (model.input_shape[1:], model.output_shape[-1])


def test_model_in_memory_is_taken_over_and_left_as_it_is(saved):
    model, _ = saved
    before = model.get_weights(), model.to_json(), set(vars(model)), [set(vars(layer)) for layer in model.layers]
    steps, drawn = int(model.optimizer.iterations.numpy()), random.getstate()
    converted, _ = door.of_model(model).in_tf_keras()
    np.testing.assert_allclose(outputs(converted), outputs(model), atol=1e-6)
    after = model.get_weights(), model.to_json(), set(vars(model)), [set(vars(layer)) for layer in model.layers]
    assert before[1:] == after[1:] and int(model.optimizer.iterations.numpy()) == steps
    for one, other in zip(before[0], after[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert random.getstate() == drawn


def test_weights_of_a_file_go_into_layers_of_other_names(saved, network):
    model, folder = saved
    fresh = network(name="again")  # the layers without a name of their own have other numbers
    converted, _ = door.of_model(fresh).with_weights(folder / "mine.weights.h5").in_tf_keras()
    np.testing.assert_allclose(outputs(converted), outputs(model), atol=1e-6)
    assert np.max(np.abs(outputs(converted) - outputs(fresh))) > 1e-4


def test_without_keras_3_a_note_says_that_nothing_was_compared(saved, monkeypatch):
    monkeypatch.setattr(door, "keras3", lambda: None)
    _, (note,) = door.of_file(saved[1] / "mine.keras").in_tf_keras()
    assert note.endswith("Keras 3 cannot be imported here, so their outputs were not compared")


def test_changed_names_are_told(keras):
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 1, name="my conv")(pixels)
    model = keras.Model(pixels, keras.layers.Conv2D(2, 1, name="conv (2)")(x))
    notes = door.of_model(model).in_tf_keras()[1]
    assert notes[1:] == [
        "note: tf_keras cannot have the layer name 'my conv'; it becomes my_conv, and 1 more names change"
    ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_of_tf_keras_are_not_of_keras_3(tmp_path, ending):
    tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(2)]).save(tmp_path / f"mine{ending}")
    assert not door.is_file(tmp_path / f"mine{ending}") and not door.is_file(tmp_path)
    (tmp_path / "none.keras").write_bytes(b"none")
    assert not door.is_file(tmp_path / "none.keras") and not door.is_file(tmp_path / "absent.keras")


def test_models_are_told_apart(keras):
    assert door.is_model(keras.Sequential()) and not door.is_model(tf_keras.Sequential()) and not door.is_model("a")


def test_no_code_runs_and_the_layer_is_named(keras, tmp_path):
    pixels = keras.Input((4, 4, 3))
    model = keras.Model(pixels, keras.layers.Lambda(lambda x: x * 2, name="mine")(pixels))
    for ending in ENDINGS:
        model.save(tmp_path / f"code{ending}")
        with pytest.raises(
            RefusalError, match="of Keras 3, and its layer mine, a Lambda, is not converted: .*; replace"
        ):
            door.of_file(tmp_path / f"code{ending}")
    with pytest.raises(RefusalError, match="layer mine, a Lambda, is not converted"):
        door.of_model(model)


def test_classes_of_a_users_own_are_refused_by_name(keras):
    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    class Net(keras.Model):
        def call(self, x):
            return x

    pixels = keras.Input((4, 4, 3))
    with pytest.raises(RefusalError, match="layer own, an Own, is not converted: its class is of .*test_door"):
        door.of_model(keras.Model(pixels, Own(name="own")(pixels)))
    with pytest.raises(RefusalError, match="a model of Keras 3, a Net; a functional or Sequential model without"):
        door.of_model(Net())


def test_models_of_several_inputs_or_outputs_are_refused(keras):
    one, other = keras.Input((4,), name="one"), keras.Input((4,), name="other")
    both = keras.layers.Add()([one, other])
    for model, told in (
        (keras.Model([one, other], both), "2 inputs and 1 output"),
        (keras.Model({"one": one, "other": other}, both), "2 inputs and 1 output"),
        (keras.Model(one, [one, keras.layers.ReLU()(one)]), "1 input and 2 outputs"),
    ):
        with pytest.raises(RefusalError, match=told):
            door.of_model(model).in_tf_keras()


def test_one_input_and_one_output_in_lists_are_one_of_each(keras):
    pixels = keras.Input((4, 4, 3), name="pixels")
    model = keras.Model([pixels], [keras.layers.Conv2D(2, 1)(pixels)])
    assert door.of_model(model).in_tf_keras()[0].input_shape == (None, 4, 4, 3)


def members(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def spoiled(saved, tmp_path, change):
    """A .keras whose members were changed."""
    found = members(saved[1] / "mine.keras")
    change(found, tmp_path)
    with zipfile.ZipFile(tmp_path / "spoiled.keras", "w") as file:
        for name, content in found.items():
            file.writestr(name, content)
    return tmp_path / "spoiled.keras"


def config(change):
    def spoil(found, folder):
        written = json.loads(found["config.json"])
        change(written["config"]["layers"])
        found["config.json"] = json.dumps(written)

    return spoil


def weights(change):
    def spoil(found, folder):
        (folder / "x.h5").write_bytes(found["model.weights.h5"])
        with h5py.File(folder / "x.h5", "a") as file:
            change(file)
        found["model.weights.h5"] = (folder / "x.h5").read_bytes()

    return spoil


def huge(file):
    del file["layers/dense/vars/0"]
    file["layers/dense/vars"].create_dataset("0", (1 << 20, 1 << 12), "f", chunks=True)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda found, folder: found.pop("model.weights.h5"), "which cannot be read: KeyError"),
        (lambda found, folder: found.pop("config.json"), "which cannot be read: KeyError"),
        (lambda found, folder: found.update({"config.json": b"[]"}), "which cannot be read: TypeError"),
        (lambda found, folder: found.update({"config.json": b"[" * 100_000}), "which cannot be read: RecursionError"),
        (lambda found, folder: found.update({"config.json": b'{"class_name": []}'}), "which cannot be read"),
        (lambda found, folder: found.update({"model.weights.h5": b"none"}), "which cannot be read: OSError"),
        (
            lambda found, folder: found.update({"model.weights.h5": found["model.weights.h5"][:3000]}),
            "which cannot be read: OSError",
        ),
        (
            config(lambda layers: layers[-1]["config"].update(units=10**9)),
            "a Dense, is not converted: an array of shape",
        ),
        (config(lambda layers: layers.append(layers[-1])), "has two layers called"),
        (config(lambda layers: layers.pop(1)), "reads its own output, or a tensor that does not exist"),
        (config(lambda layers: layers[-1].pop("config")), "which cannot be read: KeyError"),
        (config(lambda layers: layers[-1].update(config=[1])), "which cannot be read"),
        (config(lambda layers: layers[-1].update(inbound_nodes=[[["dense", 0, 0, {}]]])), "which cannot be read"),
        (weights(lambda file: file.pop("layers/dense/vars/0")), "which cannot be read: KeyError"),
        (weights(lambda file: file.pop("layers/dense")), "is expected, there is nothing"),
        (
            weights(lambda file: file.__setitem__("more", h5py.ExternalLink("/etc/passwd", "/"))),
            "is a link to somewhere",
        ),
        (weights(huge), "its arrays have 17,"),
        (
            weights(lambda file: file["layers/dense/vars"].attrs.__setitem__("name", "other")),
            "whose arrays in /layers/dense belong to other",
        ),
    ],
)
def test_damage_is_one_line(saved, tmp_path, change, message):
    path = spoiled(saved, tmp_path, change)
    with pytest.raises(RefusalError, match=re.escape(message)) as caught:
        door.of_file(path).in_tf_keras()
    assert "\n" not in str(caught.value)


def test_cut_and_ambiguous_archives_are_left_to_the_reader_that_refuses_them(saved, tmp_path):
    whole = (saved[1] / "mine.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    path = tmp_path / "twice.keras"
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("config.json", "{}")
    assert not door.is_file(tmp_path / "cut.keras") and not door.is_file(path)


def test_arrays_in_other_places_are_found_out_by_the_proof(saved, monkeypatch):
    """Keras 3 reads the file by itself, so that a slip in our reading is no slip in its."""
    brought = door.of_file(saved[1] / "mine.keras")
    given = dict(brought.arrays())
    kernel, *others = given[("shared", "conv")]
    given["shared", "conv"] = [np.transpose(kernel, (1, 0, 2, 3)), *others]
    monkeypatch.setattr(door, "_arrays", lambda *_: given)
    with pytest.raises(RefusalError, match="its copy in tf_keras computes something else"):
        brought.in_tf_keras()


def test_what_keras_3_cannot_read_is_told(saved, keras, monkeypatch):
    def broken(*_):
        raise ValueError("no such thing\nat all")

    monkeypatch.setattr(keras.Model, "load_weights", broken)
    with pytest.raises(RefusalError, match=r"which Keras 3\S+ itself cannot read: no such thing; save it again"):
        door.of_file(saved[1] / "mine.keras").in_tf_keras()
    assert proof.keras3() is keras and tf.executing_eagerly()
