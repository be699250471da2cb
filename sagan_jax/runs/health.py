"""Signs that adversarial training goes wrong, computed from its metrics over windows of steps.

`SIGNS` is the table; docs/health.md shows it and says how each number is measured.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sagan_jax.runtime.metrics_log import Curve

WINDOW_STEPS = 500
"""Least number of steps in a window."""

WINDOW_LINES = 6
"""Least number of logged steps in a window. If metrics are logged rarely, the window therefore has more steps."""

SCORES_IN_A_ROW = 3
"""Number of consecutive bad scores that make a sign."""

_CHANCE_LOSS = {"hinge": 2.0, "non_saturating": 2 * math.log(2), "logistic": 2 * math.log(2)}
_CHANCE_LOSS |= {"least_squares": 0.25, "relativistic": math.log(2)}
"""D's least possible loss if it gives all images the same logit. The Wasserstein loss has no such scale."""

_UNITS = tuple(_CHANCE_LOSS)

LOSSES = (*_UNITS, "wasserstein")
"""The adversarial losses, by their names in a config."""

_MIN_DIVERSITY = 0.1
_SMALLEST_GRADIENT = 1e-4  # lower bound of the reference gradient norm
_TRAINING_METRICS = {f"discriminator/{name}" for name in ("loss", "real_logits", "fake_logits")}
_TRAINING_METRICS |= {"generator/gradient_norm"}


class Sign(NamedTuple):
    """A symptom of failing training, with its thresholds.

    Attributes:
        name: the name of its metric, after `health/`.
        words: what is wrong, in plain words.
        helps: what usually helps.
        measured: the quantity that is compared with the thresholds, in words.
        begins: the sign begins below this threshold if `begins` is less than `ends`, otherwise above it.
        ends: the sign ends when the value crosses this second threshold. Between the two nothing changes.
        severe: whether `stop_on_collapse` ends the run.
        losses: the adversarial losses for which the sign is watched.
    """

    name: str
    words: str
    helps: str
    measured: str
    begins: float
    ends: float
    severe: bool
    losses: tuple[str, ...] = LOSSES

    def has_begun(self, value: float) -> bool:
        """Returns whether an absent sign begins at this value."""
        return value < self.begins if self.begins < self.ends else value > self.begins

    def is_over(self, value: float) -> bool:
        """Returns whether a present sign ends at this value."""
        return value > self.ends if self.begins < self.ends else value < self.ends


_MORE_UPDATES = "try `--discriminator-steps 5`, or lower learning rates"
_LOWER_RATES = "try lower learning rates, or go back to an earlier checkpoint"

SIGNS = (
    Sign(
        "logits_inseparable",
        "D cannot tell real from generated images",
        _MORE_UPDATES,
        "mean logit of real images less that of generated ones, mean over the window",
        begins=0.05,
        ends=0.1,
        severe=True,
        losses=_UNITS,
    ),
    Sign(
        "logits_inseparable",
        "D cannot tell real from generated images",
        _MORE_UPDATES,
        "the same mean, as a share of that of its absolute values",
        begins=0.3,
        ends=0.6,
        severe=True,
        losses=("wasserstein",),
    ),
    Sign(
        "discriminator_says_nothing",
        "D's loss is that of a D that says nothing",
        _MORE_UPDATES,
        "D's loss as a share of its least value with one logit for all images: mean distance from 1 over the window",
        begins=0.03,
        ends=0.05,
        severe=False,
        losses=_UNITS,
    ),
    Sign(
        "discriminator_wins",
        "D's loss is near 0: D begins to memorise the images, or G has fallen behind",
        "try `--augmentation color translation cutout`, more images, or fewer `--discriminator-steps`",
        "the same share, mean over the window: 0 is a D that is never wrong",
        begins=0.1,
        ends=0.2,
        severe=False,
        losses=_UNITS,
    ),
    Sign(
        "generator_gradient_gone",
        "G's gradient is gone: G learns nothing any more",
        _MORE_UPDATES,
        "median norm of G's gradient over the window, as a share of the largest such median so far",
        begins=0.02,
        ends=0.05,
        severe=True,
    ),
    Sign(
        "variety_gone",
        "the images have lost their variety: two images of a class differ little",
        "go back to an earlier checkpoint with a lower `--generator-learning-rate`, or try `--discriminator-steps 5`",
        "mean distance of two generated images of a class, as a share of that of two real ones, once it was above",
        begins=_MIN_DIVERSITY,
        ends=0.2,
        severe=True,
    ),
    Sign(
        "sigma_runs_away",
        "the largest singular value of a kernel runs away: the weights grow and learning slows down",
        _LOWER_RATES,
        "largest sigma of all kernels as they are stored",
        begins=100.0,
        ends=50.0,
        severe=False,
    ),
    Sign(
        "gamma_runs_away",
        "gamma of an attention layer runs away: attention drowns the features that it is added to",
        _LOWER_RATES,
        "largest absolute value of gamma",
        begins=10.0,
        ends=5.0,
        severe=False,
    ),
    Sign(
        "score_is_bad",
        "the score that the best checkpoint is kept by has become much worse than its best",
        "take the checkpoint in `best/`",
        f"how many times worse than its best the score was, the least of {SCORES_IN_A_ROW} in a row",
        begins=2.0,
        ends=1.5,
        severe=True,
    ),
)
"""All signs."""


