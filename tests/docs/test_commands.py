"""Every command in README and docs is run, in a folder that holds what the command names.

A block of commands is run from its first line to its last, as a reader does it. The folder has files of the very names
that pages give to what is the reader's own (PICTURES, RUN, RESNET8.h5); PLACEHOLDERS replaces the others.
TRIAL cuts a run short, by flags behind those of the page. What cannot run here stands in NOT_RUN and is parsed; a
training among it passes its pre-flight. Commands of README are run by `make test`, the others by `make commands`.
"""

import contextlib
import importlib
import io
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tf_keras
from PIL import Image
from tf_keras import layers

from qkd_tf.experiment import NetworkSpec, PixelNormalization
from qkd_tf.models import zoo
from tests.docs.pages import BLOCK, PAGES, ROOT, Command, blocks, command, other_program, recipe, spans
from tests.in_process import start, values_of
from tests.saved_flags import saved_flags

README = ROOT / "README.md"

# What stands in a page -> what stands there for us; in this order.
PLACEHOLDERS = {
    "RUN RUN …": "runs/a runs/b",
    "RUN_DIR …": "RUN",
    "RUN …": "RUN",
    "--flagfile=…": "--flagfile=configs/demo.flags",
    "--flagfile=FILE": "--flagfile=configs/demo.flags",
    "configs/NAME.flags": "configs/demo.flags",
    "/shared/runs/NAME": "runs/shared",
    "--student=…": "--student=nets:build",
    "--student=MODEL": "--student=nets:build",
    "--dataset=…": "--dataset=folder:PICTURES",
    "--dataset=folder:CIFAR100": "--dataset=folder:PICTURES --image_size=32",
    "--tflite=…": "--tflite=RUN/export/model.tflite",
    "--tflite=FILE": "--tflite=RUN/export/model.tflite",
    "--handoff=…": "--handoff=RUN/handoff",
    "--json=FILE": "--json=verification.json",
    "[--target=…]": "--target=phone",
    "[--runtimes=…]": "--runtimes=litert",
    "[--json=verification.json]": "--json=verification.json",
    "phone|microcontroller|ethos_u": "microcontroller",
    "--max_weight_bytes=N": "--max_weight_bytes=9000",
    "--image_size=224 …": "--image_size=224 --student=mobilenet_v2_0.25 --phases=full_precision,self_studying "
    "--epochs=1,1 --run_dir=runs/imagenet",
    " …": "",
}
# Module -> flags that it cannot do without and that a page which only names the command leaves out.
LEFT_OUT = {
    "qkd_tf.new": {"--student": "nets:build", "--dataset": "folder:PICTURES", "--output": "new.flags"},
    "qkd_tf.train": {"--run_dir": "runs/left_out", "--flagfile": "configs/demo.flags"},
    "qkd_tf.preflight": {"--student": "nets:build", "--dataset": "folder:PICTURES", "--image_size": "96"},
    "qkd_tf.sensitivity": {"--run_dir": "RUN"},
    "qkd_tf.ablation": {"--flagfile": "configs/demo.flags"},
    "tflite_export": {"--run_dir": "RUN"},
    "tflite_export.verify": {"--tflite": "RUN/export/model.tflite", "--handoff": "RUN/handoff"},
}
POSITIONAL = {"qkd_tf.compare": ["runs/a", "runs/b"]}
SHORT = ["--max_steps=1", "--max_eval_images=16", "--batch_size=8", "--learning_rates=1e-6", "--allow_weak_teacher"]
# Module -> flags behind those of a page, which make it short; a training's epochs are cut to 1 too.
TRIAL = {
    "qkd_tf.train": SHORT,
    "qkd_tf.ablation": [*SHORT, "--rows=qat", "--seeds=0"],
    "qkd_tf.sensitivity": ["--max_eval_images=16"],
    "qkd_tf.data.prepare": ["--data_dir=DIR"],  # never TFDS's own folder
}
# Module, or module and a part of its line -> why it does not run here.
NOT_RUN = {
    "benchmarks.designs": "minutes, and only worth something while nothing else runs",
    "benchmarks.profile": "minutes, and only worth something while nothing else runs",
    "benchmarks.file_digests": "ten minutes; tests/benchmarks/test_file_digests.py has its parts",
    "benchmarks.applications": "an hour; tests/benchmarks/test_applications.py has its parts",
    "benchmarks.onednn": "minutes, and only worth something while nothing else runs",
    "benchmarks.step_memory": "minutes; each phase in a process of its own",
    "benchmarks.bench": "an hour; tests/benchmarks has its parts",
    "benchmarks.defaults": "hours: tens of trainings on CIFAR-10",
    "benchmarks.soak": "tests/benchmarks/test_soak.py runs a sample",
    "benchmarks.flagship": "published weights, photographs; small in tests/tflite_export/proof/test_verification.py",
    "benchmarks.restart": "ten minutes; tests/qkd_tf/data/test_pipeline.py and test_trainer_resume.py have its parts",
    "benchmarks.integer_student": "a minute, and only worth something while nothing else runs",
    "benchmarks.large_jpegs": "photographs; tests/qkd_tf/data/test_pixels.py has its parts",
    "benchmarks.ethos_u_table": "Vela, minutes; tests/tflite_export/bundles/test_ethos_u_bundle.py",
    "benchmarks.boards_table": "TFLM's sources, QEMU; tests/tflite_export/bundles/test_micro_boards.py",
    "benchmarks.firmware_table": "TFLM's sources; tests/tflite_export/bundles/test_micro_boards.py holds it",
    "benchmarks.arm64": "QEMU, an hour; tests/tflite_export/test_arm64.py",
    "benchmarks.scale": "half an hour; tests/benchmarks/test_scale.py takes its steps",
    "benchmarks.calibration_alone": "published weights, photographs; tests/benchmarks/test_calibration_alone.py",
    "qkd_tf.train --strategy=multi_worker": "several machines; two workers in tests/qkd_tf/distillation",
    "qkd_tf.ablation --run_dir=runs/cifar10_mobilenet_v2": "no file holds a MobileNetV2 of one step: empty channels",
    "qkd_tf.doctor": "tests/qkd_tf/test_doctor.py runs it, in a process of its own",
}
# Lines that start another program -> who runs them.
OTHERS = {
    "make demo": "its recipe makes the run of these tests, below",
    "make PYTHON=python3.13 demo": "make demo",
    "make install": "sets up the environment that runs these tests",
    "make test": "runs this very test",
    "make commands": "runs this very test",
    "make widths": "tests; a sample of them in make test",
    "make slow": "tests",
    "make distributed": "tests; a sample of them in make test",
    "make fuzz": "a test; a sample of it in make test",
    "make models": "a test; a sample of it in make test",
    "make applications": "tests; a sample of them in make test",
    "pytest tests/test_drawn_models.py --drawn_models=500 --drawn_seed=N": "make models",
    "make lint": ".ci/run",
    ".ci/run": "the project's check",
    "make docs": "tests/docs hold its pages against the code",
    "make site": ".ci/run",
    "make notebooks": "tests; a check of them in make test",
    "python examples/patterns.py PICTURES": "tests/examples/test_patterns.py",
    "PYTHONPATH=. .venv/bin/python examples/motion.py": "tests/examples/test_motion.py",
    "make bench": "an hour; tests/benchmarks has its parts",
    "make networks": "hours; tests/benchmarks/test_networks_table.py",
    "make networks FLAGS='--dataset=imagenet2012 --data_dir=DIR'": "make networks",
    "make soak": "an hour; tests/benchmarks/test_soak.py runs a sample",
    "pytest --processor=cortex-a53 tests/tflite_export/inference/test_integer_reference.py --runxfail": "make arm64",
    "make micro TFLM=DIR": "TFLM's sources, QEMU, half an hour",
    "make arm64": "QEMU, an hour; tests/tflite_export/test_arm64.py",
    "make arm64 RUNS='RUN …'": "make arm64",
    "make micro": "needs a package of XMOS; tests/tflite_export/bundles/test_micro_bundle.py",
    "pytest tests/tflite_export/test_mutations.py": "make test",
    "pytest -s tests/qkd_tf/distillation/test_distribution.py": "make test",
    "pip install . -c constraints.txt": "the network",
    "pip install '.[micro]' -c constraints.txt": "the network",
    "pip install -r requirements-micro.txt": "the network",
    "pip install -r requirements-ethos_u.txt": "the network",
    "pip install keras": "the network",
    "python -m pip install -r requirements.txt -c constraints.txt": "the network",
    "python -m pip install 'tensorflow[and-cuda]' -c constraints.txt": "the network",
    "tensorboard --logdir=RUN/logs": "a server",
    "export TF_USE_LEGACY_KERAS=1": "a setting",
    "make -f tensorflow/lite/micro/tools/make/Makefile microlite": "TFLM's sources",
    "west config manifest.project-filter -- +tflite-micro": "Zephyr",
    "west update": "Zephyr",
    'idf.py add-dependency "espressif/esp-tflite-micro"': "ESP-IDF",
}
OTHERS_BEGIN = {  # beginning of a line -> the same
    "export TF_CONFIG=": "several machines; tests/qkd_tf/distillation/test_distribution.py",
    "g++ -std=c++17": "TFLM's sources; tests/tflite_export/bundles/test_micro_bundle.py compiles with `make micro`'s",
}
NAMES_ONLY = ("python -m …", "python -m …: …")


