"""The table of a plan, as text and as a page."""

from html.parser import HTMLParser

import pytest

from sagan_jax.views.plan import plan_page, plan_text, row_labels

pytestmark = pytest.mark.one_jax

COLUMNS = {"here <b>": {"batch": "8"}, "v5e:2x4": {"devices": "8", "batch": "64", "fits": "yes & no"}}


class Cells(HTMLParser):
    """The texts of a page, in order."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_data(self, data):
        if data.strip():
            self.found.append(data.strip())


def test_page_holds_title_table_and_notes_as_they_are_given():
    cells = Cells(plan_page("a <plan>", COLUMNS, ["One note."])).found
    table = cells[cells.index("here <b>") :]
    assert cells.count("a <plan>") == 2
    assert table == ["here <b>", "v5e:2x4", "devices", "8", "batch", "8", "64", "fits", "yes & no", "One note."]


def test_text_has_a_line_for_each_row_and_its_columns_stand_in_line():
    lines = plan_text(COLUMNS).splitlines()
    place = lines[0].index("v5e:2x4")
    assert [line[place:] for line in lines] == ["v5e:2x4", "8", "64", "yes & no"]
    assert row_labels(COLUMNS) == ["devices", "batch", "fits"]
