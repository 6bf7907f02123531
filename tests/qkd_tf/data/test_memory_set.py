import numpy as np
import pytest
import tensorflow as tf

from qkd_tf.data import pipeline, pipelines
from qkd_tf.data.memory_set import source_of
from qkd_tf.experiment import DataSpec, ExperimentError

SPEC = DataSpec("in_memory:x", batch_size=4, validation_fraction=0.25, crop_padding=0, horizontal_flip=False)


def arrays(number=20, classes=4, side=6):
    """Images whose every pixel is the number of the image; classes in turns."""
    images = np.broadcast_to(np.arange(number, dtype=np.uint8)[:, None, None, None], (number, side, side, 1))
    return images.copy(), np.arange(number) % classes


def read(examples):
    return [(int(image[0, 0, 0]), int(label)) for image, label in examples.read(None).as_numpy_iterator()]


def test_validation_is_a_part_of_the_training_set_and_of_each_class():
    source = source_of(arrays(), arrays(8), None, SPEC, None)
    train, validation = read(source.train), read(source.validation)
    assert sorted(train + validation) == [(n, n % 4) for n in range(20)]
    assert {label for _, label in train} == set(range(4)) and len({label for _, label in validation}) >= 3
    assert read(source.test) == [(n, n % 4) for n in range(8)]
    assert [source.train.num_examples, source.validation.num_examples, source.test.num_examples] == [15, 5, 8]
    assert source.image_shape == (6, 6, 1) and source.label_names == ["0", "1", "2", "3"]


