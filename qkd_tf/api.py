"""The whole job in Python: `qkd_tf.fit` trains, on images or signals in memory too, and returns the run to export."""

import os
import pathlib
import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tf_keras

from qkd_tf import flags
from qkd_tf.console.arguments import arguments_checked
from qkd_tf.console.counting import with_article
from qkd_tf.console.keywords import Keyword, speaking_python
from qkd_tf.data import Function
from qkd_tf.data.class_names import class_names
from qkd_tf.data.memory_set import GivenSet, source_of
from qkd_tf.distillation.listeners import listener_of
from qkd_tf.experiment import (
    IN_MEMORY,
    TRAINED_IN_MEMORY,
    UNTRAINED_IN_MEMORY,
    ExperimentError,
    QuantizationSpec,
    require,
)
from qkd_tf.flags import WIDTHS
from qkd_tf.models.copier import is_graph
from qkd_tf.models.keras3 import door
from qkd_tf.outcome.run import Run
from qkd_tf.process.borrowed_process import borrowed
from qkd_tf.process.stop_signals import Stopped
from qkd_tf.storage.folder_lock import FolderInUseError
from qkd_tf.storage.run_folder import RunFolder
from qkd_tf.train.job import InMemory, train

ARGUMENTS = {"dataset": "train_set"}  # flag -> the argument that `fit` has for it
KEYWORDS = {name: Keyword(ARGUMENTS.get(name, name), flags.FLAGS[name].boolean) for name in flags.FLAGS.sections}
RUNS = pathlib.Path("runs")  # where a run without a folder gets one


