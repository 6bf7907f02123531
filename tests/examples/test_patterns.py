import numpy as np
from PIL import Image

from examples import patterns


def test_pictures_lie_as_training_reads_them_and_the_seed_draws_them_again(tmp_path, monkeypatch):
    monkeypatch.setattr(patterns, "NUMBERS", {"train": 2, "test": 1})
    for name in ("a", "b"):
        patterns.write(tmp_path / name)
    found = sorted(path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*.png"))
    kinds = ("checks", "dots", "stripes")
    assert found == [
        *(f"test/{kind}/000.png" for kind in kinds),
        *(f"train/{kind}/00{i}.png" for kind in kinds for i in (0, 1)),
    ]
    for path in found:
        first, second = (np.asarray(Image.open(tmp_path / name / path)) for name in ("a", "b"))
        assert first.shape == (96, 96, 3) and (first == second).all()


def test_each_class_has_a_pattern_of_its_own():
    u, v = np.mgrid[0:6:0.1, 0:6:0.1]
    drawn = [pattern(u, v) for pattern in patterns.PATTERNS.values()]
    assert all(0.2 < part.mean() < 0.8 for part in drawn)
    assert not any((one == other).all() for one in drawn for other in drawn if one is not other)
