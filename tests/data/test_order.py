"""The order in which images are read: all once an epoch, or all classes equally often."""

import doctest

import numpy as np
import pytest

from sagan_jax.data import order
from sagan_jax.data.order import balanced_order, uniform_order
from sagan_jax.data.pipeline import training_batches
from support.assertions import refusal

pytestmark = pytest.mark.one_jax

LABELS = np.array([2] * 7 + [0] * 3 + [5] * 1)  # three classes, of 7, 3 and 1 images; 1, 3 and 4 have none
EPOCH = 3 * 7


class Numbered:
    """Image i is labelled i."""

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        return np.zeros((1, 1, 3), np.uint8), index


def read(first_step=0, last_step=9, *, batch_size=6, discriminator_steps=2, **options):
    """Returns the indices of the images of each step, in order."""
    batches = training_batches(
        Numbered(),
        batch_size=batch_size,
        discriminator_steps=discriminator_steps,
        seed=5,
        first_step=first_step,
        total_steps=last_step,
        **options,
    )
    return [labels for _, labels in batches]


def flat(steps):
    return np.concatenate([step.ravel() for step in steps])


def test_doctests_of_the_module_hold():
    outcome = doctest.testmod(order)
    assert outcome.attempted
    assert not outcome.failed


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_classes_come_equally_often_and_so_do_the_images_of_each(seed):
    drawn = np.array(list(map(balanced_order(LABELS, seed), range(4 * EPOCH))))
    for turn in LABELS[drawn].reshape(-1, 3).tolist():
        assert sorted(turn) == [0, 2, 5]
    for epoch in drawn.reshape(4, EPOCH):
        assert np.bincount(LABELS[epoch]).tolist() == [7, 0, 7, 0, 0, 7]
    for members in ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9], [10]):
        of_class = drawn[np.isin(drawn, members)]
        assert len(of_class) == 4 * 7
        passes = of_class[: 28 // len(members) * len(members)].reshape(-1, len(members))
        assert np.sort(passes).tolist() == [members] * len(passes)


def test_turns_and_images_are_shuffled_anew_and_follow_the_seed():
    first, again, other = (list(map(balanced_order(LABELS, seed), range(4 * EPOCH))) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert len({tuple(LABELS[first[start : start + 3]]) for start in range(0, len(first), 3)}) == 6
    epochs = [[index for index in first[start : start + EPOCH] if index < 7] for start in range(0, len(first), EPOCH)]
    assert len(set(map(tuple, epochs))) == 4


def test_classes_of_equal_size_are_not_read_in_step():
    labels = np.repeat([0, 1], 50)
    drawn = np.array(list(map(balanced_order(labels, 0), range(100))))
    assert (drawn[labels[drawn] == 0] != drawn[labels[drawn] == 1] - 50).any()


def test_balanced_batches_go_on_where_they_stopped_in_any_number_of_processes():
    whole = read(balanced_by=LABELS)
    np.testing.assert_array_equal(flat(whole)[:EPOCH], list(map(balanced_order(LABELS, 5), range(EPOCH))))
    np.testing.assert_array_equal(read(4, balanced_by=LABELS), whole[4:])
    parts = [read(balanced_by=LABELS, process_index=number, process_count=3) for number in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), whole)


def test_images_of_one_class_cannot_be_balanced():
    assert refusal(balanced_order, np.zeros(4, int), 0).startswith("--sampling balanced needs images of at least 2")


@pytest.mark.parametrize("balanced_by", [None, LABELS])
def test_another_batch_size_goes_on_at_the_image_where_the_run_stopped(balanced_by):
    """Takes 4 steps of batch size 6, then 2 of size 10 and 5 of size 3. Together they read the order without a gap."""
    sizes, read_before, parts, step = (6, 10, 3), 0, [], 0
    for size, steps in zip(sizes, (4, 2, 5), strict=True):
        options = {"batch_size": size, "first_image": read_before, "balanced_by": balanced_by}
        parts += read(step, step + steps, **options)
        step, read_before = step + steps, read_before + 2 * size * steps
    assert read_before == 4 * 12 + 2 * 20 + 5 * 6
    ordered = uniform_order(len(LABELS), 5) if balanced_by is None else balanced_order(LABELS, 5)
    assert flat(parts).tolist() == list(map(ordered, range(read_before)))


def test_another_batch_size_is_split_over_processes_as_in_one():
    options = {"batch_size": 10, "first_image": 48}
    whole = read(4, 7, **options)
    parts = [read(4, 7, **options, process_index=number, process_count=5) for number in range(5)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), whole)
