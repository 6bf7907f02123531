"""Imports go one way. The table says what a module may import of the project; a module without a row fails."""

import ast
import fnmatch
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
GRID = "qkd_tf.quantization.grid"
ARCHIVE, SAVED_MODEL = "qkd_tf.archive", "qkd_tf.saved_model"
ARITHMETIC = "qkd_tf.quantization.runtime_arithmetic"
EXPERIMENT = "qkd_tf.experiment"
DURABLE = "qkd_tf.durable"
LOCK = "qkd_tf.folder_lock"
COMMAND_LINE = "qkd_tf.command_line"
PORTIONS = "qkd_tf.portions"

# Module (first pattern that fits) -> patterns of the project's modules that it may import.
# "qkd_tf" alone is the package itself, that is its version.
ALLOWED = {
    # Bottom: nothing of the project.
    "qkd_tf": [],
    EXPERIMENT: [],
    GRID: [],
    ARITHMETIC: [],
    "qkd_tf.distillation.losses": [],
    "qkd_tf.distillation.phases": [],
    "qkd_tf.distillation.learning_rates": [],
    DURABLE: [],
    LOCK: [],
    "qkd_tf.disk_errors": [],
    "qkd_tf.stop_signals": [],
    "qkd_tf.random_state": [],
    "qkd_tf.borrowed_process": ["qkd_tf.random_state"],
    "qkd_tf.archive": [],
    "qkd_tf.saved_model": [ARCHIVE],
    # Flags and places.
    "qkd_tf.command_line": [],
    "qkd_tf.flags": [EXPERIMENT, COMMAND_LINE],
    "qkd_tf.run_folder": [EXPERIMENT, DURABLE, LOCK],
    "qkd_tf.page": [],
    "qkd_tf.chatter": [],
    "qkd_tf.quiet": ["qkd_tf.chatter"],
    "qkd_tf.checkpoints": [EXPERIMENT, DURABLE, "qkd_tf.disk_errors"],
    "qkd_tf.accelerators": [],
    "qkd_tf.distribution": [EXPERIMENT, ARCHIVE, "qkd_tf.accelerators"],
    # Images: what is stored, then what a batch is made of.
    "qkd_tf.data": ["qkd_tf.data.*"],
    "qkd_tf.data.pixels": [EXPERIMENT],
    "qkd_tf.data.source": [EXPERIMENT],
    "qkd_tf.data.looks": [DURABLE, "qkd_tf.data.pixels"],
    "qkd_tf.data.folder": [EXPERIMENT, "qkd_tf.data.looks", "qkd_tf.data.pixels", "qkd_tf.data.source"],
    "qkd_tf.data.mixing": [],
    "qkd_tf.data.given": [EXPERIMENT, "qkd_tf.data.mixing", "qkd_tf.data.pixels", "qkd_tf.data.source"],
    "qkd_tf.data.prepare": ["qkd_tf.quiet"],
    "qkd_tf.data.sources": [EXPERIMENT, "qkd_tf.data.*"],
    "qkd_tf.data.pipeline": [
        EXPERIMENT,
        "qkd_tf.data.mixing",
        "qkd_tf.data.pixels",
        "qkd_tf.data.source",
        "qkd_tf.data.sources",
    ],
    "qkd_tf.data.rereading": [
        EXPERIMENT,
        PORTIONS,
        "qkd_tf.data.pipeline",
        "qkd_tf.data.reading",
        "qkd_tf.data.sources",
    ],
    "qkd_tf.data.*": [EXPERIMENT, "qkd_tf.data.pixels", "qkd_tf.data.source"],
    "qkd_tf.evaluate": [],
    PORTIONS: [],
    # Networks: no quantization in sight.
    "qkd_tf.models.layers": [],
    "qkd_tf.models.grouped": [],
    "qkd_tf.models.activations": [],
    "qkd_tf.models.copier": [EXPERIMENT, "qkd_tf.models.grouped"],
    "qkd_tf.models.operations": ["qkd_tf.models.copier"],
    "qkd_tf.models.normalization": [EXPERIMENT, "qkd_tf.models.copier"],
    "qkd_tf.models.reading": [
        EXPERIMENT,
        "qkd_tf.models.activations",
        "qkd_tf.models.copier",
        "qkd_tf.models.normalization",
        "qkd_tf.models.operations",
    ],
    "qkd_tf.models.likeness": [
        EXPERIMENT,
        "qkd_tf.models.copier",
        "qkd_tf.models.normalization",
        "qkd_tf.models.reading",
    ],
    "qkd_tf.models.weights": [EXPERIMENT, ARCHIVE, SAVED_MODEL, "qkd_tf.models.copier", "qkd_tf.random_state"],
    "qkd_tf.models.own": [EXPERIMENT, ARCHIVE, SAVED_MODEL, "qkd_tf.models.copier", "qkd_tf.models.weights"],
    "qkd_tf.models.zoo": [EXPERIMENT, "qkd_tf.models.*"],
    "qkd_tf.models": [],
    "qkd_tf.models.*": [EXPERIMENT, "qkd_tf.models.layers"],
    "qkd_tf.networks": [EXPERIMENT, "qkd_tf.models", "qkd_tf.models.*", "qkd_tf.quantization.standard_form"],
    "qkd_tf.identity": ["qkd_tf", "qkd_tf.models.copier"],
    "qkd_tf.start": [EXPERIMENT, DURABLE, "qkd_tf.data", "qkd_tf.evaluate"],
    # Quantization, upwards from the grid.
    "qkd_tf.quantization": [],
    "qkd_tf.quantization.fake_quant": [GRID],
    "qkd_tf.quantization.quantizers": [GRID, "qkd_tf.quantization.fake_quant"],
    "qkd_tf.quantization.quantize_configs": ["qkd_tf.quantization.quantizers"],
    "qkd_tf.quantization.plan": [EXPERIMENT, GRID, ARITHMETIC, "qkd_tf.models.activations"],
    "qkd_tf.quantization.student_reading": [EXPERIMENT, "qkd_tf.models.*", "qkd_tf.quantization.plan"],
    "qkd_tf.quantization.standard_form": [
        EXPERIMENT,
        "qkd_tf.models.*",
        "qkd_tf.quantization.plan",
        "qkd_tf.quantization.student_reading",
    ],
    "qkd_tf.quantization.scheme": [
        EXPERIMENT,
        GRID,
        "qkd_tf.models.activations",
        "qkd_tf.models.grouped",
        "qkd_tf.quantization.plan",
        "qkd_tf.quantization.quantizers",
        "qkd_tf.quantization.quantize_configs",
    ],
    "qkd_tf.quantization.forward": [
        EXPERIMENT,
        "qkd_tf.models.grouped",
        "qkd_tf.quantization.plan",
        "qkd_tf.quantization.scheme",
    ],
    "qkd_tf.quantization.calibration": [
        EXPERIMENT,
        GRID,
        PORTIONS,
        "qkd_tf.quantization.plan",
        "qkd_tf.quantization.scheme",
    ],
    "qkd_tf.quantization.batch_norm": [PORTIONS, "qkd_tf.quantization.scheme"],
    "qkd_tf.quantization.equalization": ["qkd_tf.quantization.plan"],
    "qkd_tf.quantization.oscillation": [GRID, "qkd_tf.quantization.scheme"],
    "qkd_tf.quantization.integer_steps": [
        "qkd_tf.quantization.grid",
        "qkd_tf.quantization.plan",
        "qkd_tf.quantization.scheme",
    ],
    "qkd_tf.quantization.integer_student": [
        GRID,
        "qkd_tf.accelerators",
        ARITHMETIC,
        PORTIONS,
        "qkd_tf.models.activations",
        "qkd_tf.quantization.plan",
        "qkd_tf.quantization.scheme",
    ],
    "qkd_tf.quantization.integer_graph": [
        GRID,
        "qkd_tf.accelerators",
        ARITHMETIC,
        PORTIONS,
        "qkd_tf.quantization.integer_student",
        "qkd_tf.quantization.plan",
    ],
    # Distillation: what the optimizer treats apart is handed to it.
    "qkd_tf.distillation": [],
    "qkd_tf.distillation.collapse": [],
    "qkd_tf.distillation.progress": [EXPERIMENT, "qkd_tf.stop_signals"],
    "qkd_tf.distillation.mixed_precision": [EXPERIMENT],
    "qkd_tf.distillation.summaries": [GRID, "qkd_tf.disk_errors", "qkd_tf.quantization.scheme"],
    "qkd_tf.distillation.distiller": [
        "qkd_tf.distillation.losses",
        "qkd_tf.distillation.mixed_precision",
        "qkd_tf.distillation.phases",
    ],
    "qkd_tf.distillation.trainer": [
        EXPERIMENT,
        "qkd_tf.checkpoints",
        "qkd_tf.data",
        "qkd_tf.distribution",
        "qkd_tf.evaluate",
        "qkd_tf.random_state",
        "qkd_tf.run_folder",
        "qkd_tf.stop_signals",
        "qkd_tf.distillation.*",
        "qkd_tf.quantization.batch_norm",
        "qkd_tf.quantization.oscillation",
        "qkd_tf.quantization.scheme",
    ],
    # Top.
    "qkd_tf.handed_split": [DURABLE, "qkd_tf.data"],
    "qkd_tf.handoff": [
        EXPERIMENT,
        ARCHIVE,
        DURABLE,
        "qkd_tf.data",
        "qkd_tf.disk_errors",
        "qkd_tf.evaluate",
        "qkd_tf.handed_split",
        PORTIONS,
        "qkd_tf.run_folder",
        "qkd_tf.quantization.*",
    ],
    "qkd_tf.preflight": [
        "qkd_tf",
        "qkd_tf.quiet",
        EXPERIMENT,
        COMMAND_LINE,
        "qkd_tf.data",
        "qkd_tf.flags",
        "qkd_tf.handoff",
        "qkd_tf.networks",
        "qkd_tf.random_state",
        "qkd_tf.models.copier",
        "qkd_tf.quantization.plan",
        "qkd_tf.quantization.scheme",
        "qkd_tf.quantization.student_reading",
    ],
    "qkd_tf.diagnosis": [
        GRID,
        DURABLE,
        PORTIONS,
        "qkd_tf.run_folder",
        "qkd_tf.quantization.scheme",
    ],
    "qkd_tf.finished_runs": [EXPERIMENT],
    "qkd_tf.compare": [EXPERIMENT, COMMAND_LINE, DURABLE, "qkd_tf.finished_runs", "qkd_tf.page"],
    "qkd_tf.results": [
        "qkd_tf",
        EXPERIMENT,
        DURABLE,
        "qkd_tf.data",
        "qkd_tf.evaluate",
        "qkd_tf.run_folder",
        "qkd_tf.quantization.scheme",
    ],
    "qkd_tf.train": ["qkd_tf", "qkd_tf.*"],
    "qkd_tf.api": [
        "qkd_tf",
        "qkd_tf.borrowed_process",
        EXPERIMENT,
        DURABLE,
        "qkd_tf.data.given",
        "qkd_tf.flags",
        "qkd_tf.models.copier",
        "qkd_tf.stop_signals",
        "qkd_tf.train",
    ],
    "qkd_tf.ablation": [EXPERIMENT, COMMAND_LINE, DURABLE, "qkd_tf.flags", "qkd_tf.run_folder"],
    "qkd_tf.doctor": ["qkd_tf.chatter"],
    "qkd_tf.sensitivity": [
        "qkd_tf",
        "qkd_tf.quiet",
        EXPERIMENT,
        COMMAND_LINE,
        DURABLE,
        GRID,
        "qkd_tf.data",
        "qkd_tf.evaluate",
        "qkd_tf.flags",
        "qkd_tf.quantization.calibration",
        "qkd_tf.quantization.forward",
        "qkd_tf.quantization.standard_form",
        SAVED_MODEL,
    ],
    # The exporter: a folder on disk, how it is kept and read, the grid, the runtimes' arithmetic, the look of a
    # page and the version are all it knows of training. One module knows how a large test split is read again.
    "tflite_export": [],
    "tflite_export.test_split": [EXPERIMENT, DURABLE, "qkd_tf.data"],
    "tflite_export.*": [
        "qkd_tf",
        "qkd_tf.page",
        "qkd_tf.chatter",
        "qkd_tf.quiet",
        "qkd_tf.borrowed_process",
        COMMAND_LINE,
        GRID,
        ARITHMETIC,
        DURABLE,
        LOCK,
        ARCHIVE,
        PORTIONS,
        SAVED_MODEL,
        "tflite_export.*",
    ],
}
STANDARD_LIBRARY_ONLY = ["qkd_tf.chatter", EXPERIMENT, DURABLE, LOCK, "qkd_tf.stop_signals"]
NUMPY_ONLY = [GRID, ARITHMETIC]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(p): p for package in ("qkd_tf", "tflite_export") for p in sorted((ROOT / package).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in PATHS.items()}