ORDERS = {
    "in turns": lambda labels: labels,
    "sorted": np.sort,
    "shuffled": np.random.default_rng(1).permutation,
    "pairs": lambda labels: labels // 2 * 2 + np.sort(labels) % 2,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fraction", [0.1, 0.4, 0.75])
@pytest.mark.parametrize("kind", ["arrays", "tf.data"])
def test_validation_has_the_fraction_that_was_asked_for_of_every_class(order, fraction, kind):
    images, labels = np.zeros((200, 2, 2, 1), np.uint8), ORDERS[order](np.arange(200) % 10)
    images[:, 0, 0, 0] = np.arange(200)
    given = (images, labels) if kind == "arrays" else tf.data.Dataset.from_tensor_slices((images, labels)).batch(7)
    spec = DataSpec("in_memory:x", batch_size=4, validation_fraction=fraction)
    source = source_of(given, given, None, spec, None)
    train, validation = read(source.train), read(source.validation)
    assert len(validation) == source.validation.num_examples == round(200 * fraction)
    assert sorted(n for n, _ in train + validation) == list(range(200))
    for label, number in zip(*np.unique(labels, return_counts=True), strict=True):
        found = sum(other == label for _, other in validation)
        assert abs(found - fraction * number) <= 2 and found < number


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


def test_content_is_that_of_every_picture_and_label_of_all_splits():
    def content(train, test=None, validation=None, names=None):
        source = source_of(train, test or arrays(8), validation, SPEC, names)
        assert source.version == source.content_sha256[:16]
        return source.content_sha256

    images, labels = arrays()
    last = images.copy()
    last[-1, -1, -1] += 1
    others = [
        (images, labels),
        (images + 1, labels),
        (last, labels),
        (images, np.roll(labels, 1)),
        (images[:-1], labels[:-1]),
    ]
    contents = [content(other) for other in others]
    contents += [
        content(arrays(), (last, labels)),
        content(arrays(), None, (last, labels)),
        content(arrays(), names=list("abcd")),
    ]
    assert len(set(contents)) == len(contents)
    assert content((images.copy(), labels.astype(np.int32))) == contents[0]


def test_labels_of_keras_data_sets_may_be_a_column():
    images, labels = arrays()
    expected = source_of((images, labels), arrays(8), None, SPEC, None)
    for given in ((images, labels[:, np.newaxis]), tf.data.Dataset.from_tensor_slices((images, labels[:, np.newaxis]))):
        source = source_of(given, arrays(8), None, SPEC, None)
        assert read(source.validation) == read(expected.validation) and source.version == expected.version


def test_given_images_become_batches():
    splits = pipelines(source_of(arrays(), arrays(8), None, SPEC, None), SPEC)
    batches = list(splits.train(0).as_numpy_iterator())
    assert [images.shape for images, _ in batches] == [(4, 6, 6, 1)] * 3
    seen = {
        int(image[0, 0, 0]): int(label)
        for images, labels in batches
        for image, label in zip(images, labels, strict=True)
    }
    assert len(seen) == 12 and all(number % 4 == label for number, label in seen.items())


def test_trial_looks_at_the_first_test_images_alone():
    spec = DataSpec("in_memory:x", batch_size=4, validation_fraction=0.25, max_eval_images=3)
    source = source_of(arrays(), arrays(8), None, spec, None)
    assert (source.test.num_examples, len(read(source.test)), source.validation.num_examples) == (3, 3, 3)


IMAGES, LABELS = arrays()
BRIGHT = np.linspace(0, 255, 20 * 36).reshape(20, 6, 6, 1)  # of 0 to 255, hardly one of them whole


def as_set(images, labels):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(6)


def as_arrays(images, labels):
    return images, labels


DOORS = pytest.mark.parametrize("door", [as_arrays, as_set])


@DOORS
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16", "int32", "int64", "uint16"])
def test_whole_pixels_of_any_type_are_taken_as_they_are_and_a_note_says_so(door, dtype):
    images = np.rint(BRIGHT).astype(np.uint8)
    expected = source_of((images, LABELS), arrays(8), None, SPEC, None)
    source = source_of(door(images.astype(dtype), LABELS), arrays(8), None, SPEC, None)
    (note,) = source.notes
    assert note == f"note: train has pixels of {dtype} from 0 to 255, all of them whole numbers; they are read as uint8"
    for (image, label), (known, number) in zip(source.train.read(None), expected.train.read(None), strict=True):
        np.testing.assert_array_equal(image, known)
        assert image.dtype == np.uint8 and label == number
    assert source.content_sha256 == expected.content_sha256 and expected.notes == ()


@DOORS
def test_pixels_between_whole_numbers_are_rounded_and_a_note_says_so(door):
    """As image_dataset_from_directory gives them, which resizes."""
    source = source_of(door(BRIGHT.astype(np.float32), LABELS), arrays(8), None, SPEC, None)
    (note,) = source.notes
    assert note.startswith("note: train has pixels of float32 from 0 to 255; they are rounded to whole numbers")
    found = np.concatenate(
        [list(part.read(None).map(lambda i, _: i).as_numpy_iterator()) for part in (source.train, source.validation)]
    )
    assert sorted(found.ravel()) == sorted(np.rint(BRIGHT).ravel())


@DOORS
@pytest.mark.parametrize(
    "scaled, found, undo",
    [
        (lambda pixels: pixels / 255, "from 0 to 1; 0 to 255 is expected", lambda images, r: r(255 * images)),
        (
            lambda pixels: pixels / 127.5 - 1,
            "from -1 to 1; 0 to 255 is expected",
            lambda images, r: r(127.5 * (images + 1)),
        ),
    ],
)
def test_the_remedy_for_scaled_pixels_gives_the_pixels_back(door, scaled, found, undo):
    images = np.rint(BRIGHT)
    with pytest.raises(ExperimentError, match=found) as caught:
        source_of(door(scaled(images).astype(np.float32), LABELS), arrays(8), None, SPEC, None)
    told = str(caught.value).split("(networks scale pixels themselves): ")[1]
    followed = eval(told, {"np": np, "tf": tf, "images": scaled(images).astype(np.float32)})  # noqa: S307
    np.testing.assert_array_equal(np.asarray(followed), images)
    assert np.asarray(followed).dtype == np.uint8


@DOORS
@pytest.mark.parametrize(
    "images, message",
    [
        (
            (BRIGHT - 128) / 64,
            "train has pixels of float64 from -2 to 1.98438; 0 to 255 is expected; .*; if they are pictures, leave",
        ),
        (BRIGHT / 100, "from 0 to 2.55; 0 to 255 is expected; .*; if they are pictures, leave the scaling out"),
        (np.rint(BRIGHT) * 257, "from 0 to 65535; 0 to 255"),
        (np.rint(BRIGHT) - 128, "from -128 to 127; 0 to 255"),
        (np.where(BRIGHT > 200, np.nan, BRIGHT), r"not finite \(NaN or infinite\)"),
        (np.where(BRIGHT > 200, np.inf, BRIGHT), r"not finite \(NaN or infinite\)"),
        ((BRIGHT > 128).astype(np.float32), "from 0 to 1; 0 to 255"),
        (np.zeros_like(BRIGHT), "from 0 to 0; 0 to 255"),
    ],
)
def test_pixels_of_another_range_are_told(door, images, message):
    with pytest.raises(ExperimentError, match=message):
        source_of(door(images, LABELS), arrays(8), None, SPEC, None)


@DOORS
@pytest.mark.parametrize(
    "labels",
    [
        LABELS.astype(np.float32),
        np.eye(4)[LABELS],
        np.eye(4, dtype=np.uint8)[LABELS],
        LABELS[:, None].astype(np.float32),
        LABELS.astype(np.uint8),
    ],
    ids=["float", "one-hot", "one-hot uint8", "column", "uint8"],
)
def test_labels_that_are_whole_numbers_or_one_hot_are_taken(door, labels):
    """As image_dataset_from_directory gives them, with label_mode "categorical" or "binary"."""
    expected = source_of((IMAGES, LABELS), arrays(8), None, SPEC, None)
    source = source_of(door(IMAGES, labels), arrays(8), None, SPEC, None)
    assert read(source.train) == read(expected.train) and source.label_names == expected.label_names
    assert source.content_sha256 == expected.content_sha256


@DOORS
@pytest.mark.parametrize("label_names", [None, list("abcd")])
def test_labels_from_1_are_told_what_to_do(door, label_names):
    images, labels = arrays(8)
    with pytest.raises(
        ExperimentError, match="train has labels from 1 to 4; classes are counted from 0: give labels - 1"
    ):
        source_of(door(IMAGES, LABELS + 1), (images, labels + 1), None, SPEC, label_names)
    with pytest.raises(ExperimentError, match="train has labels from 1 to 4"):
        source_of(door(IMAGES, LABELS + 1), (images, labels), None, SPEC, list("abcd"))
    named = source_of(door(IMAGES, LABELS + 1), (images, labels + 1), None, SPEC, list("-abcd"))
    assert {label for _, label in read(named.train)} == {1, 2, 3, 4}


@pytest.mark.parametrize(
    "labels, label_names, message",
    [
        (LABELS, ["a", "b", "a", "c"], "label_names has 'a' twice"),
        (LABELS, "abcd", "label_names='abcd' is a single string; give a list"),
        (np.eye(3)[LABELS % 3], list("abcd"), "train has one-hot labels of 3 classes; there are 4 classes"),
        (np.eye(5)[LABELS], list("abcd"), "train has one-hot labels of 5 classes; there are 4 classes"),
    ],
)
@DOORS
def test_names_and_one_hot_labels_fit_the_classes(door, labels, label_names, message):
    with pytest.raises(ExperimentError, match=message):
        source_of(door(IMAGES, labels), arrays(8), None, SPEC, label_names)
    source_of(door(IMAGES, np.eye(4)[LABELS]), arrays(8), None, SPEC, list("abcd"))
    last_is_absent = source_of(door(IMAGES, np.eye(5)[LABELS]), arrays(8), None, SPEC, None)
    assert last_is_absent.label_names == list("01234")


@pytest.mark.parametrize(
    "given, message",
    [
        ((IMAGES, np.eye(4)[LABELS] / 2), r"train has labels of shape \(20, 4\) that are not one-hot"),
        ((IMAGES, np.ones((20, 4))), r"train has labels of shape \(20, 4\) that are not one-hot"),
        ((IMAGES, LABELS[:-1]), "train has 20 examples and 19 labels; one label for each"),
        ((IMAGES, LABELS / 2), r"train has the label 0.5; whole numbers are expected"),
        ((IMAGES, LABELS * np.nan), r"train has the label nan; whole numbers are expected"),
        ((IMAGES, LABELS.astype(str)), r"train has labels of <U21; .* np.unique\(labels, return_inverse=True\)"),
        (
            (tf.data.Dataset.from_tensor_slices(IMAGES), tf.data.Dataset.from_tensor_slices(LABELS)),
            "train is a pair of tf.data sets; give one set of",
        ),
        ((IMAGES, LABELS - 1), r"train has the label -1, but the classes are 0..3"),
        ((IMAGES[..., 0], LABELS), r"images of shape \(20, 6, 6\).*for grey pictures: images\[..., np.newaxis\]"),
        (([IMAGES[0], IMAGES[1][:3]], [0, 1]), "train is not a pair of arrays"),
        ((IMAGES[..., 0].astype(str), LABELS), "train has values of <U3; numbers are expected: of pictures 0 to 255"),
        ((IMAGES > 3, LABELS), "train has values of bool; numbers are expected: of pictures 0 to 255"),
        ((IMAGES.astype(str), LABELS), "train has values of <U3; numbers are expected: of pictures 0 to 255"),
        ([IMAGES], "train is a list; "),
        (IMAGES, "train is a ndarray; "),
        (tf.data.Dataset.from_tensor_slices(IMAGES), "train: the set's elements are TensorSpec"),
        (tf.data.Dataset.from_tensor_slices({"image": IMAGES, "label": LABELS}), "with TFDS: as_supervised=True"),
        (
            tf.data.Dataset.from_tensor_slices((IMAGES, np.ones((20, 4)))),
            r"labels of shape \(20, 4\) that are not one-hot",
        ),
        (tf.data.Dataset.from_tensor_slices((IMAGES, np.ones((20, 4, 1)))), r"labels of shape \(4, 1\)"),
        (
            tf.data.Dataset.from_generator(
                lambda: zip(IMAGES, LABELS, strict=True),
                output_signature=(tf.TensorSpec((None, None, 1), tf.uint8), tf.TensorSpec((), tf.int64)),
            ),
            "train: the set's pictures may differ in size; give image_size",
        ),
        (tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).repeat(), "train: the set repeats forever"),
        *(
            (given, r"train: the set's elements are of shapes .* and .*: the labels seem to come first; give pairs of")
            for given in (
                tf.data.Dataset.from_tensor_slices((LABELS, IMAGES)),
                tf.data.Dataset.from_tensor_slices((LABELS, IMAGES)).batch(4),
                tf.data.Dataset.from_tensor_slices((np.eye(4)[LABELS % 4], IMAGES)).batch(4),
            )
        ),
        (
            tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).shuffle(20).take(10),
            "train: the set has other examples each time, so no run could be repeated",
        ),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(given, message):
    with pytest.raises(ExperimentError, match=message) as caught:
        source_of(given, arrays(8), None, SPEC, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("held", [0, 1 << 30], ids=["streamed", "held"])
@pytest.mark.parametrize(
    "keep",
    [
        lambda given: given.shuffle(20, seed=1).batch(4).cache(),  # as image_dataset_from_directory(…, seed=1) is made
        lambda given: given.shuffle(20, seed=1, reshuffle_each_iteration=False),
    ],
    ids=["cache", "shuffled once"],
)
def test_a_shuffled_set_that_keeps_its_order_is_taken(monkeypatch, keep, held):
    monkeypatch.setattr("qkd_tf.data.memory_set.HELD_BYTES", held)
    source = source_of(keep(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))), arrays(8), None, SPEC, None)
    expected = source_of((IMAGES, LABELS), arrays(8), None, SPEC, None)
    found, whole = (read(given.train) + read(given.validation) for given in (source, expected))
    assert sorted(map(repr, found)) == sorted(map(repr, whole)) and read(source.train) == read(source.train)


