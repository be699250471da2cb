"""The report of a run: one self-contained HTML page, which loads nothing from a network."""

import base64
import contextlib
import datetime
import html
import io
import json
import re
import shlex
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict
from markupsafe import Markup
from PIL import Image

from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.runtime.files import open_regular, read_json, read_regular
from sagan_jax.runtime.metrics_log import Curve, finite_number, read_metrics
from sagan_jax.runtime.progress import format_duration
from sagan_jax.views.curves import MAX_POINTS, SMOOTH_ABOVE, curve_sections, format_value, metric_label
from sagan_jax.views.templates import load_template

_IMAGE_MARKUP = 300  # bytes of HTML around an image, at most
_NOTES_MARKUP = 2000  # bytes kept free for notes on images
_MAX_IMAGE_BYTES = 1_000_000_000
_HEAD_BYTES = 100_000  # size of the start of a page, with its style, name and progress

FindSigns = Callable[[Mapping[str, Curve], Mapping[str, Any]], Sequence[str]]
_PROGRESS = re.compile("<p>step ([0-9,]+)(?: of [0-9,]+)? · ([^<\n]*)</p>".encode())  # in report.html


class EmbeddedImage(NamedTuple):
    """An image inside the page.

    Attributes:
        name: the name of its file, without the suffix.
        step: the step at the end of the name, or 0.
        url: a `data:` URL with the PNG.
        width: in pixels.
        height: in pixels.
    """

    name: str
    step: int
    url: Markup
    width: int
    height: int


