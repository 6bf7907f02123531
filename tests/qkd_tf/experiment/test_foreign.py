"""What is given as a network and is none of Keras."""

import pytest

from qkd_tf.experiment import ExperimentError
from qkd_tf.experiment.foreign import require_no_foreign_file, require_saved_model


@pytest.mark.parametrize(
    "name, told",
    [
        ("w.npz", "--teacher=w.npz holds arrays .* --teacher=NAME --teacher_weights=w.npz$"),
        ("a/W.NPY", "holds one array and no network; .* by --teacher_weights$"),
        ("net.pt", "is a PyTorch file"),
        ("net.pth", "is a PyTorch file"),
        ("net.safetensors", "holds arrays and no network of Keras"),
        ("net.onnx", "is a network in ONNX"),
        ("net.ckpt", "is a checkpoint"),
        ("my/saved_model.pb", "is a graph without .*; give the folder of a SavedModel"),
        ("net.pkl", "is a pickle"),
        ("net.tar.gz", "is an archive; unpack it"),
    ],
)
def test_file_of_another_kind_is_refused_by_its_ending(name, told):
    with pytest.raises(ExperimentError, match=told):
        require_no_foreign_file(name, "--teacher")


@pytest.mark.parametrize("name", ["resnet8", "net.keras", "net.h5", "./saved", "mobilenet_v2_1.0"])
def test_names_and_models_of_keras_pass(name):
    require_no_foreign_file(name, "--student")


def test_folder_is_a_saved_model_or_names_the_model_in_it(tmp_path):
    with pytest.raises(ExperimentError, match="is a folder without saved_model.pb; give a .keras or .h5 file, or"):
        require_saved_model(str(tmp_path), "--student")
    (tmp_path / "net.keras").touch()
    with pytest.raises(ExperimentError, match="is a folder without saved_model.pb; did you mean .*/net.keras[?]"):
        require_saved_model(str(tmp_path), "--student")
    (tmp_path / "saved_model.pb").touch()
    require_saved_model(str(tmp_path), "--student")
    require_saved_model(str(tmp_path / "net.keras"), "--student")
