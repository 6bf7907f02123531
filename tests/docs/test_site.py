"""The site's pages are the repository's, and their links lead to pages of the site. `make site` builds it strictly."""

import re

import pytest
import yaml

from docs import site
from tests.docs.pages import PAGES, ROOT


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, in which tags name Python's functions."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
SETTINGS = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)


def named(part):
    """Pages of the navigation."""
    if isinstance(part, str):
        return [part]
    return [page for inner in (part.values() if isinstance(part, dict) else part) for page in named(inner)]


def test_navigation_has_every_page_once():
    pages = [site.in_site(page.relative_to(ROOT).as_posix()) for page in PAGES]
    assert sorted(named(SETTINGS["nav"])) == sorted(pages)


def test_a_page_knows_where_it_lies_in_the_repository():
    for page in PAGES:
        path = page.relative_to(ROOT).as_posix()
        assert site.in_repository(site.in_site(path)) == path


@pytest.mark.parametrize(
    ("page", "github", "there"),
    [
        ("index.md", "[flags](docs/flags.md#training)", "[flags](flags.md#training)"),
        ("index.md", "![phases](docs/pictures/phases.svg)", "![phases](pictures/phases.svg)"),
        ("targets.md", "[rooms](../BUILD.md#data)", "[rooms](build.md#data)"),
        ("benchmarks.md", "[chance](../docs/verification.md)", "[chance](verification.md)"),
        ("benchmarks.md", "[numbers](speed/all.json)", "numbers"),
        ("method.md", "[`fake_quant.py`](../qkd_tf/quantization/fake_quant.py)", "`fake_quant.py`"),
        ("method.md", "[`grid.py`](../qkd_tf/contract/grid.py)", "[`grid.py`](api.md#qkd_tf.contract.grid)"),
        ("method.md", "[QKD](https://arxiv.org/abs/1911.12491)", "[QKD](https://arxiv.org/abs/1911.12491)"),
        ("method.md", "[below](#words)", "[below](#words)"),
    ],
)
def test_links_lead_to_the_site(page, github, there):
    assert site.of_the_site(github, page) == there


def test_markdown_of_github_becomes_that_of_python():
    assert site.of_the_site("<!-- runs x -->\n| a |\n|---|", "results.md") == "\n| a |\n|---|"
    assert site.of_the_site("1. a\n   * b", "results.md") == "1. a\n    * b"
    assert site.of_the_site("| `a\\|b` | c\\|d |", "flags.md") == "| `a|b` | c\\|d |"
    assert site.of_the_site("`--seed=1` and `--no flag`", "flags.md") == "`--seed=1`{.flag} and `--no flag`"
    documented = site.of_the_site("<!-- reference: qkd_tf.api.fit as qkd_tf.fit -->", "api.md")
    assert documented == "::: qkd_tf.api.fit\n    options:\n      heading: qkd_tf.fit"


def test_nothing_is_loaded_from_elsewhere():
    used = [*SETTINGS["extra_css"], *SETTINGS["extra"]["polyfills"]]
    assert [name for name in used if not (ROOT / "docs" / name).is_file()] == []
    assert SETTINGS["theme"]["font"] is False and any("iframe-worker" in name for name in used)


def test_what_the_reference_documents_is_in_the_code():
    names = site.referenced()
    assert len(names) > 10
    for name in names:
        module, _, last = name.rpartition(".")
        source = ROOT / f"{module.replace('.', '/')}.py"
        found = source.is_file() and re.search(rf"^(class|def) {last}\b", source.read_text(), re.MULTILINE)
        assert found or (ROOT / f"{name.replace('.', '/')}.py").is_file(), name
