"""The input pipeline alone, and what an epoch costs beyond its steps."""

import statistics
import time

import tensorflow as tf

from benchmarks import subjects
from qkd_tf.distillation.progress import DivergenceGuard, PhaseProgress

NUM_TURNS = 5


def images_a_second(num_train: int = 50_000) -> float:
    """Augmented training images of CIFAR's size a second, nothing else running."""
    splits = subjects.random_splits(num_train, 1)
    rates = []
    for epoch in range(NUM_TURNS):
        start = time.perf_counter()
        num_batches = sum(1 for _ in splits.train(epoch))
        rates.append(num_batches * subjects.BATCH / (time.perf_counter() - start))
    return statistics.median(rates)


def overhead(student: str, num_steps: int) -> float:
    """Share of an epoch, as the trainer runs it, that is not steps: 1 - steps / epoch, in turns with the bare steps."""
    splits = subjects.random_splits(num_steps * subjects.BATCH, 1)
    distiller = subjects.make_distiller("self_studying", subjects.quantized(student))
    distiller.compile()
    batch = subjects.random_batch()
    step = tf.function(distiller.train_step)
    distiller.fit(splits.train(0).take(2), verbose=0)
    step(batch)

    def bare_steps(number: int) -> float:
        start = time.perf_counter()
        for _ in range(number):
            next(iter(step(batch).values())).numpy()
        return time.perf_counter() - start

    shares = []
    for turn in range(NUM_TURNS):
        bare = bare_steps(num_steps // 2)
        callbacks = [DivergenceGuard("bench", turn), PhaseProgress("bench", turn, NUM_TURNS, num_steps)]
        start = time.perf_counter()
        distiller.fit(splits.train(turn), verbose=0, callbacks=callbacks)
        epoch = time.perf_counter() - start
        shares.append(1 - (bare + bare_steps(num_steps - num_steps // 2)) / epoch)
    return statistics.median(shares)
