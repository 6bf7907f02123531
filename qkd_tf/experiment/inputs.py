"""Checks that the networks, files and folders that an experiment names exist. No file is read."""

import pathlib

from qkd_tf.experiment.checks import require, require_known
from qkd_tf.experiment.class_folders import PREFIX, require_classes
from qkd_tf.experiment.data import DataSpec
from qkd_tf.experiment.experiment import Experiment
from qkd_tf.experiment.network import NetworkSpec
from qkd_tf.experiment.zoo import ZOO

FOLDERS, FILES = ("folder:", "npy:"), ("npz:",)  # beginnings of --dataset behind which there is a path


def require_networks(experiment: Experiment) -> None:
    """Raises ExperimentError for a network or a file of weights that is not there."""
    for network, role in ((experiment.student, "student"), (experiment.teacher, "teacher")):
        if network is not None:
            require_network(network, f"--{role}")
            if network.weights:
                require_weights(network.weights)


def require_network(network: NetworkSpec, flag: str) -> None:
    """Raises ExperimentError for a name that the zoo does not have, or a saved model that is not there."""
    if network.is_saved:
        require_model(network.name)
    if not network.is_own:
        is_folder = pathlib.Path(network.name, "saved_model.pb").is_file()
        require(not is_folder, f"{flag}={network.name} is a folder; write a SavedModel as {flag}=./{network.name}")
        require_known(network.name, ZOO, flag)


def require_model(name: str) -> None:
    """Raises ExperimentError where no model is saved."""
    require(
        pathlib.Path(name).exists(), f"no model at {name}; give a .keras or .h5 file, or the folder of a SavedModel"
    )


def require_weights(path: str) -> None:
    """Raises ExperimentError where there is no file of weights, or a checkpoint of TensorFlow."""
    require(
        not pathlib.Path(f"{path}.index").is_file(),
        f"weights {path} are a checkpoint of TensorFlow; give the file that model.save_weights('x.h5') writes",
    )
    require(pathlib.Path(path).is_file(), f"weights file {path} does not exist")


def require_set(spec: DataSpec) -> None:
    """Raises ExperimentError where --dataset names a file or folder that is not there, or --data_dir another one, or
    where the folders of a set of pictures cannot be splits and classes.
    """
    path = set_path(spec.name)
    require(
        not spec.data_dir or not spec.name.startswith((*FOLDERS, *FILES)),
        f"--data_dir={spec.data_dir} is only for TFDS data sets; leave it out, --dataset={spec.name} has its own path",
    )
    require(not spec.name.startswith(FOLDERS) or path.is_dir(), f"--dataset={spec.name}: {path} is not a folder")
    require(not spec.name.startswith(FILES) or path.is_file(), f"--dataset={spec.name}: {path} is not a file")
    if spec.name.startswith(PREFIX):
        require_classes(spec, path)


def set_path(name: str) -> pathlib.Path:
    """The path in a name of a data set, behind "folder:", "npy:" or "npz:"."""
    return pathlib.Path(name.partition(":")[2]).expanduser()
