import json

import pytest

from docs import results


@pytest.mark.parametrize("path", results.PAGES, ids=lambda path: path.name)
def test_tables_are_those_of_the_results(path):
    text = path.read_text()
    assert results.PLACE.search(text)
    assert results.page(text) == text, "make docs"


def test_every_folder_of_results_has_a_table():
    shown = {name for _, names in results.PLACE.findall(results.PAGE.read_text()) for name in names.split()}
    assert shown == {path.parent.name for path in results.RESULTS.rglob("*.json")}


def test_what_a_teacher_brings_is_a_line_for_each_network_and_width():
    head, *lines = results.teachers("cifar10_resnet8", "cifar10_mobilenet_v2")
    assert head[3:] == ("self-studying alone", "fixed teacher", "all three phases")
    assert [line[0::2][:2] for line in lines] == [
        *(("resnet8", bits) for bits in ("W2A2", "W3A3", "W4A4")),
        *(("mobilenet_v2", bits) for bits in ("W4A4", "W6A6")),
    ]
    assert all(top1 for line in lines[:3] for top1 in line[3:]) and {line[4] for line in lines[3:]} == {""}


def test_gaps_are_differences_of_the_same_seed(monkeypatch, tmp_path):
    top1 = {
        ("qat", 0): 83.0,
        ("qat", 1): 84.0,
        ("fixed_teacher", 1): 84.2,
        ("ss_cs_tu", 0): 83.5,
        ("ss_cs_tu", 1): 84.1,
    }
    (tmp_path / "cifar10_resnet8").mkdir()
    for (row, seed), value in top1.items():
        cell = {"row": row, "bits": "w2a2", "seed": seed, "tflite_top1": value, "num_images": 10000}
        (tmp_path / "cifar10_resnet8" / f"{row}_w2a2_seed{seed}.json").write_text(json.dumps(cell))
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    head, line = results.gaps("cifar10_resnet8")
    assert head[2:5] == (
        *("all three phases − self-studying alone", "all three phases − fixed teacher"),
        "fixed teacher − self-studying alone",
    )
    assert line[:5] == ("resnet8", "W2A2", "+0.30 ± 0.28", "-0.10", "+0.20")
    # 83.76 % on average: an image is right or wrong with a deviation of 36.88 points, a difference of two means 0.52.
    assert line[5] == "1.04"
