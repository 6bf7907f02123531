import numpy as np
import pytest
import tensorflow as tf

from qkd_tf.data import pipelines
from qkd_tf.data.given import source_of
from qkd_tf.experiment import DataSpec, ExperimentError

SPEC = DataSpec("in_memory:x", batch_size=4, validation_fraction=0.25, crop_padding=0, horizontal_flip=False)


def arrays(number=20, classes=4, side=6):
    """Images whose every pixel is the number of the image; classes in turns."""
    images = np.broadcast_to(np.arange(number, dtype=np.uint8)[:, None, None, None], (number, side, side, 1))
    return images.copy(), np.arange(number) % classes


def read(examples):
    return [(int(image[0, 0, 0]), int(label)) for image, label in examples.read(None).as_numpy_iterator()]


def test_validation_is_every_so_manieth_training_example_and_no_other():
    source = source_of(arrays(), arrays(8), None, SPEC, None)
    assert read(source.validation) == [(n, n % 4) for n in range(0, 20, 4)]
    assert read(source.train) == [(n, n % 4) for n in range(20) if n % 4]
    assert read(source.test) == [(n, n % 4) for n in range(8)]
    assert [source.train.num_examples, source.validation.num_examples, source.test.num_examples] == [15, 5, 8]
    assert source.image_shape == (6, 6, 1) and source.label_names == ["0", "1", "2", "3"]


@pytest.mark.parametrize("batch", [0, 3], ids=["single", "batched"])
def test_tf_data_set_is_read_like_arrays(batch):
    def dataset(images, labels):
        made = tf.data.Dataset.from_tensor_slices((images, labels.astype(np.int32)))
        return made.batch(batch) if batch else made

    given = [arrays(), arrays(8), arrays(5)]
    expected = source_of(*given, SPEC, list("abcd"))
    source = source_of(*(dataset(*part) for part in given), SPEC, list("abcd"))
    for name in ("train", "validation", "test"):
        assert read(getattr(source, name)) == read(getattr(expected, name))
    assert source.version == expected.version and source.label_names == list("abcd")


def test_name_of_a_set_depends_on_images_and_labels():
    images, labels = arrays()
    others = [(images, labels), (images + 1, labels), (images, (labels + 1) % 4)]
    assert len({source_of(other, arrays(8), None, SPEC, None).version for other in others}) == 3


def test_labels_of_keras_data_sets_may_be_a_column():
    images, labels = arrays()
    source = source_of((images, labels[:, np.newaxis]), arrays(8), None, SPEC, None)
    assert read(source.validation)[:2] == [(0, 0), (4, 0)]


def test_given_images_become_batches():
    splits = pipelines(source_of(arrays(), arrays(8), None, SPEC, None), SPEC)
    batches = list(splits.train(0).as_numpy_iterator())
    assert [images.shape for images, _ in batches] == [(4, 6, 6, 1)] * 3
    seen = {
        int(image[0, 0, 0]): int(label)
        for images, labels in batches
        for image, label in zip(images, labels, strict=True)
    }
    assert len(seen) == 12 and all(number % 4 == label != 0 for number, label in seen.items())


def test_trial_looks_at_the_first_test_images_alone():
    spec = DataSpec("in_memory:x", batch_size=4, validation_fraction=0.25, max_eval_images=3)
    source = source_of(arrays(), arrays(8), None, spec, None)
    assert (source.test.num_examples, len(read(source.test)), source.validation.num_examples) == (3, 3, 3)


IMAGES, LABELS = arrays()


@pytest.mark.parametrize(
    "given, message",
    [
        ((IMAGES / 255, LABELS), "train has images of float64 and labels of int64; .*leave scaling"),
        ((IMAGES, np.eye(4)[LABELS]), r"train has images of shape \(20, 6, 6, 1\) and labels of shape \(20, 4\);"),
        ((IMAGES, LABELS[:-1]), r"labels of shape \(19,\)"),
        ((IMAGES, LABELS / 2), "labels of float64"),
        ((IMAGES[..., 0], LABELS), r"images of shape \(20, 6, 6\)"),
        ([IMAGES], "train is a list; "),
        (IMAGES, "train is a ndarray; "),
        (tf.data.Dataset.from_tensor_slices(IMAGES), "train: the set's elements are TensorSpec"),
        (tf.data.Dataset.from_tensor_slices({"image": IMAGES, "label": LABELS}), "of TFDS: as_supervised=True"),
        (tf.data.Dataset.from_tensor_slices((IMAGES / 255, LABELS)), "pixels of float64 and labels of int64"),
        (tf.data.Dataset.from_tensor_slices((IMAGES, np.eye(4, dtype=int)[LABELS])), r"labels of shape \(4,\)"),
        (
            tf.data.Dataset.from_generator(
                lambda: zip(IMAGES, LABELS, strict=True),
                output_signature=(tf.TensorSpec((None, None, 1), tf.uint8), tf.TensorSpec((), tf.int64)),
            ),
            "train: the set's pictures may differ in size; give image_size",
        ),
        (tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).repeat(), "train: the set repeats without end"),
        (
            tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).shuffle(20),
            "train: the set comes in another order each time; leave its shuffle out",
        ),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(given, message):
    with pytest.raises(ExperimentError, match=message) as caught:
        source_of(given, arrays(8), None, SPEC, None)
    assert "\n" not in str(caught.value)


def test_set_without_an_example_is_told():
    images, labels = arrays(8)
    empty = tf.data.Dataset.from_tensor_slices((images, labels)).take(0)
    with pytest.raises(ExperimentError, match="train has no example"):
        source_of(empty, (images, labels), None, SPEC, None)
