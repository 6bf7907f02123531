"""Broken records and pictures inside a prepared set, found while it is read and while a network is trained from it."""

import pathlib
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from qkd_tf import data
from qkd_tf.experiment import DataSpec, ExperimentError


@pytest.fixture(scope="module")
def ramps(make_ramps):
    return make_ramps()


def spoil_record(content):
    return content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]


def cut(content):
    return content[:-40]


def spoil_picture(content):
    """Another picture in the last record, and its sums put right: only the decoder can tell."""
    examples, start = [], 0
    while start < len(content):
        (length,) = struct.unpack("<Q", content[start : start + 8])
        examples.append(content[start + 12 : start + 12 + length])
        start += length + 16
    example = tf.train.Example.FromString(examples[-1])
    example.features.feature["image"].bytes_list.value[0] = b"\x89PNG\r\n\x1a\nno picture"
    with tf.io.TFRecordWriter("whole") as writer:
        for record in [*examples[:-1], example.SerializeToString()]:
            writer.write(record)
    return pathlib.Path("whole").read_bytes()


@pytest.fixture
def spoilt(ramps, tmp_path, monkeypatch):
    """spoilt(how): the set, with the shard of that split spoilt."""

    def spoilt(how):
        monkeypatch.chdir(tmp_path)
        root = pathlib.Path(shutil.copytree(ramps, tmp_path / "data"))
        (shard,) = root.glob("small/*/small-train.tfrecord*")
        shard.write_bytes(how(shard.read_bytes()))
        return DataSpec("small", data_dir=str(root), batch_size=2, validation_fraction=0.3, crop_padding=0)

    return spoilt


def refusal(action, spec):
    with pytest.raises(ExperimentError) as caught, data.reading(spec):
        action()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    return str(caught.value)


@pytest.mark.parametrize(
    "how, reason",
    [(spoil_record, "corrupted record at"), (cut, "truncated record at"), (spoil_picture, "PNG")],
    ids=["record", "cut", "picture"],
)
def test_broken_record_is_told_in_one_line_with_its_set(spoilt, how, reason):
    spec = spoilt(how)
    message = refusal(lambda: data.load(spec), spec)
    assert message.startswith("small cannot be read: ") and reason in message


@pytest.mark.slow
def test_broken_picture_is_told_from_inside_a_training_step(spoilt, streaming, monkeypatch):
    """Streamed, the last training picture is not looked at before training."""
    monkeypatch.setattr("qkd_tf.data.pipeline.DIGESTED", 1)
    spec = spoilt(lambda content: content)
    splits = data.load(spec)
    (shard,) = pathlib.Path(spec.data_dir).glob("small/*/small-train.tfrecord*")
    shard.write_bytes(spoil_picture(shard.read_bytes()))
    model = tf_keras.Sequential([tf_keras.layers.Flatten(), tf_keras.layers.Dense(2)])
    model.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    message = refusal(lambda: [model.fit(splits.train(0), verbose=0), list(splits.validation)], spec)
    assert message.startswith("small cannot be read: ") and "PNG" in message


def test_errors_of_the_network_are_left_as_they_are():
    with pytest.raises(tf.errors.InvalidArgumentError), data.reading(DataSpec("small")):
        tf.linalg.matmul(np.ones((2, 3)), np.ones((2, 3)))
