"""The input pipeline alone, and what an epoch costs beyond its steps."""

import os
import statistics
import time

from benchmarks import subjects
from qkd_tf.distillation.progress import DivergenceGuard, PhaseProgress

NUM_TURNS = 3


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
    """Share of an epoch, as the trainer runs it, that is not steps.

    That is the time outside of Keras' training function (callbacks, metrics, set-up of the epoch), and the processor
    time that the input pipeline takes from the steps, by the number of processors.
    """
    splits = subjects.random_splits(num_steps * subjects.BATCH, 1)
    distiller = subjects.make_distiller("self_studying", subjects.quantized(student))
    distiller.compile()
    distiller.fit(splits.train(0).take(2), verbose=0)
    train_function, in_steps = distiller.train_function, []

    def timed(iterator):
        start = time.perf_counter()
        logs = train_function(iterator)
        logs["student_loss"].numpy()
        in_steps.append(time.perf_counter() - start)
        return logs

    distiller.train_function = timed
    shares = []
    for turn in range(NUM_TURNS):
        start = time.process_time()
        for _ in splits.train(turn):
            pass
        input_seconds = (time.process_time() - start) / os.cpu_count()
        in_steps.clear()
        callbacks = [DivergenceGuard("bench", turn), PhaseProgress("bench", 1, num_steps)]
        start = time.perf_counter()
        distiller.fit(splits.train(turn), verbose=0, callbacks=callbacks)
        epoch = time.perf_counter() - start
        shares.append((epoch - sum(in_steps) + input_seconds) / epoch)
    return statistics.median(shares)
