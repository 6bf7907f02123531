import base64
import html.parser
import json
import shutil

import numpy as np
import pytest

from qkd_tf.contract.gate import Gate
from qkd_tf.contract.targets import TARGETS
from tflite_export.bundles import firmware
from tflite_export.proof.verification import examine, verify
from tflite_export.reporting import figures, report, requirements


class Page(html.parser.HTMLParser):
    """What a browser would load, and what it would show."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.pictures: list[str | None] = []  # what each says to those who do not see it
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.shown += " " * (tag != "wbr")  # cells and list items stand apart
        self.loaded += [value for name, value in attributes if name in ("src", "href", "data", "srcset", "action")]
        if tag in ("img", "svg"):
            self.pictures.append(dict(attributes).get({"img": "alt", "svg": "aria-label"}[tag]))

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
def examined(residual):
    """The verification and the file's classes by runtime."""
    return examine(residual.content, residual.graph, residual.handoff, Gate(), TARGETS["phone"], ("litert", "tflm"))


@pytest.fixture(scope="module")
def verification(examined):
    return examined[0]


@pytest.fixture
def diagnose(folder, residual, examined):
    """Writes a diagnosis.json in which full precision is right everywhere, and its origin; returns the labels."""

    def diagnose(origin="trained"):
        def error(sqnr):
            return {"own_sqnr": sqnr, "sqnr": 7.5, "cosine": 0.99, "lowest": -1.5, "highest": 2.5, "clipped": 0.25}

        handoff, results = residual.handoff, json.loads((folder / "results.json").read_text())
        tensors = [row for row in results["coverage"] if row["tensor"] != "input"]
        rows = [
            {
                "layer": row["layer"],
                "tensor": row["tensor"],
                "unrounded": error(20.0 + k),
                "full_precision": error(10.0),
            }
            for k, row in enumerate(tensors)
        ]
        rows[-2]["unrounded"] = error(1.25)
        rows[-1]["unrounded"] = error(None)
        reference = {"origin": origin, "test_top1": 100.0, "classes": handoff.test_labels.tolist()}
        if origin == "random":
            reference |= {"test_top1": None, "classes": None}
            rows = [{key: value for key, value in row.items() if key != "full_precision"} for row in rows]
        content = {"format": 1, "full_precision": reference, "num_images": 32, "tensors": rows}
        (folder / "diagnosis.json").write_text(json.dumps(content))
        results["full_precision"] = {key: reference[key] for key in ("origin", "test_top1")}
        (folder / "results.json").write_text(json.dumps(results))
        return handoff.test_labels

    return diagnose


def written(folder, verification, classes=None) -> Page:
    report.write(folder, verification, folder / "report.html", classes)
    return Page((folder / "report.html").read_text())


def test_report_opens_offline(folder, examined, diagnose):
    labels = diagnose()
    page = written(folder, *examined)
    num_wrong = int(np.sum(examined[1]["litert"] != labels))
    assert page.loaded[0] == "data:,"  # no favicon
    assert len(page.loaded) == 1 + min(num_wrong, 12) > 1
    assert all(source.startswith("data:image/png;base64,") for source in page.loaded[1:])
    assert not page.tags & {"script", "iframe", "object"}
    text = (folder / "report.html").read_text()
    assert "@import" not in text and "url(" not in text.replace("url(#", "")


def test_pictures_are_pictures_and_can_be_read_out(folder, examined, diagnose):
    diagnose()
    page = written(folder, *examined)
    for source in page.loaded[1:]:
        png = base64.b64decode(source.partition(",")[2], validate=True)
        assert png.startswith(b"\x89PNG") and png.endswith(b"IEND\xaeB`\x82")
    assert all(page.pictures) and len(set(page.pictures)) == len(page.pictures)


