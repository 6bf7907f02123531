"""Chooses batch size, phases and their epochs for a first training run, by the number of examples."""

from collections.abc import Mapping, Sequence

from qkd_tf import data
from qkd_tf.console.counting import counted
from qkd_tf.experiment import EPOCHS, FEW_VALIDATION, LEARNING_RATE, RATE_OF_FEW, DataSpec, default_phases, require
from qkd_tf.proposal.draft import Draft
from qkd_tf.proposal.network_look import NetworkLook

# Steps of an epoch up to which the default epochs are taken. With more of them a phase takes as many steps in fewer
# epochs, down to a tenth: what configs/ have on CIFAR-10, for which the defaults are.
FULL_STEPS, SMALLEST_SHARE = 33, 0.1
ROOM = 4 << 30  # bytes of what a step keeps for its gradients
COPIES = 3  # of each tensor: in float, on its grid, and its gradient
FLOAT_BYTES = 4
# A nested MobileNetV2 0.35 with frozen BatchNormalization lost half of its accuracy in an epoch at RATE_OF_FEW.
RATE_OF_FROZEN = 1e-4
PHASES = {
    "full_precision": "full_precision trains untrained networks in float",
    "self_studying": "self_studying trains the low-bit student",
    "co_studying": "co_studying trains student and teacher together",
    "tutoring": "tutoring trains the student with the teacher, which no longer changes",
}


def choose_schedule(draft: Draft, looks: Mapping[str, NetworkLook], source: data.Source) -> list[str]:
    """Chooses batch size, phases and epochs.

    Args:
      looks: role -> look at its network.

    Returns:
      Notes on the networks, one per line.

    Raises:
      ExperimentError: a saved teacher is not trained.
    """
    student, teacher, num_train = looks["student"], looks.get("teacher"), source.train.num_examples
    if teacher is not None:
        require(
            not teacher.has_untrained_file,
            f"--teacher={teacher.name} is not trained, so nothing can be learned from it; give a trained model, or its "
            "builder, package.module:builder, which full_precision trains",
        )
    size = batch_size(num_train, student.num_values)
    draft.choose(
        "batch_size", size, f"{num_train:,} training examples make {counted(num_train // size, 'step')} an epoch."
    )
    learns_here = student.has_untrained_file or any(
        not look.is_trained and not look.spec.has_weights for look in looks.values()
    )
    names = ["full_precision"] * learns_here + default_phases(teacher is not None)
    draft.choose("phases", names, "; ".join(PHASES[name] for name in names) + ".")
    names = draft.experiment.training.phase_names
    if not names:
        return []
    steps = max(1, num_train // draft.experiment.data.batch_size)
    number = dict(zip(names, epochs(names, steps), strict=True))
    notes = []
    if student.has_untrained_file and "full_precision" not in names:
        number |= {"self_studying": epochs(["full_precision"], steps)[0]} if "self_studying" in names else {}
        notes = _choose_first_training(draft, student)
    why = (
        f"Epochs of each phase, {counted(steps, 'step')} each: more usually improve accuracy, fewer give a first file "
        "sooner."
    )
    draft.choose("epochs", [str(number[name]) for name in names], why)
    _choose_rates(draft, student, num_train)
    if source.validation.num_examples < FEW_VALIDATION and not student.is_trained:  # which has to get better
        why = f"{source.validation.num_examples} validation examples are too few to choose the best epoch."
        draft.choose("keep_epoch", "last", why)
    return notes


def _choose_rates(draft: Draft, student: NetworkLook, num_train: int) -> None:
    """Writes into the file the rates that training would choose for networks with weights on few examples.

    If all BatchNormalization is frozen, a student needs lower ones: nothing rescales what a step changes.
    """
    asked, settled = draft.experiment.training, draft.experiment.on_images(num_train).training
    few = f"{num_train:,} training examples are few for a trained"
    if settled.phases != asked.phases:
        rates, of_what = [phase.learning_rate for phase in settled.phases], ""
        if student.has_frozen_statistics:
            rates = [RATE_OF_FROZEN if rate == RATE_OF_FEW else rate for rate in rates]
            of_what = " whose BatchNormalization is frozen"
        why = f"{few} student{of_what}: higher rates can cost it accuracy."
        draft.choose("learning_rates", [f"{rate:g}" for rate in (rates if len(set(rates)) > 1 else rates[:1])], why)
    if settled.teacher_lr_ratio != asked.teacher_lr_ratio and "co_studying" in asked.phase_names:
        why = f"{few} teacher: at the student's full rate it can forget what it teaches."
        draft.choose("teacher_lr_ratio", settled.teacher_lr_ratio, why)


def _choose_first_training(draft: Draft, student: NetworkLook) -> list[str]:
    """Chooses for a saved student that is not trained and that full_precision will not train."""
    why = f"{student.name} is not trained yet: rate and BatchNorm statistics are those of a training from scratch."
    draft.choose("learning_rates", [f"{LEARNING_RATE:g}"], why)
    draft.choose("batch_norm_statistics", "batches", why)
    return [
        f"note: {student.name} is not trained yet, so it trains at few bits from scratch; training in float first is "
        "usually better: put full_precision first in --phases"
    ]


def batch_size(num_train: int, num_values: int) -> int:
    """A power of two that leaves an epoch enough steps and a machine enough memory, at most the default.

    Args:
      num_train: training examples.
      num_values: number of values that the student's layers output for one example.
    """
    fitting = max(1, ROOM // (COPIES * FLOAT_BYTES * num_values))
    return min(DataSpec.fitting_batch(num_train), 1 << (fitting.bit_length() - 1))


def epochs(names: Sequence[str], num_steps: int) -> list[int]:
    """Epochs of each phase, given the number of steps per epoch."""
    share = min(1.0, max(SMALLEST_SHARE, FULL_STEPS / num_steps))
    return [max(1, round(EPOCHS[name] * share)) for name in names]
