import re

import pytest

from qkd_tf.console import page


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "page.j2"
    blocks = {"title": "{{ name }}", "body": "{{ name|breakable }}"}
    filled = [f"{{% block {block} %}}{text}{{% endblock %}}" for block, text in blocks.items()]
    path.write_text('{% extends "page.html.j2" %}' + "".join(filled))
    return path


def test_names_are_escaped_and_may_be_broken_behind_underscores(template):
    text = page.render(template, name="<b>_c/d")
    assert "<title>&lt;b&gt;_c/d</title>" in text
    assert "&lt;b&gt;_<wbr>c/<wbr>d" in text


def test_name_that_is_not_given_is_an_error(template):
    with pytest.raises(Exception, match="name"):
        page.render(template)


def test_page_may_load_nothing(template):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page.render(template, name="x"))[1]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@page.in_style
def test_figure_is_text_in_the_colours_of_the_page():
    drawn = page.axes()
    drawn.plot([1, 2], [3, 4], color=page.COLOURS["one"], label="a <line> & more")
    drawn.legend()
    svg = page.svg(drawn, 'what "it" <shows>')
    assert svg.startswith('<svg viewBox="0 0 324 194.4" role="img" aria-label="what &#34;it&#34; &lt;shows&gt;">')
    assert "a &lt;line&gt; &amp; more</text>" in svg
    assert "var(--one)" in svg and "var(--ink)" in svg
    assert set(re.findall("#[0-9a-f]{6}", svg)) == set()  # a colour of its own would be lost in the dark
    assert "font-family" not in svg and "http:" not in svg.replace('"http://www.w3.org/1999/xlink"', "")
