"""Links lead somewhere, and every command, flag and file that a page names is there."""

import functools
import re

import pytest

from docs import flags
from tests.docs.pages import BLOCK, PAGES, ROOT, code, command, prose

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
OTHERS = {"pip", "pytest", "venv"}  # what else `python -m` is said to run
OF_ABSL = {"flagfile", "help", "helpfull", "verbosity"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page):
    """What a link may name behind #: headings as GitHub writes them."""
    found = []
    for title in re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return found


@functools.cache
def flags_of(module):
    """Names of the flags that a command takes."""
    source = flags.path_of(module).read_text()
    own = flags.names(module)
    takes_those_of_training = re.search(r"run\(main, flags\.FLAGS\)|flags\.FLAGS\.extended\(\)", source)
    return own | OF_ABSL | (flags_of("qkd_tf.flags") if takes_those_of_training else set())


def is_known(name, known):
    """Whether a flag is there, as it is, negated, or as the beginning of several: "teacher_pixel_"."""
    return (
        name in known
        or name.removeprefix("no") in known
        or (name[-1] == "_" and any(k.startswith(name) for k in known))
    )


@each_page
def test_links_lead_to_files_and_headings(page):
    for target in LINK.findall(prose(page)):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists() and file.is_relative_to(ROOT), target
            assert not anchor or anchor in anchors(file), target


def test_readme_leads_to_every_page():
    """By itself or by a page that it leads to."""
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        linked = {(page.parent / target.partition("#")[0]).resolve() for target in LINK.findall(prose(page))}
        todo += (linked & set(PAGES)) - reached
    assert set(PAGES) - reached == set()


def test_tests_that_the_makefile_names_are_there():
    named = re.findall(r"tests/[\w/]+\.py", (ROOT / "Makefile").read_text())
    assert named and [path for path in named if not (ROOT / path).is_file()] == []


@each_page
def test_modules_that_are_run_exist_and_know_their_flags(page):
    for part in code(page):
        if found := command(part):
            module, rest = found
            assert flags.path_of(module).is_file(), part
            unknown = [name for name in re.findall(r"--(\w+)", rest) if not is_known(name, flags_of(module))]
            assert unknown == [], part
        for module in re.findall(r"python -m (\w+)", part):
            assert module in OTHERS | {"qkd_tf", "tflite_export", "benchmarks", "docs"}, part


@each_page
def test_flags_that_are_named_alone_are_flags_of_some_command(page):
    modules = ["qkd_tf.train", *(module for module, _ in flags.TABLES.values())]
    modules += [f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("*.py")]
    known = set().union(*map(flags_of, modules))
    known |= set(re.findall(r'addoption\("--(\w+)"', (ROOT / "tests" / "conftest.py").read_text()))
    named = [name for part in code(page) if part.startswith("--") for name in re.findall(r"--(\w+)", part)]
    assert [name for name in named if not is_known(name, known)] == []


@each_page
def test_make_targets_exist(page):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [found[1] for part in code(page) if (found := re.match(r"make (?:\w+=\S+ )*(\w+)", part))]
    assert [name for name in named if name not in targets] == []


@each_page
def test_files_that_are_named_exist(page):
    pattern = r"\b(?:tests|docs|benchmarks|qkd_tf|tflite_export|configs)/[\w/.]+\.(?:py|md|flags)\b"
    paths = [path for part in code(page) for path in re.findall(pattern, part) if "NAME" not in path]
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_pages_and_commands_are_found():
    readme = ROOT / "README.md"
    assert {"README.md", "BUILD.md", "flags.md"} <= {page.name for page in PAGES}
    assert ("qkd_tf.data.prepare", "cifar10 --data_dir=DIR") in map(command, code(readme))
    assert "own-models" in anchors(ROOT / "BUILD.md")
    assert "weight_bits" in flags_of("qkd_tf.ablation") and "weight_bits" not in flags_of("tflite_export")
    assert not is_known("weight_bit", flags_of("qkd_tf.train")) and is_known("nojit_compile", flags_of("qkd_tf.train"))


def test_sections_of_the_report_are_described_under_their_own_headings():
    headings = re.findall("<h2>(.+)</h2>", (ROOT / "tflite_export" / "reporting" / "report.html.j2").read_text())
    rows = re.findall(r"^\| (.+?) \|", (ROOT / "docs" / "report.md").read_text(), re.MULTILINE)
    described = [name for row in rows for name in re.split("[;,] ", row)]
    assert len(headings) > 10 and set(headings) <= set(described)
