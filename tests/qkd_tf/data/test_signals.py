import numpy as np
import pytest
import tensorflow as tf

from qkd_tf.contract.grid import dequantize
from qkd_tf.data import pipelines
from qkd_tf.data.memory_set import source_of
from qkd_tf.data.signals import are_signals, input_grid
from qkd_tf.experiment import DataSpec, ExperimentError

SPEC = DataSpec("in_memory:x", batch_size=4, validation_fraction=0.25)  # with the crop and the mirror of pictures
LABELS = np.arange(20) % 4
SERIES = np.random.default_rng(0).normal(0, 1, (20, 12, 3)).astype(np.float32)


def spec(**changes):
    return DataSpec("in_memory:x", batch_size=4, validation_fraction=0.25, **changes)


def load(features, changes=SPEC, test=None):
    test = features[:, ::-1] if test is None else test  # other examples of the same range
    return source_of((features, LABELS), (test, LABELS[: len(test)]), None, changes, None)


def steps_of(examples):
    return np.stack([features for features, _ in examples.read(None).as_numpy_iterator()])


@pytest.mark.parametrize(
    "shape, dtype, changes, expected",
    [
        ((49, 10, 1), np.float32, {}, True),
        ((49, 10, 1), np.uint8, {}, True),
        ((49, 10, 1), np.uint8, {"crop_padding": 2}, False),  # who crops has pictures
        ((49, 10, 1), np.uint8, {"crop_padding": 0, "horizontal_flip": False}, True),
        ((49, 10, 1), np.uint8, {"signals": False}, False),
        ((128, 6), np.float32, {}, True),
        ((20,), np.float64, {}, True),
        ((28, 28), np.uint8, {}, False),
        ((28, 28), np.float32, {}, True),
        ((32, 32, 1), np.float32, {}, False),
        ((32, 32, 1), np.float32, {"signals": True}, True),
        ((32, 32, 1), np.float32, {"input_scale": 0.1}, True),
        ((32, 32, 6), np.uint8, {}, False),
        ((32, 32, 6), np.float32, {}, True),
        ((32, 48, 3), np.uint8, {}, False),
        ((1, 128, 3), np.float32, {}, True),
        ((128, 1, 3), np.int8, {}, True),
        ((None, None, 3), np.uint8, {}, False),
    ],
)
def test_signals_are_told_by_their_shape_or_by_flags(shape, dtype, changes, expected):
    assert are_signals(shape, dtype, spec(**changes)) == expected


# Numbers of a training set, flags -> scale, zero point, and the steps of the numbers.
GRIDS = [
    ([-1, 0, 3], {}, 3 / 191, 64, [0, 64, 255]),  # 63.75 is no step: 64 below 0.0, 191 above
    ([0, 0.5, 2], {}, 2 / 255, 0, [0, 64, 255]),
    ([0.5, 2], {}, 2 / 255, 0, [64, 255]),
    ([-3, -1], {}, 3 / 254, 254, [0, 169]),
    ([-1, 0, 3], {"input_scale": 0.5}, 0.5, 2, [0, 2, 8]),
    ([-1, 0, 3], {"input_zero_point": 55}, 1 / 55, 55, [0, 55, 220]),
    ([-1, 0, 3], {"input_scale": 0.01, "input_zero_point": 128}, 0.01, 128, [28, 128, 255]),
]


@pytest.mark.parametrize("numbers, changes, scale, zero_point, steps", GRIDS)
def test_the_grid_is_the_range_of_the_training_set_unless_flags_tell(numbers, changes, scale, zero_point, steps):
    features = np.array(numbers, np.float32)[:, np.newaxis]
    grid = input_grid(features, False, spec(**changes))
    assert (grid.params.scale, grid.zero_point) == (float(np.float32(scale)), zero_point)
    assert grid.steps(features).ravel().tolist() == steps


