import shutil
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from qkd_tf import data
from qkd_tf.data import tfds_set
from qkd_tf.experiment import DataSpec, ExperimentError


def arrays(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def small(data_dir, **changes):
    return DataSpec("small", data_dir=data_dir, **{"batch_size": 4, "validation_fraction": 0.3, **changes})


def imagenet(data_dir, **changes):
    fields = {"batch_size": 8, "image_size": 28, "validation_fraction": 0.2, **changes}
    return DataSpec("imagenet2012", data_dir=data_dir, **fields)


@pytest.fixture(scope="module")
def ramps(make_ramps):
    return make_ramps()


@pytest.mark.slow
def test_images_are_resized_by_their_shorter_side_and_cropped_at_the_centre(ramps):
    splits = data.load(small(ramps, image_size=7))  # 32 x 64 becomes 8 x 16, the middle 8 x 8, of which 7 x 7
    assert splits.image_shape == (7, 7, 3)
    ramp = [8 * (4 + column) + 3 for column in range(8)]  # mean of 4 columns: 2 * (4 * column + 1.5)
    for split, number in ((splits.test, 6), (splits.validation, 2), (splits.calibration, 4)):
        images, _ = arrays(split)
        assert images.shape == (number, 7, 7, 3) and images.dtype == np.uint8
        assert all(row.tolist() == ramp[:7] for row in images[..., 0].reshape(-1, 7))
    images, _ = arrays(splits.train(0))
    allowed = [ramp[:7], ramp[1:], ramp[6::-1], ramp[:0:-1]]
    assert images.shape == (4, 7, 7, 3)
    assert all(row.tolist() in allowed for row in images[..., 1].reshape(-1, 7))


@pytest.mark.slow
def test_images_of_several_sizes_become_one_and_need_an_image_size(make_ramps):
    data_dir = make_ramps(((32, 64), (64, 32), (20, 20)))
    assert arrays(data.load(small(data_dir, image_size=7)).test)[0].shape == (6, 7, 7, 3)
    with pytest.raises(ExperimentError, match="differ in size; give --image_size"):
        data.open_source(small(data_dir))


def test_set_says_what_it_is(ramps):
    splits = data.load(small(ramps))
    assert splits.image_shape == (32, 64, 3)
    assert splits.label_names == ["cat", "dog"]
    assert splits.fingerprint["version"] == "1.2.3"
    assert arrays(splits.test)[1].tolist() == [0, 1, 0, 1, 0, 1]
    assert arrays(splits.validation)[1].tolist() == [0, 1]  # the last two of the training split
    assert splits.num_train == 4


def test_pixels_are_those_that_tfds_decodes(ramps):
    expected = next(iter(tfds.load("small", data_dir=ramps, split="test", batch_size=-1, as_supervised=True)[:1]))
    np.testing.assert_array_equal(arrays(data.load(small(ramps)).test)[0], expected)


def test_validation_stands_in_for_a_test_split_that_is_missing(make_ramps):
    source = data.open_source(small(make_ramps(splits=("train", "validation"))))
    assert source.test.num_examples == 6 and source.validation.num_examples == 2
    with pytest.raises(ExperimentError, match="train and validation are needed"):
        data.open_source(small(make_ramps(splits=("train",))))


@pytest.mark.parametrize(
    "feature, image, part",
    [
        (tfds.features.Text(), lambda index: "words", "not a set of"),
        (tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16), lambda i: np.zeros((4, 4, 1), np.uint16), "uint16"),
    ],
)
def test_a_set_of_something_else_than_8_bit_images_is_refused(make_set, feature, image, part):
    with pytest.raises(ExperimentError, match=part):
        data.open_source(small(make_set(feature, image)))


def test_a_test_split_without_labels_is_refused(make_ramps):
    data_dir = make_ramps(splits=("train", "test", "validation"), labels=(-1,))
    with pytest.raises(ExperimentError, match="test split of small has the label -1.*--test_split"):
        data.load(small(data_dir))


def test_a_fraction_of_examples_that_is_not_one_is_refused(ramps):
    with pytest.raises(ExperimentError, match="validation_fraction"):
        data.load(small(ramps, validation_fraction=0.004))


