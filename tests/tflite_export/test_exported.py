"""What an export gives in Python: the mapping of verification.json, shown in a line."""

import json
import pathlib

import pytest

from tflite_export.exported import Exported

PASSED = {
    "passed": True,
    "failures": [],
    "judge": "litert",
    "num_images": 1000,
    "file": {"bytes": 12345},
    "runtimes": {"litert": {"accuracy": {"top1": 91.234}, "codes": {"rows": list(range(1000))}}},
}
REFUSED = {"passed": False, "failures": ["layer x: no operator for Y", "and more"]}
PATH = pathlib.Path("runs/mine/export/model.tflite")


@pytest.mark.parametrize(
    "verification, shown, top1",
    [
        (
            PASSED,
            "Exported('runs/mine/export/model.tflite', 12,345 bytes, proven: top-1 91.23 % of 1,000 test images "
            "on litert)",
            91.234,
        ),
        (REFUSED, "Exported('runs/mine/export/model.tflite', refused: layer x: no operator for Y)", None),
    ],
)
def test_result_is_the_mapping_that_the_file_has_and_one_line_to_look_at(verification, shown, top1):
    exported = Exported(verification, PATH)
    assert repr(exported) == shown
    assert (exported.passed, exported.top1, exported.tflite) == (verification["passed"], top1, PATH)
    assert exported == verification and json.loads(json.dumps(exported)) == verification