@pytest.mark.parametrize("dtype, low", [(np.uint8, 0), (np.int8, -128)])
def test_features_of_8_bits_are_the_steps_themselves(dtype, low):
    features = np.random.default_rng(0).integers(low, low + 256, (20, 49, 10, 1)).astype(dtype)
    source = load(features, test=features)
    assert (source.input_params.scale, -source.input_params.grid.qmin) == (1.0, -low)
    np.testing.assert_array_equal(steps_of(source.test), (features.astype(int) - low))
    meant = load(features, spec(input_scale=0.25, input_zero_point=3)).input_params
    assert (meant.scale, meant.grid.qmin) == (0.25, -3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
def test_features_of_any_type_come_within_half_a_step(dtype):
    features = (100 * SERIES).astype(dtype)
    source = load(features, test=features)
    params = source.input_params
    stored = (steps_of(source.test).astype(int) - 128).astype(np.int8)
    assert source.image_shape == (12, 3)
    assert np.abs(dequantize(stored, params) - features).max() <= 0.501 * params.scale


def test_what_was_chosen_and_what_is_clipped_is_told():
    note, far = load(SERIES, test=np.concatenate([SERIES[:10], 100 + SERIES[10:]])[:, ::-1]).notes
    assert far == (
        "note: 50 % of test lie outside the range of the training set and are clipped to it; are they in the same "
        "units?"
    )
    assert note.startswith("note: examples of shape (12, 3), float32, are read as signals: the input has scale")
    assert note.endswith("clipped: train 0 %, test 50 %")
    note, repeats = load(np.full((20, 12, 3), 2, np.uint8) * LABELS[:, None, None].astype(np.uint8)).notes
    assert repeats.startswith("note: 20 of 20 test examples are in the training set too")
    assert "scale 1 and zero point 0 of 0..255, for values from 0 to 255; clipped: train 0 %, test 0 %" in note


def test_grey_pictures_that_are_not_square_are_told_how_to_be_pictures():
    pictures = np.random.default_rng(0).integers(0, 256, (20, 7, 9, 1)).astype(np.uint8)
    assert load(pictures).notes[0].endswith("; if they are pictures, give --nosignals")
    assert "nosignals" not in "".join(load(pictures.astype(np.float32)).notes)


def test_steps_that_few_numbers_take_are_told():
    outlier = np.repeat(SERIES, 20, axis=1)
    outlier[0, 0, 0] = 1_000
    assert "steps, because of a few outliers or an offset" in load(outlier).notes[1]
    assert "steps, because of a few outliers or an offset" in load(280 + SERIES).notes[1]
    assert (
        load(SERIES * [1, 1, 0.001])
        .notes[1]
        .startswith("note: channel 2 uses only 1 of the input's 256 steps, channel ")
    )
    assert len(load(SERIES).notes) == 1


@pytest.mark.parametrize(
    "features, changes, message",
    [
        (np.where(SERIES > 2, np.nan, SERIES), {}, r"train has features that are not finite \(NaN or infinite\)"),
        (np.where(SERIES > 2, np.inf, SERIES), {}, r"train has features that are not finite \(NaN or infinite\)"),
        (SERIES.astype(np.float64) * 1e39, {}, "features that are not finite"),
        (np.full_like(SERIES, 3.5), {}, "train has features that are all 3.5; nothing can be learned"),
        (np.zeros((20, 12, 3), np.uint8), {}, "train has features that are all 0"),
        (SERIES * 1e-40, {}, "is not a float32 number; rescale them"),
        (SERIES[:, :, :, None, None], {"signals": True}, r"features of shape \(12, 3, 1, 1\); \[steps, channels\]"),
        (SERIES[:, :0], {"signals": True}, r"features of shape \(0, 3\)"),
        (SERIES[:0], {}, "train has 0 examples and 20 labels; one label for each example is expected"),
        (SERIES.astype(complex), {"signals": True}, "train has values of complex128; numbers are expected"),
        (SERIES, {"crop_padding": 4}, r"--crop_padding: only for pictures, and train has signals of shape \(12, 3\)"),
        (SERIES, {"horizontal_flip": True}, "--horizontal_flip: only for pictures"),
        (SERIES, {"image_size": (8, 3), "resize": "squash"}, "--image_size, --resize: only for pictures"),
        (SERIES, {"image_channels": 3}, "--image_channels: only for pictures"),
        (SERIES, {"signals": False}, r"images of shape \(20, 12, 3\)"),
    ],
)
def test_what_cannot_be_signals_is_told_in_one_line(features, changes, message):
    with pytest.raises(ExperimentError, match=message) as caught:
        load(features, spec(**changes))
    assert "\n" not in str(caught.value)


def test_sets_that_do_not_fit_are_told():
    with pytest.raises(ExperimentError, match=r"test has features of shape \(11, 3\), train of \(12, 3\)"):
        load(SERIES, test=SERIES[:, :11])
    with pytest.raises(ExperimentError, match="test has the label 4, but the classes are 0..2|train has the label 3"):
        source_of((SERIES, LABELS), (SERIES, LABELS + 1), None, SPEC, ["a", "b", "c"])
    with pytest.raises(ExperimentError, match="for signals, and --nosignals says"):
        spec(signals=False, input_scale=1.0)


def kinds_of_set():
    one_hot = np.eye(4)[LABELS]
    slices = tf.data.Dataset.from_tensor_slices
    return {
        "single": slices((SERIES, LABELS)),
        "batched": slices((SERIES, LABELS)).batch(3),
        "one-hot": slices((SERIES, one_hot)),
        "batched one-hot": slices((SERIES, one_hot)).batch(20, drop_remainder=True),
        "column": slices((SERIES, LABELS[:, np.newaxis])).batch(6),
    }


@pytest.mark.parametrize("kind", kinds_of_set())
def test_a_tf_data_set_of_signals_is_read_like_arrays(kind):
    given = kinds_of_set()[kind]
    source, expected = source_of(given, given, None, SPEC, None), load(SERIES, test=SERIES)
    assert source.version == expected.version and source.input_params == expected.input_params
    np.testing.assert_array_equal(steps_of(source.train), steps_of(expected.train))


def test_signals_in_another_order_each_time_are_the_same_source_each_time():
    whole = tf.data.Dataset.from_tensor_slices((SERIES, LABELS))
    first, second = (source_of(whole.shuffle(20), (SERIES, LABELS), None, SPEC, None) for _ in range(2))
    assert first.version == second.version
    np.testing.assert_array_equal(steps_of(first.train), steps_of(second.train))

    def all_of(source):
        return sorted(map(bytes, [*steps_of(source.train), *steps_of(source.validation)]))

    assert all_of(first) == all_of(source_of((SERIES, LABELS), (SERIES, LABELS), None, SPEC, None))


def test_a_tf_data_set_that_cannot_be_signals_is_told(monkeypatch):
    signature = (tf.TensorSpec((None, 3), tf.float32), tf.TensorSpec((), tf.int64))
    ragged = tf.data.Dataset.from_generator(lambda: [(SERIES[0], 0), (SERIES[1, :5], 1)], output_signature=signature)
    whole = tf.data.Dataset.from_tensor_slices((SERIES, LABELS))
    for given, message in (
        (ragged, "train: examples of the set differ in shape"),
        (whole.repeat(), "train: the set repeats forever"),
        (whole.shuffle(20).take(4), "train: the set has other examples each time"),
        (whole.take(0), "train is empty: it has no example"),
    ):
        with pytest.raises(ExperimentError, match=message):
            source_of(given, (SERIES, LABELS), None, SPEC, None)
    monkeypatch.setattr("qkd_tf.data.memory_set.HELD_BYTES", 100)
    with pytest.raises(ExperimentError, match="train: the set has more than .* GiB of features; give arrays"):
        source_of(whole, whole, None, SPEC, None)


def test_batches_have_every_number_as_it_is():
    source = load(SERIES)
    splits = pipelines(source, SPEC)
    batches = [features.numpy() for features, _ in splits.train(0)]
    assert [batch.shape for batch in batches] == [(4, 12, 3)] * 3
    known = {example.tobytes() for example in steps_of(source.train)}
    assert {example.tobytes() for batch in batches for example in batch} <= known
    assert splits.fingerprint["input"] == {
        "scale": source.input_params.scale, "zero_point": -source.input_params.grid.qmin
    }  # fmt: skip


def test_content_is_that_of_features_and_of_what_their_steps_mean():
    whole = np.random.default_rng(0).integers(0, 256, (20, 9, 2)).astype(np.uint8)
    changed = whole.copy()
    changed[-1, -1, -1] ^= 1
    contents = [load(whole), load(changed), load(whole, spec(input_scale=0.5)), load(whole.astype(np.float32) / 255)]
    assert len({source.content_sha256 for source in contents}) == 4
    assert load(whole.copy()).content_sha256 == contents[0].content_sha256
