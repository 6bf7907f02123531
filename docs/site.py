"""A hook of MkDocs: the repository's pages as those of a site, with links that lead to pages of the site.

The pages are written for GitHub, and stay as they are. Some lie outside of docs/, and link to files of the repository
that no site has: such a link becomes its text, or leads to the reference where that shows the module.
"""

import os
import pathlib
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parents[1]
# Pages outside of docs/ -> what they are in the site.
OUTSIDE = {
    "README.md": "index.md",
    "BUILD.md": "build.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
    "SECURITY.md": "vulnerabilities.md",
    "benchmarks/README.md": "benchmarks.md",
}
REFERENCE = "docs/api.md"
LINK = re.compile(r"(!?)\[((?:`[^`]*`|[^\]`])*)\]\(([^)\s]+)\)")
ROW = re.compile(r"^\|.*", re.MULTILINE)
SPAN = re.compile(r"`[^`]+`")
NAMED = re.compile(r"<!-- reference: ([\w.]+)(?: as ([\w.]+))? -->")  # where the reference documents an object
FLAG = re.compile(r"`--\w[\w=.,]{,40}`(?!\{)")
COMMENT = re.compile(r"^<!--.*-->\n", re.MULTILINE)
NESTED_ITEM = re.compile(r"^ {2,3}(?=[*-] |\d+\. )", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie outside of docs/."""
    for path, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """A page of GitHub's Markdown as MkDocs reads it."""
    return of_the_site(markdown, page.file.src_uri)


def of_the_site(markdown: str, name: str) -> str:
    """What a page says, with links of the site, and in the Markdown of Python.

    Args:
      name: of the page in the site, "targets.md".
    """
    folder = (ROOT / in_repository(name)).parent
    markdown = NAMED.sub(_documented, markdown)
    markdown = COMMENT.sub("\n", markdown)  # Python's Markdown takes a table behind one for a part of it
    markdown = NESTED_ITEM.sub("    ", markdown)
    markdown = ROW.sub(lambda row: SPAN.sub(lambda span: span[0].replace(r"\|", "|"), row[0]), markdown)
    markdown = FLAG.sub(r"\g<0>{.flag}", markdown)  # site.css keeps it on one line
    return LINK.sub(lambda link: _link(link, folder), markdown)


def _link(link: re.Match, folder: pathlib.Path) -> str:
    """A link of a page in `folder`, as it is in the site."""
    picture, text, target = link.groups()
    path, _, anchor = target.partition("#")
    if "://" in target or not path:
        return link[0]
    file = pathlib.Path(os.path.normpath(folder / path)).relative_to(ROOT).as_posix()
    if name := in_site(file):
        return f"{picture}[{text}]({name}{'#' * bool(anchor)}{anchor})"
    module = file.removesuffix(".py").replace("/", ".")
    shown = [name for name in referenced() if module in (name, name.rpartition(".")[0])]
    return f"[{text}]({in_site(REFERENCE)}#{shown[0]})" if shown else text


def _documented(found: re.Match) -> str:
    """The place of an object's documentation, as mkdocstrings has it."""
    name, door = found.groups()
    return f"::: {name}\n    options:\n      heading: {door or name}"


def in_site(path: str) -> str:
    """The name in the site of a file of the repository; "" where the site has none."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    return path.removeprefix("docs/") if path.startswith("docs/") and not path.endswith(".py") else ""


def in_repository(name: str) -> str:
    """Where a page of the site lies in the repository."""
    outside = {name: path for path, name in OUTSIDE.items()}
    return outside.get(name, f"docs/{name}")


def referenced() -> list[str]:
    """Objects that the reference documents, by their dotted names."""
    return [found[1] for found in NAMED.finditer((ROOT / REFERENCE).read_text())]