def test_honest_file_is_shown_with_its_numbers(folder, verification):
    page = written(folder, verification)
    assert "The integer .tflite is what was trained" in page.words
    assert "refused" not in page.words
    for row in (verification["student"], *verification["runtimes"].values()):
        assert "not_run" in row or f"{row['top1']:.2f}" in page.words
    assert f"{verification['file']['bytes']:,} bytes" in page.words
    assert verification["file"]["sha256"] in page.words
    assert "Top-1 on 32 test images" in page.words and "The file for a phone with LiteRT has:" in page.words
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
    assert (
        "The .tflite was refused: tensor a is float32 top-1 differs by 9.00 points What to do: this is not the file"
        in page.words
    )
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
    report.write(folder, {**verification, "passed": False, "failures": ["Größe ≠ 3"]}, folder / "report.html")
    assert "Größe ≠ 3".encode() in (folder / "report.html").read_bytes()


def test_runtimes_are_shown_with_their_integers_or_the_reason_why_not(folder, verification):
    rows = {**verification["runtimes"], "tflm": {"title": "TFLM", "not_run": "it is not installed"}}
    page = written(folder, {**verification, "runtimes": rows, "cautions": ["it is far below"]})
    assert "TFLM not run: it is not installed" in page.words and "It is far below." in page.words
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
    assert "12,345 bytes; 100.00 % of its logits equal the plain file's on 32 images; bits: conv/kernel 3" in page.words


def test_missing_result_is_an_error_and_no_empty_place(folder, verification):
    results = json.loads((folder / "results.json").read_text())
    del results["seed"]
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(Exception, match="seed"):
        report.write(folder, verification, folder / "report.html")


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
    assert "teacher, top-1 77.25 %" in page.words
    assert page.words.count("77.25") == 2


def test_phases_at_other_widths_are_told_by_them_and_their_intervals_left_out(folder, examined):
    """Their tensors may be others, in number too."""
    results = json.loads((folder / "results.json").read_text())
    tensors = [row for row in results["coverage"] if row["tensor"] != "input"]
    (phase,) = results["phases"]

    def at(bits, label, num_intervals):
        widths = dict(zip(("weight_bits", "activation_bits"), bits, strict=True))
        history = [{**row, "intervals": [2.0] * num_intervals} for row in phase["history"]]
        return {**phase, **widths, "phase": label, "first_intervals": [1.0] * num_intervals, "history": history}

    final = results["experiment"]["quantization"]
    own = (final["weight_bits"], final["activation_bits"])
    results["phases"] = [
        at((8, 8), "self_studying", len(tensors) - 1),
        at(own, "self_studying_2", len(tensors)),
    ]
    (folder / "results.json").write_text(json.dumps(results))
    page = written(folder, *examined)
    assert "1 self-studying, W8A8 2" in page.words and f"2 self-studying-2, W{own[0]}A{own[1]} 2" in page.words
    assert "Best of each phase: self-studying 41.00 %; self-studying-2 41.00 %." in " ".join(
        filter(None, page.pictures)
    )
    (drawn,) = [text for text in page.pictures if text and text.startswith("Intervals of") and "kernels" in text]
    assert drawn.endswith("each as a multiple of its first value: from 1.00 to 2.00.")


def test_mistakes_are_told_by_class_and_against_full_precision(folder, examined, diagnose):
    labels = diagnose()
    classes = examined[1]["litert"]
    page = written(folder, *examined)
    right = int(np.sum(classes == labels))
    assert f"full precision right {right} {len(labels) - right} full precision wrong 0 0" in page.words
    first = int(np.flatnonzero(classes != labels)[0])
    said = f"test image {first}: it is class {labels[first]}, the file says class {classes[first]}"
    assert said in page.pictures


def test_greatest_error_is_on_top_and_none_is_last(folder, examined, diagnose):
    diagnose()
    results = json.loads((folder / "results.json").read_text())
    tensors = [row["layer"] for row in results["coverage"] if row["tensor"] != "input"]
    words = written(folder, *examined).words
    table = words[words.index("equal integers, %") :]
    assert table.startswith(f"equal integers, % {tensors[-2]} ")
    assert f"{tensors[-2]} kernel 8 1.2 7.5 0.9900 0.25 7.5 0.9900" in table
    others = table[table.index(" more ") :]
    assert (
        others[: others.index("SQNR: power")]
        .strip()
        .endswith(f"{tensors[-1]} activation 8 – 7.5 0.9900 0.25 7.5 0.9900 100.000")
    )