def test_splits_of_several_shapes_are_told():
    for other in (arrays(8, side=5), (arrays(8)[0].repeat(3, -1), arrays(8)[1])):
        with pytest.raises(
            ExperimentError, match=r"test has pictures of \(., ., .\) \(height, width, channels\), train of \(6, 6, 1\)"
        ):
            source_of(arrays(), other, None, SPEC, None)
    spec = DataSpec("in_memory:x", image_size=4)
    assert source_of(arrays(), arrays(8, side=5), None, spec, None).image_shape == (4, 4, 1)


def test_set_without_an_example_is_told():
    images, labels = arrays(8)
    empty = tf.data.Dataset.from_tensor_slices((images, labels)).take(0)
    with pytest.raises(ExperimentError, match="train is empty: it has no example"):
        source_of(empty, (images, labels), None, SPEC, None)


def test_arrays_come_in_the_order_of_the_seed_and_a_set_in_its_own():
    source = source_of((IMAGES, np.sort(LABELS)), arrays(8), None, SPEC, None)
    orders = [[int(image[0, 0, 0]) for image, _ in source.train.read(seed)] for seed in (None, 1, 1, 2)]
    assert orders[1] == orders[2] and len({tuple(order) for order in orders}) == 3
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[3])
    stream = source_of(as_set(IMAGES, np.sort(LABELS)), arrays(8), None, SPEC, None).train
    assert [int(image[0, 0, 0]) for image, _ in stream.read(1)] == orders[0]


