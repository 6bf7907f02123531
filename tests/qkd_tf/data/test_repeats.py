"""Examples that are both trained on and tested."""

import numpy as np

from qkd_tf.data import repeats


def test_a_digest_is_that_of_an_example_alone():
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 2, 1)).astype(np.uint8)
    found = repeats.digests(images)
    assert found == repeats.digests(images[:2]) + repeats.digests(images[2:]) and len(set(found)) == 6
    assert repeats.digests(images.transpose(0, 2, 1, 3)[::-1].transpose(0, 2, 1, 3)) == found[::-1]


def test_splits_are_told_that_share_examples_with_training():
    train = [f"{index}" for index in range(1_000)]
    new, other = ([f"{kind} {index}" for index in range(1_000)] for kind in ("new", "other"))
    assert repeats.notes({"train": train, "test": new, "validation": other}) == ()
    assert repeats.notes({"train": train, "test": new[10:] + train[:10]}) == ()  # 1 %
    (note,) = repeats.notes({"train": train, "test": new[11:] + train[:11], "validation": other})
    assert note.startswith("note: 11 of 1,000 test examples are in the training set too, so top-1 on test overstates")
    assert len(repeats.notes({"train": train, "test": train, "validation": train[:3]})) == 2
    (note,) = repeats.notes({"train": train, "test": new, "validation": new[:500]})
    assert note.startswith(
        "note: 500 of 1,000 test examples are in the validation set, which chooses the epoch, too, so"
    )
