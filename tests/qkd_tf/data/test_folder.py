import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from qkd_tf import data
from qkd_tf.data import pipeline
from qkd_tf.data.folder import other_tests
from qkd_tf.experiment import DataSpec, ExperimentError, has_test

PICTURES = pathlib.Path(__file__).parents[4] / "shared" / "data" / "imagenet_pictures"


def arrays(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def spec_of(root, **changes):
    return DataSpec(f"folder:{root}", **{"batch_size": 4, "validation_fraction": 0.25, "crop_padding": 0, **changes})


def load(root, **changes):
    return data.load(spec_of(root, **changes))


def complaint(root, **changes):
    with pytest.raises(ExperimentError) as caught:
        load(root, **changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write(path, size=(16, 12), value=128):
    """A grey picture of (width, height) pixels, all of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value,) * 3).save(path)


@pytest.fixture
def root(tmp_path):
    """Train: 8 ants of grey values 0..7, 4 bees of 100..103; test: 3 ants of 200..202, 2 bees of 210 and 211."""
    for split, name, values in (
        ("train", "ant", range(8)),
        ("train", "bee", range(100, 104)),
        ("test", "ant", range(200, 203)),
        ("test", "bee", range(210, 212)),
    ):
        for value in values:
            write(tmp_path / split / name / f"{value:03d}.png", value=value)
    return tmp_path


def values_of(split):
    """Pixel value -> label of a split of pictures of one value."""
    images, labels = arrays(split)
    assert images.dtype == np.uint8 and images.shape[1:] == (12, 16, 3)
    assert all(np.all(image == image[0, 0, 0]) for image in images)
    return {int(image[0, 0, 0]): int(label) for image, label in zip(images, labels, strict=True)}


@pytest.mark.parametrize("limit", [pipeline.CACHE_BYTES, 0])
def test_classes_are_the_sorted_names_of_trains_folders(root, monkeypatch, limit):
    monkeypatch.setattr(pipeline, "CACHE_BYTES", limit)
    splits = load(root)
    assert splits.label_names == ["ant", "bee"]
    assert splits.image_shape == (12, 16, 3)
    assert values_of(splits.test) == {200: 0, 201: 0, 202: 0, 210: 1, 211: 1}
    training = values_of(splits.calibration) | values_of(splits.validation)
    assert training == {value: int(value >= 100) for value in [*range(8), *range(100, 104)]}
    assert (splits.num_train, splits.fingerprint["num_test"]) == (9, 5)
    assert set(values_of(splits.train(0))) <= set(values_of(splits.calibration))


@pytest.mark.slow
def test_validation_is_cut_from_train_by_a_fixed_seed(root):
    first, again, other_run = (values_of(load(root, seed=seed).validation) for seed in (0, 0, 7))
    assert first == again == other_run and len(first) == 3
    assert len(values_of(load(root, validation_fraction=0.5, batch_size=1).validation)) == 6


def test_each_class_gives_the_same_share_to_validation_and_test(tmp_path):
    for name, first, number in (("rare", 0, 20), ("usual", 100, 80)):
        for value in range(first, first + number):
            write(tmp_path / name / f"{value}.png", value=value)
    splits = load(tmp_path, test_fraction=0.2, validation_fraction=0.25, batch_size=4)
    for split, rare, usual in ((splits.test, 4, 16), (splits.validation, 4, 16), (splits.calibration, 12, 48)):
        assert sorted(values_of(split).values()) == [0] * rare + [1] * usual


def test_no_class_loses_its_last_picture_to_validation(root):
    write(root / "train" / "cow" / "1.png", value=250)
    for fraction in (0.3, 0.9):
        splits = load(root, validation_fraction=fraction, batch_size=1)
        assert set(values_of(splits.calibration).values()) == {0, 1, 2}


def test_one_picture_a_class_is_a_set_too(tmp_path):
    for index in range(10):
        for split in ("train", "test"):
            write(tmp_path / split / f"class {index}" / "1.png", value=index)
    splits = load(tmp_path, validation_fraction=0.2, batch_size=4)
    assert len(values_of(splits.validation)) == 2 and splits.num_train == 8
    assert any("no training image of class" in note for note in splits.notes)


def test_a_folder_of_validation_is_taken_as_it_is(root):
    write(root / "validation" / "bee" / "1.png", value=50)
    splits = load(root)
    assert values_of(splits.validation) == {50: 1}
    assert splits.num_train == 12


@pytest.mark.slow
def test_a_test_split_is_cut_off_where_there_is_none(root):
    shutil.rmtree(root / "test")
    splits = load(root, test_fraction=0.25)
    assert (splits.num_train, len(arrays(splits.test)[1])) == (7, 3)
    for folder in list((root / "train").iterdir()):
        folder.rename(root / folder.name)
    (root / "train").rmdir()
    direct = load(root, test_fraction=0.25)
    assert direct.label_names == splits.label_names == ["ant", "bee"]
    assert values_of(direct.test) == values_of(splits.test)
    assert not set(values_of(direct.test)) & {*values_of(direct.train(0)), *values_of(direct.validation)}
    assert "has no folder test; train and test are needed" in complaint(root)
    (root / "labels.txt").write_text("bee\nant\n")
    (root / "validation.txt").write_text("")
    told = load(root, test_fraction=0.25)
    assert told.label_names == ["bee", "ant"] and "validation.txt" in " ".join(told.notes)
    assert "labels.txt" not in " ".join(told.notes)


@pytest.mark.slow
@pytest.mark.parametrize("test_name", ["test", "exam"])
def test_class_folders_may_lie_beside_the_other_splits(root, test_name):
    """And are read as the same folders in `train` are."""
    write(root / "validation" / "ant" / "1.png", value=50)
    (root / "validation.txt").write_text("")
    (root / "test").rename(root / test_name)
    changes = {"test_split": test_name} if test_name != "test" else {}

    def read():
        splits = load(root, **changes)
        parts = [values_of(part) for part in (splits.calibration, splits.validation, splits.test)]
        return parts, splits.label_names, splits.notes

    expected = read()
    for folder in list((root / "train").iterdir()):
        folder.rename(root / folder.name)
    (root / "train").rmdir()
    assert read() == expected
    (root / "labels.txt").write_text("bee\nant\n")
    assert load(root, **changes).label_names == ["bee", "ant"]
    (root / "labels.txt").unlink()
    write(root / "other" / "ant" / "1.png")
    told = complaint(root, **changes)
    assert f"class folder {root}/other contains no image" in told and told.endswith(f"into {root}/train")


def test_a_fraction_for_the_test_is_refused_where_it_has_no_place(root):
    assert "has a test split" in complaint(root, test_fraction=0.2)
    for spec in ({"name": "digits", "test_fraction": 0.2}, {"name": "folder:x", "test_fraction": 1.0}):
        with pytest.raises(ExperimentError, match="--test_fraction"):
            DataSpec(**spec)


def test_validation_may_be_the_test(root):
    shutil.rmtree(root / "test")
    write(root / "validation" / "ant" / "1.png", value=50)
    splits = load(root, test_split="validation")
    assert values_of(splits.test) == {50: 0}
    assert len(values_of(splits.validation)) == 3 and splits.num_train == 9


def test_order_is_shuffled_and_the_data_sets_own(root):
    """So that the first images of a trial are of several classes."""
    for value in range(20, 60):
        write(root / "test" / "ant" / f"{value}.png", value=value)
        write(root / "test" / "bee" / f"{value + 100}.png", value=value + 100)
    whole, part = load(root), load(root, max_eval_images=12, seed=4)
    first = arrays(whole.test)[1][:12]
    assert set(first) == {0, 1}
    assert arrays(part.test)[1].tolist() == first.tolist()
    assert part.fingerprint["num_test"] == 12


def test_the_set_is_known_by_its_file_names(root):
    before = data.open_source(spec_of(root)).version
    moved = root.rename(root.with_name("moved"))
    assert data.open_source(spec_of(moved)).version == before
    write(moved / "train" / "bee" / "new.png")
    assert data.open_source(spec_of(moved)).version != before


@pytest.mark.parametrize("name", "a.JPG a.jpeg a.Jpg a.jpe a.jfif a.PNG a.apng a.bmp a.DIB a.gif a.webp a.AVIF".split())
def test_suffixes_of_any_case_are_read(root, name):
    write(root / "test" / "bee" / name, value=90)
    images, labels = arrays(load(root).test)
    assert len(images) == 6
    assert [labels[i] for i in range(6) if np.all(np.abs(images[i].astype(int) - 90) <= 2)] == [1]


def test_of_an_animation_the_first_picture_is_read(root):
    frames = [Image.new("L", (16, 12), value) for value in (90, 160)]
    frames[0].save(root / "test" / "bee" / "a.gif", save_all=True, append_images=frames[1:])
    assert 90 in values_of(load(root).test)


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (16, 12), 90),
        Image.new("LA", (16, 12), (90, 40)),
        Image.new("RGBA", (16, 12), (90, 90, 90, 40)),
        Image.fromarray(np.full((12, 16), 90 * 257, np.uint16)),
    ],
    ids=lambda image: image.mode,
)
def test_grey_alpha_and_16_bits_become_three_channels_of_8(root, image):
    image.save(root / "test" / "bee" / "a.png")
    assert values_of(load(root).test)[90] == 1


def test_cmyk_becomes_rgb(root):
    Image.new("CMYK", (16, 12), (0, 255, 255, 0)).save(root / "test" / "bee" / "red.jpg")
    images, _ = arrays(load(root).test)
    assert any(np.all(image[..., 0] > 200) and np.all(image[..., 1:] < 60) for image in images)


def test_what_is_no_picture_is_named_and_not_an_error(root):
    (root / "train" / "ant" / ".hidden.png").write_bytes(b"x")
    (root / "train" / "ant" / "Thumbs.db").write_bytes(b"x")
    (root / "test" / "labels.txt").write_text("x")
    write(root / "train" / ".cache" / "1.png")
    write(root / "train" / "ant" / "deeper" / "1.png")
    write(root / "val" / "ant" / "1.png")
    splits = load(root)
    assert splits.label_names == ["ant", "bee"]
    (note,) = splits.notes
    assert note.startswith("note: ignored, not .jpg, ") and "in a class folder (6): " in note
    for name in (
        "train/ant/.hidden.png",
        "train/ant/Thumbs.db",
        "train/.cache",
        "train/ant/deeper",
        "val",
        "and 1 more",
    ):
        assert name in note


def test_a_class_that_train_does_not_have_is_an_error(root):
    write(root / "test" / "wasp" / "1.png")
    message = complaint(root)
    assert "test/wasp" in message and "train" in message


def test_a_class_may_be_missing_in_the_test(root):
    shutil.rmtree(root / "test" / "bee")
    assert set(values_of(load(root).test).values()) == {0}


@pytest.mark.parametrize(
    "content", ["wasp\nbee\n cow \nant", "wasp\nbee\ncow\nant\n \n\n", "\ufeffwasp\r\nbee\r\ncow\r\nant\r\n"]
)
def test_labels_txt_names_the_classes_in_the_order_of_the_logits(root, content):
    """The wasp has no folder, the cow an empty one; the note of what is not read has neither labels.txt nor cow."""
    (root / "labels.txt").write_bytes(content.encode())
    (root / "train" / "cow").mkdir()
    splits = load(root)
    assert splits.label_names == ["wasp", "bee", "cow", "ant"]
    assert values_of(splits.test) == {200: 3, 201: 3, 202: 3, 210: 1, 211: 1}
    training = values_of(splits.calibration) | values_of(splits.validation)
    assert training == {value: 1 if value >= 100 else 3 for value in [*range(8), *range(100, 104)]}
    assert [note.split(" in folder:")[0] for note in splits.notes] == ["note: no training image of class wasp, cow"]
    assert splits.on_classes == splits.notes


@pytest.mark.parametrize("labels, told", [(b"wasp\nbee\nant", True), (b"bee\nant", False)])
def test_classes_without_pictures_are_told_before_any_is_decoded(root, labels, told):
    (root / "labels.txt").write_bytes(labels)
    spec = spec_of(root)
    notes = data.notes_on_classes(data.open_source(spec), spec)
    assert notes == load(root).on_classes
    assert [note.split(" in folder:")[0] for note in notes] == ["note: no training image of class wasp"] * told


def test_with_labels_txt_a_class_may_be_in_the_test_alone(root):
    (root / "labels.txt").write_text("ant\nbee\nwasp")
    write(root / "test" / "wasp" / "1.png", value=90)
    assert values_of(load(root).test)[90] == 2


def test_labels_are_a_part_of_what_the_set_is_known_by(root):
    versions = [data.open_source(spec_of(root)).version]
    for content in ("ant\nbee", "ant\nbee\ncow", "ant\nbee\nelk"):
        (root / "labels.txt").write_text(content)
        versions.append(data.open_source(spec_of(root)).version)
        (root / "labels.txt").write_text(content + "\n\n")
        assert data.open_source(spec_of(root)).version == versions[-1]
    assert len(set(versions)) == 4


@pytest.mark.parametrize(
    "content, part",
    [
        (b"ant\ncow", "train/bee is a class that {root}/labels.txt does not have"),
        (b"ant\nbee\ncow\nbee\n", "line 4 of {root}/labels.txt is 'bee', and so is line 2"),
        (b"ant\n\nbee", "line 2 of {root}/labels.txt is empty"),
        (b"\nant\nbee", "line 1 of {root}/labels.txt is empty"),
        (b"", "labels.txt names 0 classes; two or more"),
        (b" \n\n", "labels.txt names 0 classes; two or more"),
        (b"ant\n", "labels.txt names 1 class; two or more"),
        (b"ant\nbee\n../ant", "line 3 of {root}/labels.txt is '../ant', which cannot be the name of a class folder"),
        (b"ant\nbee\n..", "is '..', which cannot be the name of a class folder"),
        (b"ant\nbee/small", "is 'bee/small', which cannot be the name of a class folder"),
        (b"ant\nbee\\small", "which cannot be the name of a class folder"),
        (b"ant\nb\0e", "which cannot be the name of a class folder"),
        (b"ant\nb\xffe", "{root}/labels.txt cannot be read as UTF-8: "),
    ],
)
def test_labels_txt_that_names_no_classes_is_told_by_line(root, content, part):
    (root / "labels.txt").write_bytes(content)
    assert part.format(root=root) in complaint(root)


def cut_off(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


BREAK = {
    "0 bytes": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a picture"),
    "truncated": cut_off,
    "header": lambda path: path.write_bytes(path.read_bytes()[:20]),
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif"])
@pytest.mark.parametrize("kind", BREAK)
def test_broken_images_are_found_before_training_and_left_out_if_asked_for(root, kind, suffix):
    path = root / "train" / "ant" / f"broken.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)).save(path)
    BREAK[kind](path)
    message = complaint(root)
    assert f"1 of 18 images of {root} cannot be decoded: train/ant/broken.{suffix} (" in message
    assert "--skip_broken_images" in message
    assert kind != "0 bytes" or "(0 bytes)" in message
    splits = load(root, skip_broken_images=True)
    (note,) = splits.notes
    assert note.startswith(f"note: left out, cannot be decoded (1): train/ant/broken.{suffix} (")
    left = values_of(splits.calibration) | values_of(splits.validation)
    assert sorted(left) == [*range(8), *range(100, 104)]
    assert splits.num_train == len(values_of(splits.calibration))


def test_many_broken_images_are_counted(root):
    for index in range(8):
        (root / "test" / "bee" / f"broken{index}.jpg").write_bytes(b"")
    assert "8 of 25 images" in complaint(root) and "and 3 more" in complaint(root)


def test_a_class_of_broken_images_alone_is_an_error(root):
    for path in (root / "train" / "bee").iterdir():
        path.write_bytes(b"")
    assert "class bee" in complaint(root, skip_broken_images=True)


def test_a_test_of_broken_images_alone_is_an_error(root):
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"")
    assert "no image" in complaint(root, skip_broken_images=True)


def test_images_of_several_sizes_need_an_image_size(root):
    write(root / "test" / "bee" / "large.png", (20, 30), 5)
    message = complaint(root)
    assert "--image_size" in message and "test/bee/large.png has 30x20" in message and "12x16" in message
    assert load(root, image_size=8).image_shape == (8, 8, 3)


def remove(*names):
    return lambda root: [shutil.rmtree(root / name) for name in names]


@pytest.mark.parametrize(
    "change, changes, part",
    [
        (remove("test"), {}, "has no folder test"),
        (remove("train"), {}, "has no folder train"),
        (remove("train/bee"), {}, "has 1 class folder, ant; two or more"),
        (remove("train/ant", "train/bee"), {}, "has no class folder; two or more"),
        (remove("test/ant", "test/bee"), {}, "test has no class folder"),
        (lambda root: (root / "train" / "cow").mkdir(), {}, "train/cow contains no image"),
        (lambda root: (root / "train").rename(root / "Train"), {}, "has no folder train; rename Train to train"),
        (lambda root: (root / "test").rename(root / "Test"), {}, "has no folder test; rename Test to test"),
        (lambda root: (root / "test" / "bee" / "x").mkdir(), {"batch_size": 10}, "--batch_size=10 is more than the 9"),
        (lambda root: None, {"validation_fraction": 0.01}, "--validation_fraction=0.01"),
        (lambda root: None, {"data_dir": "d"}, "--data_dir=d is only for TFDS data sets"),
        (lambda root: None, {"test_split": "exam"}, "has no folder exam"),
    ],
)
def test_a_layout_that_cannot_be_trained_is_told_by_name(root, change, changes, part):
    change(root)
    assert part in complaint(root, **changes)


def test_splits_in_capitals_are_told_from_classes(root):
    for name in ("train", "test"):
        (root / name).rename(root / name.title())
    assert "Test contains no image" in (told := complaint(root, test_fraction=0.2)) and told.endswith("rename it test")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert f"{tmp_path / 'gone'} is not a folder" in complaint(tmp_path / "gone")


def test_opening_decodes_one_picture_at_most(root):
    """Broken ones are found later, by the scan."""
    (root / "train" / "ant" / "broken.jpg").write_bytes(b"")
    source = data.open_source(spec_of(root))
    assert source.image_shape == (12, 16, 3) and source.label_names == ["ant", "bee"]
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"")
    assert data.open_source(spec_of(root, image_size=32)).image_shape == (32, 32, 3)
    assert "no image in " in complaint(root)


@pytest.mark.slow
@pytest.mark.usefixtures("streaming")
def test_streamed_batches_are_a_function_of_seed_and_epoch(root):
    splits = load(root)
    first, again, other = (arrays(load(root).train(epoch))[0] for epoch in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, arrays(splits.train(1))[0])
    assert not np.array_equal(first, other)


@pytest.mark.skipif(not PICTURES.is_dir(), reason=f"no {PICTURES}")
def test_real_photographs(tmp_path):
    folders = sorted(folder for folder in PICTURES.iterdir() if folder.is_dir() and len(list(folder.iterdir())) > 3)[:5]
    for folder in folders:
        first, *others = sorted(folder.iterdir())
        for split, paths in (("test", [first]), ("train", others)):
            (tmp_path / split / folder.name).mkdir(parents=True)
            for path in paths:
                (tmp_path / split / folder.name / path.name).symlink_to(path)
    splits = load(tmp_path)
    assert splits.image_shape == (224, 224, 3)
    assert splits.label_names == [folder.name for folder in folders]
    for image, label in zip(*arrays(splits.test), strict=True):
        name = sorted(path.name for path in (tmp_path / "test" / splits.label_names[label]).iterdir())[0]
        expected = np.asarray(Image.open(tmp_path / "test" / splits.label_names[label] / name).convert("RGB"))
        assert np.abs(image.astype(int) - expected).mean() < 2  # two JPEG decoders


def test_a_sample_passes_over_pictures_that_cannot_be_used(root):
    spec = spec_of(root, validation_fraction=0.1)
    for path in list((root / "train" / "ant").iterdir())[:3]:
        path.write_bytes(b"")
    write(root / "train" / "bee" / "large.png", (20, 30), 5)
    images, _ = data.sample(data.open_source(spec), spec, 32)
    assert images.shape[1:] == (12, 16, 3) and 7 <= len(images) <= 9
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"")
    spec = spec_of(root, image_size=8)
    with pytest.raises(ExperimentError, match="no training image of folder:.* can be read"):
        data.sample(data.open_source(spec), spec, 32)


def test_names_lie_as_pictures_are_read_by_what_is_in_them(root):
    """WebP called .jpg, as browsers save it, and a BMP with a palette called .png."""
    picture = Image.new("P", (16, 12), 1)
    picture.putpalette([0, 0, 0, 90, 90, 90])
    picture.save(root / "test" / "bee" / "a.png", "BMP")
    Image.new("RGB", (16, 12), (91,) * 3).save(root / "test" / "bee" / "b.jpg", "WEBP", lossless=True)
    assert {90, 91} <= set(values_of(load(root).test))


def test_pictures_without_a_decoder_are_told_apart(root):
    for name in ("a.tif", "b.HEIC", "c.svg"):
        (root / "train" / "ant" / name).write_bytes(b"x")
    (note,) = load(root).notes
    assert note == (
        "note: ignored, of a format that is not supported; convert them, for example to PNG (3): "
        "train/ant/a.tif, train/ant/b.HEIC, train/ant/c.svg"
    )
    for path in (root / "train" / "bee").iterdir():
        path.rename(path.with_suffix(".tiff"))
    assert "but 100.tiff; put pictures into it, or remove it" in complaint(root)


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", ".ipynb_checkpoints", "lost+found"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_folders_that_systems_leave_behind_are_no_classes(root, split, name):
    write(root / split / name / "1.png")
    splits = load(root)
    assert splits.label_names == ["ant", "bee"] and len(values_of(splits.test)) == 5
    (note,) = splits.notes
    assert note.endswith(f"in a class folder (1): {split}/{name}")


@pytest.mark.parametrize(
    "name, part",
    [
        (b"K\xe4fer", "train/K\\xe4fer is not valid UTF-8, which labels.txt needs; rename it"),
        (b"a\nb", "class 'a\\nb' has a line break in its name"),
        ("a\u2028b".encode(), "has a line break in its name"),
        (b" ", "a class is called ' '"),
    ],
)
def test_class_folders_that_are_no_lines_of_labels_txt_are_told_when_the_set_is_opened(root, name, part):
    folder = os.fsencode(root) + b"/train/" + name
    os.mkdir(folder)
    shutil.copy(root / "train" / "ant" / "000.png", os.fsdecode(folder))
    with pytest.raises(ExperimentError) as caught:
        data.open_source(spec_of(root))
    assert part in str(caught.value)
    str(caught.value).encode()


def test_notes_and_names_of_other_encodings_can_be_written(root):
    with open(os.fsencode(root) + b"/train/ant/K\xe4fer.txt", "wb") as file:
        file.write(b"x")
    with open(os.fsencode(root) + b"/train/ant/K\xe4fer.png", "wb") as file:
        file.write((root / "train" / "ant" / "000.png").read_bytes())
    splits = load(root)
    assert "K\\xe4fer.txt" in splits.notes[0].encode().decode() and splits.num_train == 10
    with pytest.raises(ExperimentError, match="is not valid UTF-8, which the files of a run need"):
        DataSpec("folder:/K\udce4fer")


def test_a_turned_photograph_is_told_and_taken_as_it_is_stored(root):
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = Image.Exif()
    upright[0x0112] = 1
    Image.new("RGB", (16, 12), (90,) * 3).save(root / "test" / "bee" / "turned.jpg", exif=turned)
    Image.new("RGB", (16, 12), (91,) * 3).save(root / "test" / "bee" / "upright.jpg", exif=upright)
    splits = load(root)
    assert splits.notes == ("note: used as stored, without the rotation in their EXIF data (1): test/bee/turned.jpg",)
    assert arrays(splits.test)[0].shape == (7, 12, 16, 3)


def content_of(root, **changes):
    return load(root, **changes).fingerprint["content_sha256"]


def repaint(path):
    """Another picture under the old name, of the same size and time."""
    stat = path.stat()
    write(path, value=5)
    write(path, value=6) if path.stat().st_size != stat.st_size else None
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda root: repaint(root / "train" / "ant" / "007.png"),
        lambda root: repaint(root / "validation" / "bee" / "050.png"),
        lambda root: repaint(root / "test" / "bee" / "211.png"),
        lambda root: write(root / "test" / "bee" / "212.png", value=212),
        lambda root: (root / "test" / "bee" / "211.png").unlink(),
        lambda root: (root / "test" / "bee" / "211.png").rename(root / "test" / "ant" / "211.png"),
        lambda root: (root / "labels.txt").write_text("bee\nant"),
        lambda root: (root / "labels.txt").write_text("ant\nbee\ncow"),
    ],
    ids="train validation test more fewer moved order classes".split(),
)
def test_another_picture_or_label_anywhere_is_another_content(root, change):
    write(root / "validation" / "bee" / "050.png", value=50)
    before = content_of(root)
    change(root)
    assert content_of(root) != before


@pytest.mark.slow
def test_content_does_not_depend_on_where_and_how_the_set_is_read(root, monkeypatch):
    before = content_of(root)
    assert content_of(root, image_size=8, seed=3, batch_size=2) == before
    (root / "train" / "ant" / "notes.txt").write_text("x")
    moved = root.rename(root.with_name(f"{root.name}_moved"))
    for path in moved.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    assert content_of(moved) == before
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    assert content_of(moved) == before


@pytest.mark.parametrize("streamed", [False, True])
def test_grey_pictures_if_asked_for(root, monkeypatch, streamed):
    if streamed:
        monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    Image.new("RGB", (16, 12), (255, 0, 0)).save(root / "test" / "bee" / "red.gif")
    splits = load(root, image_channels=1)
    images, _ = arrays(splits.test)
    assert splits.image_shape == (12, 16, 1) == images.shape[1:]
    assert sorted(int(image[0, 0, 0]) for image in images) == [76, 200, 201, 202, 210, 211]
    assert arrays(splits.train(0))[0].shape[1:] == (12, 16, 1)
    spec = spec_of(root, image_channels=1, image_size=8)
    assert data.sample(data.open_source(spec), spec, 3)[0].shape == (3, 8, 8, 1)


@pytest.mark.slow
def test_pictures_that_are_not_square_are_cropped_or_squashed_and_a_note_says_which(root):
    """Half white, half black: the middle half of the width is all that a crop has of it."""
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, :4] = 255
    for path in root.rglob("*.png"):
        Image.fromarray(wide).save(path)
    (cropped,) = (note for note in load(root, image_size=8).notes if "square" in note)
    assert cropped == (
        "note: 17 of 17 pictures are not square: they are cropped to their middle; --resize=squash squashes them to a "
        "square instead, as Keras' image_dataset_from_directory does"
    )
    splits = load(root, image_size=8, resize="squash", horizontal_flip=False)
    (squashed,) = (note for note in splits.notes if "square" in note)
    assert "they are squashed to a square" in squashed and "--resize=crop" in squashed
    images, _ = arrays(splits.test)
    assert images.shape == (5, 8, 8, 3) and np.all(images[:, :, 0] == 255) and np.all(images[:, :, 1:] == 0)
    assert np.all(arrays(load(root, image_size=8).test)[0] == 0)
    for batches in (splits.train(0), splits.calibration):  # nothing is cropped of them
        assert np.all(arrays(batches)[0] == images[0])
    padded = arrays(load(root, image_size=8, resize="squash", crop_padding=2).train(0))[0]
    assert padded.shape[1:] == (8, 8, 3) and len({image.tobytes() for image in padded}) > 1
    for path in root.rglob("*.png"):
        write(path, (8, 8), int(path.stem))
    (note,) = load(root, image_size=8).notes
    assert note.startswith("note: pictures already have 8x8 pixels, and are still enlarged and cropped; ")
    early = data.open_source(spec_of(root, image_size=8))
    assert early.notes == () and early.early_notes() == (note,)  # the pre-flight tells it of a folder that is not read
    assert load(root, image_size=8, resize="squash").notes == load(root, image_size=4).notes == ()
    with pytest.raises(ExperimentError, match="unknown --resize 'stretch'; known are crop, squash"):
        spec_of(root, resize="stretch")
    with pytest.raises(ExperimentError, match="--image_channels=2 is out of range"):
        spec_of(root, image_channels=2)


def test_a_folder_is_described_without_its_pictures_being_read(root):
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    assert data.describe(spec_of(root, image_size=24, image_channels=1)) == ((24, 24, 1), ["ant", "bee"])
    with pytest.raises(ExperimentError, match="is not a folder"):
        data.describe(spec_of(root / "gone"))


@pytest.mark.slow
def test_grey_pictures_that_are_not_square_are_resized_to_such(root):
    """Files of 12 x 16: a crop of 6 x 8 has their ratio, a squash to 12 x 4 has not."""
    spec = {"image_channels": 1, "image_size": (6, 8)}
    splits = load(root, **spec)
    assert splits.image_shape == (6, 8, 1) and splits.notes == ()
    expected, _ = arrays(load(root, image_channels=1).test)
    images, labels = arrays(splits.test)
    assert sorted(images[:, 0, 0, 0]) == sorted(expected[:, 0, 0, 0]) and images.shape[1:] == (6, 8, 1)
    assert arrays(splits.train(0))[0].shape[1:] == (6, 8, 1)
    (note,) = load(root, image_channels=1, image_size=(12, 4), resize="squash").notes
    assert "17 of 17 pictures are not of the aspect ratio 12x4: they are squashed to 12x4" in note
    assert data.describe(spec_of(root, **spec))[0] == (6, 8, 1)


def test_a_folder_that_may_be_the_test_has_classes_of_train_alone(root):
    (root / "test").rename(root / "val")
    for other in ("notes/cat", "empty"):
        (root / other).mkdir(parents=True)
    assert other_tests(spec_of(root)) == ["val"] and not has_test(spec_of(root))
    assert has_test(spec_of(root, test_split="val")) and has_test(spec_of(root, test_fraction=0.2))


def test_the_scan_tells_each_size_once(root):
    write(root / "train" / "ant" / "large.png", size=(20, 30))
    source = data.open_source(spec_of(root, image_size=8))
    assert source.sizes == () and sorted(source.scan(source).sizes) == [(12, 16), (30, 20)]