def counted(given, log):
    """The same set, which leaves a mark in `log` for each example that is asked of it."""

    def mark(image, label):
        tf.py_function(lambda: log.append(1), [], [])
        return image, label

    return tf.data.Dataset.from_tensor_slices(given).map(mark).batch(32)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [pipeline.CACHE_BYTES, 0], ids=["kept", "streamed"])
def test_a_set_that_fits_in_memory_is_run_through_once(monkeypatch, limit):
    """And is the same to the bit as one that does not; the first of it are asked for again, for their order."""
    monkeypatch.setattr(pipeline, "CACHE_BYTES", limit)
    monkeypatch.setattr(pipeline, "DIGESTED", 20)
    spec = DataSpec("in_memory:x", batch_size=40, validation_fraction=0.25, crop_padding=1)
    train, test, validation, log = arrays(400), arrays(200), arrays(100), []

    def batches(held):
        monkeypatch.setattr("qkd_tf.data.memory_set.HELD_BYTES", held)
        log.clear()
        sets = (counted(given, log) for given in (train, test, validation))
        splits = pipelines(source_of(*sets, spec, None), spec)
        parts = (splits.train(0), splits.validation, splits.train(1), splits.validation, splits.test)
        return [array for part in parts for batch in part.as_numpy_iterator() for array in batch]

    once = batches(400 * 36)
    assert len(log) < 2 * 700
    for found, expected in zip(batches(400 * 36 - 1), once, strict=True):  # the training set is a byte too large
        np.testing.assert_array_equal(found, expected)
    assert len(log) > 2 * 700