@arguments_checked(ExperimentError, list(flags.FLAGS))
@borrowed()
@speaking_python(KEYWORDS, (ExperimentError, FolderInUseError))
def fit(
    student: tf_keras.Model | str | os.PathLike,
    train_set: GivenSet | str,
    test_set: GivenSet | None = None,
    *,
    run_dir: str | pathlib.Path | None = None,
    bits: str | int | None = None,
    phases: Mapping[str, int] | Sequence[str] | None = None,
    teacher: tf_keras.Model | str | os.PathLike | None = None,
    validation_set: GivenSet | None = None,
    label_names: Sequence[str] | None = None,
    pretrained: Collection[str] = ("teacher",),
    augment: Function | str | None = None,
    callbacks: Any = None,
    **options: Any,
) -> Run:
    """Trains a low-bit student with QKD, as `python -m qkd_tf.train` does.

    To resume a call that was stopped or killed, make it again with the same `run_dir`. The call sets seeds,
    determinism, Keras' settings and log levels, and restores them at its end. During the call no other thread should
    draw random numbers or change these settings.

    Args:
      student: float model of tf_keras or Keras 3, which is left unchanged, or what --student takes. It reads pixels or
        features, and returns logits or probabilities.
      train_set: (images [N, H, W, C], labels [N]), or a tf.data set of such pairs, as image_dataset_from_directory
        makes it; or signals, see `data.memory_set.source_of`. Pixels are 0 to 255; labels count from 0, or are one-hot
        [N, K]. Or a name that --dataset takes, such as "digits" or "folder:PICTURES", which brings all three sets.
      test_set: like `train_set`; the accuracy of the file is measured on it. None if `train_set` is a name.
      validation_set: like `train_set`; it chooses the best epoch. None: a part of the training set
        (`validation_fraction`).
      run_dir: a new folder, or the folder of the call to resume. None: a new folder in runs/, whose name is printed.
      bits: bit widths of weights and activations, such as "w4a8", or 4 for both; for single layers
        `bits_rule=["regex=w8a8"]`; for each phase `phase_bits=[8, "w4a8", 4]`, which ends with `bits`. "auto", with
        `max_flash_bytes`: the widths of kernels are found for that budget. None: "w4a4", or the options `weight_bits`
        and `activation_bits`.
      phases: epochs by phase, in order, such as {"self_studying": 30, "co_studying": 100, "tutoring": 70}; or names of
        phases, with the option `epochs`, a number for each or one for all; a name may occur more than once. []
        or "": calibration without training. None: self_studying, then with a teacher co_studying and tutoring.
      teacher: like `student`; co_studying and tutoring need one. A teacher that does not begin with a Rescaling reads
        (pixel - teacher_pixel_mean) / teacher_pixel_std.
      label_names: one name per class. None: the `class_names` of a set, as image_dataset_from_directory has them,
        otherwise numbers.
      pretrained: which of "student" and "teacher" are already trained. The phase full_precision trains only the others,
        from the weights that they have. Without that phase both count as trained. If the student is a path, that phase
        always trains it further.
      augment: augment(images, seed) for training batches, or what --augment takes; see `data.open_augmentation`.
      callbacks: a function of (phase, epoch, logs), an object with such a method on_epoch_end, or several of them. They
        are called once an epoch is validated and saved. epoch counts from 0 in its phase; logs are as in `Run.history`.
        An exception ends the call, and the same call resumes after that epoch.
      **options: any flag of `qkd_tf.train` (docs/flags.md) by name: learning_rates=0.01, batch_size=64, seed=1.

    Raises:
      ExperimentError: a mistake in the arguments, in one line, or a loss that diverged.
      FolderInUseError: another process uses `run_dir`.
      OSError: `run_dir` cannot be written.
      KeyboardInterrupt: a signal stopped the training; the current step is saved.
    """
    told_by = ARGUMENTS | ({"epochs": "phases"} if isinstance(phases, Mapping) else {})
    for name in options.keys() & told_by.keys():
        raise ExperimentError(f"{name} is set by the argument {told_by[name]}; leave the option out")
    require(
        phases is None or (isinstance(phases, Mapping | Sequence) and all(isinstance(name, str) for name in phases)),
        f"phases={phases!r}: give epochs by phase, such as {{'self_studying': 30}}, or names of phases",
    )
    if phases is not None:
        options["phases"] = list(filter(None, [phases])) if isinstance(phases, str) else list(phases)
    if isinstance(phases, Mapping):
        options["epochs"] = list(phases.values())
    given, told = {}, []
    for role, model in (("student", student), ("teacher", teacher)):
        trained = role in pretrained or "full_precision" not in options.get("phases", ())
        if isinstance(model, str | os.PathLike):
            options[role] = os.fspath(model)
        elif model is not None or role == "student":
            require(
                isinstance(model, tf_keras.Model) or door.is_model(model),
                f"{role} is of type {type(model).__name__}; a Keras model is expected",
            )
            require(
                is_graph(model) or door.is_model(model),
                f"{role} {model.name} is {with_article(type(model).__name__)} whose layers cannot be read; give a "
                "functional model, or a Sequential that begins with tf_keras.Input, without its own call()",
            )
            given[role], options[role] = model, _name(model, trained)
    if augment is None or isinstance(augment, str):
        options["augment"] = augment or ""
    else:
        require(callable(augment), f"augment is of type {type(augment).__name__}; give a function of (images, seed)")
        name = getattr(augment, "__name__", type(augment).__name__)
        given["augment"], options["augment"] = augment, IN_MEMORY + name
    if callbacks is not None:
        given["after_epoch"] = listener_of(callbacks)
    if bits is not None:
        require(
            isinstance(bits, str | int),
            f"bits={bits!r} is not understood; write w4a8, or 4 for weights and activations alike",
        )
        options["bits"] = str(bits)
    require(
        run_dir is None or isinstance(run_dir, str | os.PathLike),
        f"run_dir is of type {type(run_dir).__name__}; the path of a folder is expected",
    )
    widths = "w{}a{}".format(*(options.get(name, getattr(QuantizationSpec, name)) for name in WIDTHS))
    folder = options["run_dir"] = pathlib.Path(
        run_dir or _fresh_folder(options["student"], options.get("bits", widths))
    )
    if isinstance(train_set, str):
        require(
            test_set is None and validation_set is None,
            f"train_set={train_set!r} names a whole data set, such as 'digits' or 'folder:PICTURES', which has its own "
            "test and validation images; leave test_set and validation_set out",
        )
        options["dataset"] = train_set
    else:
        require(
            test_set is not None,
            "test_set is missing; give (images, labels) or a tf.data set, on which the file is measured",
        )
        spec = flags.experiment_from_flags(flags.flags_of(options)).data
        named = map(class_names, (train_set, test_set, validation_set))
        label_names = label_names or next(filter(None, named), None)
        if label_names is None:
            told.append("note: labels.txt will call the classes by their numbers; label_names=[…] gives them names")
            if outputs := getattr(student, "outputs", None):  # a path, and a model that is not built yet, have none
                num_outputs = outputs[0].shape[-1]  # one sigmoid is two classes; what is none, the pre-flight tells
                label_names = num_outputs and [str(label) for label in range(max(2, num_outputs))]
        given["source"] = source_of(train_set, test_set, validation_set, spec, label_names)
        options["dataset"] = IN_MEMORY + given["source"].version
    values = flags.flags_of(options)
    flags.adopt_begun(values)
    experiment = flags.experiment_from_flags(values)
    require(
        not (experiment.continues_in_float and "student" in pretrained),
        f"pretrained names the student, but full_precision trains {experiment.student.name} further; pass the loaded "
        "model instead of its path, or leave full_precision out of phases",
    )
    for note in flags.notes(values):
        print(note)
    if run_dir is None:
        told.append(f"run folder: {folder}; with run_dir={str(folder)!r} the same call resumes where it stopped")
    given["notes"] = tuple(told)
    again = "the same call" if run_dir is not None else f"the same call with run_dir={str(folder)!r}"
    try:
        train(experiment, flags.flag_lines(values), InMemory(**given))
    except Stopped as stopped:
        goes_on = RunFolder(os.fspath(folder), flags.flag_lines(values)).at_next_start
        raise KeyboardInterrupt(f"stopped by {stopped}; {again} {goes_on}") from None
    return Run(folder)


def _fresh_folder(student: str, bits: str) -> pathlib.Path:
    """A folder that does not exist yet, named by student, bits and time: runs/mobilenet_w4a4_20261129-084512."""
    words = re.sub(r"\.(keras|h5)$", "", student.rpartition(":")[2].rpartition("/")[2])
    words = re.sub(r"[^\w.-]+", "_", words)
    path = RUNS / f"{words}_{bits}_{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{path.name.partition('+')[0]}+{number}")
    return path


def _name(model: tf_keras.Model, trained: bool) -> str:
    """What a model in memory is called in flags.txt; `identity` tells one from another."""
    kind = TRAINED_IN_MEMORY if trained else UNTRAINED_IN_MEMORY
    return kind + re.sub(r"_[0-9]+$", "", model.name)  # Keras numbers models without a name of their own
