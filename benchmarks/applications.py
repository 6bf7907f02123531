"""Each classifier of tf_keras.applications and of keras.applications: what becomes of it here.

    python -m benchmarks.applications                # all of them, a pre-flight each
    python -m benchmarks.applications --smallest     # one of each family
    python -m benchmarks.applications --only='.*MobileNetV3.*' --train

A row says whether the pre-flight takes the network, or in which line it refuses it; with --train also what its files
are at W8A8 and W4A4 after a few steps on the digits. Weights are random and pictures noise: what is shown is which
layers have a place in an integer file, not what they learn. It ends with 1 if a network is refused that is not of
REFUSED.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import contextlib
import gc
import importlib
import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import tf_keras

from benchmarks.file_digests import FEW_STEPS
from qkd_tf import flags
from qkd_tf.experiment import ExperimentError
from qkd_tf.preflight import look as preflight
from qkd_tf.preflight.__main__ import FLAGS

LIBRARIES = ("tf_keras", "keras")
# The least of each family; the others differ in width and depth.
SMALLEST = (
    "ConvNeXtTiny DenseNet121 EfficientNetB0 EfficientNetV2B0 EfficientNetV2S InceptionResNetV2 InceptionV3 MobileNet "
    "MobileNetV2 MobileNetV3Large MobileNetV3Small NASNetMobile RegNetX002 RegNetY002 ResNet50 ResNet50V2 ResNetRS50 "
    "VGG16 Xception"
).split()
# Those that are to be refused -> a pattern of what of them is.
REFUSED = {"ConvNeXt": "LayerNormalization|LayerScale"}
BITS = (8, 4)
CLASSES = 10
HEADER = """\
| network | pre-flight | W8A8 | W4A4 |
| --- | --- | --- | --- |"""


def names(library: str) -> list[str]:
    """The builders of a library's applications: classes' names, beside modules'."""
    return [name for name in dir(importlib.import_module(library).applications) if name[0].isupper()]


def look(network: str, image_size: int) -> str:
    """ "taken", or the line in which the pre-flight refuses a network."""
    arguments = [f"--student={network}", f"--num_classes={CLASSES}", f"--image_size={image_size}"]
    values = FLAGS.extended()  # flags are the process's, and this look leaves them as they are
    values(["preflight", *arguments])
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            preflight.look(flags.experiment_from_flags(values, trains=False), CLASSES)
    except ExperimentError as error:
        return str(error)
    return "taken"


def train(network: str, image_size: int, bits: int) -> str:
    """The verdict on a file after a few steps: its bytes, and its least share of predicted integers on any runtime."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "run"
        widths = (f"--weight_bits={bits}", f"--activation_bits={bits}", f"--image_size={image_size}")
        for module, *options in (("qkd_tf.train", f"--student={network}", *widths, *FEW_STEPS), ("tflite_export",)):
            command = [sys.executable, "-m", module, *options, f"--run_dir={folder}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                return (done.stderr.strip().splitlines() or ["ended without a line"])[-1]
        verification = json.loads((folder / "export" / "verification.json").read_text())
    rows = [row for row in verification["runtimes"].values() if "not_run" not in row]
    equal = min(
        share for row in rows for share in (row["codes"]["equal_codes"], row["integer_student"]["equal_logits"])
    )
    verdict = "passed" if verification["passed"] else "REFUSED"
    return f"{verdict}, {verification['file']['bytes']:,} bytes, {equal:.2f} % on {len(rows)} runtimes"


def is_expected(network: str, verdict: str) -> bool:
    """Whether a verdict of the pre-flight is what REFUSED says."""
    reason = next((reason for family, reason in REFUSED.items() if f":{family}" in network), None)
    return verdict == "taken" if reason is None else re.search(reason, verdict) is not None


def line(network: str, verdict: str, files: list[str]) -> str:
    """A row of the Markdown table; of a refusal the first layer and how many more there are."""
    first, *others = re.sub(r"^\S+ cannot become an integer \.tflite: ", "", verdict).split("; layer ")
    told = first + (f" (and {len(others)} more layers)" if others else "")
    return f"| {network} | {told} | " + " | ".join(files or ["", ""]) + " |"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smallest", action="store_true", help="the least of each family alone")
    parser.add_argument("--only", default=".*", help="a pattern of the whole name, such as 'keras.applications:Res.*'")
    parser.add_argument(
        "--image_size", type=int, default=96, help="pixels of a side; some builders want 75 at the least"
    )
    parser.add_argument("--train", action="store_true", help="also a few steps at W8A8 and W4A4, to verified files")
    options = parser.parse_args(argv)
    print(HEADER, flush=True)
    found = [f"{library}.applications:{name}" for library in LIBRARIES for name in names(library)]
    unexpected = 0
    for network in found:
        if options.smallest and network.partition(":")[2] not in SMALLEST or not re.fullmatch(options.only, network):
            continue
        verdict = look(network, options.image_size)
        trains = options.train and verdict == "taken"
        files = [train(network, options.image_size, bits) for bits in BITS] if trains else []
        unexpected += not is_expected(network, verdict) or any(not file.startswith("passed") for file in files)
        print(line(network, verdict, files), flush=True)
        tf_keras.backend.clear_session()  # the next one needs the memory
        gc.collect()
    return int(unexpected > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