@pytest.mark.slow
@pytest.mark.usefixtures("streaming")
def test_validation_on_a_part_of_a_large_set_reads_no_more_than_that_part(monkeypatch):
    """One pass looks at the set, and nothing else reads it whole before training does."""
    monkeypatch.setattr("qkd_tf.data.memory_set.HELD_BYTES", 0)
    monkeypatch.setattr("qkd_tf.data.memory_set.COMPARED", 5)
    monkeypatch.setattr(pipeline, "DIGESTED", 20)
    spec = DataSpec("in_memory:x", batch_size=40, validation_fraction=0.1, crop_padding=1)
    given, log = of_many(np.random.default_rng(1).integers(0, 4, 4_000)), []
    splits = pipelines(source_of(counted(given, log), arrays(8, side=1), None, spec, None), spec)
    assert (
        len(log) < 4_000 + 2 * 400
    )  # the first training pictures stand after those of validation; some are read ahead
    log.clear()
    labels = np.concatenate([labels for _, labels in splits.validation.as_numpy_iterator()])
    assert len(labels) == 400 and splits.num_train == 3_600
    assert len(log) < 420 + 3 * 32
    assert len(set(labels.tolist())) == 4


@pytest.mark.parametrize("held", [0, 1 << 30], ids=["streamed", "held"])
def test_validation_on_a_part_is_the_foremost_only_of_a_large_set_in_disorder(monkeypatch, held):
    monkeypatch.setattr("qkd_tf.data.memory_set.HELD_BYTES", held)
    labels = np.arange(200) % 10
    for order, foremost in ((labels, not held), (np.sort(labels), False)):
        images = np.arange(200, dtype=np.uint8)[:, None, None, None]
        source = source_of(as_set(images, order), arrays(8, side=1), None, SPEC, None)
        validation = [number for number, _ in read(source.validation)]
        assert len(validation) == 50 and (validation == list(range(10, 60))) == foremost
        assert sorted(validation + [number for number, _ in read(source.train)]) == list(range(200))
        assert {label for _, label in read(source.validation)} == set(range(10))


def test_a_set_that_gives_nothing_the_second_time_is_told():
    examples = iter(zip(*arrays(), strict=True))
    signature = (tf.TensorSpec((6, 6, 1), tf.uint8), tf.TensorSpec((), tf.int64))
    spent = tf.data.Dataset.from_generator(lambda: examples, output_signature=signature)
    with pytest.raises(ExperimentError, match="train: the set has other examples each time"):
        source_of(spent, arrays(8), None, SPEC, None)


def reshuffled(images, labels):
    return tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(labels)).batch(3)