def report_page(
    workdir: str | Path,
    *,
    status: str = "",
    config: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    budget: int = 10_000_000,
    find_signs: FindSigns = lambda curves, config: (),
    read: tuple[int, int] | None = None,
) -> str:
    """Returns the report of a run as one HTML page, which needs no network and no other file.

    Missing or damaged files are left out, and the page says so. The same files give the same page.

    Args:
        workdir: the folder of a run; it is only read.
        status: the status of the run, such as `stopped`. Defaults to `finished` or `not finished`, by the number of
            steps.
        config: the config of the run, as nested dictionaries. Defaults to the content of `config.json`.
        defaults: a config as nested dictionaries; the page shows settings that differ from it first.
        budget: size of the page in bytes. If images do not fit, some are left out evenly. Curves are never left out.
        find_signs: takes the metrics and the config, and returns a line for each sign that training goes wrong.
        read: a step, and the number of images read by then. If it does not match the batch size in the config, the
            batch size was changed, and the page leaves out the time of training. Defaults to unknown.

    Returns:
        The page, of at most `budget` bytes in UTF-8 unless text and curves alone are larger.

    Raises:
        InvalidInputError: there is no run in `workdir`.
        StorageError: the folder cannot be read.
    """
    workdir = Path(workdir)
    _require_run(workdir)
    page = _page_values(workdir, status, config, defaults or {}, find_signs, read)
    notes = page["notes"]
    room = budget - len(_render(page, [], []))
    attention = _attention_images(workdir / "attention", room // 3, notes)
    room = budget - len(_render(page, [], attention)) - _NOTES_MARKUP
    samples = _sample_grids(workdir / "samples", room, notes)
    return _render(page, samples, attention).decode()


def shown_progress(path: str | Path) -> tuple[int, str] | None:
    """Returns the step and the status that a written report shows; None if there is no report.

    Args:
        path: the path of the page.
    """
    try:
        with open_regular(path) as page:
            shown = _PROGRESS.search(page.read(_HEAD_BYTES))
    except (OSError, InvalidInputError):
        return None
    return (int(shown[1].replace(b",", b"")), html.unescape(shown[2].decode("utf-8", "replace"))) if shown else None


def _require_run(workdir: Path) -> None:
    """Raises InvalidInputError if there is no run, and StorageError if the folder cannot be read."""
    path = workdir
    try:
        for path in (workdir / "config.json", workdir / "metrics.jsonl"):
            with suppress(FileNotFoundError, NotADirectoryError):
                path.stat()
                return
    except OSError as error:
        raise StorageError(f"{str(path)!r} could not be read: {error.strerror or error}.") from error
    raise InvalidInputError(
        f"There is no run in {str(workdir)!r}: it has no config.json and no metrics.jsonl. Is the path right?"
    )


def _page_values(
    workdir: Path,
    status: str,
    given: Mapping[str, Any] | None,
    defaults: Mapping[str, Any],
    find_signs: FindSigns,
    read: tuple[int, int] | None,
) -> dict[str, Any]:
    """Returns the values of the template, except the images; `notes` lists what could not be read."""
    notes: list[str] = []
    # Converted to JSON values, as they are in `config.json`.
    config = json.loads(json.dumps(given)) if given else _read_document(workdir / "config.json", notes)
    environment = _read_document(workdir / "environment.json", notes)
    curves, reading_notes = read_metrics(workdir / "metrics.jsonl")
    notes += reading_notes
    return {
        "name": str(config.get("name") or workdir.resolve().name),
        **_progress(workdir, config, curves, status),
        "command": resume_command(workdir, environment),
        "processes": environment.get("process_count"),
        "facts": {**_times(config, environment, curves, read), **_facts(curves)},
        "signs": find_signs(curves, config),
        "sections": curve_sections(curves),
        "smoothed": any(len(curve.steps) > SMOOTH_ABOVE for curve in curves.values()),
        "downsampled": any(len(curve.steps) > MAX_POINTS for curve in curves.values()),
        "max_points": MAX_POINTS,
        "scores": _scores(workdir / "scores", curves, notes),
        **_settings(config, defaults),
        "versions": _mapping(environment.get("versions")),
        "machine": {name: value for name, value in environment.items() if name not in ("versions", "argv", "started")},
        "notes": notes,
    }


def _render(page: Mapping[str, Any], samples: Sequence[EmbeddedImage], attention: Sequence[EmbeddedImage]) -> bytes:
    """Returns the page in UTF-8; lone surrogates, which file names outside UTF-8 have, are escaped."""
    page_text = load_template("report.html").render(page, samples=samples, attention=attention)
    return page_text.encode("utf-8", "backslashreplace")


# --- progress, settings and scores


def _read_document(path: Path, notes: list[str]) -> dict[str, Any]:
    """Returns the JSON object of a file. If it cannot be read, returns an empty one and adds a note."""
    try:
        document = read_json(path)
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict):
        notes.append(f"{path.name} is missing or could not be read.")
        return {}
    return document


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _progress(workdir: Path, config: Mapping[str, Any], curves: Mapping[str, Curve], status: str) -> dict[str, Any]:
    """Returns the progress of the run: steps, status and the newest checkpoint."""
    step = max((int(curve.steps[-1]) for curve in curves.values()), default=0)
    total_steps = finite_number(_mapping(config.get("training")).get("total_steps"))
    finished = total_steps is not None and step >= total_steps
    checkpoints = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()]
    return {
        "step": step,
        "total_steps": total_steps,
        "finished": finished,
        "status": status or ("finished" if finished else "not finished"),
        "checkpoint": max(checkpoints, default=None),
    }


def _settings(config: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, list[tuple[str, str, str]]]:
    """Returns name, value and default of each setting, in two lists: `changed` and `unchanged`.

    Values are compared as JSON, because it turns the tuples of `defaults` into lists.
    """
    usual = flatten_dict(dict(defaults), sep=".")
    rows = [
        (name, json.dumps(value), json.dumps(usual.get(name))) for name, value in flatten_dict(config, sep=".").items()
    ]
    changed = [row for row in rows if row[1] != row[2]] if defaults else []
    return {"changed": changed, "unchanged": [row for row in rows if row not in changed]}