def test_data_dir_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(ExperimentError, match="nowhere is not a folder"):
        data.load(DataSpec("cifar10", data_dir=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("name, manual", [("cifar10", False), ("imagenet2012", True)])
def test_a_set_that_is_not_prepared_comes_with_the_command_that_prepares_it(tmp_path, name, manual):
    with pytest.raises(ExperimentError) as caught:
        data.open_source(DataSpec(name, data_dir=str(tmp_path)))
    assert f"python -m qkd_tf.data.prepare {name} --data_dir={tmp_path}" in str(caught.value)
    assert ("--manual_dir=" in str(caught.value)) == manual
    assert not list(tmp_path.iterdir())


def test_an_unknown_set_is_named_with_what_is_known(tmp_path):
    with pytest.raises(ExperimentError, match="unknown data set 'no_such_set'.*digits.*folder:.*cifar10"):
        data.open_source(DataSpec("no_such_set", data_dir=str(tmp_path)))


def test_imagenet_is_opened_without_reading_a_picture(imagenet_dir, monkeypatch):
    def read(*_):
        pytest.fail("the set is read")

    monkeypatch.setattr(tfds_set, "_read", read)
    start = time.monotonic()
    source = data.open_source(imagenet(imagenet_dir, image_size=224))
    assert time.monotonic() - start < 2
    assert source.image_shape == (224, 224, 3)
    assert len(source.label_names) == 1000 and source.label_names[0] == "n01440764"
    assert source.version == "5.1.0"
    assert [split.num_examples for split in (source.train, source.validation, source.test)] == [32, 8, 12]


@pytest.mark.slow
def test_imagenet_is_tested_on_its_validation_split_and_chooses_epochs_on_the_end_of_training(imagenet_dir):
    splits = data.load(imagenet(imagenet_dir))
    seen = {name: arrays(getattr(splits, name)) for name in ("calibration", "validation", "test")}
    pictures = {name: {image.tobytes() for image in images} for name, (images, _) in seen.items()}
    assert {name: len(found) for name, found in pictures.items()} == {"calibration": 32, "validation": 8, "test": 12}
    assert len(set.union(*pictures.values())) == 40 + 12
    training = np.concatenate([seen["calibration"][1], seen["validation"][1]])
    assert sorted(training) == sorted([*range(8)] * 5)
    whole = tfds.load("imagenet2012", data_dir=imagenet_dir, split="validation", as_supervised=True)
    assert seen["test"][1].tolist() == [label for _, label in whole.as_numpy_iterator()]


@pytest.mark.slow
def test_the_unlabelled_test_of_imagenet_is_not_taken(tmp_path, make_imagenet):
    """TFDS prepares it too where its tar file lies beside the others."""
    data_dir = make_imagenet(tmp_path, num_train=8, num_validation=4, num_test=6)
    assert data.open_source(imagenet(data_dir)).test.num_examples == 4
    with pytest.raises(ExperimentError, match="label -1.*such as --test_split=validation"):
        data.load(imagenet(data_dir, test_split="test", batch_size=1))


@pytest.mark.slow
def test_grey_and_cmyk_pictures_of_imagenet_have_three_channels(imagenet_dir):
    images, _ = arrays(data.load(imagenet(imagenet_dir)).test)
    grey = [bool(np.all(image == image[..., :1])) for image in images]
    assert sum(grey) == 2  # of 12: every fifth, beginning with the third
    assert images.shape == (12, 28, 28, 3)


@pytest.mark.slow
def test_first_images_of_validation_and_test_stand_for_all_in_a_trial(imagenet_dir):
    whole, part = (data.load(imagenet(imagenet_dir, max_eval_images=number)) for number in (0, 5))
    for name in ("validation", "test"):
        np.testing.assert_array_equal(arrays(getattr(whole, name))[0][:5], arrays(getattr(part, name))[0])
    assert part.fingerprint["num_test"] == 5
    assert part.num_train == whole.num_train


@pytest.mark.parametrize("channels", [1, 4])
def test_one_and_four_channels_stay_what_they_are(make_set, channels):
    def picture(index):
        return np.full((8, 8, channels), index, np.uint8)

    splits = data.load(small(make_set(tfds.features.Image(shape=(8, 8, channels), encoding_format="png"), picture)))
    images, _ = arrays(splits.test)
    assert splits.image_shape == (8, 8, channels)
    assert images[:, 0, 0, 0].tolist() == list(range(6))


@pytest.mark.parametrize(
    "feature, image, part",
    [
        (
            tfds.features.Image(shape=(4, 4, 1), dtype=np.float32),
            lambda index: np.full((4, 4, 1), np.nan, np.float32),
            "images of small are of float32; uint8 is expected",
        ),
        (tfds.features.Video(shape=(2, 4, 4, 3)), lambda index: np.zeros((2, 4, 4, 3), np.uint8), "not a set of"),
        (
            tfds.features.Tensor(shape=(4, 4, 3), dtype=np.uint8),
            lambda i: np.zeros((4, 4, 3), np.uint8),
            "not a set of",
        ),
    ],
)
def test_floats_videos_and_bare_tensors_are_refused(make_set, feature, image, part):
    with pytest.raises(ExperimentError, match=part):
        data.open_source(small(make_set(feature, image)))


@pytest.mark.slow
def test_one_class_alone_is_refused_and_a_class_without_pictures_told(make_ramps, ramps):
    with pytest.raises(ExperimentError, match="all training images of small are of class dog"):
        data.load(small(make_ramps(labels=(1,))))
    assert not any("no training image" in note for note in data.load(small(ramps)).notes)


@pytest.mark.parametrize("channels, wanted", [(1, 3), (3, 1), (4, 3)])
def test_other_channels_if_asked_for(make_set, channels, wanted):
    def picture(index):
        return np.full((8, 8, channels), 10 * index, np.uint8)

    data_dir = make_set(tfds.features.Image(shape=(8, 8, channels), encoding_format="png"), picture)
    images, _ = arrays(data.load(small(data_dir, image_channels=wanted)).test)
    assert images.shape == (6, 8, 8, wanted) and images[:, 0, 0, -1].tolist() == [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    "name, shape, num_classes",
    [
        ("imagenet2012", (224, 224, 3), 1000),
        ("food101", (224, 224, 3), 101),
        ("cifar10:3.*.*", (224, 224, 3), 10),
        ("mnist", (224, 224, 1), 10),
        ("digits", (224, 224, 1), 10),
    ],
)
def test_a_set_is_described_without_being_there(tmp_path, monkeypatch, name, shape, num_classes):
    monkeypatch.setenv("HOME", str(tmp_path))
    for data_dir in ("", str(tmp_path / "none")):
        spec = DataSpec(name, data_dir=data_dir, image_size=224)
        found, names = data.describe(spec)
        assert (found, len(names)) == (shape, num_classes)
        assert data.describe(DataSpec(name, image_size=224, image_channels=3))[0] == (224, 224, 3)
    assert list(tmp_path.iterdir()) == []


def test_what_a_set_does_not_say_is_told_by_its_description_too():
    with pytest.raises(ExperimentError, match="images of food101 differ in size; give --image_size"):
        data.describe(DataSpec("food101"))
    with pytest.raises(ExperimentError, match="imdb_reviews is not a set of"):
        data.describe(DataSpec("imdb_reviews", image_size=224))
    assert data.describe(DataSpec("cifar10"))[0] == (32, 32, 3)


@pytest.mark.parametrize("door", [data.open_source, data.describe])
@pytest.mark.parametrize(
    "name, told",
    [
        ("{tmp}", "--dataset={tmp} is not the name of a data set; .*: --dataset=folder:{tmp}$"),
        ("{tmp}/gone", "--dataset=folder:{tmp}/gone$"),
        ("./pictures", "--dataset=folder:./pictures$"),
        ("../pictures/", "--dataset=folder:../pictures/$"),
        ("~/pictures", "--dataset=folder:~/pictures$"),
        ("data/pictures", "--dataset=folder:data/pictures$"),
        ("pictures", "--dataset=folder:pictures$"),
        ("file://{tmp}", "--dataset=folder:{tmp}$"),
        ("Folder:{tmp}", "--dataset=folder:{tmp}$"),
        ("C:\\pictures", r"--dataset=folder:C:\\pictures$"),
        ("", "unknown data set ''"),
        ("a.b", "unknown data set 'a.b'"),
        ("a b", "unknown data set 'a b'"),
        ("https://x.org/y", "unknown data set 'https://x.org/y'"),
        ("huggingface:x", "unknown data set 'huggingface:x'"),
        ("x:y", "unknown data set 'x:y'"),
        ("CIFAR_10", "unknown data set 'CIFAR_10'.*did you mean cifar10[?]"),
        ("cifar10:9.9.9", "--dataset=cifar10:9.9.9: TFDS has cifar10, but not this version or variant"),
        ("cifar10/plain", "--dataset=cifar10/plain: TFDS has cifar10, but not this version or variant"),
        ("cifar10/", "--dataset=cifar10/: TFDS has cifar10, but not this version or variant"),
    ],
)
def test_names_that_are_none_end_in_one_line(tmp_path, monkeypatch, capfd, door, name, told):
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExperimentError, match=told.format(tmp=tmp_path)) as caught:
        door(DataSpec(name.format(tmp=tmp_path)))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert "install" not in capfd.readouterr().out


def test_a_set_of_tfds_goes_before_a_folder_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    monkeypatch.chdir(tmp_path)
    assert data.describe(DataSpec("cifar10"))[0] == (32, 32, 3)


def test_a_set_that_was_prepared_goes_before_a_folder_of_its_name(ramps, monkeypatch):
    monkeypatch.chdir(ramps)
    assert data.open_source(small(".")).label_names == ["cat", "dog"]
    assert data.open_source(DataSpec("small:1.2.3", data_dir=".")).label_names == ["cat", "dog"]


def content_of(data_dir):
    source = data.open_source(small(data_dir))
    return source.scan(source).content_sha256


@pytest.mark.slow
def test_content_is_that_of_the_record_files_wherever_they_lie(ramps, make_ramps, tmp_path, monkeypatch):
    before = content_of(ramps)
    assert data.load(small(ramps, image_size=8)).fingerprint["content_sha256"] == before
    root = shutil.copytree(ramps, tmp_path / "moved")
    assert content_of(str(root)) == before
    assert content_of(make_ramps(labels=(1, 0))) != before
    (shard,) = root.glob("small/*/small-train.tfrecord*")
    shard.write_bytes(shard.read_bytes() + shard.read_bytes())
    assert content_of(str(root)) != before
    monkeypatch.setattr(tfds_set, "DIGESTED_BYTES", 0)  # as of a set of many gigabytes
    large = content_of(ramps)
    assert large == content_of(str(shutil.copytree(ramps, tmp_path / "again"))) and large != content_of(str(root))


def test_of_a_set_that_was_prepared_in_order_the_labels_are_looked_at(make_ramps, imagenet_dir):
    """Nothing but the buffer mixes them; others are written in a random order, and their files read in another."""
    source = data.open_source(small(make_ramps(labels=(0, 0, 0, 1, 1, 1)), validation_fraction=0.2))
    assert source.train.labels_as_read().tolist() == [0, 0, 0, 1, 1]
    assert data.open_source(imagenet(imagenet_dir)).train.labels_as_read is None


def test_pictures_that_may_not_be_square_are_told_before_they_are_read(imagenet_dir, ramps):
    (note,) = (note for note in data.open_source(imagenet(imagenet_dir)).notes if "square" in note)
    assert (
        note.startswith("note: pictures are not square: they are cropped to their middle") and "--resize=squash" in note
    )
    assert data.open_source(small(ramps)).notes == ()


@pytest.mark.slow
def test_images_become_ones_that_are_not_square(ramps):
    """32 x 64 ramps on 7 x 14: they cover 8 x 16 as they are, of which that is the middle."""
    splits = data.load(small(ramps, image_size=(7, 14)))
    ramp = [8 * column + 3 for column in range(16)]
    assert splits.image_shape == (7, 14, 3) and splits.notes == ()
    for split in (splits.test, splits.calibration):
        images, _ = arrays(split)
        assert images.shape[1:] == (7, 14, 3) and all(row.tolist() == ramp[1:15] for row in images[0, ..., 0])
    images, _ = arrays(splits.train(0))
    crops = [ramp[start + 1 : start + 13] for start in range(3)]  # the outermost columns are averaged over a border
    allowed = crops + [crop[::-1] for crop in crops]
    rows = images[..., 1:13, 1].reshape(-1, 12)
    assert images.shape == (4, 7, 14, 3) and all(row.tolist() in allowed for row in rows)
    high = data.load(small(ramps, image_size=(14, 7)))  # covered by 16 x 32, of which the middle
    assert arrays(high.test)[0].shape == (6, 14, 7, 3)
    assert high.notes[0].startswith("note: pictures are not of the aspect ratio 14x7: they are cropped")