def test_a_set_in_another_order_each_time_is_the_same_source_each_time():
    images, labels = arrays(120)
    opened = [source_of(reshuffled(images, labels), arrays(8), None, SPEC, None) for _ in range(2)]
    first, second = ([read(part) for part in (source.train, source.validation)] for source in opened)
    assert first == second and opened[0].version == opened[1].version
    whole = source_of((images, labels), arrays(8), None, SPEC, None)
    assert sorted(sum(first, [])) == sorted(read(whole.train) + read(whole.validation))


def test_a_large_set_in_another_order_each_time_is_told(monkeypatch):
    monkeypatch.setattr("qkd_tf.data.memory_set.HELD_BYTES", 100)
    with pytest.raises(ExperimentError, match="train: the set changes its order each time, and its pictures differ in"):
        source_of(reshuffled(*arrays(120)), arrays(8), None, SPEC, None)


def of_many(labels):
    """A set of one-pixel pictures, with test pictures of the same classes."""
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 1, 1, 1), np.uint8)
    return images, labels


@pytest.mark.usefixtures("streaming")
def test_arrays_sorted_by_class_are_mixed_where_they_are_streamed():
    spec = DataSpec("in_memory:x", batch_size=100, crop_padding=0)
    given = of_many(np.repeat(np.arange(10), 2_000))
    splits = pipelines(source_of(given, given, given, spec, None), spec)
    first = [next(iter(batches))[1].numpy() for batches in (splits.train(0), splits.calibration)]
    assert all(len(set(labels)) == 10 for labels in first)


@pytest.mark.slow
@pytest.mark.usefixtures("streaming")
def test_a_streamed_set_sorted_by_class_is_refused_and_one_in_disorder_is_not(monkeypatch):
    monkeypatch.setattr("qkd_tf.data.memory_set.BUFFER_BYTES", 1_000)  # pictures of a byte
    spec = DataSpec("in_memory:x", batch_size=100, crop_padding=0)
    labels = np.repeat(np.arange(10), 500)
    other = of_many(labels[:200])

    def load(labels):
        return pipelines(source_of(as_set(*of_many(labels)), other, other, spec, [str(n) for n in range(10)]), spec)

    with pytest.raises(
        ExperimentError, match="5,000 training images of .* are sorted by class, and a shuffle buffer of 1,000"
    ):
        load(labels)
    with pytest.raises(ExperimentError, match="are sorted by class"):
        load(np.concatenate([np.arange(2_500) % 5, 5 + np.arange(2_500) % 5]))
    for mixed in (np.random.default_rng(0).permutation(labels), np.arange(5_000) % 10):
        assert load(mixed).num_train == 5_000
    monkeypatch.setattr("qkd_tf.data.memory_set.BUFFER_BYTES", 5_000)
    assert load(labels).num_train == 5_000


@pytest.mark.slow
def test_a_kept_set_is_shuffled_over_all_of_it():
    """Also where it is large: of 52,000 pictures, the last 1,000 are of another class."""
    spec = DataSpec("in_memory:x", batch_size=500, crop_padding=0, horizontal_flip=False)
    given, other = of_many(np.arange(52_000) // 51_000), of_many(np.arange(2).repeat(2))
    splits = pipelines(source_of(given, other, other, spec, None), spec)
    for batches in (splits.calibration, splits.train(0)):
        assert set(next(iter(batches))[1].numpy()) == {0, 1}


@pytest.mark.parametrize("channels, expected", [(1, [76, 150, 29, 128]), (3, None)])
def test_colours_become_grey_and_grey_colours_if_asked_for(channels, expected):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]], np.uint8).reshape(1, 2, 2, 3)
    spec = DataSpec("in_memory:x", batch_size=1, image_channels=channels, validation_fraction=0.5)
    given = colours.repeat(4, 0) if channels == 1 else IMAGES[:4], LABELS[:4]
    splits = pipelines(source_of(given, given, given, spec, None), spec)
    images, _ = next(iter(splits.test))
    assert splits.image_shape[2] == images.shape[3] == channels
    assert expected is None or images.numpy().ravel().tolist() == expected
    five = np.zeros((4, 2, 2, 5), np.uint8), LABELS[:4]
    with pytest.raises(ExperimentError, match="pictures of 5 channels, which are not colours"):
        source_of(five, five, five, spec, None)