def test_what_was_asked_is_beside_what_came(folder, examined, diagnose):
    diagnose()
    results = json.loads((folder / "results.json").read_text())
    size = examined[0]["file"]["bytes"]
    results["experiment"]["target"] |= {"max_flash_bytes": size - 1, "max_ram_bytes": 10**9}
    (folder / "results.json").write_text(json.dumps(results))
    words = written(folder, *examined).words
    assert "full precision, top-1 100.00 % (the student trained in this run)" in words
    assert f"size at most {size - 1:,} bytes {size:,} bytes (the kernels in float32: " in words
    assert words.count("not met") == 1
    assert "RAM for activations (arena) at most 1,000,000,000 bytes" in words


def test_bit_widths_are_told_of_kernels_and_outputs(folder, verification):
    results = json.loads((folder / "results.json").read_text())
    (row,) = (row for row in requirements.rows(results, verification, {}) if row["what"] == "bit widths")
    told = [part.split(" at ") for part in row["came"].split(", ")]
    for tensor in ("kernel", "output"):
        numbers = [int(what.split()[0]) for what, _ in told if tensor in what]
        assert sum(numbers) == sum(found["tensor"] == tensor for found in results["coverage"]) > 0


def test_flash_and_ram_of_a_microcontroller_are_told_where_they_are_known(folder, examined):
    verification, classes = examined
    found = firmware.rows("model.tflite", ["CONV_2D"], 12_345, [20_000, 30_000, 40_000, 50_000])
    words = written(folder, {**verification, "firmware": found}, classes).words
    numbers = [f"{found[3][key]:,}" for key in ("flash_bytes", "code_bytes", "file_bytes", "ram_bytes", "arena_bytes")]
    assert f"model.tflite Cortex-M55 CMSIS-NN {' '.join(numbers)} 264 1,600" in words
    assert "On a microcontroller" not in written(folder, *examined).words


def test_what_training_began_with_is_told(folder, examined):
    results = json.loads((folder / "results.json").read_text())
    proof = {"num_images": 32, "difference": 3e-7, "tolerance": 0.001, "head": "softmax", "border_difference": 0.018}
    results |= {"as_given": {"student": proof, "teacher": None}}
    results |= {"start_top1": {"student": 91.5, "teacher": 94.25, "quantized": 84.0}}
    (folder / "results.json").write_text(json.dumps(results))
    words = written(folder, *examined).words
    for part in (
        "student in floating point 91.50 3e-07 0.001 32 1.8",
        "student after calibration 84.00",
        "teacher 94.25",
    ):
        assert part in words


def test_words_that_the_tables_use_are_explained_where_they_are_used(folder, examined):
    results = json.loads((folder / "results.json").read_text())
    tensors = [row for row in results["coverage"] if row["tensor"] != "input"]
    assert any(row["layer"].endswith("_requantize") for row in tensors)
    for row in results["phases"][0]["history"]:
        row["intervals"] = [1.0] * len(tensors)
    results |= {"as_given": {"student": None}, "start_top1": {"student": 91.5}}
    (folder / "results.json").write_text(json.dumps(results))
    words = written(folder, *examined).words
    assert "NAME_requantize is the output of layer NAME once more" in words
    assert "Delegated: the operators that LiteRT gives to XNNPACK" in words
    assert "outputs that are added, multiplied, averaged or concatenated 8" in words
    assert "one of qkd_tf's own networks" not in words
    results |= {"as_given": {"student": None, "teacher": None}, "start_top1": {"student": 91.5, "teacher": 94.25}}
    (folder / "results.json").write_text(json.dumps(results))
    assert "The teacher is one of qkd_tf's own networks" in written(folder, *examined).words


