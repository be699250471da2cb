"""Prints how long the sentences of the README and of the manual are: `python docs/sentences.py [FILE ...]`.

Only prose counts: no code, tables, headings or links' addresses. A sentence ends at `.`, `!` or `?` before white space.
"""

import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pages() -> list[Path]:
    """Returns the README, the other pages of the top level, and all pages of the manual that a person wrote."""
    return [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "docs" / "api").glob("*.md")),
    ]


def sentences(markdown: str) -> list[str]:
    """Returns the sentences of a page's prose.

    >>> sentences("# Title\\n\\nOne [link](a.md). Two `x = 1.5` words?\\n\\n- An item\\n- Another one\\n")
    ['One link.', 'Two `x = 1.5` words?', 'An item', 'Another one']
    """
    text = re.sub(r"^(```|~~~).*?^\1\s*$", "\n", markdown, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^(#|\||:::|!!!|--8<--|    ).*$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|\*\*", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text)
    prose = [re.sub(r"^\s*(?:[-*]|\d+\.) ", "", " ".join(block.split())) for block in blocks]
    return [
        part for block in prose for part in re.split(r"(?<=[.!?])\s+", block.strip("*_ ")) if re.search(r"\w", part)
    ]


def lengths(found: list[str]) -> list[int]:
    """Returns the number of words of each sentence."""
    return [len(sentence.split()) for sentence in found]


def percentile_90(numbers: list[int]) -> float:
    """Returns the 90th percentile."""
    return statistics.quantiles(numbers, n=10, method="inclusive")[-1] if len(numbers) > 1 else float(numbers[0])


def main(arguments: list[str]) -> None:
    """Prints a line for each page, one for all, and the longest sentences."""
    files = [Path(name) for name in arguments] or pages()
    found = {path: sentences(path.read_text(encoding="utf-8")) for path in files}
    print(f"{'sentences':>9}  {'median':>6}  {'90%':>5}  {'longest':>7}  page")
    everything = [sentence for part in found.values() for sentence in part]
    for name, part in [*((str(path), part) for path, part in found.items()), ("all pages", everything)]:
        words = lengths(part)
        if words:
            print(
                f"{len(words):9}  {statistics.median(words):6.1f}  {percentile_90(words):5.1f}  {max(words):7}  {name}"
            )
    for sentence in sorted(everything, key=lambda sentence: -len(sentence.split()))[:10]:
        print(f"\n{len(sentence.split())} words: {sentence}")


if __name__ == "__main__":
    main(sys.argv[1:])
