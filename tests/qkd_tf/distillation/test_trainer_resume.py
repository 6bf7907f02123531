"""Killed, stopped and moved runs go on to the bits of the uninterrupted one."""

import os
import re
import signal

import numpy as np
import pytest

from qkd_tf.distillation import trainer as trainer_module
from qkd_tf.distillation.progress import DivergenceGuard, PhaseProgress
from qkd_tf.distillation.trainer import Trainer
from qkd_tf.experiment import ExperimentError
from qkd_tf.process import random_state
from qkd_tf.process.stop_signals import Stopped
from qkd_tf.storage import durable
from tests.qkd_tf.distillation.runs import (
    Killed,
    all_values,
    assert_same_bits,
    checkpoints,
    kill_at_call,
    same_bits,
    script_validation,
    values,
    without_seconds,
)


@pytest.mark.parametrize(
    "owner, name, call",
    [
        (PhaseProgress, "on_train_batch_end", 8),  # co_studying, second batch of epoch 2
        (durable, "seal", 4),  # co_studying, epoch 2: the files of its checkpoint are written, their manifest is not
        (Trainer, "_restore_best_student", 2),  # co_studying is trained, its best epoch not yet restored
    ],
)
def test_killed_run_goes_on_to_the_bits_of_the_uninterrupted_one(
    tmp_path, monkeypatch, make_run, uninterrupted, owner, name, call
):
    results, expected = uninterrupted(make_run)
    with monkeypatch.context() as patch:
        kill_at_call(patch, owner, name, call)
        with pytest.raises(Killed):
            make_run(tmp_path / "run").run()
    resumed = make_run(tmp_path / "run", seed=50)  # its first weights are others: all must come from the checkpoint
    assert without_seconds(resumed.run()) == without_seconds(results)
    assert_same_bits(all_values(resumed), expected)


# Dropout in the teacher: its masks too have to be those of the uninterrupted run.
DROPPED, DROPOUT = (("co_studying", 2),), {"dropout": 0.5}


@pytest.fixture(scope="module")
def dropped(tmp_path_factory):
    """A whole run with Dropout, made once, and its results."""
    kept = []

    def get(make_run):
        if not kept:
            random_state.seed_everything(3, deterministic=False)
            trainer = make_run(tmp_path_factory.mktemp("dropped") / "run", DROPPED, **DROPOUT)
            kept.extend((trainer, trainer.run()))
        return kept

    return get


def assert_goes_on_to_the_same_bits(run_dir, make_run, dropped, **options):
    random_state.seed_everything(4, deterministic=False)
    resumed = make_run(run_dir, DROPPED, seed=50, **DROPOUT, **options)
    whole, results = dropped(make_run)
    assert without_seconds(resumed.run()) == without_seconds(results)
    assert_same_bits(all_values(resumed), all_values(whole))


@pytest.mark.slow
def test_dropout_is_at_work(tmp_path, make_run, dropped):
    dry = make_run(tmp_path / "dry", DROPPED)
    dry.run()
    whole, _ = dropped(make_run)
    assert not any(same_bits(values(dry._teacher), values(whole._teacher)))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 2}], ids=["a step", "two steps an execution"])
def test_killed_run_goes_on_from_the_middle_of_an_epoch(tmp_path, capsys, monkeypatch, make_run, dropped, options):
    """Running losses too: the history of the epoch is the uninterrupted one's. A damaged checkpoint is passed over."""
    dropped(make_run)
    options = {"checkpoint_every_steps": 2, **options}
    with monkeypatch.context() as patch:
        kill_at_call(patch, DivergenceGuard, "on_train_batch_end", 4 if "steps_per_execution" in options else 6)
        with pytest.raises(Killed):
            random_state.seed_everything(3, deterministic=False)
            make_run(tmp_path / "run", DROPPED, **DROPOUT, **options).run()
    assert checkpoints(tmp_path / "run") == {"phase0_epoch1_step0", "phase0_epoch1_step2"}
    if "steps_per_execution" in options:
        path = tmp_path / "run" / "checkpoints" / "phase0_epoch1_step2" / "state.index"
        path.write_bytes(path.read_bytes()[:-9])
    assert_goes_on_to_the_same_bits(tmp_path / "run", make_run, dropped, **options)
    told = "state.index was changed after it was written: its SHA-256 differs; resuming from phase0_epoch1_step0"
    out = capsys.readouterr().out
    assert (told in out) == ("steps_per_execution" in options)
    step = "" if "steps_per_execution" in options else ", after step 2 of 3"
    assert re.findall("resumes .*", out.replace(told, "")) == [f"resumes co_studying at epoch 2 of 2{step}"]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 6], ids=["first", "last of an epoch"])
