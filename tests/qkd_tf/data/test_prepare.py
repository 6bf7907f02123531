import pathlib
import shutil

import pytest

from qkd_tf import data
from qkd_tf.data import prepare
from qkd_tf.experiment import DataSpec


@pytest.fixture
def archives(imagenet_dir):
    """Folder with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar."""
    return pathlib.Path(imagenet_dir) / "manual"


def start(name, *folders):
    prepare.main(
        [name, *(f"--{flag}={folder}" for flag, folder in zip(("data_dir", "manual_dir"), folders, strict=False))]
    )


def complaint(*arguments):
    with pytest.raises(SystemExit) as caught:
        start(*arguments)
    message = caught.value.code
    assert message.startswith("error: ") and "\n" not in message
    return message


def test_imagenets_archives_become_a_set_that_opens(tmp_path, archives, capsys):
    start("imagenet2012", tmp_path, archives)
    assert f"{tmp_path}/imagenet2012/5.1.0: train 40, validation 12" in capsys.readouterr().out
    source = data.open_source(DataSpec("imagenet2012", data_dir=str(tmp_path), image_size=224))
    assert source.test.num_examples == 12


def test_a_set_that_is_there_is_left_alone(tmp_path, archives):
    start("imagenet2012", tmp_path, archives)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.tfrecord*")}
    start("imagenet2012", tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.tfrecord*")} == before != {}


def test_a_mistake_is_one_line(tmp_path, archives):
    assert "unknown data set 'imagenet2013'" in complaint("imagenet2013", tmp_path)
    assert "ILSVRC2012_img_train.tar" in complaint("imagenet2012", tmp_path)
    (tmp_path / "part").mkdir()
    shutil.copy(archives / "ILSVRC2012_img_train.tar", tmp_path / "part")
    assert "ILSVRC2012_img_val.tar" in complaint("imagenet2012", tmp_path, tmp_path / "part")
    assert f"--manual_dir={tmp_path}/no is not a folder" in complaint("imagenet2012", tmp_path, tmp_path / "no")
