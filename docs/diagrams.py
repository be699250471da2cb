"""Draws the diagrams of the manual: `python docs/diagrams.py` writes two files to docs/pictures."""

import re
import textwrap
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
STYLE = (
    "text{font:14px sans-serif;fill:#222}.small{font-size:11px;fill:#555}.box{fill:#fff;stroke:#555;stroke-width:1.3}"
    ".g{fill:#dcecf8}.d{fill:#fbe6d4}.arrow{stroke:#555;stroke-width:1.5;fill:none;marker-end:url(#tip)}"
)
TIP = (
    '<marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#555"/></marker>'
)


def page(width: int, height: int, shapes: list[str]) -> str:
    """Returns an SVG on a white ground, readable in a dark theme too."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<defs><style>{STYLE}</style>{TIP}</defs><rect width="{width}" height="{height}" fill="#fafafa"/>'
        + "\n".join(shapes)
        + "</svg>\n"
    )


def box(x: int, y: int, width: int, height: int, title: str, note: str = "", kind: str = "") -> str:
    """Returns a box with a title and small text below it."""
    middle = x + width // 2
    lines = textwrap.wrap(note, width // 6)
    top = y + height // 2 + 5 - 7 * len(lines)
    small = [
        f'<text x="{middle}" y="{top + 14 * number}" text-anchor="middle" class="small">{escape(line)}</text>'
        for number, line in enumerate(lines, start=1)
    ]
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" class="box {kind}"/>'
        f'<text x="{middle}" y="{top}" text-anchor="middle">{escape(title)}</text>{"".join(small)}'
    )


def arrow(*points: tuple[int, int]) -> str:
    """Returns an arrow through points."""
    return f'<path class="arrow" d="M{" L".join(f"{x} {y}" for x, y in points)}"/>'


def label(x: int, y: int, text: str) -> str:
    """Returns a line of small text that starts at a point."""
    return f'<text x="{x}" y="{y}" class="small">{escape(text)}</text>'


def packages() -> str:
    """Returns the drawing of the packages, read from docs/design.md."""
    drawing = re.findall(r"^(\d)  (\w+) +(.*)$", (DOCS / "design.md").read_text(encoding="utf-8"), re.MULTILINE)
    levels: dict[str, list[tuple[str, str]]] = {}
    for level, package, purpose in drawing:
        levels.setdefault(level, []).append((package, re.split(r"[:.]", purpose)[0]))
    shapes, y = [], 20
    for level, packages in levels.items():
        width = (680 - 20 * (len(packages) - 1)) // len(packages)
        shapes.append(f'<text x="14" y="{y + 32}">{level}</text>')
        shapes += [
            box(40 + number * (width + 20), y, width, 56, package, purpose)
            for number, (package, purpose) in enumerate(packages)
        ]
        y += 76
    down = arrow((740, 20), (740, y - 24))
    return page(850, y + 4, [*shapes, down, label(752, y // 2, "imports point"), label(752, y // 2 + 14, "down")])


def training_step() -> str:
    """Returns the drawing of one training step."""
    return page(
        850,
        400,
        [
            label(20, 24, "1. update of D"),
            box(20, 40, 150, 50, "latents, labels", "drawn from seed and step"),
            box(220, 40, 130, 50, "G", "not updated here", "g"),
            box(20, 130, 150, 50, "real images", "flips, augmentation"),
            box(430, 85, 130, 50, "D", "spectral norm once", "d"),
            box(640, 85, 190, 50, "hinge loss", "real and generated"),
            arrow((170, 65), (220, 65)),
            arrow((350, 65), (390, 65), (390, 100), (430, 100)),
            arrow((170, 155), (390, 155), (390, 122), (430, 122)),
            arrow((560, 110), (640, 110)),
            arrow((735, 135), (735, 180), (495, 180), (495, 135)),
            label(560, 196, "gradient, mean over devices, Adam at D's rate"),
            label(20, 244, "2. update of G"),
            box(20, 260, 150, 50, "latents, labels", "new draws"),
            box(220, 260, 130, 50, "G", "spectral norm once", "g"),
            box(430, 260, 130, 50, "D", "the updated one", "d"),
            box(640, 260, 190, 50, "hinge loss of G"),
            arrow((170, 285), (220, 285)),
            arrow((350, 285), (430, 285)),
            arrow((560, 285), (640, 285)),
            arrow((735, 310), (735, 356), (285, 356), (285, 310)),
            label(400, 374, "gradient, mean over devices, Adam at G's rate, then the moving average of G"),
        ],
    )


if __name__ == "__main__":
    for name, drawing in {"packages": packages(), "training_step": training_step()}.items():
        (DOCS / "pictures" / f"{name}.svg").write_text(drawing, encoding="utf-8")