def test_a_run_of_an_older_version_has_a_report_that_says_what_is_missing(folder, examined):
    """No diagnosis.json, no full precision, no intervals by epoch, no target, no widths that were found."""
    results = json.loads((folder / "results.json").read_text())
    del results["full_precision"], results["experiment"]["target"]
    for name in ("finds_bits", "found_bits"):
        del results["experiment"]["quantization"][name]
    (folder / "results.json").write_text(json.dumps(results))
    words = written(folder, *examined).words
    assert words.count(report.OLDER) == 6
    for part in (
        "The state before training is not known",
        "full precision, top-1 not known",
        "The changes of the intervals are not known",
        "There is no full precision to compare",
    ):
        assert part in words
    assert "The error of each layer is not known" in words and "The values that activations took are not known" in words


def test_calibration_alone_has_a_report(folder, examined, diagnose):
    diagnose("weights")
    results = json.loads((folder / "results.json").read_text())
    results["phases"] = []
    (folder / "results.json").write_text(json.dumps(results))
    words = written(folder, *examined).words
    assert "Nothing was trained: the intervals were chosen by calibration" in words
    assert "the student with its pretrained weights" in words
    assert "The integer .tflite is the calibrated student; it was only calibrated, not trained" in words
    assert "The calibrated student has" in words and "what was trained" not in words


def test_random_start_has_nothing_to_be_compared_with(folder, examined, diagnose):
    diagnose("random")
    words = written(folder, *examined).words
    assert "none: the student was quantized from a random start" in words
    assert "no full precision to compare with: the student was quantized from a random start" in words
    assert "SQNR to full" not in words


def test_logits_that_are_a_map_have_no_confusion(folder, examined):
    verification, classes = examined
    maps = {name: np.zeros((len(values), 4, 4), np.int32) for name, values in classes.items()}
    assert "The output is a map of 4×4 values per image" in written(folder, verification, maps).words


def test_intervals_are_drawn_from_calibration_to_the_end(folder, examined):
    results = json.loads((folder / "results.json").read_text())
    tensors = [row for row in results["coverage"] if row["tensor"] != "input"]
    first = np.arange(1.0, len(tensors) + 1)
    (phase,) = results["phases"]
    phase["first_intervals"] = first.tolist()
    for factor, row in zip((2.0, 4.0), phase["history"], strict=True):
        row["intervals"] = [*first[:-1], first[-1] * factor]
    for tensor, interval in zip(tensors, [*first[:-1], first[-1] * 2.0], strict=True):
        tensor["interval"] = float(interval)  # of the file: the first of the two epochs was kept
    phase["best_epoch"] = 1
    (folder / "results.json").write_text(json.dumps(results))
    page = written(folder, *examined)
    assert f"Largest changes in the file: {tensors[-1]['layer']} (activation) ×2.00" in page.words
    assert f" {tensors[-1]['num_bits']} {first[-1]:.4g} {2 * first[-1]:.4g} 2.00 " in page.words
    assert "The file has the intervals of epoch 1 of 2 of the last phase;" in page.words
    last = f"{tensors[-1]['layer']} output: interval {first[-1]:.3g} at the start, {4 * first[-1]:.3g} after the last"
    last += " epoch"
    assert last in page.pictures
    assert any("activations over the epochs" in text and "from 1.00 to 4.00" in text for text in page.pictures)
    phase["best_epoch"] = 0
    (folder / "results.json").write_text(json.dumps(results))
    part = "The file has the intervals from before the last phase, because none of its 2 epochs was better;"
    assert part in written(folder, *examined).words


