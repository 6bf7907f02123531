import base64
import html.parser
import json
import shutil

import pytest

from tflite_export import report
from tflite_export.targets import TARGETS
from tflite_export.verification import Gate, verify


class Page(html.parser.HTMLParser):
    """What a browser would load, and what it would show."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.shown += " "  # cells and list items stand apart
        self.loaded += [value for name, value in attributes if name in ("src", "href", "data", "srcset", "action")]

    def handle_data(self, data):
        self.shown += data

    @property
    def words(self) -> str:
        return " ".join(self.shown.split())


@pytest.fixture
def folder(run_folder, tmp_path):
    """A copy of the run, under its plain name."""
    return shutil.copytree(run_folder.path, tmp_path / "run")


@pytest.fixture(scope="module")
def verification(residual):
    return verify(residual.content, residual.graph, residual.handoff, Gate(), TARGETS["phone"], ("litert", "tflm"))


def written(folder, verification) -> Page:
    report.write(folder, verification)
    return Page((folder / "report.html").read_text())


def test_report_opens_offline(folder, verification):
    page = written(folder, verification)
    assert len(page.loaded) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.loaded)
    assert not page.tags & {"script", "link", "iframe", "object"}
    text = (folder / "report.html").read_text()
    assert "@import" not in text and "url(" not in text


def test_pictures_are_pictures(folder, verification):
    for source in written(folder, verification).loaded:
        png = base64.b64decode(source.partition(",")[2], validate=True)
        assert png.startswith(b"\x89PNG") and png.endswith(b"IEND\xaeB`\x82")


def test_honest_file_is_shown_with_its_numbers(folder, verification):
    page = written(folder, verification)
    assert "The integer .tflite is what was trained" in page.words
    assert "refused" not in page.words
    for row in (verification["student"], *verification["runtimes"].values()):
        assert "not_run" in row or f"{row['top1']:.2f}" in page.words
    assert f"{verification['file']['bytes']:,} bytes" in page.words
    assert verification["file"]["sha256"] in page.words
    assert "Top-1 on 32 test images" in page.words and "made for a phone with LiteRT" in page.words
    assert "2 CONV_2D" in page.words and "1 QUANTIZE" in page.words
    assert "student residual, W3A4" in page.words
    assert "self-studying" in page.words and "41.00" in page.words
    assert "--student=residual --seed=0" in page.words


def test_tensor_table_tells_bits_and_levels(folder, verification):
    page = written(folder, verification)
    (row,) = [r for r in verification["tensors"] if r["name"] == "linear/kernel"]
    assert f"linear/kernel int8 4×1×1×4 3 {row['num_levels']} 0 4 channels" in page.words


def test_failures_are_shown_and_the_verdict_is_not_a_pass(folder, verification):
    failed = {**verification, "passed": False, "failures": ["tensor a is float32", "top-1 differs by 9.00 points"]}
    page = written(folder, failed)
    assert "The .tflite was refused: tensor a is float32 top-1 differs by 9.00 points" in page.words
    assert "is what was trained" not in page.words
    assert 'class="verdict failed"' in (folder / "report.html").read_text()


def test_file_that_could_not_be_read_has_a_report_too(folder):
    page = written(folder, {"format": 1, "passed": False, "failures": ["not a .tflite"]})
    assert "not a .tflite" in page.words


def test_file_that_was_not_run_has_a_report_without_accuracy(folder, residual, edit):
    def change(model):
        model.version, model.subgraphs[0].outputs = 3, [0]

    failed = verify(edit(residual.content, change), residual.graph, residual.handoff, Gate(), TARGETS["phone"])
    page = written(folder, failed)
    assert "the output is normalization; expected logits" in page.words
    assert "Accuracy" not in page.words


def test_names_are_escaped(folder, tmp_path, verification):
    nasty = "<script>alert(1)</script>&"
    (folder / "flags.txt").write_text(f"--student={nasty}\n")
    results = json.loads((folder / "results.json").read_text())
    results["experiment"]["student"]["name"] = results["data"]["name"] = nasty
    results["phases"][0]["phase"] = nasty
    (folder / "results.json").write_text(json.dumps(results))
    rows = [{**row, "name": nasty} for row in verification["tensors"]]
    run = folder.rename(tmp_path / "<script>run&")
    page = written(run, {**verification, "passed": False, "failures": [nasty], "tensors": rows})
    assert "script" not in page.tags
    assert page.shown.count(nasty) >= 5
    assert "<script>run&" in page.shown


def test_umlauts_are_shown_whatever_the_locale(folder, verification, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    report.write(folder, {**verification, "passed": False, "failures": ["Größe ≠ 3"]})
    assert "Größe ≠ 3".encode() in (folder / "report.html").read_bytes()


def test_runtimes_are_shown_with_their_integers_or_the_reason_why_not(folder, verification):
    rows = {**verification["runtimes"], "tflm": {"title": "TFLM", "not_run": "it is not installed"}}
    page = written(folder, {**verification, "runtimes": rows})
    assert "TFLM not asked: it is not installed" in page.words
    row = rows["litert"]
    assert (
        f"{row['title']} {row['operators']['equal_codes']:.3f} {row['codes']['equal_codes']:.3f} 0 none" in page.words
    )


def test_lookup_table_file_is_shown(folder, verification):
    compressed = {
        "file": {"bytes": 12345, "sha256": "0"},
        "index_bits": {"conv/kernel": 3},
        "equal_logits": 100.0,
        "num_images": 32,
    }
    page = written(folder, {**verification, "compressed": compressed})
    assert "12,345 bytes, 100.00 % of the plain file's logits on 32 images; bits: conv/kernel 3" in page.words


def test_missing_result_is_an_error_and_no_empty_place(folder, verification):
    results = json.loads((folder / "results.json").read_text())
    del results["seed"]
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(Exception, match="seed"):
        report.write(folder, verification)


def test_teacher_and_several_phases_are_shown(folder, verification):
    results = json.loads((folder / "results.json").read_text())
    (phase,) = results["phases"]
    rows = [{**row, "teacher_loss": 1.0} for row in phase["history"]]
    teaching = {**phase, "phase": "co_studying", "teacher_test_top1": 77.25, "history": rows}
    results["phases"] = [{**phase, "phase": "full_precision"}, teaching, {**phase, "phase": "tutoring"}]
    results["experiment"]["teacher"] = {"name": "resnet56"}
    (folder / "results.json").write_text(json.dumps(results))
    page = written(folder, verification)
    assert "teacher resnet56" in page.words
    assert "co-studying" in page.words and "tutoring" in page.words and "full-precision" in page.words
    assert page.words.count("77.25") == 1


def test_calibration_alone_is_reported_without_a_plot_of_training(folder, verification):
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**results, "phases": []}))
    page = written(folder, verification)
    assert "None: the intervals are those of calibration." in page.words
    assert f"as handed over: {verification['student']['top1']:.2f} %. The file" in page.words
    assert len(page.loaded) == 1