def units():
    """(page, commands that are one unit), each unit once, where it is first: README's pages go first."""
    found = {}
    for page in sorted(PAGES, key=lambda page: (page != README, page)):
        for lines in [*blocks(page), *([span] for span in spans(page))]:
            if unit := tuple(filter(None, map(completed, filter(None, map(command, lines))))):
                found.setdefault(unit, page)
    return [(page, unit) for unit, page in found.items()]


def completed(found):
    """A page's command without placeholders and with what it leaves out, as typed."""
    rest = found.rest
    if found.module == "qkd_tf.data.prepare":
        rest = rest.replace("NAME", "cifar10")
    for placeholder, value in PLACEHOLDERS.items():
        rest = rest.replace(placeholder, value)
    words = shlex.split(rest) or POSITIONAL.get(found.module, [])
    given = {word.partition("=")[0] for word in words}
    left_out = LEFT_OUT.get(found.module, {})
    if not given & {"--flagfile", "--dataset"} or (found.module == "qkd_tf.preflight" and "--flagfile" not in given):
        words += [f"{name}={value}" for name, value in left_out.items() if name not in given]
    return Command(found.module, shlex.join(words))


def reason(found):
    """Why a command does not run here; "" where it does."""
    for key, why in NOT_RUN.items():
        module, _, part = key.partition(" ")
        if found.module == module and part in found.rest:
            return why
    return ""


