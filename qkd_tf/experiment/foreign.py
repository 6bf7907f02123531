"""Files and folders that are given as a network and hold none that Keras saved, with what to give instead."""

import pathlib

from qkd_tf.contract.origin import SAVED
from qkd_tf.experiment.checks import ExperimentError

_SAVE = "a .keras or .h5 file"
_REBUILD = "build the network in Keras, and give its arrays as a .npz file by {flag}_weights"
# Ending -> what such a file is, and the remedy.
_FILES = {
    ".npz": "holds arrays and no network; give the network they belong to, and the file as its weights: {flag}=NAME "
    "{flag}_weights={name}",
    ".npy": "holds one array and no network; give the network, and all its arrays as a .npz file by {flag}_weights",
    **dict.fromkeys((".pt", ".pth"), f"is a PyTorch file, which cannot be read; {_REBUILD}"),
    ".safetensors": f"holds arrays and no network of Keras; {_REBUILD}",
    ".onnx": f"is a network in ONNX, which is not read; give the Keras model that it was made from, {_SAVE}, or "
    + _REBUILD,
    ".ckpt": f"is a checkpoint, weights without a network; give what model.save wrote, {_SAVE}",
    ".pb": f"is a graph without the rest of its model; give the folder of a SavedModel, or {_SAVE}",
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), f"is a pickle, which could run any code; give {_SAVE}"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz"), f"is an archive; unpack it, and give {_SAVE} that is in it"),
}


def require_no_foreign_file(name: str, flag: str) -> None:
    """Raises ExperimentError for a file that, by its ending, is no network of Keras, whether it exists or not."""
    for ending, told in _FILES.items():
        if name.lower().endswith(ending):
            raise ExperimentError(f"{flag}={name} {told.format(flag=flag, name=name)}")


def require_saved_model(name: str, flag: str) -> None:
    """Raises ExperimentError for a folder that is not a SavedModel; it names a model that lies in it."""
    path = pathlib.Path(name)
    if not path.is_dir() or any(path.glob("saved_model.pb*")):
        return
    models = sorted(entry for entry in path.iterdir() if entry.name.endswith(SAVED))
    hint = f"did you mean {models[0]}?" if models else f"give {_SAVE}, or the folder of a SavedModel"
    raise ExperimentError(f"{flag}={name} is a folder without saved_model.pb; {hint}")
