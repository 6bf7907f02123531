from docs import results


def test_tables_are_those_of_the_results():
    text = results.PAGE.read_text()
    assert results.page(text) == text, "make docs"
