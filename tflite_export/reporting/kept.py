"""Whether a run's student is trained, or as calibration left it."""

from collections.abc import Mapping
from typing import Any

from qkd_tf.contract.course import discarded_epochs


def untrained(results: Mapping[str, Any]) -> str:
    """Why the quantized student is as calibration left it; "" if an epoch of its training was kept.

    Args:
      results: as in results.json.
    """
    phases = results["phases"]
    if all(phase["phase"] == "full_precision" for phase in phases):
        return "it was only calibrated, not trained (--phases)"
    number = discarded_epochs(phases)
    return f"no epoch was kept: none of {number} was better than calibration alone" if number else ""