def test_a_long_run_of_a_deep_network_stays_below_three_megabytes(folder, examined, diagnose, monkeypatch):
    """200 epochs, 120 tensors: what can grow is drawn again and again."""
    diagnose()
    results = json.loads((folder / "results.json").read_text())
    (phase,) = results["phases"]
    rng = np.random.default_rng(0)
    tensors = [row for row in results["coverage"] if row["tensor"] != "input"]
    repeated = [tensors[k % len(tensors)] for k in range(120)]
    results["coverage"] = repeated
    diagnosis = json.loads((folder / "diagnosis.json").read_text())
    diagnosis["tensors"] = [diagnosis["tensors"][k % len(tensors)] for k in range(120)]
    (folder / "diagnosis.json").write_text(json.dumps(diagnosis))
    history = [{**phase["history"][0], "intervals": rng.uniform(1, 2, 120).tolist()} for _ in range(200)]
    results["phases"] = [{**phase, "epochs": 200, "first_intervals": [1.0] * 120, "history": history}]
    (folder / "results.json").write_text(json.dumps(results))
    codes = {f"layer{k}": rng.integers(-127, 128, 30_000).astype(np.int8) for k in range(60)}
    np.savez(folder / "handoff" / "weights.npz", **codes)
    params = json.loads((folder / "handoff" / "weight_params.json").read_text())
    eight = next(row for row in params.values() if row["grid"]["num_bits"] == 8)
    (folder / "handoff" / "weight_params.json").write_text(json.dumps({name: eight for name in codes}))
    written(folder, *examined)
    assert (folder / "report.html").stat().st_size < 3_000_000


def test_histogram_has_a_bar_for_each_integer_that_occurs():
    drawn = figures.histogram(np.array([0, 4, 2, 0, 1]), "text")
    assert drawn.count("M") - 1 == 3  # and the line below
    assert "v-40h" in drawn and "v-20h" in drawn and "v-10h" in drawn


@pytest.mark.parametrize("width, dark", [(1100, False), (1100, True), (360, False)])
def test_browser_shows_the_report_without_a_request_at_any_width(folder, examined, diagnose, browse, width, dark):
    diagnose()
    written(folder, *examined)
    found = browse(folder / "report.html", width, dark)
    assert found["console"] == [] and [url for url in found["requests"] if not url.startswith("data:")] == []
    assert found["width"] == found["scroll_width"] == width
    assert found["pictures"] > 20 and found["without_text"] == found["broken"] == found["invisible"] == 0
    assert found["background"] == ("rgb(22, 23, 27)" if dark else "rgb(255, 255, 255)")


def test_browser_would_tell_of_a_bad_page(tmp_path, browse):
    page = tmp_path / "bad.html"
    tags = '<p style="width: 500px">wide</p><img src="data:image/png;base64,AAAA"><img alt="x" src="http://127.0.0.1:9/gone.png">'
    page.write_text(f"<!doctype html><body>{tags}<script>nothing()</script>")
    found = browse(page, 360)
    assert found["scroll_width"] > found["width"] == 360
    assert found["broken"] == 2 and found["without_text"] == 1
    assert any("nothing is not defined" in line for line in found["console"])
    assert any(url.endswith("/gone.png") for url in found["requests"])


def test_diagnosis_of_another_form_is_none(folder, examined, diagnose):
    diagnose()
    diagnosis = json.loads((folder / "diagnosis.json").read_text())
    (folder / "diagnosis.json").write_text(json.dumps({**diagnosis, "format": 2}))
    assert f"The error of each layer is not known: {report.OLDER}" in written(folder, *examined).words


def test_errors_that_are_equal_are_drawn_once():
    """A kernel's own error is all it has; without training, full precision is the student unrounded."""
    error = {"own_sqnr": 20.0, "sqnr": 20.0}
    svg = figures.errors([{"layer": "conv", "unrounded": error, "full_precision": error}], "kernels")
    assert "SQNR of 1 kernels. own grid only: at least 20.0 dB, at conv." in svg
    moved = {"own_sqnr": 20.0, "sqnr": 12.0}
    svg = figures.errors([{"layer": "conv", "unrounded": error, "full_precision": moved}], "kernels")
    assert "own grid only: at least 20.0 dB, at conv; compared with full precision: at least 12.0 dB" in svg
    svg = figures.errors([{"layer": "conv", "unrounded": {"own_sqnr": None, "sqnr": None}}], "kernels")
    assert "none has an error" in svg and "nan" not in svg
