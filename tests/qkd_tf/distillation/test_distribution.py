"""Several devices and machines: two replicas must train to the weights of one, whatever happens to a worker."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from tf_keras import layers

from qkd_tf.distillation.distribution import ONE_DEVICE, Distribution
from qkd_tf.distillation.strategies import STRATEGIES as MADE
from qkd_tf.distillation.strategies import start
from qkd_tf.experiment import STRATEGIES, ExperimentError

ROOT = pathlib.Path(__file__).parents[3]
REPLICAS = str(pathlib.Path(__file__).with_name("replicas.py"))
# Of the largest value of a variable. Sums are taken in another order, in float32; six steps amplify that.
TOLERANCE = 1e-4
# A checkpoint after each of four epochs.
COMMAND = (
    "--dataset=digits", "--student=convnet_small", "--student_pixel_mean=0", "--student_pixel_std=128",
    "--phases=self_studying", "--epochs=4", "--batch_size=64", "--max_steps=4", "--max_eval_images=64",
    "--interval_gradient_share=1",
)  # fmt: skip


def variables(folder):
    """Every number of the checkpoint behind the last epoch of a finished run, with optimizers, by its name there.

    But for running sums of metrics: each replica adds its own, sum and count alike.
    """
    of_the_epoch, _ = sorted((folder / "checkpoints").iterdir())  # the other one is that of the finished phase
    reader = tf.train.load_checkpoint(str(of_the_epoch / "state"))
    names = reader.get_variable_to_shape_map().keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {
        name: np.asarray(reader.get_tensor(name))
        for name in sorted(names)
        if not name.startswith(("save_counter", "metrics/"))
    }


def largest_difference(got, expected):
    """Of any variable, in shares of the largest value that it has."""
    assert got.keys() == expected.keys() and len(got) > 10
    differences = {
        name: np.abs(got[name].astype(np.float64) - value).max() / max(np.abs(value).max(), 1e-3)
        for name, value in expected.items()
    }
    name = max(differences, key=differences.get)
    print(f"largest difference: {differences[name]:.2g} of the largest value, in {name}")
    return differences[name]


def assert_same_history(got, expected):
    for row, wanted in zip(got[0]["history"], expected[0]["history"], strict=True):
        assert row.keys() == wanted.keys()
        for name in row.keys() - {"seconds"}:
            assert row[name] == pytest.approx(wanted[name], rel=TOLERANCE), name


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_workers(command, log, *only_the_second):
    """Starts `command` twice, as the two workers of a cluster on loopback.

    Args:
      only_the_second: further arguments for worker 1.

    Returns:
      The processes, whose output goes to LOG0 and LOG1, and their addresses.
    """
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    workers = []
    for index in range(2):
        config = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        environment = {**os.environ, "TF_CONFIG": config}
        with open(f"{log}{index}", "w") as output:
            workers.append(
                subprocess.Popen(
                    [*command, *only_the_second[: index * len(only_the_second)]],
                    env=environment,
                    cwd=ROOT,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    return workers, addresses


def finish(workers, log, seconds=300):
    """Exit codes; nothing is left running."""
    try:
        return [worker.wait(seconds) for worker in workers]
    finally:
        for index, worker in enumerate(workers):
            worker.kill()
            print(pathlib.Path(f"{log}{index}").read_text()[-3000:])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a run on one device, on two that are mirrored, and on two workers."""
    folder = tmp_path_factory.mktemp("replicas")
    subprocess.run([sys.executable, REPLICAS, "float32", folder, "default", "mirrored"], check=True, cwd=ROOT)
    workers, _ = start_workers([sys.executable, REPLICAS, "float32", folder, "multi_worker"], folder / "log")
    assert finish(workers, folder / "log") == [0, 0]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("run", ["mirrored", "multi_worker", "multi_worker_2"])
def test_two_replicas_train_to_the_weights_of_one_device(trained, run):
    assert largest_difference(variables(trained / run), variables(trained / "default")) < TOLERANCE
    results = {name: json.loads((trained / f"{name}.json").read_text()) for name in (run, "default")}
    assert_same_history(results[run], results["default"])


@pytest.mark.slow
def test_each_worker_ends_with_the_same_bits(trained):
    assert largest_difference(variables(trained / "multi_worker_2"), variables(trained / "multi_worker")) == 0


@pytest.mark.distributed
def test_a_scaled_loss_is_that_of_one_device(tmp_path):
    subprocess.run([sys.executable, REPLICAS, "float16", tmp_path, "default", "mirrored"], check=True, cwd=ROOT)
    got, expected = variables(tmp_path / "mirrored"), variables(tmp_path / "default")
    assert largest_difference(got, expected) < TOLERANCE


