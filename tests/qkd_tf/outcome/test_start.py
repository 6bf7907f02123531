"""Where training starts: chance by hand, teachers strong and weak, and one look at each network."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from qkd_tf.experiment import ExperimentError
from qkd_tf.outcome import start

LABELS = np.array([0] * 40 + [1] * 30 + [2] * 20 + [3] * 10)  # the most frequent class is 40 % of them


class Scripted:
    """A network that is right on the first `num_right` of the images, which are their own numbers and labels."""

    def __init__(self, num_right):
        self.num_right, self.num_looks = num_right, 0

    def __call__(self, images, training=False):
        assert training is False
        index, labels = images[:, 0], images[:, 1]
        named = tf.where(index < self.num_right, labels, (labels + 1) % 4)
        return tf.one_hot(tf.cast(named, tf.int32), 4)


class Answering:
    """A network that gives these classes to the images, which are their own numbers."""

    def __init__(self, answers):
        self._answers, self.num_looks = np.array(answers), 0

    def __call__(self, images):
        return tf.one_hot(self._answers[images[:, 0].numpy().astype(int)], 4)


@pytest.fixture
def look(make_splits, tmp_path, monkeypatch):
    """look(labels): a `Look` of that many validation images; networks are `Scripted`."""

    def predict(model, batches):
        model.num_looks += 1
        found = [(model(images).numpy(), labels.numpy()) for images, labels in batches]
        return np.concatenate([logits for logits, _ in found]), np.concatenate([labels for _, labels in found])

    monkeypatch.setattr(start, "predict_logits", predict)

    def make(labels=LABELS, path=None):
        images = np.stack([np.arange(len(labels)), labels], -1).astype(np.float32)
        validation = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
        return start.Look(make_splits(validation=validation), path or tmp_path / "start.json")

    return make


@pytest.mark.parametrize(
    "most_frequent, expected", [(10.0, 19.0), (50.0, 55.0), (0.1, 10.09), (100.0, 100.0), (90, 91)]
)
def test_near_chance_by_hand(most_frequent, expected):
    assert start.near_chance(most_frequent) == pytest.approx(expected)


@given(st.floats(0, 99.9))
def test_perfect_network_is_never_near_chance_and_one_that_names_one_class_always(most_frequent):
    assert most_frequent < start.near_chance(most_frequent) < 100


def test_guessers_of_small_validation_sets_are_seldom_above_it():
    """Of 10,000 who name ten classes as often as they come, on 500 images, none."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 500)
    bound = start.near_chance(100 * np.bincount(labels).max() / len(labels))
    guesses = rng.integers(0, 10, (10_000, len(labels)))
    assert not np.any(100 * (guesses == labels).mean(1) > bound)


CHANCE = 46.0  # 40 + 0.1 * 60


@pytest.mark.parametrize(
    "teacher, student, refused",
    [
        (90, 80, None),
        (90, 100, None),  # ten points below is what a teacher may be
        (89, 100, "the student before training on 100.00 %"),
        (70, 81, "the student before training on 81.00 %"),
        (47, 20, None),
        (46, 20, "while always giving the same class is right on 40.00 %"),
        (40, 20, "while always giving the same class is right on 40.00 %"),
        (0, 0, "while always giving the same class is right on 40.00 %"),
    ],
)
def test_teacher_that_teaches_is_above_chance_and_near_its_student(look, teacher, student, refused):
    found = look()
    found.at("student", Scripted(student))
    found.at("teacher", Scripted(teacher))
    assert found.found == pytest.approx({"student": student, "teacher": teacher})
    assert (teacher > CHANCE) or refused
    if refused is None:
        found.require_strong_teacher()
        return
    with pytest.raises(ExperimentError) as caught:
        found.require_strong_teacher()
    message = str(caught.value)
    assert message.startswith(f"the teacher is right on {teacher:.2f} % of 100 validation images, ")
    assert refused in message and "--allow_weak_teacher" in message and "--teacher_pixel_mean" in message