def trial(found):
    """A command's arguments and those that make it short."""
    arguments = [*shlex.split(found.rest), *TRIAL.get(found.module, [])]
    if found.module in ("qkd_tf.train", "qkd_tf.ablation"):
        values = values_of(found.module)
        with saved_flags(values):
            values([found.module, *arguments])
            arguments.append("--epochs=1")
            arguments += [f"--bits={values.bits[0]}"] if found.module == "qkd_tf.ablation" else []
    return arguments


NETS = '''
"""A newcomer's network."""

from tf_keras import Sequential, layers


def build(input_shape, num_classes):
    return Sequential(
        [
            layers.Input(input_shape),
            layers.Conv2D(8, 3, strides=4, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(num_classes),
        ]
    )
'''


def picture(rng, label, height, width):
    """Noise that is brighter in the channel of its class."""
    pixels = rng.integers(0, 80, (height, width, 3))
    pixels[..., label % 3] += 60 * (1 + label // 3 % 2)
    return pixels.astype(np.uint8)


def write_pictures(root):
    rng = np.random.default_rng(0)
    for split, number in (("train", 50), ("test", 4)):
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                shape = ((100, 100), (100, 130))[index % 2]
                Image.fromarray(picture(rng, label, *shape)).save(folder / f"{index}.png")


def write_cifar10(root):
    """CIFAR-10's archive, unpacked: 40 pictures a file."""
    rng, folder = np.random.default_rng(0), root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("\n".join(f"class{index}" for index in range(10)) + "\n")
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        labels = range(40)
        records = [bytes([i % 10]) + picture(rng, i % 10, 32, 32).transpose(2, 0, 1).tobytes() for i in labels]
        (folder / name).write_bytes(b"".join(records))


# Networks of weights files -> the mean and deviation of pixels that pages say they were trained under.
TRAINED_UNDER = {"resnet8": ((0.0,), (1.0,))}
OF_IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def write_weights(path):
    """Weights of chance, but with the BatchNorm statistics of pictures, without which activations are huge."""
    network = path.stem.lower()
    tf_keras.utils.set_random_seed(0)
    normalization = PixelNormalization(*TRAINED_UNDER.get(network, OF_IMAGENET))
    model = zoo.build(NetworkSpec(network, normalization), (32, 32, 3), 10)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    rng = np.random.default_rng(0)
    model(np.stack([picture(rng, label % 10, 32, 32) for label in range(40)]).astype(np.float32), training=True)
    if path.suffix == ".h5":
        model.save_weights(path)
    else:
        np.savez(path, **{weight.name.removesuffix(":0"): weight.numpy() for weight in model.weights})


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What all commands may read, and the run that `make demo` leaves, short; nothing writes here."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "nets.py").write_text(NETS)
    (folder / "configs").symlink_to(ROOT / "configs")
    write_pictures(folder / "PICTURES")
    write_cifar10(folder / "archive")
    with contextlib.chdir(folder):
        for line in recipe("demo"):
            found = command(line)
            start(found.module, trial(found))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda self, url: "archive")
            start("qkd_tf.data.prepare", ["cifar10", "--data_dir=DIR"])
    return folder


