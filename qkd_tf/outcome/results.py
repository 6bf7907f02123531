"""results.json: what was run, on what, with what outcome."""

import dataclasses
import importlib.metadata
import os
import platform

from qkd_tf import __version__
from qkd_tf.data import Splits
from qkd_tf.experiment import Experiment
from qkd_tf.outcome.handoff import HandedOver
from qkd_tf.storage import durable
from qkd_tf.storage.run_folder import RunFolder

PACKAGES = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "tensorflow-datasets", "ai-edge-litert", "numpy")


def write(
    folder: RunFolder,
    experiment: Experiment,
    splits: Splits,
    handed_over: HandedOver,
    phases: list[dict],
    full_precision: dict | None = None,
    proof: dict | None = None,
    start: dict | None = None,
) -> None:
    """Writes results.json, which contains its own SHA-256 and that of the handoff's manifest.

    Args:
      handed_over: what `handoff.write` returned.
      phases: what `Trainer.run` returned.
      full_precision: what `diagnosis.write` returned.
      proof: what `Network.prove` returned, by role.
      start: top-1 in percent before training, as `start.Look` found it.
    """
    results = {
        "student_test_top1": handed_over.accuracy.top1,
        "student": dataclasses.asdict(handed_over.accuracy),
        "full_precision": full_precision,
        "as_given": proof,
        "start_top1": start,
        "phases": phases,
        "seconds": sum(phase["seconds"] for phase in phases),
        "experiment": dataclasses.asdict(experiment, dict_factory=_told),
        "seed": experiment.seed,
        "data": splits.fingerprint,
        "on_classes": splits.on_classes,
        "coverage": [
            {"layer": layer, "tensor": tensor, "num_bits": num_bits, "interval": interval}
            for layer, tensor, num_bits, interval in handed_over.student.coverage()
        ],
        "handoff": durable.digest(folder.handoff / durable.MANIFEST),
        **_computed_by(),
    }
    durable.write_json(folder.results, results)


def still_valid(folder: RunFolder) -> dict | None:
    """The results of a finished run whose handoff is whole, and would be computed here in the same way; else None."""
    try:
        results = durable.read_json(folder.results)
        durable.check(folder.handoff)
        manifest = durable.digest(folder.handoff / durable.MANIFEST)
    except (OSError, durable.DamageError):
        return None
    expected = {"handoff": manifest, **_computed_by()}
    return results if all(results.get(key) == value for key, value in expected.items()) else None


def _computed_by() -> dict[str, dict]:
    return {
        "versions": {"qkd_tf": __version__, **{name: importlib.metadata.version(name) for name in PACKAGES}},
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()},
    }


def _told(fields: list[tuple[str, object]]) -> dict[str, object]:
    """Fields of a spec that decide the outcome; a phase without bit widths has those of `quantization`."""
    return {name: value for name, value in fields if name != "told_by_bits" and (name != "bits" or value is not None)}
