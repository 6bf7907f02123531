import re

import pytest

from docs import pictures


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_picture_is_what_the_script_draws(name):
    committed = (pictures.FOLDER / f"{name}.svg").read_text()
    assert pictures.standing_alone(pictures.PICTURES[name]()) == committed, "make docs"


@pytest.mark.parametrize("path", sorted(pictures.FOLDER.glob("*.svg")), ids=lambda path: path.stem)
def test_picture_has_its_colours_a_text_and_needs_nothing_from_elsewhere(path):
    code = path.read_text()
    used = set(re.findall(r"var\(--(\w+)\)", code))
    light, dark = (set(re.findall(r"--(\w+):", part)) for part in code.split("prefers-color-scheme: dark")[:2])
    assert used and used <= light and used <= dark
    assert re.search(r'role="img" aria-label="[^"]{40,}"', code)
    assert set(re.findall(r"https?://[^\"]+", code)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
