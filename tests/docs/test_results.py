import pytest

from docs import results


@pytest.mark.parametrize("path", results.PAGES, ids=lambda path: path.name)
def test_tables_are_those_of_the_results(path):
    text = path.read_text()
    assert results.PLACE.search(text)
    assert results.page(text) == text, "make docs"


def test_every_folder_of_results_has_a_table():
    shown = {folder for _, folder in results.PLACE.findall(results.PAGE.read_text())}
    assert shown == {path.parent.name for path in results.RESULTS.rglob("*.json")}


def test_what_a_teacher_brings_is_a_line_for_each_network_and_width():
    head, *lines = results.teachers("cifar10_resnet8", "cifar10_mobilenet_v2")
    assert head[3:] == ("without a teacher", "fixed teacher", "all three phases")
    assert [line[0::2][:2] for line in lines] == [
        *(("resnet8", bits) for bits in ("W2A2", "W3A3", "W4A4")),
        *(("mobilenet_v2", bits) for bits in ("W4A4", "W6A6")),
    ]
    assert all(top1 for line in lines[:3] for top1 in line[3:]) and {line[4] for line in lines[3:]} == {""}
