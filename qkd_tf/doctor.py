"""Checks whether this machine can train and export, and says what to fix: python -m qkd_tf.doctor [--data_dir=DIR].

It needs only the standard library to start, so a missing package gives one line and not a traceback. The last check
runs the ordinary commands, which calibrate and export a network with a layer at every bit width.
"""

if __name__ == "__main__":
    from qkd_tf.console import interrupts  # noqa: F401  Ctrl-C from here on is a line

# isort: split

import dataclasses
import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from qkd_tf.console.chatter import quiet, raise_threshold
from qkd_tf.console.invocation import spelled_as_called
from qkd_tf.console.parser import Parser
from qkd_tf.process import cpu

ROOT = pathlib.Path(__file__).parents[1]
PYTHONS = ((3, 11), (3, 13))  # the first and the last
MODULES = {  # package -> what is imported of it, where the names differ
    "absl-py": "absl",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "Jinja2": "jinja2",
    "MarkupSafe": "markupsafe",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "tensorflow-datasets": "tensorflow_datasets",
    "tensorflow-model-optimization": "tensorflow_model_optimization",
}
OPTIONAL = {"tflite-micro": "tflite_micro.python.tflite_micro.runtime"}
MICRO = ("tflite-micro", "bitarray", "PyYAML")
INSTALL = "python -m pip install -r requirements.txt -c constraints.txt"
INSTALL_MICRO = "python -m pip install -r requirements-micro.txt -c constraints.txt"
FREE_BYTES = 2 << 30  # a run of CIFAR-10 takes some 100 MB, one of ImageNet with its test images several GB
WIDTHS = range(2, 9)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line that the doctor prints.

    Attributes:
      ok: False if something must be fixed; None for what is only worth knowing.
      remedy: how to fix it, in one line.
    """

    ok: bool | None
    what: str
    remedy: str = ""

    def line(self) -> str:
        mark = {True: "ok  ", False: "FAIL", None: "note"}[self.ok]
        return f"{mark}  {self.what}" + (f"\n      -> {self.remedy}" if self.remedy else "")


def python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    first, last = (".".join(map(str, python)) for python in PYTHONS)
    remedy = f"install a Python of {first} to {last}; make PYTHON=python{last} demo"
    yield Finding(fits, f"Python {version}", "" if fits else remedy)
    if sys.platform == "win32":
        yield Finding(False, "Windows", "work in WSL2, the Linux of Windows: wsl --install")


def packages() -> Iterator[Finding]:
    """Whether each package that the code imports is there, can be imported, and has a required and tested version."""
    pinned = pins()
    for name, asked in requirements().items():
        install = INSTALL if (ROOT / "requirements.txt").exists() else f"python -m pip install '{name}{asked}'"
        try:
            version = importlib.metadata.version(name)
            importlib.import_module(MODULES.get(name, name))
            fits = importlib.import_module("packaging.specifiers").SpecifierSet(asked).contains(version, True)
        except Exception as error:  # a broken binary raises whatever it likes
            yield Finding(False, f"{name}: {first_line(error)}", install)
            continue
        tested = pinned.get(_plain(name), version)
        if not fits:
            yield Finding(False, f"{name} {version}, and {asked} is needed", install)
        elif version != tested:
            yield Finding(None, f"{name} {version}, tested with {tested}")
        else:
            yield Finding(True, f"{name} {version}")
    for name, module in OPTIONAL.items():
        try:
            importlib.import_module(module)
            yield Finding(True, f"{name} {importlib.metadata.version(name)}")
        except Exception as error:
            what = f"{name}: {first_line(error)}; exports are then checked on LiteRT only"
            yield Finding(None, what, micro_remedy())


def micro_remedy() -> str:
    """How TFLM is installed, where it can be."""
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        return "nothing: TFLM has wheels only for Linux on x86-64"
    return INSTALL_MICRO if (ROOT / "requirements-micro.txt").exists() else f"python -m pip install {' '.join(MICRO)}"


def requirements() -> dict[str, str]:
    """Package -> required versions, from requirements.txt or from the installed package's metadata."""
    file = ROOT / "requirements.txt"
    try:
        lines = file.read_text().splitlines() if file.exists() else importlib.metadata.requires("qkd_tf") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    found = (re.match(r"([\w.-]+)\s*([<>=!~][^;]*)(?!.*extra ==)", line) for line in lines)
    return {match[1]: match[2].strip() for match in found if match}


def pins() -> dict[str, str]:
    """Package, in lower case with dashes -> the tested version; only in a checkout of the sources."""
    file = ROOT / "constraints.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    return {_plain(name): version for name, equals, version in (line.partition("==") for line in lines) if equals}


def _plain(name: str) -> str:
    """A package's name, normalised for comparison."""
    return re.sub("[-_.]+", "-", name).lower()


def keras() -> Iterator[Finding]:
    """TFMOT needs Keras 2, which TensorFlow takes from tf_keras if told to before its first import."""
    package = importlib.import_module("tensorflow").keras.Model.__module__.split(".")[0]
    what = f"tf.keras is {package}, TF_USE_LEGACY_KERAS={os.environ.get('TF_USE_LEGACY_KERAS')}"
    legacy = package == "tf_keras"
    yield Finding(legacy, what, "" if legacy else "export TF_USE_LEGACY_KERAS=1")


