from docs import results


def test_tables_are_those_of_the_results():
    text = results.PAGE.read_text()
    assert results.page(text) == text, "make docs"


def test_every_folder_of_results_has_a_table():
    shown = {folder for _, folder in results.PLACE.findall(results.PAGE.read_text())}
    assert shown == {path.parent.name for path in results.RESULTS.rglob("*.json")}