def resume_command(workdir: Path, environment: Mapping[str, Any]) -> str:
    """Returns the shell command that resumes a run: the command that last started it, with its flags.

    The command has no `--fresh`, which would delete the run, and it names the current path of the workdir. It first
    changes to the folder that relative paths refer to. For a run started from Python, it is that program's command.

    Args:
        workdir: the folder of the run.
        environment: the run's `environment.json`.

    Returns:
        One line, quoted for a POSIX shell; empty if the environment does not hold the command.
    """
    argv = environment.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        return ""
    program, *words = argv
    if words[:1] == ["train"]:
        command = ["sagan-jax", *_without_workdir(words), "--workdir", str(workdir.resolve())]
    else:
        command = ["python", program, *words]
    flags = environment.get("XLA_FLAGS")
    line = (f"XLA_FLAGS={shlex.quote(flags)} " if isinstance(flags, str) and flags else "") + shlex.join(command)
    folder = environment.get("folder")
    return f"cd {shlex.quote(folder)} && {line}" if isinstance(folder, str) else line


def _without_workdir(words: Sequence[str]) -> list[str]:
    """Returns the words of a command without `--fresh`, `--no-fresh`, `--workdir PATH` and `--workdir=PATH`."""
    kept = [word for word in words if word not in ("--fresh", "--no-fresh")]
    workdirs = [index for index, word in enumerate(kept) if word.partition("=")[0] == "--workdir"]
    for index in reversed(workdirs):
        del kept[index : index + (1 if "=" in kept[index] else 2)]
    return kept


def _times(
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    curves: Mapping[str, Curve],
    read: tuple[int, int] | None,
) -> dict[str, str]:
    """Returns the start of the run, its training time up to the last logged step, and its speed.

    The time covers all sessions, including compiling, saving and drawing. It is computed from the images per second,
    which are means since the previous line, and therefore needs a constant batch size. `read` is as in `report_page`.
    """
    facts = {}
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        started = datetime.datetime.fromisoformat(str(environment.get("started")))
        facts["started"] = f"{started.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    training, speeds = _mapping(config.get("training")), curves.get("images_per_second")
    batch_size, updates = (finite_number(training.get(name, 1)) for name in ("batch_size", "discriminator_steps"))
    if speeds is None or not batch_size or not updates or (speeds.values <= 0).any():
        return facts
    if read and read[0] * batch_size * updates != read[1]:
        return facts
    seconds = float((np.diff(speeds.steps, prepend=0) * batch_size * updates / speeds.values).sum())
    if 0 < seconds < 1e11:  # a damaged file may hold any numbers
        facts["time of training"] = format_duration(seconds)
        facts["steps per second, mean"] = format_value(speeds.steps[-1] / seconds)
    return facts


def _facts(curves: Mapping[str, Curve]) -> dict[str, str]:
    """Returns further values for the top of the page: gamma of each attention layer, and the throughput.

    Gamma is the value at the last drawing, as in the attention figures. Runs that did not record it show the logged
    gamma.
    """
    facts = {}
    for name, curve in curves.items():
        if re.search(r"/gamma_\d+$", name):
            drawn = curves.get(name.replace("/gamma_", "/attention_gamma_"), curve)
            facts[f"γ of {metric_label(name)}"] = format_value(drawn.values[-1])
    if "images_per_second" in curves:
        facts["images per second, median"] = f"{np.median(curves['images_per_second'].values):,.1f}"
    return facts


def _scores(folder: Path, curves: Mapping[str, Curve], notes: list[str]) -> list[dict[str, Any]]:
    """Returns the newest value of each score by name, from the metrics and from the result files in `folder`."""
    found: dict[tuple[str, int], tuple[float, str]] = {}
    for name, curve in curves.items():
        if name.startswith("score/") and name != "score/seconds":
            found[name.removeprefix("score/"), int(curve.steps[-1])] = (float(curve.values[-1]), "")
    for path in sorted(folder.glob("*.json")):
        result = _read_document(path, notes)
        for name, value in _mapping(result.get("values")).items():
            if finite_number(value) is not None:
                found[name, _step_of(path)] = (value, _measured_with(result))
    newest = dict(sorted(found))  # keeps the last step of each name
    return [
        {
            "name": name,
            "step": step,
            "value": f"{found[name, step][0]:.5g}",
            "caveat": " ".join(filter(None, (_caveat(name), found[name, step][1]))),
        }
        for name, step in newest.items()
    ]


