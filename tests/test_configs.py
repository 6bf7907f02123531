"""Every config is an experiment that would start."""

import pathlib
import re

import pytest

from qkd_tf import flags
from qkd_tf.experiment import require_network
from tests.in_process import start
from tests.saved_flags import saved_flags

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.flags"))


def name_of(path):
    """Below configs/, as "paper/NAME"."""
    return str(path.relative_to(ROOT / "configs").with_suffix(""))


@pytest.fixture
def parse(monkeypatch):
    monkeypatch.chdir(ROOT)  # a config may build on another
    with saved_flags():

        def parse(path, more=()):
            flags.FLAGS(["train", f"--flagfile={path}", *more])
            return flags.experiment_from_flags()

        yield parse


def test_there_are_configs():
    assert "demo" in [path.stem for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_config_is_an_experiment_of_networks_that_exist(parse, path):
    experiment = parse(path)
    assert pathlib.PurePath(experiment.run_dir) == pathlib.PurePath("runs") / name_of(path)
    for network in filter(None, (experiment.student, experiment.teacher)):
        require_network(network, "--student")


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_header_gives_the_command_that_runs_this_very_file(path):
    header = "".join(line for line in path.read_text().splitlines(True) if line.startswith("#"))
    assert re.search(rf"python -m qkd_tf\.train --flagfile=configs/{re.escape(name_of(path))}\.flags", header)


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_no_flag_is_given_twice(path):
    names = [line.split("=")[0] for line in path.read_text().splitlines() if line.startswith("--")]
    assert len(names) == len(set(names))


MARKS = {"demo": (), "cifar10_resnet8_w2a2": (), "mbv2_w6a6": pytest.mark.slow}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=MARKS.get(name, pytest.mark.commands)) for name in map(name_of, CONFIGS)],
)
def test_pre_flight_needs_no_data(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "data").mkdir()
    in_memory = (ROOT / "configs" / f"{name}.flags").read_text().count("--dataset=digits")
    start("qkd_tf.preflight", [f"--flagfile=configs/{name}.flags", *([] if in_memory else ["--data_dir=data"])])
    told = capsys.readouterr().out
    assert ("python -m qkd_tf.data.prepare" in told) != in_memory
    assert ("networks are compared on noise, not on pictures" in told) != in_memory
    assert " computes: on 32 pictures outputs differ by" in told and "kernels at" in told
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "configs", tmp_path / "data"]  # nothing is written


TRIAL = re.compile(r"To try it in minutes:\n# +(--.*)\n")


@pytest.mark.parametrize("path", [p for p in CONFIGS if TRIAL.search(p.read_text())], ids=name_of)
def test_trial_in_the_header_is_the_same_experiment_cut_short(parse, path):
    whole = parse(path)
    trial = parse(path, TRIAL.search(path.read_text())[1].split())
    assert [phase.name for phase in trial.training.phases] == [phase.name for phase in whole.training.phases]
    assert {phase.epochs for phase in trial.training.phases} == {1}
    assert 0 < trial.data.max_steps < 10 and trial.run_dir != whole.run_dir


def test_there_are_trials():
    assert sum(bool(TRIAL.search(path.read_text())) for path in CONFIGS) == 12
