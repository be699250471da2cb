"""Loads the HTML templates in this folder."""

from pathlib import Path

import jinja2


def load_template(name: str) -> jinja2.Template:
    """Returns a template that escapes its values, and raises an error if a value is missing.

    Args:
        name: the name of the file, such as `report.html`.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string((Path(__file__).parent / name).read_text(encoding="utf-8"))
