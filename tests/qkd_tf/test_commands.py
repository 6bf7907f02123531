"""Console scripts are the modules that `python -m` runs, from whatever folder."""

import pathlib
import subprocess
import sys
import tomllib

from qkd_tf import commands
from qkd_tf.console import scripts

ROOT = pathlib.Path(__file__).parents[2]


def test_scripts_of_the_package_are_the_rows_of_the_table():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == dict.fromkeys(commands.COMMANDS, "qkd_tf.commands:main")
    for row in commands.COMMANDS.values():
        path = ROOT / row.module.replace(".", "/")
        source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        first, *_ = [line for line in source.read_text().splitlines() if "import " in line]
        assert "from qkd_tf.console import interrupts" in first, row.module


def test_overview_is_a_line_a_command():
    done = subprocess.run([sys.executable, "-m", "qkd_tf"], cwd=ROOT, capture_output=True, text=True, check=True)
    _, how, _, *lines = done.stdout.splitlines()
    assert "-m qkd_tf.doctor" in how
    assert [line.split()[:2] for line in lines] == [[name, row.module] for name, row in commands.COMMANDS.items()]
    assert max(map(len, lines)) <= 120


def test_script_runs_its_module_with_the_current_folder_in_the_path(tmp_path, monkeypatch, capsys):
    (tmp_path / "somewhere.py").write_text(
        "import sys\nif __name__ == '__main__':\n    print(sys.argv[1:], sys.path[0])\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["/usr/bin/qkd-train", "--seed=3"])
    monkeypatch.setitem(commands.COMMANDS, "qkd-train", scripts.Command("somewhere", ""))
    commands.main()
    assert capsys.readouterr().out == f"['--seed=3'] {tmp_path}\n"