def imports(tree):
    """Full names of what is imported: modules where the project has one of that name, else as written."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in PATHS else node.module for name in full}
    return found


IMPORTS = {name: imports(tree) for name, tree in TREES.items()}


def of_project(name):
    return {m for m in IMPORTS[name] if m.split(".")[0] in ("qkd_tf", "tflite_export")}


def fits(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@pytest.mark.parametrize("name", PATHS)
def test_module_imports_only_what_its_row_allows(name):
    row = next((ALLOWED[pattern] for pattern in ALLOWED if fnmatch.fnmatchcase(name, pattern)), None)
    assert row is not None, f"give {name} a row in ALLOWED"
    assert sorted(m for m in of_project(name) if not fits(m, row)) == []


def test_every_import_of_the_project_exists():
    missing = {(name, m) for name in PATHS for m in of_project(name) if m not in PATHS}
    assert missing == set()


def test_every_row_has_a_module():
    assert [pattern for pattern in ALLOWED if not any(fnmatch.fnmatchcase(name, pattern) for name in PATHS)] == []


def test_training_never_imports_the_exporter():
    assert [n for n in PATHS if n.startswith("qkd_tf") and any(m.startswith("tflite_export") for m in IMPORTS[n])] == []


def test_models_and_the_mechanism_of_distillation_never_import_quantization():
    mechanism = [f"qkd_tf.distillation.{name}" for name in ("losses", "phases", "distiller")]
    for name in PATHS:
        if name in mechanism or name.startswith("qkd_tf.models"):
            assert [m for m in reachable(name) if m.startswith("qkd_tf.quantization")] == [], name


def test_the_exporter_reaches_of_training_nothing_but_how_pictures_are_read():
    reached = {m for name in PATHS if name.startswith("tflite_export") for m in reachable(name)}
    of_training = ("qkd_tf.distillation", "qkd_tf.models", "qkd_tf.networks", "qkd_tf.train", "qkd_tf.quantization")
    allowed = {"qkd_tf.quantization", GRID, ARITHMETIC}
    assert [m for m in sorted(reached) if m.startswith(of_training) and m not in allowed] == []


def reachable(name, seen=()):
    """All modules of the project that importing `name` imports."""
    found = set(seen)
    for module in of_project(name) & PATHS.keys():
        if module not in found:
            found |= {module} | reachable(module, found | {module})
    return found


def test_there_are_no_cycles():
    assert [name for name in PATHS if name in reachable(name)] == []


@pytest.mark.parametrize("name", PATHS)
def test_there_are_no_imports_inside_functions(name):
    inside = [
        node.lineno
        for function in ast.walk(TREES[name])
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert inside == []


@pytest.mark.parametrize("name", STANDARD_LIBRARY_ONLY + NUMPY_ONLY)
def test_bottom_modules_need_nothing_heavy(name):
    outside = {m.split(".")[0] for m in IMPORTS[name]} - sys.stdlib_module_names
    assert outside <= ({"numpy"} if name in NUMPY_ONLY else set())