@pytest.fixture
def sandbox(shared, tmp_path, monkeypatch):
    """A fresh folder with what the commands name, the current one; processes that commands start are this one."""
    for name in ("nets.py", "configs", "PICTURES", "archive"):
        (tmp_path / name).symlink_to(shared / name)
    for name in ("RUN", "runs/demo", "runs/a", "runs/b", "runs/c"):
        shutil.copytree(shared / "runs" / "demo", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", lambda self, url: "archive")
    monkeypatch.setattr(subprocess, "run", in_this_process(subprocess.run))
    for name in ("results", "fidelity", "storage"):
        module = importlib.import_module(f"benchmarks.{name}_table")
        shutil.copytree(module.RESULTS, tmp_path / "benchmarks" / name)
        monkeypatch.setattr(module, "RESULTS", tmp_path / "benchmarks" / name)
    return tmp_path


def in_this_process(run):
    """subprocess.run, which starts commands of ours here."""

    def started(arguments, **options):
        if list(arguments[:2]) != [sys.executable, "-m"]:
            return run(arguments, **options)
        code, told = 0, io.StringIO()
        with contextlib.redirect_stderr(told):
            try:
                start(arguments[2], arguments[3:])
            except SystemExit as end:
                code = end.code
        lines = told.getvalue() + (code if isinstance(code, str) else "")
        return subprocess.CompletedProcess(arguments, bool(code), "", lines)

    return started


@pytest.fixture
def run_unit(shared, sandbox):
    """run_unit(unit): runs it, with the weights that it names, and with DIR where it does not make that itself."""

    def run(unit):
        for name in set(re.findall(r"RESNET\d+\.\w+", title(unit))):
            write_weights(sandbox / name)
        if not prepares(unit):
            (sandbox / "DIR").symlink_to(shared / "DIR")
        if "--flagfile=patterns.flags" in title(unit):  # an earlier command of the page writes it
            start("qkd_tf.new", ["--student=nets:build", "--dataset=folder:PICTURES", "--output=patterns.flags"])
        for found in unit:
            if reason(found):
                parse(found)
            else:
                start(found.module, trial(found))

    return run


def parse(found):
    """What can be said of a command that does not run here: its flags are flags; a training passes its pre-flight."""
    values = values_of(found.module)
    if values is not None and found.module.startswith("qkd_tf"):  # of others test_pages.py knows the flags' names
        with saved_flags(values):
            values([found.module, *shlex.split(found.rest)])
    if found.module == "qkd_tf.train":
        start("qkd_tf.preflight", shlex.split(found.rest))


def title(unit):
    return " && ".join(" ".join(found) for found in unit)


def marked(page, unit):
    return pytest.param(unit, id=f"{page.name}: {title(unit)}", marks=() if page == README else pytest.mark.commands)


def prepares(unit):
    return any(found.module == "qkd_tf.data.prepare" for found in unit)


def runs(unit):
    return not all(map(reason, unit))


UNITS = units()
OWN = Command("tflite_export", "--run_dir=runs/mine")  # the last line of README's "Your own model and pictures"


def of_the_tables(which):
    return pytest.mark.parametrize("unit", [marked(page, unit) for page, unit in UNITS if which(unit)])


@pytest.mark.slow
@of_the_tables(lambda unit: runs(unit) and not prepares(unit) and OWN not in unit)
def test_command_runs(run_unit, unit):
    run_unit(unit)


@pytest.mark.slow
@of_the_tables(lambda unit: runs(unit) and prepares(unit))
def test_data_set_is_prepared_and_trained_on(sandbox, run_unit, unit, request):
    if "FOLDER_OF_THE_TWO" in title(unit):
        archives = pathlib.Path(request.getfixturevalue("imagenet_dir")) / "manual"
        (sandbox / "FOLDER_OF_THE_TWO").symlink_to(archives)
    run_unit(unit)
    assert list((sandbox / "DIR").glob("*/*/dataset_info.json"))


@of_the_tables(lambda unit: not runs(unit))
@pytest.mark.slow
def test_command_that_cannot_run_here_is_parsed_and_a_training_passes_its_pre_flight(sandbox, unit):
    for found in unit:
        parse(found)


@pytest.mark.slow
def test_own_model_goes_from_a_fresh_folder_to_a_file_and_each_step_says_the_next(sandbox, capsys):
    """Nothing is changed but the number of epochs."""
    (unit,) = [unit for page, unit in UNITS if page == README and OWN in unit]
    assert [found.module for found in unit] == ["qkd_tf.new", "qkd_tf.train", "tflite_export"]
    for folder in ("RUN", "runs"):
        shutil.rmtree(folder)
    told = []
    for found in unit:
        start(found.module, [*shlex.split(found.rest), *["--epochs=3"] * (found.module == "qkd_tf.train")])
        told.append(capsys.readouterr().out)
    assert "next: python -m qkd_tf.train --flagfile=mine.flags" in told[0]
    assert "next: python -m tflite_export --run_dir=runs/mine" in told[1]
    assert "report: runs/mine/report.html" in told[2]
    assert json.loads((sandbox / "runs/mine/export/verification.json").read_text())["passed"]


@pytest.mark.commands
def test_network_of_the_tutorial_passes_its_pre_flight(sandbox, capsys):
    parts = BLOCK.findall((ROOT / "docs/own_pictures.md").read_text())
    source = "".join(part for part in parts if "from keras" in part or "def build" in part)
    (sandbox / "nets.py").unlink()
    (sandbox / "nets.py").write_text(textwrap.dedent(source))
    start("qkd_tf.preflight", ["--student=nets:build", "--dataset=folder:PICTURES", "--image_size=96"])
    assert "23,779 parameters" in capsys.readouterr().out


def test_python_of_the_signals_tutorial_is_that_of_its_example():
    """Which tests/examples/test_motion.py runs."""
    example = (ROOT / "examples" / "motion.py").read_text()
    parts = [textwrap.dedent(block) for block in BLOCK.findall((ROOT / "docs" / "signals.md").read_text())]
    python = [part for part in parts if " = " in part]
    assert len(python) == 4 and [part for part in python if part not in example] == []


def simple_network():
    """The mean of each channel as its class's logit: right on `picture`."""
    kernel = np.eye(3)[np.newaxis, np.newaxis]
    pixels = tf_keras.Input((32, 32, 3))
    x = layers.ReLU()(layers.Conv2D(3, 1, use_bias=False, name="conv")(layers.Rescaling(1 / 255)(pixels)))
    model = tf_keras.Model(pixels, layers.Dense(3, use_bias=False, name="logits")(layers.GlobalAveragePooling2D()(x)))
    model.set_weights([kernel, 8 * np.eye(3)])
    return model


@pytest.mark.slow
def test_python_of_the_readme_runs(sandbox):
    source = "".join(b for b in BLOCK.findall(README.read_text()) if re.search(r"import fit|= fit\(", b))
    rng, labels = np.random.default_rng(0), np.arange(150) % 3
    images = np.stack([picture(rng, label, 32, 32) for label in labels])
    simple_network().save("my_model.keras")
    scope = {"images": images, "labels": labels, "test_images": images[:30], "test_labels": labels[:30]}
    short = source.replace('bits="w4a8"', 'bits="w4a8", epochs=1')
    assert short != source
    exec(textwrap.dedent(short).replace("import keras ", "import tf_keras as keras "), scope)
    verification = json.loads((scope["run"].path / "export/verification.json").read_text())
    assert verification["passed"] and verification["judge"] == "tflm"


def test_every_line_that_starts_another_program_is_known():
    lines = {other_program(part) for page in PAGES for part in [*sum(blocks(page), []), *spans(page)]} - {""}
    unknown = [
        line for line in lines if line not in {*OTHERS, *NAMES_ONLY} and not line.startswith(tuple(OTHERS_BEGIN))
    ]
    assert unknown == []
    assert [line for line in {*OTHERS, *NAMES_ONLY} if line not in lines] == []


def test_tables_have_no_row_that_no_page_needs():
    pages = " ".join(f"{part} " for page in PAGES for part in [*sum(blocks(page), []), *spans(page)])
    assert [name for name in PLACEHOLDERS if name.strip("[]").split("=")[0] not in pages] == []
    commands = [found for _, unit in UNITS for found in unit]
    assert {key for key in NOT_RUN if not any(reason(found) == NOT_RUN[key] for found in commands)} == set()


def test_commands_of_a_page_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`qkd_tf.new --a=1` and `make it`\n\n    python -m qkd_tf.x --b \\\n        --c  # told\n    pip install y\n"
    )
    assert [command(line) for line in blocks(page)[0]] == [("qkd_tf.x", "--b --c"), None]
    assert [command(span) for span in spans(page)] == [("qkd_tf.new", "--a=1"), None]
    assert other_program(spans(page)[1]) == "make it" and other_program(blocks(page)[0][1]) == "pip install y"
    assert {unit for page, unit in UNITS if page.name == "results.md"} >= {(Command("benchmarks.results_table"),)}
