"""The loop, with a step that only counts."""

import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.runtime.loop import PeriodicAction, run_loop


def make_step(bad=()):
    """Returns a step that adds the batch to the state. It keeps the state for a batch in `bad` (number: quantity)."""

    def step(state, batch):
        wrong = dict(bad).get(batch)
        metrics = {"first": np.float32(batch), "second": np.float32(2.0), "other": np.float32(0.5)}
        if wrong:
            metrics[wrong] = np.float32(np.nan)
        return (state if wrong else state + batch), metrics | {"finite": np.bool_(not wrong)}

    return step


class Book:
    """What the loop did, in its order."""

    def __init__(self):
        self.entries = []

    def log(self, done, metrics):
        self.entries.append(("log", done, metrics))

    def action(self, every_steps, name="action"):
        return PeriodicAction(every_steps, lambda done, state: self.entries.append((name, done, state)))

    def steps(self, name):
        return [entry[1] for entry in self.entries if entry[0] == name]


def run(book, *, first_step=0, total_steps=7, log_every_steps=100, actions=(), bad=(), stops=()):
    _, state = run_loop(
        make_step(bad),
        sum(range(1, first_step + 1)),
        range(first_step + 1, total_steps + 1),
        first_step=first_step,
        total_steps=total_steps,
        finite_metrics=("first", "second"),
        log_every_steps=log_every_steps,
        log=book.log,
        actions=actions,
        stopped=lambda done: done in stops,
    )
    return state


def test_loop_returns_the_state_after_the_last_step():
    assert run(Book()) == 1 + 2 + 3 + 4 + 5 + 6 + 7


def test_loop_runs_an_action_when_due_and_at_the_end():
    book = Book()
    run(book, actions=[book.action(3)])
    assert book.steps("action") == [3, 6, 7]


def test_loop_runs_an_action_once_when_it_is_due_at_the_end():
    book = Book()
    run(book, total_steps=6, actions=[book.action(3)])
    assert book.steps("action") == [3, 6]


def test_loop_gives_an_action_the_state_after_the_steps_done():
    book = Book()
    run(book, actions=[book.action(3)])
    assert [entry[2] for entry in book.entries if entry[0] == "action"] == [6, 21, 28]


def test_loop_runs_each_action_at_its_own_pace_in_the_order_given():
    book = Book()
    run(book, total_steps=6, actions=[book.action(2, "often"), book.action(3, "rarely")])
    assert [entry[:2] for entry in book.entries if entry[0] != "log"] == [
        ("often", 2),
        ("rarely", 3),
        ("often", 4),
        ("often", 6),
        ("rarely", 6),
    ]


def test_loop_logs_at_its_pace_and_at_the_end():
    book = Book()
    run(book, log_every_steps=3)
    assert book.steps("log") == [3, 6, 7]


def test_loop_logs_the_metrics_of_that_step_as_plain_numbers():
    book = Book()
    run(book, total_steps=2)
    ((_, done, metrics),) = book.entries
    assert 0 <= metrics.pop("input_wait") <= 1
    assert (done, metrics) == (2, {"first": 2.0, "second": 2.0, "other": 0.5})
    assert {type(value) for value in metrics.values()} == {float}


def test_loop_that_is_stopped_logs_and_saves_and_says_where_it_is():
    book = Book()
    save = PeriodicAction(100, lambda done, state: book.entries.append(("save", done, state)), on_stop=True)
    assert run(book, total_steps=9, actions=[save, book.action(100)], stops={4}) == 1 + 2 + 3 + 4
    assert [entry[:2] for entry in book.entries] == [("log", 4), ("save", 4)]


def test_loop_that_is_stopped_where_a_save_is_due_saves_once():
    book = Book()
    save = PeriodicAction(2, lambda done, state: book.entries.append(("save", done, state)), on_stop=True)
    run(book, total_steps=9, actions=[save], stops={4})
    assert book.steps("save") == [2, 4]


def test_loop_that_is_stopped_before_its_first_step_does_nothing():
    book = Book()
    assert run(book, first_step=3, total_steps=9, actions=[book.action(1)], stops={3}) == 6
    assert book.entries == []


def test_loop_that_is_stopped_on_a_state_that_went_wrong_names_it():
    book = Book()
    with pytest.raises(NonFiniteError, match=r"^Step 4") as raised:
        run(book, total_steps=9, actions=[book.action(1)], bad={4: "first"}, stops={4})
    assert raised.value.step == 4
    assert book.steps("action") == [1, 2, 3]


def test_loop_logs_before_it_acts():
    book = Book()
    run(book, total_steps=4, log_every_steps=2, actions=[book.action(4)])
    assert [entry[:2] for entry in book.entries] == [("log", 2), ("log", 4), ("action", 4)]


def test_loop_that_resumes_goes_on_counting():
    book = Book()
    state = run(book, first_step=4, total_steps=9, log_every_steps=3, actions=[book.action(2)])
    assert state == 45
    assert book.steps("action") == [6, 8, 9]
    assert {6, 9} <= set(book.steps("log"))


def test_loop_with_nothing_left_to_do_returns_the_state_as_it_is():
    book = Book()
    assert run(book, first_step=7, actions=[book.action(1)]) == 28
    assert book.entries == []


@pytest.mark.parametrize("quantity", ["first", "second"])
def test_loop_names_the_quantity_that_is_not_finite(quantity):
    with pytest.raises(NonFiniteError, match=f"^Step 2: {quantity} is nan"):
        run(Book(), log_every_steps=2, bad={2: quantity})


def test_loop_catches_a_failure_between_two_looks_and_numbers_it():
    with pytest.raises(NonFiniteError, match=r"^Step 5: second is nan"):
        run(Book(), total_steps=9, log_every_steps=4, bad={5: "second"})


