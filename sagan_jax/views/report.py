"""The report of a run: one HTML page that holds everything it shows, and asks no network for anything."""

import base64
import io
import itertools
import json
import math
import re
import shlex
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib
import matplotlib.style
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from PIL import Image

from sagan_jax.errors import InvalidInputError

MOST_POINTS = 2000
"""Of a curve; a longer one is drawn by the smallest and the largest value of each of half as many stretches."""

_READ_AT_MOST = 50_000_000  # bytes of metrics.jsonl; of a longer one every second, third, … line is read
_PICTURE_MARKUP = 300  # bytes of HTML around a picture, at most

# Stand-ins that matplotlib can write, for colours that only the page knows: it has them in light and in dark.
_INK, _FAINT = "#0a0b01", "#0a0b02"
_COLOURS = [f"#0a0bc{number}" for number in range(6)]
_IN_THE_PAGE = {_INK: "currentColor", _FAINT: "var(--line)"} | {
    colour: f"var(--curve-{number})" for number, colour in enumerate(_COLOURS)
}
_STYLE = {
    "svg.fonttype": "none",
    "path.simplify_threshold": 0.2,
    "font.size": 8,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.edgecolor": _FAINT,
    "grid.color": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
}


class Curve(NamedTuple):
    """A metric over the steps."""

    steps: np.ndarray
    values: np.ndarray


class Panel(NamedTuple):
    """Curves that share an axis, as SVG, and what stands beside them: the colour, name and last value of each."""

    title: str
    svg: Markup
    legend: list[tuple[int, str, str]]


class Picture(NamedTuple):
    """An image inside the page."""

    name: str
    step: int
    url: Markup
    width: int
    height: int


