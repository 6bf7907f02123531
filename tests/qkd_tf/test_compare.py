import dataclasses
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkd_tf import compare
from qkd_tf.compare import COSTS, Run, groups, html, load, markdown, notes, pareto, terminal
from tests.saved_flags import saved_flags

RUN = Run(
    label="a",
    student="resnet8",
    data="digits, 360 test images",
    fingerprint=("digits", 360, 360, "5" * 64),
    bits="W4A4",
    num_bytes=20_000,
    top1=90.0,
    full_precision=91.0,
    milliseconds=0.5,
    arena=5_000,
    runtime="LiteRT",
    machine="Linux, 2 cores",
    passed=True,
)
BYTES = COSTS["bytes"]


def run(**fields) -> Run:
    return dataclasses.replace(RUN, **fields)


def test_markdown_has_a_row_for_each_run(make_finished_run):
    text = markdown(load([str(make_finished_run("w4")), str(make_finished_run("w2", 2, 80.0, 15_000, arena=None))]))
    assert "**digits, 360 test images**" in text
    assert (
        "| 1 | w4 | 90.00 | bytes, ms per inference, arena | resnet8 | W4A4 | 20,000 |  |  |  | 91.00 | 0.5 | 5,000 |"
        in text
    )
    assert "| 2 | w2 | 80.00 | bytes | resnet8 | W2A2 | 15,000 |  |  |  | 91.00 | 0.5 |  |" in text


