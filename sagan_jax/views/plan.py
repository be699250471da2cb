"""The table of a plan, as text and as a page: devices side by side."""

from collections.abc import Mapping, Sequence

from sagan_jax.views.templates import load_template


def plan_page(title: str, columns: Mapping[str, Mapping[str, str]], notes: Sequence[str] = ()) -> str:
    """Returns the page of a table.

    Args:
        title: the heading.
        columns: the columns by heading; each maps row labels to cells. Cells may be missing.
        notes: sentences below the table.
    """
    labels = row_labels(columns)
    return load_template("plan.html").render(title=title, columns=columns, labels=labels, notes=notes)


def plan_text(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Returns the table of `plan_page` as lines of text, with the columns side by side.

    Examples:
        >>> print(plan_text({"here": {"batch": "8"}, "there": {"batch": "64", "fits": "yes"}}))
               here  there
        batch  8     64
        fits         yes
    """
    table = [["", *columns]]
    table += [[label, *(rows.get(label, "") for rows in columns.values())] for label in row_labels(columns)]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return "\n".join(line.rstrip() for line in lines)


def row_labels(columns: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Returns the labels of the rows of all columns. A new label follows its predecessor in its column.

    Examples:
        >>> row_labels({"a": {"memory": "", "time": ""}, "b": {"memory": "", "largest batch": ""}})
        ['memory', 'largest batch', 'time']
    """
    labels: list[str] = []
    for rows in columns.values():
        position = 0
        for label in rows:
            if label not in labels:
                labels.insert(position, label)
            position = labels.index(label) + 1
    return labels