class Event(NamedTuple):
    """The begin or the end of a sign.

    Attributes:
        step: the step of the metrics that show it.
        sign: the sign.
        begins: True if the sign begins, False if it ends.
        value: the measured value.
    """

    step: int
    sign: Sign
    begins: bool
    value: float

    def __str__(self) -> str:
        """Returns one line: what is wrong, the measured value, and what usually helps; or that the sign is over."""
        if not self.begins:
            return f"step {self.step}: no longer: {self.sign.words}"
        return f"step {self.step}: {self.sign.words} ({self.sign.name} {self.value:.3g}): {self.sign.helps}"


class Score(NamedTuple):
    """The score that a run keeps its best checkpoint by.

    Attributes:
        name: the name of its metric, after `score/`.
        higher_is_better: whether a higher score is better.
    """

    name: str
    higher_is_better: bool


class _Line(NamedTuple):
    step: int
    loss: float
    separation: float
    """mean logit of real images less that of generated ones"""
    gradient_norm: float
    """norm of G's gradient"""


class Health:
    """Watches the metrics of adversarial training, and reports when a sign begins and when it is over.

        health = Health("hinge")
        for event in health.observe(500, metrics):
            print(event)

    The reports depend only on the metrics. So a resumed run that observes its earlier metrics again reports the same
    signs as a run that was never stopped.

    Args:
        loss: the adversarial loss; any name outside `LOSSES` for a loss of a user.
        score: the score to watch; None if none is measured.
    """

    def __init__(self, loss: str, score: Score | None = None) -> None:
        self._loss, self._score = loss, score
        # For a loss of a user, only the signs that apply to every loss.
        self._signs = {sign.name: sign for sign in SIGNS if loss in sign.losses or sign.losses == LOSSES}
        self._present: set[str] = set()
        self._lines: list[_Line] = []
        self._largest_gradient = _SMALLEST_GRADIENT
        self._was_varied = False
        self._best: float | None = None
        self._ratios: list[float] = []

    def observe(self, step: int, metrics: Mapping[str, Any]) -> list[Event]:
        """Returns the signs that begin or end with these metrics.

        Args:
            step: the step of the metrics, at least that of the previous call.
            metrics: the logged metrics by name; those that are missing, None or not finite are ignored.
        """
        finite = {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}
        measured = [
            *self._training(step, finite),
            *self._variety(finite.get("health/diversity")),
            *self._variety(finite.get("score/diversity")),
            *_largest("sigma_runs_away", (value for name, value in finite.items() if "/sigma/" in name)),
            *_largest("gamma_runs_away", (abs(value) for name, value in finite.items() if "/gamma_" in name)),
            *self._badness(finite.get(f"score/{self._score.name}") if self._score else None),
        ]
        return list(self._events(step, measured))

    def _events(self, step: int, measured: Iterable[tuple[str, float]]) -> Iterator[Event]:
        for name, value in measured:
            sign = self._signs[name]
            if name not in self._present and sign.has_begun(value):
                self._present.add(name)
                yield Event(step, sign, True, value)
            elif name in self._present and sign.is_over(value):
                self._present.remove(name)
                yield Event(step, sign, False, value)

    def _training(self, step: int, metrics: Mapping[str, float]) -> Iterator[tuple[str, float]]:
        """Yields the values for logits, losses and gradients over the window; nothing before the first full window."""
        if not metrics.keys() >= _TRAINING_METRICS:
            return
        separation = metrics["discriminator/real_logits"] - metrics["discriminator/fake_logits"]
        line = _Line(step, metrics["discriminator/loss"], separation, metrics["generator/gradient_norm"])
        lines = [*self._lines, line]
        recent = [line for line in lines if line.step > step - WINDOW_STEPS]
        self._lines = recent if len(recent) >= WINDOW_LINES else lines[-WINDOW_LINES:]
        if len(self._lines) < WINDOW_LINES or step < WINDOW_STEPS:
            return
        yield from self._discriminator()
        gradient = statistics.median(line.gradient_norm for line in self._lines)
        self._largest_gradient = max(self._largest_gradient, gradient)
        yield "generator_gradient_gone", gradient / self._largest_gradient

    def _discriminator(self) -> Iterator[tuple[str, float]]:
        if self._loss not in LOSSES:
            return
        separation = statistics.fmean(line.separation for line in self._lines)
        if self._loss in _CHANCE_LOSS:
            yield "logits_inseparable", separation
            shares = [line.loss / _CHANCE_LOSS[self._loss] for line in self._lines]
            yield "discriminator_says_nothing", statistics.fmean(abs(share - 1) for share in shares)
            yield "discriminator_wins", statistics.fmean(shares)
        else:
            size = statistics.fmean(abs(line.separation) for line in self._lines)
            yield "logits_inseparable", separation / size if size else 0.0

    def _variety(self, diversity: float | None) -> Iterator[tuple[str, float]]:
        """Yields the variety of the images, once it has been high enough: a new generator has little variety."""
        if diversity is not None and self._was_varied:
            yield "variety_gone", diversity
        self._was_varied |= diversity is not None and diversity >= _MIN_DIVERSITY

    def _badness(self, score: float | None) -> Iterator[tuple[str, float]]:
        """Yields the least of the last ratios. A ratio says how many times worse a score is than the best before it."""
        if score is None or not self._score:
            return
        if self._best is not None:
            better, worse = (score, self._best) if self._score.higher_is_better else (self._best, score)
            # Unbiased distances can be 0 or below. A ratio to such a best score has no meaning.
            ratio = worse / better if better > 0 else math.inf if worse > 0 and self._score.higher_is_better else 1.0
            self._ratios = [*self._ratios, ratio][-SCORES_IN_A_ROW:]
            if len(self._ratios) == SCORES_IN_A_ROW:
                yield "score_is_bad", min(self._ratios)
        choose = max if self._score.higher_is_better else min
        self._best = score if self._best is None else choose(self._best, score)


