"""The job in Python: `qkd_tf.fit` trains, on images or signals in memory too, and gives the run that is exported."""

import dataclasses
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence

import tf_keras

from qkd_tf import flags
from qkd_tf.data.memory_set import GivenSet, source_of
from qkd_tf.experiment import IN_MEMORY, TRAINED_IN_MEMORY, UNTRAINED_IN_MEMORY, ExperimentError, bit_widths, require
from qkd_tf.models.copier import is_graph
from qkd_tf.models.keras3 import door
from qkd_tf.process.borrowed_process import borrowed
from qkd_tf.process.stop_signals import Stopped
from qkd_tf.storage import durable
from qkd_tf.train import InMemory, train

# Flags that `fit` has another argument for.
ARGUMENTS = {"weight_bits": "bits", "activation_bits": "bits", "epochs": "phases", "dataset": "train_set"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run; `tflite_export.export` and every function that takes a path takes it too."""

    path: pathlib.Path

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def results(self) -> dict:
        """What results.json tells.

        Raises:
          ExperimentError: the run is not finished, or the file was changed.
        """
        try:
            return durable.read_json(self.path / "results.json")
        except (OSError, durable.DamageError) as error:
            raise ExperimentError(f"{self.path} is no finished run: {error}") from error

    @property
    def student_top1(self) -> float:
        """Of the student on the test set, in percent: computed in the integers of the runtime that judges its file."""
        return self.results["student_test_top1"]


@borrowed()
def fit(
    student: tf_keras.Model | str,
    train_set: GivenSet | str,
    test_set: GivenSet | None = None,
    *,
    run_dir: str | pathlib.Path,
    bits: str = "w4a4",
    phases: Mapping[str, int],
    teacher: tf_keras.Model | str | None = None,
    validation_set: GivenSet | None = None,
    label_names: Sequence[str] | None = None,
    pretrained: Collection[str] = ("teacher",),
    **options,
) -> Run:
    """Trains a low-bit student by QKD, as `python -m qkd_tf.train` does.

    A call that was stopped or killed resumes where it was when it is made again with the same `run_dir`. Seeds,
    determinism, Keras' settings and the levels of logs are set for the training, and put back after it; no other
    thread should draw random numbers or change them meanwhile.

    Args:
      student: float model of tf_keras or Keras 3 from pixels or features to logits or probabilities, left as it is; or
        what --student takes.
      train_set, test_set, validation_set: images or signals, as `data.memory_set.source_of` takes them. Without a
        validation set a part of the training set chooses the best epoch (`validation_fraction`). A name is what
        --dataset takes, and is all three.
      run_dir: new folder, or that of the same call before.
      bits: widths of weights and activations, "w4a4"; single layers by `bits_rule=["regex=w8a8"]`.
      phases: epochs by phase, in order, for instance {"self_studying": 30, "co_studying": 100, "tutoring": 70}; {} for
        intervals by calibration alone.
      teacher: as `student`; one that does not begin with a Rescaling reads (pixel - teacher_pixel_mean) /
        teacher_pixel_std; co_studying and tutoring need one.
      label_names: one a class; None for those of an image_dataset_from_directory, else numbers.
      pretrained: which of "student" and "teacher" a phase full_precision leaves as they are; it trains the others.
        Without that phase both are taken as trained.
      options: any flag of `qkd_tf.train` (docs/flags.md), by name: learning_rates=0.01, batch_size=64, seed=1.

    Raises:
      ExperimentError: a mistake in what was given, in one line; a loss that diverged.
      FolderInUseError: another process trains there.
      OSError: `run_dir` cannot be written.
      KeyboardInterrupt: a signal stopped the training; the step at hand is saved.
    """
    weight_bits, activation_bits = bit_widths(str(bits), "bits")
    require(isinstance(phases, Mapping), f"phases={phases!r}: epochs by phase are expected, as {{'self_studying': 30}}")
    for name in options.keys() & ARGUMENTS.keys():
        raise ExperimentError(f"{name} is told by the argument {ARGUMENTS[name]}; leave the option out")
    given = {}
    for role, model in (("student", student), ("teacher", teacher)):
        trained = role in pretrained or "full_precision" not in phases
        if isinstance(model, str):
            options[role] = model
        elif model is not None:
            require(
                isinstance(model, tf_keras.Model) or door.is_model(model),
                f"{role} is a {type(model).__name__}; a model of Keras is expected",
            )
            require(
                is_graph(model) or door.is_model(model),
                f"{role} {model.name} is a {type(model).__name__} whose layers cannot be seen; expected is a "
                "functional model, or a Sequential one that begins with tf_keras.Input, without a call of its own",
            )
            given[role], options[role] = model, _name(model, trained)
    options |= {"run_dir": run_dir, "weight_bits": weight_bits, "activation_bits": activation_bits}
    options |= {"phases": list(phases), "epochs": list(phases.values())}
    if isinstance(train_set, str):
        require(test_set is None and validation_set is None, f"{train_set} has its own test and validation images")
        options["dataset"] = train_set
    else:
        require(test_set is not None, "there is no test set; the file is proven on it: give (images, labels)")
        spec = flags.experiment_from_flags(flags.flags_of(options)).data
        label_names = label_names or getattr(train_set, "class_names", None)  # of image_dataset_from_directory
        outputs = getattr(student, "outputs", None)  # a model that is not built yet has none
        if label_names is None and outputs:
            num_outputs = outputs[0].shape[-1]  # one sigmoid is two classes; what is none, the pre-flight tells
            label_names = num_outputs and [str(label) for label in range(max(2, num_outputs))]
        given["source"] = source_of(train_set, test_set, validation_set, spec, label_names)
        options["dataset"] = IN_MEMORY + given["source"].version
    values = flags.flags_of(options)
    try:
        train(flags.experiment_from_flags(values), flags.flag_lines(values), InMemory(**given))
    except Stopped as stopped:
        raise KeyboardInterrupt(f"stopped by {stopped}; the same call goes on from the last checkpoint") from None
    return Run(pathlib.Path(run_dir))


def _name(model: tf_keras.Model, trained: bool) -> str:
    """What a model in memory is called in flags.txt; `identity` tells one from another."""
    kind = TRAINED_IN_MEMORY if trained else UNTRAINED_IN_MEMORY
    return kind + re.sub(r"_[0-9]+$", "", model.name)  # Keras numbers models without a name of their own
