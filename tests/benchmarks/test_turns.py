import pytest

from benchmarks import bench, subjects, turns


def test_kinds_take_turns_and_the_first_call_of_each_is_left_out(monkeypatch):
    calls, clock = [], iter(range(1000))
    monkeypatch.setattr(turns.time, "perf_counter", lambda: float(next(clock)))
    kinds = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    medians = turns.measure(kinds, num_turns=2, calls_a_turn=3)
    assert "".join(calls) == "aaaabbbb" * 2
    assert medians == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_ratio_is_of_the_same_turn_so_that_a_slow_one_does_not_count():
    medians = {"ours": [2.0, 40.0, 2.0], "float": [1.0, 20.0, 1.0], "teacher": [1.0, 20.0, 3.0]}
    assert turns.ratio(medians, "ours", "float") == 2.0
    assert turns.ratio(medians, "ours", "float", "teacher") == 1.0


def test_every_network_of_the_bench_is_one_of_the_zoo():
    names = {*subjects.PAIRS, *subjects.PAIRS.values(), *bench.FILES, *bench.EPOCH_STEPS}
    assert names <= set(subjects.zoo.BUILDERS)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["self_studying", "full_precision"])
def test_step_of_the_bench_trains(phase, monkeypatch):
    monkeypatch.setattr(subjects, "BATCH", 4)
    make = subjects.quantized if phase == "self_studying" else subjects.build
    model = make("convnet_small")
    before = [v.numpy().copy() for v in model.trainable_variables]
    subjects.make_distiller(phase, model).train_step(subjects.random_batch())
    assert any((v.numpy() != old).any() for v, old in zip(model.trainable_variables, before, strict=True))