def devices() -> Iterator[Finding]:
    config = importlib.import_module("tensorflow").config
    gpus = config.list_physical_devices("GPU")
    yield Finding(None, f"{os.cpu_count()} CPU cores, {len(gpus)} GPU" + ("" if len(gpus) == 1 else "s"))
    yield Finding(None, importlib.import_module("qkd_tf.process.accelerators").use(len(gpus)))
    if not gpus and pathlib.Path("/dev/nvidia0").exists():
        yield Finding(False, "there is an NVIDIA device, but TensorFlow sees no GPU", "see tensorflow.org/install/pip")


def disk() -> Iterator[Finding]:
    for folder in {pathlib.Path.cwd(), pathlib.Path(tempfile.gettempdir())}:
        free = shutil.disk_usage(folder).free
        enough = free >= FREE_BYTES
        remedy = (
            "" if enough else f"free some space: runs and their test images take up to {FREE_BYTES / 2**30:.0f} GiB"
        )
        yield Finding(enough, f"{free / 2**30:.1f} GiB free in {folder}", remedy)


def data(data_dir: str) -> Iterator[Finding]:
    """The sets that TFDS has prepared."""
    folder = pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or pathlib.Path.home() / "tensorflow_datasets")
    names = sorted({path.parents[1].name for path in folder.glob("*/*/dataset_info.json")})
    prepare = f"python -m qkd_tf.data.prepare cifar10 --data_dir={folder}"
    if names:
        yield Finding(True, f"data sets in {folder}: {', '.join(names)}")
    else:  # the default folder need not be there: digits and folders of pictures do without
        yield Finding(False if data_dir else None, f"no prepared data set in {folder}", prepare)


def chain() -> Iterator[Finding]:
    """Calibrates and exports a network with layers of 2 to 8 bits by the ordinary commands, on this processor."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder) / "run"
        rules = [f"--bits_rule=conv{width}=w{width}a{width}" for width in WIDTHS]
        train = ["--dataset=digits", "--student=qkd_tf.doctor:ladder", "--phases=", "--max_eval_images=32", *rules]
        for number, (module, *options) in enumerate((["qkd_tf.train", *train], ["tflite_export"]), 1):
            yield Finding(
                None, f"python -m {module} runs on a small network, {number} of 2; this can take minutes on a busy CPU"
            )
            done = subprocess.run(
                [sys.executable, "-m", module, f"--run_dir={run_dir}", *options],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.getenv("PYTHONPATH"))))},
            )
            if done.returncode:
                yield Finding(False, f"python -m {module}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
                return
        verification = json.loads((run_dir / "export" / "verification.json").read_text())
    for name, row in verification["runtimes"].items():
        if "not_run" in row:
            yield Finding(None, f"{name}: {row['not_run']}")
            continue
        equal, different = row["codes"]["equal_codes"], row["codes"]["first_different"]
        what = f"convert and run at {WIDTHS[0]} to {WIDTHS[-1]} bits on {cpu.told()}, {row['title']}: "
        what += f"{equal:.2f} % of {row['codes']['num_tensors']} tensors' integers as predicted"
        yield Finding(different is None, what + (f", first different: {different}" if different else ""))


def ladder(input_shape, num_classes: int):
    """A small float network with a convolution named after each bit width."""
    layers = importlib.import_module("tf_keras.layers")
    pixels = x = layers.Input(input_shape)
    x = layers.Rescaling(1 / 16, name="scaled")(x)
    for width in (8, *WIDTHS):
        name = f"conv{width}" if x.shape[-1] != input_shape[-1] else "stem"
        x = layers.Conv2D(8, 3, padding="same", activation="relu", name=name)(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return importlib.import_module("tf_keras").Model(pixels, layers.Dense(num_classes, name="logits")(x))


def first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def examine(checks: list[tuple[str, Callable[[], Iterator[Finding]]]]) -> bool:
    """Prints what each check finds; a check that needs what an earlier one missed says so in one line.

    Returns:
      Whether nothing must be fixed.
    """
    sound = True
    for name, check in checks:
        try:
            with quiet():
                for finding in check():
                    print(finding.line(), flush=True)
                    sound &= finding.ok is not False
        except Exception as error:
            print(Finding(False, f"{name}: {first_line(error)}").line(), flush=True)
            sound = False
    return sound


def main() -> None:
    parser = Parser(prog="python -m qkd_tf.doctor", description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", default="", help="Folder in which TFDS has prepared sets; default: that of TFDS.")
    data_dir = parser.parse_args().data_dir
    raise_threshold()
    checks = [python, packages, keras, devices, disk, lambda: data(data_dir), chain]
    names = ["Python", "packages", "Keras", "devices", "disk", "data", "chain"]
    if not examine(list(zip(names, checks, strict=True))):
        sys.exit("error: this machine is not ready; fix the lines marked FAIL")
    print("all is well")


if __name__ == "__main__":
    with spelled_as_called():
        main()