def _measured_with(result: Mapping[str, Any]) -> str:
    """Returns notes on how a score was measured, from its result file: a warning, the network and the resize."""
    network = result.get("embedding") or result.get("classifier")
    resize = _mapping(result.get("protocol")).get("resize")
    words = [str(result["warning"])] if result.get("warning") else []
    words += [f"Network: {network}."] if network else []
    words += [f"Images resized: {resize}."] if network and resize else []
    return " ".join(words)


def _caveat(name: str) -> str:
    """Returns a warning against misreading a score, or ""."""
    if name.startswith("classifier_accuracy"):
        return "The classifier was trained on these images: compare this score between runs only."
    if "_random" in name:
        return "The features have random weights: compare this score between runs only, never with a published FID."
    if "_dinov2" in name:
        return "The features are those of DINOv2: never compare this score with a published FID."
    if "_lite0" in name:
        return "The features are those of EfficientNet-Lite0: never compare this score with a published FID."
    if name == "diversity":
        return "Mean distance of two generated images of a class, relative to real images. Near 0 is mode collapse."
    return ""


# --- images


_DRAWN_IN_TRAINING = ("generator", "discriminator")
"""The figures that training draws. `sagan-jax attend` adds others, with the number of an image in their names."""


def _attention_images(folder: Path, room: int, notes: list[str]) -> list[EmbeddedImage]:
    """Returns the attention maps in a folder by name; if not all fit into `room` bytes, first those of training."""
    paths = sorted(folder.glob("*.png"), key=lambda path: (path.stem not in _DRAWN_IN_TRAINING, path.name))
    chosen = _fitting(paths, room)
    images = sorted(_embed(chosen, notes))
    if len(chosen) < len(paths):
        notes.append(
            f"{len(paths) - len(chosen)} of {len(paths)} attention figures are left out to keep the page small."
        )
    return images


def _sample_grids(folder: Path, room: int, notes: list[str]) -> list[EmbeddedImage]:
    """Returns the sample grids in a folder, by step; evenly chosen over the run if not all fit into `room` bytes."""
    paths = sorted(folder.glob("samples-*.png"), key=lambda path: (_step_of(path), path.name))
    chosen = _evenly_spaced(paths, room)
    if len(chosen) < len(paths):
        notes.append(
            f"{len(chosen)} of {len(paths)} sample grids are shown, evenly over the run, to keep the page small."
        )
    return _embed(chosen, notes)


def _step_of(path: Path) -> int:
    """Returns the step at the end of a file's name, or 0."""
    step = path.stem.rpartition("-")[2]
    return int(step) if step.isdecimal() else 0


def _embedded_size(path: Path) -> int:
    """Returns the size of an image in the page, in bytes; 0 for a file that no longer exists."""
    try:
        return 4 * -(-path.stat().st_size // 3) + _IMAGE_MARKUP
    except OSError:
        return 0


def _fitting(paths: Sequence[Path], room: int) -> list[Path]:
    """Returns as many of the first images as fit into `room` bytes."""
    kept = []
    for path in paths:
        room -= _embedded_size(path)
        if room < 0:
            break
        kept.append(path)
    return kept


def _evenly_spaced(paths: Sequence[Path], room: int) -> list[Path]:
    """Returns as many images as fit into `room` bytes, evenly spaced; the last image if only one fits."""
    sizes = [_embedded_size(path) for path in paths]
    for number in range(min(len(paths), room // _IMAGE_MARKUP), 0, -1):
        chosen = np.unique(np.linspace(len(paths) - 1, 0, number).round().astype(int))
        if sum(sizes[index] for index in chosen) <= room:
            return [paths[index] for index in chosen]
    return []


def _embed(paths: Iterable[Path], notes: list[str]) -> list[EmbeddedImage]:
    """Returns the files that are valid PNGs, and adds a note for each other file."""
    found = []
    for path in paths:
        try:
            content = read_regular(path, _MAX_IMAGE_BYTES)
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                width, height = image.size
                image.verify()
        except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError):
            notes.append(f"{path.name} is damaged and was left out.")
            continue
        url = Markup("data:image/png;base64," + base64.b64encode(content).decode())
        found.append(EmbeddedImage(path.stem, _step_of(path), url, width, height))
    return found
