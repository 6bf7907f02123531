import json
import pathlib
import subprocess

import pytest

from qkd_tf import ablation
from qkd_tf.experiment import ExperimentError
from qkd_tf.flags import experiment_from_flags
from tests.saved_flags import saved_flags

ROOT = pathlib.Path(__file__).parents[2]
PLAN = ["--run_dir=runs/plan", "--teacher=convnet_large", "--epochs=3,10,7", "--learning_rates=0.1,0.02,0.003"]
ARGUMENTS = ["ablation", "--student=convnet_small", "--dataset=digits", *PLAN]


@pytest.fixture
def experiment():
    """parse(*flags): the experiment of ARGUMENTS and these."""
    with saved_flags(ablation.FLAGS):

        def parse(*more):
            ablation.FLAGS([*ARGUMENTS, *more])
            return experiment_from_flags(ablation.FLAGS)

        yield parse


@pytest.mark.parametrize(
    "row, expected",
    [
        ("qat", [("self_studying", 20, 0.1)]),
        ("fixed_teacher", [("self_studying", 3, 0.1), ("tutoring", 17, 0.003)]),
        ("cs_tu", [("co_studying", 13, 0.02), ("tutoring", 7, 0.003)]),
        ("ss_cs", [("self_studying", 3, 0.1), ("co_studying", 17, 0.02)]),
        ("ss_cs_tu", [("self_studying", 3, 0.1), ("co_studying", 10, 0.02), ("tutoring", 7, 0.003)]),
    ],
)
def test_every_row_trains_equally_long(experiment, row, expected):
    assert ablation.schedule(row, experiment()) == expected


def test_phases_before_the_plan_stay(experiment):
    phases = "--phases=full_precision,self_studying,co_studying,tutoring"
    found = ablation.schedule("qat", experiment(phases, "--epochs=5,3,10,7", "--learning_rates=0.1"))
    assert found == [("full_precision", 5, 0.1), ("self_studying", 20, 0.1)]


def test_other_phases_are_refused_by_the_flag(experiment):
    with pytest.raises(ExperimentError, match="--phases=self_studying,tutoring must end in self_studying,co_studying"):
        ablation.schedule("qat", experiment("--phases=self_studying,tutoring", "--epochs=1,2", "--learning_rates=0.1"))


def test_widths_of_single_phases_are_refused(experiment):
    with pytest.raises(ExperimentError, match="^--phase_bits gives each phase its own bit widths, and the rows divide"):
        ablation.schedule("qat", experiment("--phase_bits=8,8,4"))


def test_rates_that_are_open_are_left_to_the_cells(tmp_path):
    without_rates = [flag for flag in ARGUMENTS if "learning_rates" not in flag]
    for flags, number in ((without_rates, 0), (ARGUMENTS, 1)):
        with saved_flags(ablation.FLAGS):
            ablation.FLAGS(flags)
            found = ablation.overrides("qat", (2, 2), 0, experiment_from_flags(ablation.FLAGS), tmp_path)
        assert sum("--learning_rates" in flag for flag in found) == number


def test_cell_is_the_flag_file_but_for_what_it_sets(experiment, tmp_path):
    commands = []

    def train(command, run_dir):
        commands.append((command, run_dir))
        return {"tflite_top1": 50.0}

    given = experiment(
        "--temperature=3",
        "--bits_rule=a=w2",
        "--bits_rule=b=w3",
        "--student_weights=far/away.npz",
        "--student_weights_mean=0",
        "--student_weights_std=1",
        "--data_dir=far",
    )
    (cell,) = ablation.run(given, [("fixed_teacher", "w2a3", 4)], tmp_path, train)
    ((command, run_dir),) = commands
    assert run_dir.as_posix() == "runs/plan/fixed_teacher_w2a3_seed4"
    ablation.FLAGS["bits_rule"].unparse()  # a repeated flag would add to what is there
    ablation.FLAGS(["train", *command])
    trained = experiment_from_flags(ablation.FLAGS)
    assert (trained.seed, trained.training.temperature) == (4, 3.0)
    assert (trained.quantization.weight_bits, trained.quantization.activation_bits) == (2, 3)
    assert trained.quantization.bits_rule == ("a=w2", "b=w3")
    assert [phase.name for phase in trained.training.phases] == ["self_studying", "tutoring"]
    assert trained.student.weights == "far/away.npz"
    assert "--student_weights=away.npz" in cell["flags"] and "far" not in json.dumps(cell)