def test_loop_names_the_first_of_several_failures():
    with pytest.raises(NonFiniteError, match=r"^Step 2: second"):
        run(Book(), bad={2: "second", 3: "first", 6: "first"})


def test_loop_numbers_a_failure_after_a_resumption():
    with pytest.raises(NonFiniteError, match=r"^Step 6: first"):
        run(Book(), first_step=4, total_steps=9, log_every_steps=4, bad={6: "first"})


def test_loop_raises_at_the_look_after_the_failure():
    book = Book()
    with pytest.raises(NonFiniteError):
        run(book, total_steps=9, log_every_steps=2, bad={5: "first"})
    assert book.steps("log") == [2, 4]


def test_loop_runs_no_action_on_a_state_that_went_wrong():
    book = Book()
    with pytest.raises(NonFiniteError):
        run(book, actions=[book.action(3)], bad={5: "first"})
    assert book.steps("action") == [3]


def test_failure_of_the_numbers_ends_the_command_with_5():
    assert NonFiniteError.exit_code == 5


def healthy(state, batch):
    return state + 1, {"finite": np.bool_(True)}


@pytest.mark.parametrize("batches", [3, 50])
def test_loop_stops_at_the_total_however_many_batches_follow(batches):
    numbers = {"first_step": 0, "total_steps": 3, "finite_metrics": (), "log_every_steps": 100}
    assert run_loop(healthy, 0, range(batches), log=lambda *_: None, **numbers) == (3, 3)


def test_loop_hands_the_device_no_more_than_two_steps_ahead(monkeypatch):
    # A step counts as finished when the loop has waited for it; all before it are finished then too.
    started, finished, ahead = [0], [0], []

    def step(state, batch):
        started[0] = batch
        ahead.append(started[0] - finished[0])
        return state, {"finite": np.bool_(True), "number": np.int32(batch)}

    def wait(metrics):
        finished[0] = int(metrics["number"])

    monkeypatch.setattr("sagan_jax.runtime.loop.jax.block_until_ready", wait)
    numbers = {"first_step": 0, "total_steps": 9, "finite_metrics": ("number",), "log_every_steps": 100}
    run_loop(step, 0, range(1, 10), log=lambda *_: None, **numbers)
    assert ahead == [1, 2, 3, 3, 3, 3, 3, 3, 3]  # the one that is being handed over, and two that may be running


def test_loop_says_that_a_step_is_handed_over_after_it_was_compiled():
    entries = []

    def step(state, batch):
        entries.append(("step", batch))
        return state, {"finite": np.bool_(True)}

    numbers = {"first_step": 3, "total_steps": 5, "finite_metrics": (), "log_every_steps": 100}
    started = lambda done: entries.append(("started", done))  # noqa: E731
    run_loop(step, 0, [4, 5], log=lambda *_: None, started=started, **numbers)
    assert entries == [("step", 4), ("started", 4), ("step", 5), ("started", 5)]


def test_loop_refuses_batches_that_end_too_early():
    numbers = {"first_step": 1, "total_steps": 5, "finite_metrics": (), "log_every_steps": 100}
    with pytest.raises(ValueError, match="up to step 5; they ended after step 3"):
        run_loop(healthy, 1, range(2), log=lambda *_: None, **numbers)


def endless(taken):
    for number in range(1, 100):
        taken.append(number)
        yield number


@pytest.mark.parametrize("stop", [3, 5])
def test_loop_takes_no_batch_that_it_does_not_use(stop):
    taken = []
    numbers = {"first_step": 0, "total_steps": 5, "finite_metrics": (), "log_every_steps": 100}
    done, _ = run_loop(healthy, 0, endless(taken), log=lambda *_: None, stopped=lambda done: done == stop, **numbers)
    assert done == stop
    assert taken == list(range(1, stop + 1))


def test_loop_places_the_next_batch_after_a_step_is_handed_over_and_before_it_is_logged():
    entries = []

    def step(state, batch):
        entries.append(("step", batch))
        return state, {"finite": np.bool_(True)}

    def place(batch):
        entries.append(("place", batch))
        return batch * 10

    numbers = {"first_step": 0, "total_steps": 3, "finite_metrics": (), "log_every_steps": 1}
    log = lambda done, metrics: entries.append(("log", done))  # noqa: E731
    run_loop(step, 0, [1, 2, 3], log=log, place=place, **numbers)
    assert entries == [
        *[("place", 1), ("step", 10), ("place", 2), ("log", 1)],
        *[("step", 20), ("place", 3), ("log", 2)],
        *[("step", 30), ("log", 3)],
    ]


def test_loop_finishes_the_step_before_a_batch_that_cannot_be_read():
    def batches():
        yield 1
        yield 2
        raise InvalidInputError("image 7 is damaged")

    book = Book()
    numbers = {"first_step": 0, "total_steps": 5, "finite_metrics": (), "log_every_steps": 1}
    with pytest.raises(InvalidInputError, match="image 7"):
        run_loop(healthy, 0, batches(), log=book.log, actions=[book.action(2)], **numbers)
    assert book.steps("log") == [1, 2]
    assert book.steps("action") == [2]


def test_loop_finishes_the_step_before_a_batch_that_cannot_be_placed():
    def place(batch):
        if batch == 2:
            raise InvalidInputError("no room")
        return batch

    book = Book()
    numbers = {"first_step": 0, "total_steps": 5, "finite_metrics": (), "log_every_steps": 1}
    with pytest.raises(InvalidInputError, match="no room"):
        run_loop(healthy, 0, endless([]), log=book.log, place=place, **numbers)
    assert book.steps("log") == [1]
