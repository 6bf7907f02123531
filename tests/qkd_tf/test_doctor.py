import importlib.metadata
import platform
import shutil
import subprocess
import sys

import pytest
from packaging.specifiers import SpecifierSet

from qkd_tf import doctor
from qkd_tf.doctor import Finding
from qkd_tf.process import cpu


def test_requirements_are_ranges_that_hold_what_constraints_pin():
    asked, pins = doctor.requirements(), doctor.pins()
    assert pins["tensorflow"] == importlib.metadata.version("tensorflow")
    assert "tflite-micro" not in asked and len(asked) == 19
    for name, versions in asked.items():
        assert "==" not in versions and ">=" in versions, name
        assert pins[doctor._plain(name)] in SpecifierSet(versions), name


def test_requirements_of_an_installed_package_are_those_of_its_metadata(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    lines = ["numpy<3,>=2.1", "tf_keras<2.22,>=2.21", 'bitarray>=3; sys_platform == "linux" and extra == "micro"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert doctor.requirements() == {"numpy": "<3,>=2.1", "tf_keras": "<2.22,>=2.21"}
    assert doctor.pins() == {}
    assert [finding.ok for finding in doctor.packages()][:2] == [True, True]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["numpy<2", "no-such-package>=1"])
    old, missing, *_ = doctor.packages()
    assert (old.ok, old.remedy) == (False, "python -m pip install 'numpy<2'") and "<2 is needed" in old.what
    assert missing.remedy == "python -m pip install 'no-such-package>=1'"


def test_packages_of_this_machine_are_the_tested_ones():
    found = list(doctor.packages())
    assert [finding.what for finding in found if finding.ok is False] == []
    assert sum(finding.ok is True for finding in found) >= len(doctor.requirements())


def test_a_package_that_is_missing_or_of_another_version_is_told(monkeypatch):
    monkeypatch.setattr(doctor, "requirements", lambda: {"numpy": ">=0.1", "no-such-package": ">=1.0"})
    monkeypatch.setattr(doctor, "pins", lambda: {"numpy": "0.1"})
    monkeypatch.setattr(doctor, "OPTIONAL", {"absent": "absent.module"})
    other, missing, optional = doctor.packages()
    assert other.ok is None and other.what.endswith(", tested with 0.1")
    assert (
        missing.ok is False
        and "no-such-package" in missing.line()
        and "pip install -r requirements.txt" in missing.line()
    )
    assert optional.ok is None and "exports are then checked on LiteRT only" in optional.what


def test_python_of_another_version_is_told_with_the_line_that_mends_it(monkeypatch):
    monkeypatch.setattr(doctor, "PYTHONS", ((3, 98), (3, 99)))
    (finding,) = doctor.python()
    assert finding.ok is False and "a Python of 3.98 to 3.99; make PYTHON=python3.99 demo" in finding.line()


def test_windows_is_told_where_to_work(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    python, windows = doctor.python()
    assert python.ok and windows.ok is False and "WSL2" in windows.remedy


@pytest.mark.parametrize("system, machine", [("darwin", "arm64"), ("linux", "aarch64")])
def test_tflm_is_not_asked_for_where_it_has_no_wheel(monkeypatch, system, machine):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert "only for Linux on x86-64" in doctor.micro_remedy()


def test_a_full_disk_is_told(monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert {finding.ok for finding in doctor.disk()} == {False}
    assert all("1.0 GiB free" in finding.line() and "free some space" in finding.line() for finding in doctor.disk())


def test_data_folder_is_listed_and_one_without_a_set_is_an_error_only_if_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))
    assert [finding.ok for finding in doctor.data("")] == [None]
    (finding,) = doctor.data(str(tmp_path))
    assert finding.ok is False and f"--data_dir={tmp_path}" in finding.remedy
    version = tmp_path / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    (version / "dataset_info.json").touch()
    assert list(doctor.data(str(tmp_path))) == [Finding(True, f"data sets in {tmp_path}: cifar10")]


def test_a_check_that_breaks_is_a_line_and_the_others_go_on(capsys):
    def broken():
        yield Finding(True, "begun")
        raise RuntimeError("no device\nand a second line")

    sound = doctor.examine([("devices", broken), ("disk", lambda: iter([Finding(None, "so it is", "mend")]))])
    assert not sound
    expected = ["ok    begun", "FAIL  devices: RuntimeError: no device", "note  so it is", "      -> mend"]
    assert capsys.readouterr().out.splitlines() == expected


def test_ladder_has_a_layer_of_every_width():
    names = {layer.name for layer in doctor.ladder((8, 8, 1), 10).layers}
    assert {"stem", *(f"conv{width}" for width in range(2, 9)), "logits"} <= names


@pytest.mark.slow
def test_ordinary_commands_calibrate_and_export_a_layer_of_every_width(monkeypatch):
    monkeypatch.setattr(cpu, "told", lambda: "ARM64 with dot product (Raspberry Pi 5)")
    told, found = [], []
    for finding in doctor.chain():
        (told if finding.ok is None else found).append(finding)
    assert [finding.what.split(" runs ")[0] for finding in told] == [
        "python -m qkd_tf.train",  # each before it runs, which takes long
        "python -m tflite_export",
    ]
    assert [finding.ok for finding in found] == [True] * 3
    assert all("at 2 to 8 bits on ARM64 with dot product (Raspberry Pi 5), " in finding.what for finding in found)
    assert all("100.00 % of 11 tensors" in finding.what for finding in found)


def test_what_takes_long_is_told_before_it_runs(monkeypatch):
    def run(*_, **__):
        raise AssertionError("it runs before it is told")

    monkeypatch.setattr(doctor.subprocess, "run", run)
    assert next(doctor.chain()).line().startswith("note  python -m qkd_tf.train runs on a small network, 1 of 2")


def test_all_checks_in_order(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(doctor, "chain", lambda: iter([Finding(True, "chain")]))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["doctor"])
    doctor.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"ok    Python 3.{sys.version_info[1]}.") and lines[-2:] == [
        "ok    chain",
        "all is well",
    ]
    monkeypatch.setattr(doctor, "chain", lambda: iter([Finding(False, "chain")]))
    with pytest.raises(SystemExit, match="this machine is not ready"):
        doctor.main()


@pytest.mark.parametrize("options, message", [(["--data_dir"], "expected one argument"), (["--what"], "unrecognized")])
def test_unknown_options_are_one_line(options, message):
    done = subprocess.run([sys.executable, "-m", "qkd_tf.doctor", *options], capture_output=True, text=True)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
