"""What a host of repositories and a builder of containers read: it parses, and names what is there."""

import re

import pytest
import yaml

import qkd_tf
from tests.docs.pages import ROOT

WORKFLOW = ROOT / ".github/workflows/check.yml"


def read(path):
    return yaml.safe_load(path.read_text())


def test_citation_and_changelog_have_the_version():
    assert read(ROOT / "CITATION.cff")["version"] == qkd_tf.__version__
    assert f"## {qkd_tf.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_workflow_runs_targets_of_the_makefile_on_every_python():
    jobs = read(WORKFLOW)["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {line.removeprefix("make ") for line in lines} == {"lint", "test", "slow", "site"} <= set(targets)
    assert jobs["tests"]["strategy"]["matrix"]["python-version"] == ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_issue_form_has_what_a_form_needs(path):
    form = read(path)
    assert {"name", "description", "body"} <= form.keys()
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert asked and all(part["attributes"]["label"] for part in asked)
    assert len({part["id"] for part in asked}) == len(asked)


def test_hooks_run_programs_of_the_lint():
    entries = {
        hook["entry"].split()[0] for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]
    }
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert entries == {line.split()[0].replace("$(BIN)", ".venv/bin") for line in lint.splitlines()}


@pytest.mark.parametrize("path", sorted((ROOT / "docker").iterdir()), ids=lambda path: path.stem)
def test_container_copies_what_is_there_and_is_not_ignored(path):
    shown = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", path.read_text(), re.MULTILINE) for name in line.split()]
    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert any(re.fullmatch(pattern.replace("*", ".*"), name) for pattern in shown), name