@pytest.mark.parametrize("answers, refused", [([0] * 14 + [1] * 8 + [2] * 2, False), ([0] * 24, True)])
def test_teacher_that_knows_the_rare_classes_is_no_guesser(look, answers, refused):
    """24 images, 19, 3 and 2 of a class: both teachers are right on 19."""
    labels = np.repeat([0, 1, 2], [19, 3, 2])
    found = look(labels)
    found.at("teacher", Answering(answers))
    found.at("student", Scripted(0))
    assert found.found["teacher"] == pytest.approx(100 * 19 / 24)
    if refused:
        assert found.balanced["teacher"] == pytest.approx(100 / 3)
        with pytest.raises(ExperimentError, match="always giving the same class"):
            found.require_strong_teacher()
    else:
        assert found.balanced["teacher"] == pytest.approx(100 * (14 / 19 + 2) / 3)
        found.require_strong_teacher()


@pytest.mark.parametrize("sizes", [(19, 3, 2), (50, 50), (8,) * 10])
def test_guessers_are_seldom_above_chance_in_the_mean_over_classes(sizes):
    """Two standard deviations: about one in 40."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    right = rng.integers(0, len(sizes), (4_000, len(labels))) == labels
    balanced = 100 * np.mean([right[:, labels == label].mean(1) for label in range(len(sizes))], axis=0)
    assert np.mean(balanced > start.balanced_by_chance(np.array(sizes))) < 0.06


def test_each_network_is_looked_at_once_and_told(look, capsys):
    found, student = look(), Scripted(72)
    found.at("student", student)
    found.at("student", Scripted(0))
    assert student.num_looks == 1 and found.found == {"student": 72.0}
    assert capsys.readouterr().out == "top-1 on 100 validation images: student before training: 72.00 %\n"


@pytest.mark.parametrize("what", start.TITLES)
def test_every_look_has_a_title(look, capsys, what):
    look().at(what, Scripted(50))
    assert f"top-1 on 100 validation images: {start.TITLES[what]}: 50.00 %" in capsys.readouterr().out


def test_random_weights_are_told_as_such(look, capsys):
    look().at("teacher", Scripted(11), by_chance=True)
    assert ": teacher before training (random weights): 11.00 %" in capsys.readouterr().out


def test_nothing_is_written_before_the_folder_is_the_runs_own(look, tmp_path):
    found = look()
    found.at("student", Scripted(72))
    assert not list(tmp_path.iterdir())
    found.keep()
    assert [file.name for file in tmp_path.iterdir()] == ["start.json"]


def test_what_was_found_is_kept_for_a_start_that_goes_on(look, tmp_path, capsys):
    """After training the networks are others: a restart tells of those that came, and does not look again."""
    first = look()
    first.at("student", Scripted(72))
    first.at("teacher", Scripted(30))
    first.keep()
    assert json.loads((tmp_path / "start.json").read_text())["top1"] == {"student": 72.0, "teacher": 30.0}
    capsys.readouterr()
    again, network = look(), Scripted(100)
    again.at("student", network)
    again.at("teacher", network)
    assert network.num_looks == 0 and again.found == first.found and capsys.readouterr().out == ""
    with pytest.raises(ExperimentError, match="the teacher is right on 30.00 %"):
        again.require_strong_teacher()
    again.at("quantized", Scripted(60))
    again.keep()  # where the first start was killed before it
    assert json.loads((tmp_path / "start.json").read_text())["top1"] == {**first.found, "quantized": 60.0}


def test_no_more_images_are_looked_at_than_a_look_needs(look, monkeypatch):
    monkeypatch.setattr(start, "MAX_IMAGES", 20)
    found, network = look(), Scripted(12)
    found.at("student", network)
    assert found.found["student"] == pytest.approx(100 * 12 / 24)  # whole batches of eight


@pytest.mark.parametrize("content", ["", "{}", '{"top1": {"student": 99}, "sha256": "0"}'])
def test_damaged_file_of_an_earlier_start_is_told_in_a_line(look, tmp_path, content):
    (tmp_path / "start.json").write_text(content)
    with pytest.raises(
        ExperimentError, match="start.json (is not the JSON|was changed after).*; remove that file, and its n"
    ):
        look()


@pytest.mark.parametrize(
    "labels, top1, told",
    [
        (LABELS, 49, True),  # 40 % and two deviations of 4.9 %
        (LABELS, 50, False),
        (np.arange(48) % 4, 14, True),  # scrambled labels: 29.17 % of four classes
        (np.arange(48) % 4, 19, False),
        (np.arange(2), 2, False),  # of two images nothing can be said
        (np.arange(2), 1, True),
        (np.arange(2_000) % 2, 1_099, True),  # of many images a tenth of the way to all
        (np.arange(2_000) % 2, 1_101, False),
    ],
)
def test_weights_that_do_not_know_these_labels_are_told_before_training(look, labels, top1, told):
    found = look(labels)
    found.at("student", Scripted(top1))
    notes = found.notes_on_weights()
    assert len(notes) == told and all("came with weights, and is right on " in note for note in notes)


@pytest.mark.parametrize(
    "num_right, keeps_start, needs_training, told",
    [
        (
            48,
            True,
            False,
            "48 of 48 validation images, so epochs can hardly be told apart; it is kept, because no epoch can be",
        ),
        (
            48,
            True,
            True,
            "told apart; an epoch is kept instead if it makes at most 2 mistakes more. --phases= ",
        ),
        (48, False, True, "of equally good epochs the last is kept. --phases= makes this student's file without"),
        (
            46,
            True,
            False,
            "46 of 48 validation images, so epochs can hardly be told apart; it is kept unless an epoch is better.",
        ),
        (45, True, False, "on 48 validation images the accuracy of an epoch has a standard error of about 4 points"),
        (
            24,
            True,
            True,
            "a standard error of about 7 points, so which epoch is best is largely chance; --keep_epoch=last",
        ),
    ],
)
def test_epochs_that_validation_cannot_tell_apart_are_told_before_they_are_trained(
    look, num_right, keeps_start, needs_training, told
):
    found = look(np.arange(48) % 4)
    found.at("quantized", Scripted(num_right))
    (note,) = found.notes_on_calibration(keeps_start, needs_training)
    assert told in note
    enough = look(np.arange(100) % 4)
    enough.at("quantized", Scripted(97))
    assert enough.notes_on_calibration(keeps_start, needs_training) == []


@pytest.mark.parametrize(
    "num_images, teacher, now, told",
    [
        (48, 48, 87.5, "co_studying cost the teacher 12.50 points: 100.00 % of validation images before training"),
        (48, 48, 100 * 46 / 48, None),  # two images
        (48, 48, 100 * 45 / 48, "cost the teacher 6.25 points"),
        (1_000, 900, 88.0, None),
        (1_000, 900, 87.9, "cost the teacher 2.10 points"),
        (48, 40, 100.0, None),
    ],
)
def test_teacher_that_a_phase_harmed_is_told(look, num_images, teacher, now, told):
    found = look(np.arange(num_images) % 4)
    found.at("teacher", Scripted(teacher))
    notes = found.notes_on_phase("co_studying", now)
    assert notes == [] if told is None else len(notes) == 1 and told in notes[0]


@pytest.mark.parametrize(
    "quantized, end, told",
    [
        (60, 58.0, None),
        (
            60,
            57.9,
            "60.00 % of validation images after calibration, 57.90 % now; use calibration without training (--phases=)",
        ),
        (20, 26.0, "hardly more than if it always gave the same class"),
    ],
)
def test_training_that_took_more_than_it_gave_is_told(look, quantized, end, told):
    found = look()
    found.at("quantized", Scripted(quantized))
    notes = found.notes_on_end(end)
    assert notes == [] if told is None else len(notes) == 1 and told in notes[0]


@pytest.mark.parametrize(
    "num_right, told", [(49, "nothing has trained the student: it is right on 49.00 %"), (50, None)]
)
def test_student_that_nothing_has_trained_is_told(look, num_right, told):
    found = look()
    found.at("quantized", Scripted(num_right))
    notes = found.notes_on_no_training()
    assert notes == [] if told is None else len(notes) == 1 and told in notes[0]


@pytest.mark.parametrize("num_right, told", [(98, "file will be that of the calibrated student: do that"), (97, None)])
def test_training_that_was_discarded_though_epochs_could_not_be_told_apart_is_told(look, num_right, told):
    found = look(np.arange(100) % 4)
    found.at("quantized", Scripted(num_right))
    notes = found.notes_on_discarded_training("do that")
    assert notes == [] if told is None else len(notes) == 1 and told in notes[0]
