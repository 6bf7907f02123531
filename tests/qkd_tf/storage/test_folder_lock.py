import subprocess
import sys

import pytest

from qkd_tf.storage.folder_lock import FolderInUseError, locked

HOLDER = """
import pathlib, sys, time
from qkd_tf.storage.folder_lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_is_refused_until_the_holder_is_dead_however_it_died(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FolderInUseError) as caught, locked(tmp_path):
            pytest.fail("two hold it")
        assert str(caught.value).startswith(f"{tmp_path} is in use by process {holder.pid}; wait")
    finally:
        holder.kill()
        holder.communicate()
    with locked(tmp_path):
        pass


def test_folder_is_made_and_free_again_behind_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locked(tmp_path / "a" / "run"):
            raise KeyError
    assert [path.name for path in (tmp_path / "a" / "run").iterdir()] == ["lock"]


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), locked(tmp_path / "file" / "run"):
        pass
