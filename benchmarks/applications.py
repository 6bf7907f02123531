"""Each classifier of tf_keras.applications and of keras.applications: what becomes of it here.

    python -m benchmarks.applications                # all of them, a pre-flight each
    python -m benchmarks.applications --smallest     # one of each family
    python -m benchmarks.applications --only='.*MobileNetV3.*' --train

A row says whether the pre-flight takes the network, or in which line it refuses it; with --train also what its files
are at W8A8 and W4A4 after a few steps. Weights are random and pictures noise: what is shown is which layers have a
place in an integer file, not what they learn. Rows are kept in benchmarks/applications, a file each; what one says
already is not run again. In the end the table of all rows is printed. The command ends with 1 if a network is refused
that is not of REFUSED, or a file.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import importlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks import kept_results
from benchmarks.applications_table import HEADER, RESULTS, TAKEN, WIDTHS, cells, is_fine
from benchmarks.file_digests import FEW_STEPS

LIBRARIES = ("tf_keras", "keras")
# The least of each family; the others differ in width and depth.
SMALLEST = (
    "ConvNeXtTiny DenseNet121 EfficientNetB0 EfficientNetV2B0 EfficientNetV2S InceptionResNetV2 InceptionV3 MobileNet "
    "MobileNetV2 MobileNetV3Large MobileNetV3Small NASNetMobile RegNetX002 RegNetY002 ResNet50 ResNet50V2 ResNetRS50 "
    "VGG16 Xception"
).split()
CLASSES = 10


def names(library: str) -> list[str]:
    """The builders of a library's applications: classes' names, beside modules'."""
    return [name for name in dir(importlib.import_module(library).applications) if name[0].isupper()]


def look(network: str, image_size: int) -> str:
    """ "taken", or the line in which the pre-flight refuses a network."""
    flags = (f"--student={network}", f"--num_classes={CLASSES}", f"--image_size={image_size}")
    done = run("qkd_tf.preflight", *flags)
    return last_line(done).removeprefix("error: ") if done.returncode else TAKEN


def run(module: str, *flags: str) -> subprocess.CompletedProcess:
    """Runs a command in a process of its own: in one for all, networks pile up.

    Raises:
      SystemExit: it was killed, which says nothing of the network.
    """
    done = subprocess.run([sys.executable, "-m", module, *flags], capture_output=True, text=True)
    if done.returncode < 0:
        sys.exit(f"{module} {flags[0]} was killed by signal {-done.returncode}")
    return done


def last_line(done: subprocess.CompletedProcess) -> str:
    return (done.stderr.strip().splitlines() or ["ended without a line"])[-1]


def train(network: str, image_size: int, bits: int) -> dict:
    """Trains a few steps and exports.

    Returns:
      Of the verified file "passed", "bytes", "runtimes" (how many ran it) and "equal": the least share of integers and
      logits as predicted, in %, on any of them; or "error", the line with which a command ended.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "run"
        widths = (f"--weight_bits={bits}", f"--activation_bits={bits}", f"--image_size={image_size}")
        for module, *options in (("qkd_tf.train", f"--student={network}", *widths, *FEW_STEPS), ("tflite_export",)):
            done = run(module, *options, f"--run_dir={folder}")
            if done.returncode:
                return {"error": last_line(done)}
        verification = json.loads((folder / "export" / "verification.json").read_text())
    rows = [row for row in verification["runtimes"].values() if "not_run" not in row]
    equal = (share for row in rows for share in (row["codes"]["equal_codes"], row["integer_student"]["equal_logits"]))
    return {
        "passed": verification["passed"],
        "bytes": verification["file"]["bytes"],
        "equal": min(equal),
        "runtimes": len(rows),
    }


def rows(network: str, image_size: int, trains: bool, kept: dict) -> Iterator[dict]:
    """What becomes of a network: "network", "preflight", and of a file at each width what `train` says of it.

    The row is given each time something is added to it: a width of a large network takes an hour.

    Args:
      kept: such a row, or a part of one, that is there already.
    """
    found = dict(kept) or {"network": network, "preflight": look(network, image_size)}
    yield found
    for width, bits in WIDTHS.items():
        if trains and found["preflight"] == TAKEN and width not in found:
            found = {**found, width: train(network, image_size, bits)}
            yield found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smallest", action="store_true", help="the least of each family alone")
    parser.add_argument("--only", default=".*", help="a pattern of the whole name, such as 'keras.applications:Res.*'")
    parser.add_argument(
        "--image_size", type=int, default=96, help="pixels of a side, for rows not yet kept; some builders want 75"
    )
    parser.add_argument("--train", action="store_true", help="also a few steps at W8A8 and W4A4, to verified files")
    options = parser.parse_args(argv)
    found = [f"{library}.applications:{name}" for library in LIBRARIES for name in names(library)]
    for network in found:
        if options.smallest and network.partition(":")[2] not in SMALLEST or not re.fullmatch(options.only, network):
            continue
        file = RESULTS / f"{network.replace(':', '.')}.json"
        kept = json.loads(file.read_text()) if file.exists() else {}
        for row in rows(network, options.image_size, options.train, kept):
            kept_results.keep(file, row)
        print(network, flush=True)
    kept_results.print_table(RESULTS, HEADER, lambda row: [cells(row)])
    return int(not all(map(is_fine, kept_results.of_folder(RESULTS))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
