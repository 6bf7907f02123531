"""Chooses the test split, and size, channels and mirroring of pictures."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from qkd_tf import data
from qkd_tf.data import folder
from qkd_tf.experiment import DataSpec, has_test, image_size_of, require
from qkd_tf.models import zoo
from qkd_tf.proposal.draft import Draft
from qkd_tf.proposal.network_look import NUM_ANSWERS, NetworkLook
from qkd_tf.proposal.survey import Survey, told

TEST_FRACTION = 0.2
LARGEST_SIDE = 224  # pixels, of a network that reads pictures of any size
LARGEST_OF_TARGET = {"microcontroller": 96}  # whose memory holds no more (MLPerf Tiny's visual wake words: 96)
STEP_OF_SIDES = 32  # networks halve a picture five times
# Names of classes that may be others in a mirror: a digit or letter, left and right.
ONE_SIDED = re.compile(r"\w|(.*[\W_])?(left|right)([\W_].*)?", re.IGNORECASE)

Shape = tuple[int | None, ...]


def choose_test(draft: Draft) -> None:
    """Chooses the test split of a data set without a folder `test`."""
    spec = draft.experiment.data
    if has_test(spec):
        return
    root, others = spec.name.partition(":")[2], folder.other_tests(spec)
    if len(others) == 1:
        why = f"{root} has no folder test; {others[0]} has the same classes, and is used as the test split."
        draft.choose("test_split", others[0], why)
    else:
        why = f"{root} has no folder test, so this share of its pictures is the test split, the same in every run."
        draft.choose("test_fraction", TEST_FRACTION, why)


def choose_pictures(draft: Draft, survey: Survey, shapes: Mapping[str, Shape]) -> list[str]:
    """Chooses size and channels.

    Args:
      shapes: role -> input shape of its saved network, without the batch.

    Returns:
      Notes on the size, one per line.

    Raises:
      ExperimentError: two networks read pictures of different sizes.
    """
    shapes = {role: shape for role, shape in shapes.items() if len(shape) == 3}
    sized = {role: shape[:2] for role, shape in shapes.items() if None not in shape[:2]}
    names = {role: getattr(draft.experiment, role).name for role in shapes}
    require(
        len(set(sized.values())) < 2,
        " and ".join(f"--{role}={names[role]} reads {told(size)}" for role, size in sized.items())
        + " pixels, height x width; both networks read the same pictures: give a teacher of the student's size",
    )
    notes = []
    if sized:
        role, size = next(iter(sized.items()))
        if survey.sizes != (size,):
            draft.choose("image_size", image_size_of(size), f"{names[role]} reads pictures of {told(size)} pixels.")
    else:
        notes = _choose_free_size(draft, survey)
    _choose_channels(draft, survey, {names[role]: shape[-1] for role, shape in shapes.items()})
    return notes


def choose_resize(draft: Draft, look: NetworkLook, source: data.Source) -> list[str]:
    """Chooses cropped or squashed pictures, whichever a trained network classifies correctly more often.

    A difference of a few pictures proves nothing. But many models were trained on whole pictures, Keras' default, and
    nothing else shows it.

    Args:
      look: the look at a student or, if that one is not trained, at a trained teacher.

    Returns:
      A line on what was measured; none if nothing was.
    """
    spec = draft.experiment.data
    if not spec.crops_larger or draft.has("resize"):
        return []
    answers = ""
    if look.is_trained:
        cropped, whole = (_right(look, source, dataclasses.replace(spec, resize=way)) for way in ("crop", "squash"))
        answers = f"{look.name} classifies {100 * whole.mean():.1f} % of whole training pictures correctly, "
        answers += f"{100 * cropped.mean():.1f} % of cropped ones"
        if np.sum(whole) > np.sum(cropped):
            draft.choose("resize", "squash", f"{answers}.")
            return [f"note: {answers}; the flags take the whole pictures; --resize=crop takes their middle instead"]
    draft.offer(
        "resize",
        "squash",
        "Pictures are resized to cover 8/7 of that size, and the middle is cropped; uncomment this for whole pictures, "
        f"as in Keras' image_dataset_from_directory.{answers and f' {answers}.'}",
    )
    return [f"note: {answers}; the flags take the cropped ones; --resize=squash takes whole ones"] if answers else []


def _right(look: NetworkLook, source: data.Source, spec: DataSpec) -> np.ndarray:
    return look.right(*data.sample(source, spec, NUM_ANSWERS))


def _choose_free_size(draft: Draft, survey: Survey) -> list[str]:
    """For networks that read any size: the pictures' own size if they share a small one, else a usual one."""
    student, target = draft.experiment.student, draft.experiment.target.target
    usual = LARGEST_SIDE if student.is_own else zoo.usual_side(student.name)
    largest = min(usual, LARGEST_OF_TARGET.get(target, usual))
    if draft.has("image_size") or (len(survey.sizes) == 1 and max(survey.sizes[0]) <= largest):
        return []
    side = min(largest, max(STEP_OF_SIDES, round(survey.shorter_side / STEP_OF_SIDES) * STEP_OF_SIDES))
    why = f"{student.name} reads pictures of any size: more pixels bring accuracy, and cost time and memory"
    draft.choose("image_size", side, f"{why}.")
    return [f"note: the flags resize pictures to {told((side, side))} pixels; {why} (--image_size)"]


def _choose_channels(draft: Draft, survey: Survey, read: Mapping[str, int | None]) -> None:
    """Chooses grey or RGB.

    Args:
      read: channels by name of a saved network.
    """
    asked = [(name, channels) for name, channels in read.items() if channels in (1, 3)]
    if asked:
        name, channels = asked[0]
        if channels != survey.channels:
            kind = "grey pictures, of 1 channel" if channels == 1 else "pictures of 3 channels"
            draft.choose("image_channels", channels, f"{name} reads {kind}.")
    elif survey.is_grey and survey.channels > 1 and not draft.experiment.with_weights:
        draft.choose("image_channels", 1, "The pictures are grey, and a network of 1 channel is smaller.")


def choose_mirror(draft: Draft, survey: Survey, look: NetworkLook) -> None:
    """Chooses whether training pictures are mirrored.

    Args:
      look: the look at the student.
    """
    spec = draft.experiment.for_student(look.augments).data
    if not spec.mirrors:
        return
    one_sided = [name for name in survey.source.label_names if ONE_SIDED.fullmatch(name)]
    if one_sided:
        why = f"Mirrored, {one_sided[0]} may be another class, so training pictures are not mirrored."
        draft.choose("horizontal_flip", False, why)
    else:
        why = "Half of the training pictures are mirrored; uncomment this where left and right differ."
        draft.offer("horizontal_flip", False, why)