def _largest(name: str, values: Iterable[float]) -> Iterator[tuple[str, float]]:
    """Yields the name with the largest value; nothing if there are no values."""
    yield from ((name, value) for value in [max(values, default=None)] if value is not None)


def sign_lines(curves: Mapping[str, Curve], config: Mapping[str, Any]) -> list[str]:
    """Returns a line for each period in which a sign was present: its steps, what is wrong and what helps.

    The signs are those that the run recorded. If it recorded none, they are computed from its metrics.

    Args:
        curves: as `read_metrics` returns them.
        config: as in `config.json`, or empty. A run that is not adversarial has no signs.
    """
    training = config.get("training")
    loss = training.get("loss") if isinstance(training, dict) else "hinge"
    if loss is None:
        return []
    loss = loss if isinstance(loss, str) else ""  # a pair: two functions of a user
    watched = any(name.startswith("health/") for name in curves)
    events = _recorded(curves) if watched else observe_curves(Health(loss), curves)
    return [
        f"{_period(event, events[number + 1 :])}: {event.sign.words}: {event.sign.helps}"
        for number, event in enumerate(events)
        if event.begins
    ]


def _recorded(curves: Mapping[str, Curve]) -> list[Event]:
    """Returns the events that a run recorded, in order. Their values are NaN, because they are not recorded."""
    signs = {f"health/{sign.name}": sign for sign in SIGNS}
    events = [
        Event(step, signs[name], value > 0, math.nan)
        for name in curves.keys() & signs.keys()
        for step, value in zip(curves[name].steps.tolist(), curves[name].values.tolist(), strict=True)
    ]
    return sorted(events, key=lambda event: (event.step, event.sign.name))


def _period(begun: Event, later: Sequence[Event]) -> str:
    end = next((event.step for event in later if event.sign == begun.sign and not event.begins), None)
    return f"since step {begun.step:,}" if end is None else f"from step {begun.step:,} to {end:,}"


def observe_curves(
    health: Health, curves: Mapping[str, Curve], *, every: Sequence[int] = (1,), last_step: float = math.inf
) -> list[Event]:
    """Passes the recorded metrics of a run to `health`, and returns all events.

    Args:
        health: the health of the run; it observes the metrics.
        curves: as `read_metrics` returns them.
        every: intervals. Only multiples of these intervals are observed; see `is_observed`.
        last_step: later steps are not observed.
    """
    lines: dict[int, dict[str, float]] = {}
    for name, curve in curves.items():
        for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
            if step <= last_step and is_observed(step, every):
                lines.setdefault(step, {})[name] = value
    return [event for step in sorted(lines) for event in health.observe(step, lines[step])]


def is_observed(step: int, every: Sequence[int]) -> bool:
    """Returns whether a step is a multiple of one of the intervals of a run.

    A stopped run also logs the step at which it stopped. A run that is never stopped does not log that step, and both
    must report the same signs.
    """
    return any(step % interval == 0 for interval in every)