def test_signal_is_obeyed_at_the_end_of_the_step_and_the_run_goes_on_from_there(
    tmp_path, monkeypatch, make_run, dropped, batch
):
    dropped(make_run)
    random_state.seed_everything(3, deterministic=False)
    stopped = make_run(tmp_path / "run", DROPPED, **DROPOUT)
    original, batches = PhaseProgress.on_train_batch_end, []

    def signal_at(self, *args):
        original(self, *args)
        batches.append(args)
        if len(batches) == batch:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(PhaseProgress, "on_train_batch_end", signal_at)
        with pytest.raises(Stopped, match="SIGTERM"), stopped._place.stop:
            stopped.run()
    assert len(batches) == batch
    epoch, step = divmod(batch - 1, 3)
    assert max(checkpoints(tmp_path / "run")) == f"phase0_epoch{epoch}_step{step + 1}"
    assert_goes_on_to_the_same_bits(tmp_path / "run", make_run, dropped)


def test_signal_during_validation_waits_until_the_epoch_is_saved(tmp_path, monkeypatch, make_run):
    trainer = make_run(tmp_path / "run", (("self_studying", 2),))

    def predict_each(*_):
        os.kill(os.getpid(), signal.SIGINT)
        return {"student": np.eye(2)}, np.array([0, 1])

    monkeypatch.setattr(trainer_module, "predict_each", predict_each)
    with pytest.raises(Stopped, match="SIGINT"), trainer._place.stop:
        trainer.run()
    assert checkpoints(tmp_path / "run") == {"phase0_epoch1_step0"}


def test_checkpoint_with_numbers_that_are_not_finite_is_never_written(tmp_path, monkeypatch, make_run):
    trainer = make_run(tmp_path / "run", (("self_studying", 2),), checkpoint_every_steps=1)
    original = PhaseProgress.on_train_batch_end

    def spoil(self, batch, logs=None):
        original(self, batch, logs)
        if batch == 1:
            variable = trainer._student.model.trainable_variables[0]
            variable.assign(variable * np.nan)

    monkeypatch.setattr(PhaseProgress, "on_train_batch_end", spoil)
    with pytest.raises(ExperimentError, match="is no longer finite in phase self_studying, epoch 1, step 2;"):
        trainer.run()
    assert checkpoints(tmp_path / "run") == {"phase0_epoch0_step1"}


def test_error_is_the_last_that_is_said(tmp_path, monkeypatch, capsys, make_run):
    """A bar that is left open would be drawn again behind it."""
    trainer = make_run(tmp_path / "run", (("self_studying", 1),))
    kill_at_call(monkeypatch, DivergenceGuard, "on_train_batch_end", 2)
    with pytest.raises(Killed):
        trainer.run()
    assert capsys.readouterr().err.endswith("\n")


def test_disk_that_refuses_tensorboard_is_told_with_the_folder(tmp_path, make_run):
    trainer = make_run(tmp_path / "run", (("self_studying", 1),))
    trainer._place.folder.logs.write_text("no folder")
    with pytest.raises(OSError, match=f"{trainer._place.folder.logs} cannot be written: "):
        trainer.run()


@pytest.mark.slow
def test_finished_run_is_not_trained_again(tmp_path, monkeypatch, make_run):
    phases = (("self_studying", 1), ("tutoring", 1))
    first = make_run(tmp_path / "run", phases)
    results = first.run()
    monkeypatch.setattr(Trainer, "_run_phase", None)
    again = make_run(tmp_path / "run", phases, seed=50)
    assert again.run() == results
    assert_same_bits(all_values(again), all_values(first))


@pytest.mark.slow
def test_killed_run_goes_on_in_a_folder_that_was_moved(tmp_path, monkeypatch, make_run):
    phases = (("self_studying", 3),)
    whole = make_run(tmp_path / "whole", phases)
    whole.run()
    with monkeypatch.context() as patch:
        kill_at_call(patch, PhaseProgress, "on_train_batch_end", 8)
        with pytest.raises(Killed):
            make_run(tmp_path / "run", phases).run()
    (tmp_path / "run").rename(tmp_path / "moved")
    resumed = make_run(tmp_path / "moved", phases, seed=50)
    resumed.run()
    assert_same_bits(all_values(resumed), all_values(whole))


@pytest.mark.slow
def test_best_epoch_survives_a_kill_although_the_folder_is_named_another_way(
    tmp_path, monkeypatch, make_run, make_splits
):
    phases, splits = (("self_studying", 3),), make_splits()
    monkeypatch.chdir(tmp_path)
    seen = script_validation(monkeypatch, splits, [90.0, 50.0, 50.0])
    with monkeypatch.context() as patch:
        kill_at_call(patch, PhaseProgress, "on_train_batch_end", 5)
        with pytest.raises(Killed):
            make_run("run", phases, splits=splits).run()
    resumed = make_run(tmp_path / "run", phases, splits=splits)
    (result,) = resumed.run()
    assert result["best_epoch"] == 1
    assert_same_bits(values(resumed._student.model), seen[0])
