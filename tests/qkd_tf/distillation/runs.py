"""What the tests of `Trainer` share: its weights bit by bit, a kill at a chosen call, scripted validations."""

import numpy as np

from qkd_tf.distillation import trainer as trainer_module

PHASES = (("full_precision", 1), ("co_studying", 2), ("tutoring", 1))  # 3 + 6 + 3 batches


class Killed(BaseException):
    """Stands for a signal: nothing in the product catches it."""


def values(model):
    return [v.numpy() for v in model.variables]


def all_values(trainer):
    return [
        value for net in (trainer._student.plain, trainer._student.model, trainer._teacher) for value in values(net)
    ]


def assert_same_bits(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def same_bits(got, expected):
    return [np.array_equal(a, b) for a, b in zip(got, expected, strict=True)]


def without_seconds(results):
    return [{**r, "seconds": 0, "history": [{**row, "seconds": 0} for row in r["history"]]} for r in results]


def kill_at_call(monkeypatch, owner, name, number):
    """Replaces `owner.name` by one that raises Killed at its call of that number."""
    original, calls = getattr(owner, name), []

    def dying(*args, **kwargs):
        calls.append(name)
        if len(calls) == number:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, dying)


def checkpoints(run_dir):
    return {folder.name for folder in (run_dir / "checkpoints").iterdir()}


def script_validation(monkeypatch, splits, scores):
    """Makes the student's top-1 on validation what `scores` says; returns the weights seen at each."""
    seen, left = [], list(scores)
    labels = np.concatenate([labels for _, labels in splits.validation])

    def scripted(models, batches):
        logits = {role: np.zeros([1, 2]) for role in models}
        if batches is splits.test:
            return logits, np.full_like(labels, 12.5, float)
        assert batches is splits.validation
        seen.append(values(models["student"]))
        return logits, np.full_like(labels, left.pop(0), float)

    monkeypatch.setattr(trainer_module, "predict_each", scripted)
    monkeypatch.setattr(trainer_module, "top1_of", lambda logits, scores: float(scores[0]))
    return seen
