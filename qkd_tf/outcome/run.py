"""A finished run, for programs in Python."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping

import tf_keras

from qkd_tf.experiment import ExperimentError
from qkd_tf.outcome.trained_student import trained_student
from qkd_tf.process.borrowed_process import borrowed
from qkd_tf.storage import durable


class MissingResultError(ExperimentError, AttributeError):
    """A run does not have this yet. As an AttributeError it makes hasattr(run, "tflite") False."""


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A finished run. `tflite_export.export`, and every function that takes a path, accepts it."""

    path: pathlib.Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", pathlib.Path(self.path))  # a text is taken as well

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        """One line, whatever the state of the run."""
        try:
            results = self.results
            asked = results["experiment"]["quantization"]
            weights = "auto" if asked.get("finds_bits") else asked["weight_bits"]
            phases = ", ".join(f"{phase['phase']} {phase['epochs']}" for phase in results["phases"])
            told = (
                f"w{weights}a{asked['activation_bits']}, {phases or 'calibration alone'}: "
                f"{results['student_test_top1']:.2f} % of {results['data']['num_test']:,} test images, "
                + ("exported" if self._verdict() else "not exported")
            )
        except (ExperimentError, LookupError, TypeError):
            told = "not finished"
        return f"Run({str(self.path)!r}, {told})"

    @property
    def results(self) -> dict:
        """The contents of results.json.

        Raises:
          MissingResultError: the run is not finished, or the file was changed.
        """
        try:
            return durable.read_json(self.path / "results.json")
        except (OSError, durable.DamageError) as error:
            raise MissingResultError(f"{self.path} is not a finished run: {error}") from error

    @property
    def student_top1(self) -> float:
        """Top-1 of the student on the test set, in percent, computed in the integers of the target's judge."""
        return self.results["student_test_top1"]

    @property
    def history(self) -> Mapping[str, dict[str, list[float]]]:
        """Phase -> name -> one number per epoch, like Keras' `History.history`.

        Names are those of losses, training top-1 as a share (student_top1), validation top-1 in percent
        (validation_top1) and seconds; if both networks train, each has its own. The second phase of one name is NAME_2.

        Raises:
          MissingResultError: as `results`.
        """
        history: dict[str, dict[str, list[float]]] = {}
        for phase in self.results["phases"]:
            of_phase = history.setdefault(phase["phase"], {})
            for row in phase["history"]:
                for name, value in row.items():
                    if isinstance(value, float):  # intervals of all tensors are in `results`
                        of_phase.setdefault(name, []).append(value)
        return history

    @functools.cached_property
    def model(self) -> tf_keras.Model:
        """The trained student: pixels [N, H, W, C], 0 to 255, to logits [N, K] float32.

        Kernels and tensors are quantized, so it computes in floating point what the file computes in integers. For a
        float model of standard layers, with rounded kernels but without quantized tensors, load handoff/student.keras.

        Raises:
          MissingResultError: the run is not finished, or its handoff was changed.
        """
        try:
            with borrowed():
                return trained_student(self.path / "handoff")
        except (OSError, durable.DamageError) as error:
            raise MissingResultError(f"{self.path} is not a finished run: {error}") from error

    @property
    def tflite(self) -> pathlib.Path:
        """The file that `tflite_export.export` wrote and verified; with several targets, that of the first.

        Raises:
          MissingResultError: there is no file yet, or it was refused.
        """
        verdict = self._verdict()
        if verdict is None:
            raise MissingResultError(f"{self.path} is not exported; tflite_export.export(run) writes the file")
        if not verdict.get("passed"):
            raise MissingResultError(
                f"{self.path / 'export' / 'model.tflite'} was refused; report.html beside export/ has the reasons"
            )
        return self.path / "export" / "model.tflite"

    def _verdict(self) -> dict | None:
        """What the export found; None if there was no export."""
        try:
            return json.loads((self.path / "export" / "verification.json").read_text())
        except (OSError, ValueError):
            return None
