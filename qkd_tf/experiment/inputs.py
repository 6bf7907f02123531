"""Checks that the networks, files and folders that an experiment names exist. No file is read."""

import importlib.util
import pathlib
import re

from qkd_tf.console.nearest import beside, meant_path, nearest
from qkd_tf.contract.origin import SAVED
from qkd_tf.experiment.checks import ExperimentError, require, require_known
from qkd_tf.experiment.class_folders import PREFIX, require_classes
from qkd_tf.experiment.data import DataSpec
from qkd_tf.experiment.experiment import Experiment
from qkd_tf.experiment.foreign import require_no_foreign_file, require_saved_model
from qkd_tf.experiment.network import NetworkSpec
from qkd_tf.experiment.zoo import ZOO

SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]+$")  # of a file; names of the zoo end in numbers: 1.O is meant as 1.0
WEIGHTS = (".weights.h5", ".h5", ".keras", ".npz")  # endings of files of weights
FINISHED = ".tflite"  # ending of what a network was converted to
NO_NAME = re.compile(r"[A-Z~./\\]|\w+:[~./\\]")  # beginnings of paths, which no data set's name has
FOLDERS, FILES = ("folder:", "npy:"), ("npz:",)  # beginnings of --dataset behind which there is a path


def require_networks(experiment: Experiment) -> None:
    """Raises ExperimentError if a network or a weights file does not exist."""
    for network, role in ((experiment.student, "student"), (experiment.teacher, "teacher")):
        if network is not None:
            require_network(network, f"--{role}")
            if network.weights:
                require_weights(network.weights)


def require_network(network: NetworkSpec, flag: str) -> None:
    """Raises ExperimentError if the zoo lacks the name, or the saved model does not exist, or is none of Keras."""
    require(
        not network.name.endswith(FINISHED),
        f"{flag}={network.name} is a finished file, which cannot be trained; give the Keras model that it was made "
        "from, a .keras or .h5 file",
    )
    if not network.is_builder and not network.is_in_memory:
        require_no_foreign_file(network.name, flag)
    if network.is_saved:
        require_model(network.name)
        require_saved_model(network.name, flag)
    if not network.is_own or _is_of_no_code(network.name):
        is_folder = pathlib.Path(network.name, "saved_model.pb").is_file()
        require(not is_folder, f"{flag}={network.name} is a folder; write a SavedModel as {flag}=./{network.name}")
        _require_no_path(network.name, flag)
        require_known(network.name, ZOO, flag)


def _is_of_no_code(name: str) -> bool:
    """Whether it is a "zoo:…" where no module zoo has code, so that a name of the zoo is meant."""
    if not name.startswith("zoo:"):
        return False
    found = importlib.util.find_spec("zoo")  # a folder without code has no origin
    return found is None or found.origin is None


def _require_no_path(name: str, flag: str) -> None:
    """Raises ExperimentError for a name that is not in the zoo but looks like a file or a file's name."""
    if name in ZOO:
        return
    path = pathlib.Path(name)
    instead = f"{path.stem}:FUNCTION, a function in it" if path.suffix == ".py" else "a model that Keras saved"
    require(not path.is_file(), f"{flag}={name} ends in neither .keras nor .h5; give {instead}")
    files = beside(path, _is_model)
    if SUFFIX.search(name) or nearest(name, (*files, *ZOO)) in files:
        near = nearest(name, files)
        module, _, builder = name.rpartition(".")
        hint = f"give package.module:builder, or a saved model; paths are relative to {pathlib.Path.cwd()}"
        hint = f"did you mean {module}:{builder}?" if _is_importable(module) else hint
        hint = f"did you mean {files[near]}?" if near else hint
        raise ExperimentError(f"{flag}={name}: there is no such file; {hint}")


def _is_importable(module: str) -> bool:
    """Whether Python finds a module's first package; it is not imported."""
    first = module.partition(".")[0]
    return first.isidentifier() and importlib.util.find_spec(first) is not None


def _is_model(path: pathlib.Path) -> bool:
    return path.name.endswith(SAVED)


def require_model(name: str) -> None:
    """Raises ExperimentError if no model is saved there."""
    path = pathlib.Path(name)
    if not path.exists():
        hint = meant_path(path, _is_model, "give a .keras or .h5 file, or the folder of a SavedModel")
        raise ExperimentError(f"no model at {name}; {hint}")


def require_weights(path: str) -> None:
    """Raises ExperimentError if there is no weights file of a known ending, or a TensorFlow checkpoint instead."""
    require(
        not pathlib.Path(f"{path}.index").is_file(),
        f"weights {path} are a checkpoint of TensorFlow; give the file that model.save_weights('x.h5') writes",
    )
    require(pathlib.Path(path).is_file(), f"weights file {path} does not exist")
    require(path.endswith(WEIGHTS), f"weights {path} have an unknown ending; known are {', '.join(WEIGHTS)}")


def require_set(spec: DataSpec) -> None:
    """Raises ExperimentError if --dataset names a missing file or folder, if --data_dir names another one, or if the
    folders of a picture data set cannot be splits and classes.
    """
    path = set_path(spec.name)
    if NO_NAME.match(spec.name) and not spec.name.startswith((*FOLDERS, *FILES)):
        require_no_path(spec.name)
    require(
        not spec.data_dir or not spec.name.startswith((*FOLDERS, *FILES)),
        f"--data_dir={spec.data_dir} is only for TFDS data sets; leave it out, --dataset={spec.name} has its own path",
    )
    is_folder = spec.name.startswith(FOLDERS)
    require(not is_folder or path.is_dir(), f"--dataset={spec.name}: {path} is not a folder; {_hint(spec.name, path)}")
    is_file = spec.name.startswith(FILES)
    require(not is_file or path.is_file(), f"--dataset={spec.name}: {path} is not a file; {_hint(spec.name, path)}")
    if spec.name.startswith(PREFIX):
        require_classes(spec, path)


def require_no_path(name: str) -> None:
    """Raises ExperimentError for a path that stands where a data set's name is expected."""
    path = re.sub(r"^(file://|\w+[:=])(?=[/~.](?!/))", "", name)  # file:///pictures, Folder:/pictures
    is_path = re.search(r"^(?!\w+://\w)(.*[/\\]|[~.])", path) or (name and pathlib.Path(name).is_dir())
    is_file = path.endswith(".npz")
    require(
        not is_file, f"--dataset={name} is not the name of a data set; if it is a file of arrays: --dataset=npz:{path}"
    )
    require(
        not is_path,
        f"--dataset={name} is not the name of a data set; if it is a folder of your own pictures: "
        f"--dataset=folder:{path}",
    )


def _hint(name: str, path: pathlib.Path) -> str:
    """What the path of a missing data set may have meant, or what to give."""
    prefix, is_folder = name.partition(":")[0] + ":", name.startswith(FOLDERS)
    fits = pathlib.Path.is_dir if is_folder else pathlib.Path.is_file
    return meant_path(path, fits, "give one that exists", prefix)


def set_path(name: str) -> pathlib.Path:
    """The path in a data set's name, after "folder:", "npy:" or "npz:"."""
    return pathlib.Path(name.partition(":")[2]).expanduser()
