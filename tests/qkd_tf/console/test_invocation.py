"""What messages call the next command."""

import shutil

import pytest

from qkd_tf.console.invocation import Invocation, spelled_as_called

TRAIN = "next: python -m qkd_tf.train --flagfile=a.flags"


@pytest.fixture
def places(tmp_path):
    """An environment with a script, and another one with the same interpreter."""
    (tmp_path / "base").touch(mode=0o755)
    for name in ("python", "python3"):
        for folder in ("venv", "other"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).symlink_to(tmp_path / "base")
    (tmp_path / "venv" / "qkd-new").touch(mode=0o755)
    return tmp_path


@pytest.mark.parametrize(
    "words, on_path, expected",
    [
        (["python", "-m", "qkd_tf.new"], "venv", TRAIN),
        ([".venv/bin/python", "-m", "qkd_tf.new"], "venv", TRAIN),
        ([".venv/bin/python", "-m", "qkd_tf.new"], "other", TRAIN.replace("python", ".venv/bin/python")),
        (["python3", "-m", "qkd_tf.new"], None, TRAIN.replace("python", "python3")),
        (["/a b/python", "-m", "qkd_tf.new"], None, TRAIN.replace("python", "'/a b/python'")),
        (["{}/venv/python", "{}/venv/qkd-new"], "venv", "next: qkd-train --flagfile=a.flags"),
        (["x/python", ".venv/bin/qkd-new"], "other", "next: .venv/bin/qkd-train --flagfile=a.flags"),
        (["x/python", "-m", "qkd_tf.new", "--run_dir=runs/qkd-new"], None, TRAIN.replace("python", "x/python")),
    ],
)
def test_command_is_spelled_as_this_one_was_called(places, words, on_path, expected):
    words = [word.format(places) for word in words]
    path = str(places / str(on_path))
    found = Invocation.of(words, str(places / "venv" / "python3"), lambda name: shutil.which(name, path=path))
    assert found.spelled(TRAIN) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("python -m pip install x", "x/python -m pip install x"),
        ("run python -m tflite_export again; python -m qkd_tf.train.", "run e/qkd-export again; e/qkd-train."),
        ("python -m qkd_tf", "x/python -m qkd_tf"),
        ("python -m mine, .venv/bin/python -m qkd_tf.new", "python -m mine, .venv/bin/python -m qkd_tf.new"),
    ],
)
def test_only_commands_of_this_package_and_pip_are_spelled(text, expected):
    assert Invocation.of(["x/python", "e/qkd-new"], "", lambda _: None).spelled(text) == expected


def test_what_is_printed_and_the_last_line_are_spelled(monkeypatch, capsys):
    monkeypatch.setattr("sys.orig_argv", ["x/python", "e/qkd-new"])
    with pytest.raises(SystemExit) as end, spelled_as_called():
        print(TRAIN)
        raise SystemExit(f"error: {TRAIN}")
    assert capsys.readouterr().out == "next: e/qkd-train --flagfile=a.flags\n"
    assert end.value.code == "error: next: e/qkd-train --flagfile=a.flags"