def report_page(
    workdir: str | Path, *, state: str = "", defaults: Mapping[str, Any] | None = None, budget: int = 10_000_000
) -> str:
    """Returns the report of a run as one HTML page, which needs no network and no other file.

    What is missing, torn or damaged is left out, and the page says so. The same files give the same page.

    Args:
        workdir: of a run; read only.
        state: how it stands, such as `stopped`; unless given, told from the steps: finished or not.
        defaults: the config that the run's is compared with, nested as in `config.json`.
        budget: bytes the page may have; pictures are thinned evenly to fit, curves are not.

    Returns:
        The page, of at most `budget` bytes in UTF-8 unless text and curves alone are larger.

    Raises:
        InvalidInputError: there is no run in `workdir`.
    """
    workdir = Path(workdir)
    if not any((workdir / name).is_file() for name in ("config.json", "metrics.jsonl")):
        raise InvalidInputError(
            f"There is no run in {str(workdir)!r}: it has no config.json and no metrics.jsonl. Is the path right?"
        )
    notes: list[str] = []
    config = _document(workdir / "config.json", notes)
    environment = _document(workdir / "environment.json", notes)
    curves = read_metrics(workdir / "metrics.jsonl", notes)

    step = max((int(curve.steps[-1]) for curve in curves.values()), default=0)
    total_steps = _number(_flat(config).get("training.total_steps"))
    finished = total_steps is not None and step >= total_steps
    saved = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()]
    settings = _settings(config, defaults or {})
    page = {
        "name": str(config.get("name") or workdir.resolve().name),
        "step": step,
        "total_steps": total_steps,
        "state": state or ("finished" if finished else "not finished"),
        "finished": finished,
        "checkpoint": max(saved, default=None),
        "command": resume_command(workdir, environment),
        "processes": environment.get("process_count"),
        "facts": _facts(curves),
        "sections": _sections(curves),
        "smoothed": any(len(curve.steps) > _SMOOTH_FROM for curve in curves.values()),
        "thinned": any(len(curve.steps) > MOST_POINTS for curve in curves.values()),
        "most_points": MOST_POINTS,
        "scores": _scores(workdir / "scores", curves, notes),
        "changed": [row for row in settings if row[1] != row[2]] if defaults else [],
        "unchanged": [row for row in settings if not defaults or row[1] == row[2]],
        "versions": _mapping(environment.get("versions")),
        "machine": {name: value for name, value in environment.items() if name not in ("versions", "argv")},
        "notes": notes,
    }
    room = budget - len(_render(page, [], []))
    attention, left_out = _fitting(_newest_first(workdir / "attention"), room // 3)
    views = sorted(_pictures(attention, notes))
    if left_out:
        notes.append(f"{left_out} of {left_out + len(attention)} attention views are left out to keep the page small.")
    room = budget - len(_render(page, [], views)) - 2000
    grids = sorted((workdir / "samples").glob("samples-*.png"), key=lambda path: (_step_of(path), path.name))
    chosen = _spread(grids, room)
    if len(chosen) < len(grids):
        notes.append(
            f"{len(chosen)} of {len(grids)} sample grids are shown, evenly over the run, to keep the page small."
        )
    return _render(page, _pictures(chosen, notes), views).decode()


def _render(page: Mapping[str, Any], frames: Sequence[Picture], views: Sequence[Picture]) -> bytes:
    """Returns the page in UTF-8; what is no character, as in a file name that is not UTF-8, is written as its code."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    return template.render(page, frames=frames, views=views).encode("utf-8", "backslashreplace")


# --- what a run wrote


def _document(path: Path, notes: list[str]) -> dict[str, Any]:
    """Returns the JSON object of a file; an empty one, and a note, where there is none."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        notes.append(f"{path.name} is missing or could not be read.")
        return {}
    return document


def read_metrics(path: Path, notes: list[str]) -> dict[str, Curve]:
    """Returns the curves of a `metrics.jsonl` by name; adds to the notes what had to be left out of them.

    Args:
        path: one JSON object a line, each with its `step`; lines that are none are passed over, as are values that are
            no finite numbers.
        notes: gets a sentence for each kind of thing left out.
    """
    points: dict[str, tuple[list[int], list[float]]] = {}
    broken = not_finite = 0
    try:
        every = 1 + path.stat().st_size // _READ_AT_MOST
        with path.open("rb") as lines:
            for number, line in enumerate(lines):
                if number % every and b'"score/' not in line:
                    continue
                try:
                    values = json.loads(line)
                    step = values.pop("step")
                    if not isinstance(step, int):
                        raise TypeError("a step is a whole number")
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    broken += 1
                    continue
                for name, value in values.items():
                    if _number(value) is None:
                        not_finite += 1
                        continue
                    steps, column = points.setdefault(name, ([], []))
                    steps.append(step)
                    column.append(float(value))
    except OSError:
        notes.append("There are no metrics yet.")
        return {}
    if broken:
        notes.append(f"{broken:,} line{'s' * (broken > 1)} of metrics.jsonl could not be read.")
    if not_finite:
        notes.append(f"{not_finite:,} value{'s' * (not_finite > 1)} of metrics.jsonl: no finite number, so not drawn.")
    if every > 1:
        notes.append(f"metrics.jsonl is long: one line of {every} was read, and every line with scores.")
    return {name: Curve(np.array(steps), np.array(values)) for name, (steps, values) in sorted(points.items())}


def _number(value: Any) -> int | float | None:
    """Returns a value that is a finite number, and can be drawn, else None."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if fits and abs(value) < 1e300 else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dictionaries as one, names joined by dots."""
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _settings(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns name, value and default of everything in a config, as JSON writes it: tuples are lists there."""
    usual = _flat(defaults)
    return [(name, json.dumps(value), json.dumps(usual.get(name))) for name, value in _flat(config).items()]


def resume_command(workdir: Path, environment: Mapping[str, Any]) -> str:
    """Returns the shell command that a run goes on with: the one it was last started with, flags and all.

    Without `--fresh`, which would throw the run away; with the workdir where it is now; from the folder that relative
    paths were meant from. A run that was started from Python has the command of that program.

    Args:
        workdir: of the run.
        environment: the run's `environment.json`.

    Returns:
        One line, quoted for a POSIX shell; empty where the environment says no command.
    """
    given = environment.get("argv")
    if not isinstance(given, list) or not given or not all(isinstance(word, str) for word in given):
        return ""
    program, *words = given
    if words[:1] == ["train"]:
        kept = [word for word in words if word not in ("--fresh", "--no-fresh")]
        workdirs = [index for index, word in enumerate(kept) if word.partition("=")[0] == "--workdir"]
        for index in reversed(workdirs):
            del kept[index : index + (1 if "=" in kept[index] else 2)]
        command = ["sagan-jax", *kept, "--workdir", str(workdir.resolve())]
    else:
        command = ["python", program, *words]
    flags = environment.get("XLA_FLAGS")
    line = (f"XLA_FLAGS={shlex.quote(flags)} " if isinstance(flags, str) and flags else "") + shlex.join(command)
    folder = environment.get("folder")
    return f"cd {shlex.quote(folder)} && {line}" if isinstance(folder, str) else line


def _facts(curves: Mapping[str, Curve]) -> dict[str, str]:
    """Returns what a person looks for first: the gates of attention and how fast it goes."""
    facts = {}
    for name, curve in curves.items():
        if re.search(r"gamma_\d+$", name):
            facts[f"γ of {_label(name)}"] = _short(curve.values[-1])
    if "images_per_second" in curves:
        facts["images per second, median"] = f"{np.median(curves['images_per_second'].values):,.1f}"
    return facts


def _scores(folder: Path, curves: Mapping[str, Curve], notes: list[str]) -> list[dict[str, Any]]:
    """Returns the newest value of each score, from the metrics and the result files, which hold more; by name."""
    found: dict[tuple[str, int], tuple[float, str]] = {}
    for name, curve in curves.items():
        if name.startswith("score/") and name != "score/seconds":
            found[name.removeprefix("score/"), int(curve.steps[-1])] = (float(curve.values[-1]), "")
    for path in sorted(folder.glob("*.json")):
        result = _document(path, notes)
        for name, value in _mapping(result.get("values")).items():
            if _number(value) is not None:
                found[name, _step_of(path)] = (value, str(result.get("warning") or ""))
    newest = dict(sorted(found))
    return [
        {
            "name": name,
            "step": step,
            "value": f"{found[name, step][0]:.5g}",
            "caveat": " ".join(filter(None, (_caveat(name), found[name, step][1]))),
        }
        for name, step in newest.items()
    ]


def _caveat(name: str) -> str:
    """Returns what a score must not be taken for."""
    if "_random" in name:
        return "Features of random weights: compares with itself only, never with a published FID."
    if name.startswith("classifier_accuracy"):
        return "A classifier trained on these images: compares with itself only."
    if name == "diversity":
        return "How far two images of a class lie apart, as a share of two real ones; near 0 is a collapse."
    return ""


# --- curves


def _sections(curves: Mapping[str, Curve]) -> dict[str, list[Panel]]:
    """Returns the panels of every metric, under their headings; none is left out."""
    left = dict(curves)

    def take(pattern: str) -> dict[str, Curve]:
        return {name: left.pop(name) for name in list(left) if re.search(pattern, name)}

    scores = take(r"^score/")
    scores.pop("score/seconds", None)
    spectral = {network: take(rf"^{network}/sigma/") for network in ("generator", "discriminator")}
    game = {
        "losses of D": take(r"^discriminator/loss(_\w+)?$"),
        "loss of G": take(r"^generator/loss(_\w+)?$"),
        "logits, mean": take(r"_logits$"),
        "γ, the gates of attention": take(r"gamma_\d+$"),
        "how far attention looks, in pixels": take(r"/attention_distance_\d+$"),
        "entropy of attention, in nats": take(r"/attention_entropy_\d+$"),
        "gradient norms": take(r"/gradient_norm$"),
        "images per second": take(r"^images_per_second$"),
    }
    sections = {
        "Losses, logits, attention, gradients, throughput": [
            _panel(title, found, log=title == "gradient norms", gates=title.startswith("γ"))
            for title, found in game.items()
            if found
        ],
        "Scores over the run": [
            _panel(name.removeprefix("score/"), {"": curve}) for name, curve in scores.items() if len(curve.steps) > 1
        ],
    }
    for network, found in spectral.items():
        sections[f"Largest singular values, {network}"] = _spectral_panels(found, f"{network}/sigma/")
    sections["Other values"] = [_panel(name, {"": curve}) for name, curve in left.items()]
    return {heading: panels for heading, panels in sections.items() if panels}


def _spectral_panels(curves: Mapping[str, Curve], prefix: str) -> list[Panel]:
    """Returns a panel for each block, and one for the layers that are in none; all have one scale, to be compared."""
    blocks: dict[str, dict[str, Curve]] = {}
    for name, curve in curves.items():
        block, _, kernel = name.removeprefix(prefix).rpartition("/")
        blocks.setdefault(block or "other layers", {})[kernel.removesuffix("_kernel")] = curve
    values = np.concatenate([[], *(curve.values for curve in curves.values())])
    limits = (values.min(), values.max()) if len(values) else None
    order = sorted(blocks, key=lambda name: (not name.startswith("block"), name == "other layers", _natural(name)))
    return [_panel(block.replace("_", " "), blocks[block], log=True, limits=limits) for block in order]


def _natural(name: str) -> list[Any]:
    """Returns a sorting key with which block_2 comes before block_10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


_SMOOTH_FROM = 200  # points; a shorter curve can be read as it is


def smooth(curve: Curve) -> Curve:
    """Returns the running mean over a fiftieth of the curve, at the step in the middle of each stretch.

    >>> curve = smooth(Curve(np.arange(150), np.arange(150) % 3))
    >>> curve.steps.tolist() == list(range(1, 149)), {round(value, 9) for value in curve.values.tolist()}
    (True, {1.0})
    """
    window = max(1, len(curve.values) // 50)
    total = np.cumsum(np.concatenate([[0.0], curve.values]))
    means = (total[window:] - total[:-window]) / window
    return Curve(curve.steps[(window - 1) // 2 :][: len(means)], means)


def thin(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """Returns a curve of at most so many of its points: the smallest and the largest of each stretch, so spikes stay.

    Args:
        curve: of any length.
        most: even.

    >>> curve = thin(Curve(np.arange(9), np.array([0, 0, 9, 0, 0, 0, -9, 0, 0])), 4)
    >>> curve.steps.tolist(), curve.values.tolist()
    ([0, 2, 4, 6], [0, 9, 0, -9])
    """
    if len(curve.values) <= most:
        return curve
    edges = np.linspace(0, len(curve.values), most // 2 + 1).astype(int)
    kept = [
        index
        for first, end in itertools.pairwise(edges)
        for index in sorted(
            {first + int(curve.values[first:end].argmin()), first + int(curve.values[first:end].argmax())}
        )
    ]
    return Curve(curve.steps[kept], curve.values[kept])


def _panel(
    title: str,
    curves: Mapping[str, Curve],
    *,
    log: bool = False,
    gates: bool = False,
    limits: tuple[float, float] | None = None,
) -> Panel:
    """Returns curves on one axis.

    Args:
        title: what they are.
        curves: by name, each of at least one point.
        log: a logarithmic axis, where all values are positive and they span a factor of five.
        gates: draws the line of zero.
        limits: least and greatest value of the axis; those of the curves unless given. Gates, and what has limits, are
            no noisy curves and drawn as they are.
    """
    values = np.concatenate([curve.values for curve in curves.values()])
    low, high = limits or (float(values.min()), float(values.max()))
    log = log and low > 0 and high > 5 * low
    with matplotlib.style.context({**_STYLE, "svg.hashsalt": f"{title} {list(curves)}"}, after_reset=True):
        figure = Figure(figsize=(3.5, 1.9))
        axes = figure.add_axes((0.12, 0.13, 0.86, 0.83))
        if gates:
            axes.axhline(0, color=_INK, linewidth=0.6)
        for number, curve in enumerate(curves.values()):
            colour, dash = _COLOURS[number % len(_COLOURS)], "-" if number < len(_COLOURS) else "--"
            noisy = len(curve.steps) > _SMOOTH_FROM and not gates and not limits
            marker = "." if len(curve.steps) == 1 else ""
            axes.plot(*thin(curve), dash, color=colour, alpha=0.3 if noisy else 1, marker=marker)
            if noisy:
                axes.plot(*thin(smooth(curve)), dash, color=colour, zorder=3)
        if log:
            axes.set_yscale("log")
        margin = 0.06 * (math.log(high / low) if log else high - low or abs(high) or 1.0)
        edges = (low / math.exp(margin), high * math.exp(margin)) if log else (low - margin, high + margin)
        axes.set_ylim(*edges)
        if log:
            axes.yaxis.set_major_locator(FixedLocator(_log_ticks(*edges)))
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value, 6)))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.tick_params(length=0)
        axes.grid(visible=False, axis="x")
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True)
    legend = [
        (number % len(_COLOURS), _label(name) or "last", _short(curve.values[-1]))
        for number, (name, curve) in enumerate(curves.items())
    ]
    return Panel(title, _inline(drawn.getvalue()), legend)


def _short(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}".replace("-", "−")


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns round numbers between two positive ones, fewer a decade the more decades there are."""
    decades = math.log10(high / low)
    multiples = (1, 2, 5) if decades < 2 else (1, 3) if decades < 3 else (1,)
    every = 1 + int(decades // 6)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, every)
    return [m * 10.0**power for power in powers for m in multiples if low <= m * 10.0**power <= high]


def _label(name: str) -> str:
    """Returns the name of a metric as a legend has room for.

    >>> [_label(f"discriminator/{name}") for name in ("loss_real", "fake_logits", "gamma_32", "gradient_norm")]
    ['real', 'D, fake', 'D at 32', 'D']
    """
    network, _, metric = name.rpartition("/")
    if metric == "images_per_second":
        return "last"
    if metric.startswith("loss"):
        return metric.removeprefix("loss_") if metric != "loss" else "both" if network == "discriminator" else "loss"
    letter = {"generator": "G", "discriminator": "D"}.get(network, network)
    metric = re.sub(r"^(?:gamma|attention_distance|attention_entropy)_(\d+)$", r" at \1", metric)
    metric = {"fake_logits": ", fake", "real_logits": ", real", "gradient_norm": ""}.get(metric, metric)
    return (letter + metric).replace("_", " ")


def _inline(svg: str) -> Markup:
    """Returns an SVG file as an element of a page: without its head, names of parts and size, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 aria-hidden="true">', svg, count=1)
    svg = re.sub(r' id="(?![pm][0-9a-f]{8,}")[^"]*"', "", svg).replace("xlink:href", "href")
    for stand_in, colour in _IN_THE_PAGE.items():
        svg = svg.replace(stand_in, colour)
    return Markup(re.sub(r"\n\s*", "\n", svg))


# --- pictures


def _step_of(path: Path) -> int:
    """Returns the step at the end of a file's name, or 0."""
    step = path.stem.rpartition("-")[2]
    return int(step) if step.isdecimal() else 0


def _size(path: Path) -> int:
    """Returns the bytes of a picture in the page; a file that is gone has none."""
    try:
        return 4 * -(-path.stat().st_size // 3) + _PICTURE_MARKUP
    except OSError:
        return 0


def _newest_first(folder: Path) -> list[Path]:
    """Returns the PNGs of a folder, by the step in their names, the newest first."""
    return sorted(folder.glob("*.png"), key=lambda path: (-_step_of(path), path.name))


def _fitting(paths: Sequence[Path], room: int) -> tuple[list[Path], int]:
    """Returns as many of the first paths as fit into so many bytes, and how many are left."""
    kept = []
    for path in paths:
        room -= _size(path)
        if room < 0:
            break
        kept.append(path)
    return kept, len(paths) - len(kept)


def _spread(paths: Sequence[Path], room: int) -> list[Path]:
    """Returns as many as fit into so many bytes, evenly from the first to the last; the last, if only one does."""
    sizes = [_size(path) for path in paths]
    for number in range(min(len(paths), room // _PICTURE_MARKUP), 0, -1):
        chosen = np.unique(np.linspace(len(paths) - 1, 0, number).round().astype(int))
        if sum(sizes[index] for index in chosen) <= room:
            return [paths[index] for index in chosen]
    return []


def _pictures(paths: Iterable[Path], notes: list[str]) -> list[Picture]:
    """Returns the files that are whole PNGs, as parts of a page."""
    found = []
    for path in paths:
        try:
            content = path.read_bytes()
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                width, height = image.size
                image.verify()
        except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError):
            notes.append(f"{path.name} is damaged and was left out.")
            continue
        url = Markup("data:image/png;base64," + base64.b64encode(content).decode())
        found.append(Picture(path.stem, _step_of(path), url, width, height))
    return found
