"""Shows what each layer of a finished run's student loses at fewer bits, and which bit widths fit a budget."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Mapping

from qkd_tf import data
from qkd_tf.contract.grid import load_params
from qkd_tf.experiment import Experiment, TargetSpec
from qkd_tf.quantization.standard_form import standard_form
from qkd_tf.quantization.stored_bytes import StoredWidths
from qkd_tf.search.byte_budget import ByteBudget
from qkd_tf.search.subject import Examples, Sensitivity, Subject, measure, of_kernel, table
from qkd_tf.storage.saved_model import load_model


def look(experiment: Experiment, widths: list[int], max_weight_bytes: int = 0) -> tuple[str, ...]:
    """Prints what each layer loses at these bit widths, and with a budget the rules that meet it.

    Results are kept in the run folder and not measured again.

    Args:
      experiment: that of a finished run.
      max_weight_bytes: budget for kernels at their bit widths; 0 for none, or the target's.

    Returns:
      All bit-width rules for single layers: those of the run, then the suggested ones. None if none is suggested.

    Raises:
      ExperimentError: the data set cannot be opened, the file of results was changed, or the budget is too small.
    """
    splits = data.load(dataclasses.replace(experiment.data, augment=""))  # nothing is trained
    subject = subject_of(experiment, splits)
    stored = StoredWidths(subject.plain, subject.plan, experiment.target, subject.spec)
    identity = {"quantization": dataclasses.asdict(experiment.quantization), "data": splits.fingerprint}
    identity["max_eval_images"] = experiment.data.max_eval_images
    budget = budget_of(subject, stored, experiment.target, max_weight_bytes)
    if budget is not None:
        budget.require_possible({layer: (own, *widths) for layer, own in subject.bits.items()})
    cells = list(itertools.product(subject.layers, widths))
    kept = pathlib.Path(experiment.run_dir) / "sensitivity.json"
    rows = measure(subject, cells, kept, json.loads(json.dumps(identity)))
    print(table(rows, stored.kernel_bytes, subject.bits))
    for words, count in (
        ("at their bit widths", subject.true_bytes),
        (f"as {experiment.target.target} stores them", stored.kernel_bytes),
    ):
        print(f"kernels {words}: {ByteBudget('', 0, count).needed(subject.bits):,.0f} bytes")
    if budget is None:
        return ()
    chosen = suggest(rows, subject.bits, budget)
    widths_then = subject.bits | {row.layer: row.num_bits for row in chosen}
    needed = budget.needed(widths_then)
    loss = sum(max(row.loss, 0.0) for row in chosen)
    print(f"rules for {budget.num_bytes:,} bytes: about {needed:,.0f} bytes, sum of losses {loss:.2f} points")
    print(*([f"--bits_rule='{row.rule}'" for row in chosen] or ["no rule is needed: the run fits as it is"]), sep="\n")
    as_stored = ByteBudget("", 0, stored.kernel_bytes).needed(widths_then)
    if as_stored > budget.num_bytes >= needed:
        print(
            f"note: as {experiment.target.target} stores them, kernels of these widths take {as_stored:,.0f} bytes, "
            "more than the budget; --max_flash_bytes, instead of --max_weight_bytes, is a budget for what is stored"
        )
    return (*subject.spec.bits_rule, *(row.rule for row in chosen)) if chosen else ()


def subject_of(experiment: Experiment, splits: data.Splits) -> Subject:
    """The student of a finished run, with its trained intervals."""
    handoff, spec = pathlib.Path(experiment.run_dir) / "handoff", experiment.quantization
    saved = load_model(handoff / "student.keras")
    plain = standard_form(saved, splits.image_shape, None, experiment.student.normalization).model
    kernels, tensors = (load_params(handoff / f"{what}_params.json") for what in ("weight", "tensor"))
    if spec.finds_bits:
        found = tuple(of_kernel(layer, params.grid.num_bits) for layer, params in kernels.items())
        spec = dataclasses.replace(spec, finds_bits=False, bits_rule=found + spec.bits_rule)
    spec = dataclasses.replace(spec, normalize_weights="off")  # the saved weights have been normalized and rounded
    images = [images for images, _ in splits.calibration.take(spec.calibration_batches)]
    return Subject(plain, spec, Examples(images, splits.validation), experiment.seed, kernels, tensors)


def budget_of(subject: Subject, stored: StoredWidths, target: TargetSpec, max_weight_bytes: int) -> ByteBudget | None:
    """The budget that flags ask for; None if they ask for none."""
    if target.max_flash_bytes:
        return ByteBudget("max_flash_bytes", target.max_flash_bytes, stored.kernel_bytes, stored.other_bytes)
    return ByteBudget("max_weight_bytes", max_weight_bytes, subject.true_bytes) if max_weight_bytes else None


def suggest(rows: list[Sensitivity], trained: Mapping[str, int], budget: ByteBudget) -> list[Sensitivity]:
    """The rows of layers that get fewer bits, with the smallest sum of losses within the budget.

    Args:
      trained: bit width by layer.

    Raises:
      ExperimentError: even with all layers at their fewest bits, the budget is exceeded.
    """
    found = budget.widths(trained, rows)
    return [row for row in rows if found[row.layer] == row.num_bits != trained[row.layer]]