def test_a_cell_that_is_there_is_not_run_again_and_one_of_another_experiment_is_refused(experiment, tmp_path):
    cells, calls = [("qat", "w2a2", 0), ("ss_cs_tu", "w2a2", 0)], []

    def train(command, run_dir):
        calls.append(run_dir.name)
        return {"tflite_top1": 50.0 + len(calls)}

    first = ablation.run(experiment(), cells[:1], tmp_path, train)
    both = ablation.run(experiment(), cells, tmp_path, train)
    assert sorted(ablation.cells_of(tmp_path), key=str) == sorted(both, key=str)
    assert both[:1] == first and calls == ["qat_w2a2_seed0", "ss_cs_tu_w2a2_seed0"]
    with pytest.raises(
        ExperimentError,
        match="qat_w2a2_seed0.json belongs to another .* differs in --temperature .not given there, 3.0 now.; give",
    ):
        ablation.run(experiment("--temperature=3"), cells, tmp_path, train)


def test_table_has_means_deviations_and_paired_differences():
    tops = {("qat", 0): 80.0, ("qat", 1): 82.0, ("ss_cs_tu", 0): 81.0, ("ss_cs_tu", 1): 85.0, ("ss_cs_tu", 2): 95.0}
    cells = [{"row": row, "bits": "w2a2", "seed": seed, "tflite_top1": top} for (row, seed), top in tops.items()]
    qat, full = ablation.table([*cells, {"row": "ss_cs", "bits": "w4a4", "seed": 0, "tflite_top1": 90.0}])[:2]
    assert (qat["mean"], qat["std"], qat["difference"]) == (81.0, pytest.approx(2**0.5), None)
    assert (full["mean"], full["seeds"]) == (87.0, [0, 1, 2])
    assert (full["difference"], full["difference_std"]) == (2.0, pytest.approx(2**0.5))
    assert ablation.markdown([qat, full]).splitlines()[2:] == [
        "| W2A2 | qat | 2 | 81.00 ± 1.41 |  |",
        "| W2A2 | ss_cs_tu | 3 | 87.00 ± 7.21 | +2.00 ± 1.41 |",
    ]


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--rows=tutor", "unknown --rows 'tutor'; known are qat, "),
        ("--bits=a4", "--bits=a4 is not understood; write w4a8"),
        ("--seeds=0,x", "--seeds=0,x: give whole numbers"),
        ("--phases=self_studying", "--phases"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_is_trained(flag, message, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: pytest.fail("started"))
    with saved_flags(ablation.FLAGS), pytest.raises(SystemExit) as end:
        ablation.FLAGS([*ARGUMENTS, flag])
        ablation.main(["ablation"])
    assert str(end.value).startswith("error: ") and message in str(end.value)


@pytest.mark.parametrize(
    "campaign, command",
    [
        (
            "cifar10_resnet8",
            (
                "--flagfile=configs/cifar10_resnet8_w2a2.flags --student_weights=mlperf_resnet8.h5"
                " --teacher_weights=resnet20.npz --mixed_precision=bfloat16"
            ),
        ),
        (
            "cifar10_resnet20",
            (
                "--flagfile=configs/cifar10_resnet20_published_w3a3.flags --student_weights=resnet20.npz"
                " --teacher_weights=resnet56.npz --mixed_precision=bfloat16"
            ),
        ),
        (
            "cifar10_mobilenet_v2",
            (
                "--flagfile=configs/cifar10_mbv2_0.25_w6a6.flags --student_weights=student.keras"
                " --student_weights_mean=128 --student_weights_std=64 --teacher_weights=resnet20.npz"
                " --phases=self_studying,co_studying,tutoring --epochs=1,3,2 --learning_rates=0.01"
            ),
        ),
    ],
)
def test_cells_of_a_campaign_are_those_of_its_command(monkeypatch, campaign, command):
    """docs/results.md gives the command; a default that changes would make other experiments of it."""
    monkeypatch.chdir(ROOT)
    folder = ROOT / "results" / campaign
    cells = [(cell["row"], cell["bits"], cell["seed"]) for cell in ablation.cells_of(folder)]
    assert cells
    with saved_flags(ablation.FLAGS):
        ablation.FLAGS(["ablation", *command.split()])
        found = ablation.run(experiment_from_flags(ablation.FLAGS), cells, folder, train=None)
    assert len(found) == len(cells)