def test_terminal_has_columns_of_what_was_asked_for_and_what_is_equal_above_them(
    monkeypatch, make_finished_run, capsys
):
    small, large = run(label="small", num_bytes=9_000, top1=80.0, flash=1), run(label="large", deflated=7)
    alone = run(label="alone", fingerprint=("other",), data="other, 9 test images", arena=None)
    assert terminal([small, large, alone], ("bytes", "arena")).splitlines() == [
        "digits, 360 test images",
        "all: student resnet8; bits W4A4; full precision, % 91.00; arena, bytes 5,000",
        "   run    top-1, %  Pareto        bytes",
        "1  small  80.00     bytes         9,000",
        "2  large  90.00     bytes, arena  20,000",
        "",
        "other, 9 test images",
        "   run    top-1, %  Pareto  student  bits  bytes   full precision, %",
        "1  alone  90.00     bytes   resnet8  W4A4  20,000  91.00",
        "",
        compare.PARETO,
        "note: The runs have different test splits: compare accuracies only within a table.",
    ]
    folder = str(make_finished_run("a"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    start(folder)
    assert capsys.readouterr().out == terminal(load([folder]))


def test_runs_on_other_images_stand_apart_and_this_is_said():
    other = run(label="b", fingerprint=("digits", 360, 360, "6" * 64), num_bytes=1)
    assert groups([run(), other, run(label="c")]) == [[run(), run(label="c")], [other]]
    text = markdown([run(), other])
    assert text.count("**digits, 360 test images**") == 2
    assert "have different test splits" in text
    assert "have different test splits" not in markdown([run(), run(label="c")])


@pytest.mark.parametrize(
    "fields, part",
    [
        ({"runtime": "TFLM"}, "different runtimes, the judge of each file (LiteRT: a; TFLM: b)"),
        ({"machine": "other"}, "different machines"),
        ({"fingerprint": (), "read_as": {"resize": "squash"}}, "different test splits (they differ in --resize):"),
        ({"milliseconds": 0.54}, "Latencies that differ by less than 10 % may do so by chance"),
        ({"passed": False, "is_less_accurate": True}, "Refused for accuracy, and on no front: b"),
        ({"passed": False}, "Refused, not proven to be what was trained, and on no front: b"),
        ({"bits": "W4A4*"}, "--bits_rule"),
        ({"data": "in_memory:1, 360 test images"}, "have the same test split"),
    ],
)
def test_what_keeps_numbers_from_being_compared_is_noted(fields, part):
    (note,) = notes([run(), run(label="b", **fields)])
    assert part in note


def test_runs_alike_need_no_note_nor_do_latencies_far_apart():
    assert notes([run(), run(label="b"), run(label="c", milliseconds=0.6)]) == []


def test_front_by_hand():
    small, large = run(label="small", num_bytes=10, top1=80.0), run(label="large", num_bytes=30, top1=90.0)
    beaten, refused = (
        run(label="beaten", num_bytes=20, top1=79.0),
        run(label="refused", num_bytes=1, top1=99, passed=False),
    )
    unknown = run(label="unknown", arena=None)
    assert pareto([large, beaten, refused, small], BYTES) == [small, large]
    assert pareto([unknown], COSTS["arena"]) == []


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_front_is_what_nothing_beats_and_beats_the_rest(numbers):
    runs = [run(label=str(k), num_bytes=size, top1=top1) for k, (size, top1) in enumerate(numbers)]
    front = pareto(runs, BYTES)
    assert [r.num_bytes for r in front] == sorted(r.num_bytes for r in front)
    assert [r.top1 for r in front] == sorted(r.top1 for r in front)
    for r in runs:
        at_least_as_good = [f for f in front if f.num_bytes <= r.num_bytes and f.top1 >= r.top1]
        assert at_least_as_good
        better = [f for f in at_least_as_good if (f.num_bytes, f.top1) != (r.num_bytes, r.top1)]
        assert (r in front) == (not better)


def test_page_has_a_figure_for_each_cost_that_is_known():
    page = html([run(label="<one>"), run(label="two", arena=None), run(label="three", top1=91.0, num_bytes=10**6)])
    assert page.count("<svg") == 3
    assert "&lt;one&gt;" in page and "<one>" not in page
    assert "Top-1 over bytes of 3 runs. On the front: &lt;one&gt; 90.00 % at 2e+04" in page
    assert html([run(arena=None)]).count("<svg") == 2


def test_pictures_and_fronts_are_of_the_costs_that_are_asked_for():
    small = run(label="small", deflated=9_000, true_width=7_000, flash=None)
    other = run(label="other", deflated=12_000, true_width=6_000, flash=31_000)
    assert [row[6:10] for row in compare.table([small, other])] == [
        ("20,000", "9,000", "7,000", ""),
        ("20,000", "12,000", "6,000", "31,000"),
    ]
    fronts = [row[3] for row in compare.table([small, other], ("deflated", "true_width", "flash"))]
    assert fronts == ["deflated", "true width, flash without TFLM"]
    page = html([small, other], ("true_width", "flash"))
    assert page.count("<svg") == 2 and "Top-1 over true width, bytes of 2 runs." in page


def start(*arguments):
    """What `python -m qkd_tf.compare` does, in this process."""
    with saved_flags(compare.FLAGS):
        compare.main(compare.FLAGS(["compare", *arguments]))


def test_command_prints_writes_and_refuses(tmp_path, make_finished_run, capsys):
    runs = [str(make_finished_run("a")), str(make_finished_run("b", 2, 80.0, 10_000))]
    start(*runs)
    assert capsys.readouterr().out == markdown(load(runs))
    for name, text in (("runs.html", html(load(runs))), ("runs.md", markdown(load(runs)))):
        start(*runs, f"--output={tmp_path / name}")
        assert capsys.readouterr().out == f"comparison of 2 runs: {tmp_path / name}\n"
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    for arguments, part in (
        ([*runs, "--output=runs.pdf"], "give a file with one of these"),
        (
            [*runs, "--costs=bytes,weight"],
            "unknown cost 'weight' in --costs; known are bytes, deflated, true_width, flash, latency, arena",
        ),
        ([*runs, f"--output={tmp_path}/gone/runs.md"], "No such file"),
        ([str(tmp_path / "gone")], "is not a folder"),
    ):
        with pytest.raises(SystemExit, match=part) as caught:
            start(*arguments)
        assert caught.value.code.startswith("error: ")


@pytest.mark.parametrize("width, dark, scrolled", [(1180, True, 0), (360, False, 1)])
def test_browser_shows_the_page_and_on_a_window_of_1200_pixels_the_whole_table(tmp_path, browse, width, dark, scrolled):
    names = ("a", "a_run_of_a_rather_long_name", "c", "d")
    sizes = dict.fromkeys(("deflated", "true_width", "flash", "arena"), 3_456_789)
    kept = {"student": "mobilenet_v2_0.35_cifar", "passed": False, **sizes}
    runs = [run(label=name, num_bytes=2_000_000 + 9_000 * k, top1=90.0 + k) for k, name in enumerate(names)]
    runs.append(run(label="e", **kept))
    (tmp_path / "page.html").write_text(html(runs), encoding="utf-8")
    found = browse(tmp_path / "page.html", width, dark)
    assert found["console"] == [] and [url for url in found["requests"] if not url.startswith("data:")] == []
    assert found["width"] == found["scroll_width"] == width and found["scrolled_tables"] == scrolled
    assert (found["pictures"], found["without_text"], found["invisible"]) == (3, 0, 0)


def test_header_names_every_cell():
    assert all(len(row) == len(compare.HEADER) for row in compare.table([run(), run(arena=None)]))