@pytest.mark.distributed
def test_replicas_leave_out_a_step_that_overflows_together(tmp_path):
    subprocess.run([sys.executable, REPLICAS, "overflow", tmp_path, "mirrored"], check=True, cwd=ROOT)
    assert 0 < int((tmp_path / "halved").read_text()) < 6, "of six steps some were left out, and some were not"
    assert all(np.all(np.isfinite(value)) for value in variables(tmp_path / "mirrored").values())


def command(folder):
    return [sys.executable, "-m", "qkd_tf.train", *COMMAND, f"--run_dir={folder}", "--strategy=multi_worker"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a run of two workers that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    workers, _ = start_workers(command(folder / "run"), folder / "log")
    assert finish(workers, folder / "log") == [0, 0]
    return folder / "run"


@pytest.mark.distributed
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_is_named_and_all_go_on_when_they_are_started_again(tmp_path, whole, victim):
    killed, log = tmp_path / "killed", tmp_path / "log"
    workers, addresses = start_workers(command(killed), log)
    deadline = time.monotonic() + 300
    while not (checkpoints := sorted((killed / "checkpoints").glob("phase?_epoch?_step?"))):
        assert time.monotonic() < deadline and all(worker.poll() is None for worker in workers)
        time.sleep(0.05)
    workers[victim].send_signal(signal.SIGKILL)
    other = 1 - victim
    assert finish(workers, log)[other] == 1
    output = pathlib.Path(f"{log}{other}").read_text()
    assert f"error: worker {victim} ({addresses[victim]}) was lost" in output and "Traceback" not in output
    assert checkpoints[-1].name < "phase0_epoch4", "it was killed too late to show anything"

    assert finish(start_workers(command(killed), log)[0], log) == [0, 0]
    assert largest_difference(variables(killed), variables(whole)) == 0
    handoffs = [sorted(path.name for path in (run / "handoff").iterdir()) for run in (killed, whole)]
    assert handoffs[0] == handoffs[1] and len(handoffs[0]) > 5


@pytest.mark.distributed
def test_workers_that_were_not_given_the_same_are_told_so(tmp_path):
    log = tmp_path / "log"
    workers, _ = start_workers(command(tmp_path / "run"), log, "--weight_bits=2")
    assert finish(workers, log) == [1, 1]
    for index in range(2):
        assert "error: the workers differ in their flags" in pathlib.Path(f"{log}{index}").read_text()
    assert not (tmp_path / "run").exists()


@pytest.mark.distributed
def test_a_port_that_is_taken_is_one_line():
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        worker = f"localhost:{taken.getsockname()[1]}"
        config = json.dumps({"cluster": {"worker": [worker]}, "task": {"type": "worker", "index": 0}})
        code = "from qkd_tf import experiment as e\nfrom qkd_tf.distillation import strategies\n"
        code += "try: strategies.start('multi_worker')\n"
        code += "except e.ExperimentError as error: print(error)"
        environment = {**os.environ, "TF_CONFIG": config}
        output = subprocess.check_output([sys.executable, "-c", code], env=environment, cwd=ROOT, text=True)
    assert worker in output and "whose port is free" in output and output.count("\n") == 1


def test_every_strategy_of_the_command_line_can_be_made():
    assert tuple(MADE) == STRATEGIES


def test_default_is_one_device_and_changes_nothing(chain, make_splits):
    devices, model, batches = start("default"), chain(layers.Flatten()), make_splits().calibration
    assert (devices.num_replicas, devices.is_chief) == (1, True)
    assert devices.replicated(model) is model and devices.divide({(0, 1): batches}.get) is batches
    devices.wait()


def test_a_batch_must_divide_among_the_replicas():
    devices = Distribution()
    devices.num_replicas = 3
    devices.require_divides(6)
    with pytest.raises(ExperimentError, match="--batch_size=8 .* 3 replicas; .* a multiple of 3"):
        devices.require_divides(8)


@pytest.mark.parametrize(
    "config, part",
    [
        (None, "--strategy=multi_worker needs TF_CONFIG"),
        ("workers", "TF_CONFIG=workers is not understood"),
        ('{"cluster": {}}', "it names no worker"),
        ('{"cluster": {"worker": ["localhost:1"]}}', "task_type"),
        ('{"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 5}}', "5 exceeds"),
    ],
)
def test_a_cluster_that_cannot_be_understood_is_one_line(monkeypatch, config, part):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ExperimentError) as caught:
        start("multi_worker")
    assert part in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_no_tpu_is_one_line(monkeypatch):
    """In a process of its own: looking for a TPU throws away all that TensorFlow has, half a minute's work here."""
    monkeypatch.delenv("TPU_NAME", raising=False)
    code = "from qkd_tf.distillation.strategies import start; start('tpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("qkd_tf.ExperimentError: --strategy=tpu finds no TPU named local")
    assert "TPU_NAME" in last


def test_errors_that_are_of_no_other_worker_pass():
    with pytest.raises(tf.errors.UnavailableError), ONE_DEVICE.naming_lost_workers():
        raise tf.errors.UnavailableError(None, None, "disk")
