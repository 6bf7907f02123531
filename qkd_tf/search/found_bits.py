"""--bits=auto: the bit widths of kernels that lose the least within a budget of bytes, found once per run.

A kernel may have the width that the experiment gives it, or one that takes fewer bytes as the target stores it. Widths
of activations stay, because they take no bytes in the file.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import tf_keras

from qkd_tf.experiment import Experiment, ExperimentError
from qkd_tf.models import identity
from qkd_tf.quantization.stored_bytes import stored_files
from qkd_tf.search.byte_budget import ByteBudget
from qkd_tf.search.subject import Examples, Subject, measure, of_kernel, table
from qkd_tf.storage import durable


def settled(experiment: Experiment, path: pathlib.Path) -> Experiment | None:
    """The experiment with the bit widths that `find` wrote; None if they are still to be found.

    Raises:
      ExperimentError: the file is damaged.
    """
    if not experiment.quantization.is_open:
        return experiment
    try:
        widths = durable.read_json(path).get("widths") if path.exists() else None
    except durable.DamageError as damage:
        raise ExperimentError(f"{damage}; move it away, and the widths are found again, the same ones") from damage
    return experiment.at_bits(widths.values()) if widths else None


def find(
    experiment: Experiment, plain: tf_keras.Model, examples: Examples, path: pathlib.Path, data: Mapping
) -> dict[str, int]:
    """Finds the bit widths, prints them, and writes them to `path`.

    Args:
      plain: trained float student in standard form that `networks.checked_plan` accepted; left unchanged.
      path: the run's bits.json, which also keeps what is measured so far, so that a restart resumes there.
      data: the splits' fingerprint.

    Returns:
      Bit width by layer.

    Raises:
      ExperimentError: the file is damaged.
    """
    spec, target = experiment.quantization, experiment.target
    subject = Subject(plain, spec, examples, experiment.seed)
    files = stored_files(plain, subject.plan, target, spec)
    stored = next(file for file in files if file.fewest_bytes <= target.max_flash_bytes)  # the pre-flight knows
    budget = ByteBudget("max_flash_bytes", target.max_flash_bytes, stored.kernel_bytes, stored.other_bytes)
    tables = " with lookup tables and the code that reads them" if stored.has_tables else ""
    print(f"--bits=auto: {stored.fewest_bytes:,} to {stored.file_bytes:,} bytes or a few less{tables}")
    if stored.file_bytes <= budget.num_bytes:
        print(f"--max_flash_bytes={budget.num_bytes:,} is enough for the largest widths: all kernels keep their bits")
        rows, widths = [], dict(stored.widest)
    else:
        cells = [(layer, bits) for layer, narrower in stored.narrower.items() for bits in narrower]
        told = {"quantization": dataclasses.asdict(spec), "data": data, "weights": identity.of_weights(plain)}
        told |= {"max_eval_images": experiment.data.max_eval_images}
        rows = measure(subject.calibrated(), cells, path, json.loads(json.dumps(told)), of_kernel)
        print(table(rows, stored.kernel_bytes, stored.widest))
        widths = budget.widths(stored.widest, rows)
        loss = sum(max(row.loss, 0.0) for row in rows if widths[row.layer] == row.num_bits)
        needed = f"at most {budget.needed(widths):,} bytes, sum of losses {loss:.2f} points"
        print(f"rules for {budget.num_bytes:,} bytes: {needed}")
    print(*(f"--bits_rule='{of_kernel(layer, bits)}'" for layer, bits in widths.items()), sep="\n")
    done = durable.read_json(path) if rows else {}
    durable.write_json(path, {**done, "widths": widths, "needed_bytes": budget.needed(widths)})
    return widths
