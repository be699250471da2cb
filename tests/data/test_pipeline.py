import itertools
import threading

import numpy as np
import pytest

from sagan_jax.data import to_float, to_uint8, training_batches
from sagan_jax.errors import InvalidInputError, NonFiniteError

pytestmark = pytest.mark.one_jax


class Numbered:
    """`count` images of 2x2x3; image i is filled with i and labelled 1000 + i."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return np.full((2, 2, 3), index, np.uint8), 1000 + index


def batches(count=13, **options):
    defaults = {"batch_size": 6, "discriminator_steps": 2, "seed": 5, "first_step": 0, "total_steps": 9}
    return list(training_batches(Numbered(count), **{**defaults, **options}))


def labels_of(**options):
    return np.stack([labels for _, labels in batches(**options)])


def test_to_uint8_undoes_to_float_for_every_level():
    levels = np.arange(256, dtype=np.uint8).reshape(4, 64)
    np.testing.assert_array_equal(to_uint8(to_float(levels)), levels)


def test_to_float_maps_level_x_to_x_over_127_5_minus_1():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(to_float(levels), [x / 127.5 - 1 for x in range(256)], rtol=0, atol=6e-8)


def test_to_float_gives_float32():
    assert to_float(np.zeros(3, np.uint8)).dtype == np.float32


def test_to_uint8_rounds_to_the_nearest_level():
    values = np.random.default_rng(0).uniform(-1, 1, 997)
    assert to_uint8(values).tolist() == [round((x + 1) * 127.5) for x in values.tolist()]


def test_to_uint8_clips_what_lies_outside():
    assert to_uint8(np.array([-np.inf, -1.5, 1.5, np.inf], np.float32)).tolist() == [0, 0, 255, 255]


def test_to_uint8_reads_bfloat16():
    values = np.array([-1, 0.5, 1], np.dtype("bfloat16"))
    assert to_uint8(values).tolist() == [0, 191, 255]


def test_to_uint8_refuses_nan():
    with pytest.raises(NonFiniteError, match="needs images without NaN"):
        to_uint8(np.array([0, np.nan]))


def test_to_uint8_refuses_what_is_uint8_already():
    with pytest.raises(InvalidInputError, match=r"uint8\. Were they converted twice"):
        to_uint8(np.zeros(3, np.uint8))


def test_to_float_refuses_floats():
    with pytest.raises(InvalidInputError, match=r"float32\. Are they floats already"):
        to_float(np.zeros(3, np.float32))


def test_batches_have_the_shapes_and_types_they_promise():
    images, labels = batches(process_index=1, process_count=2)[0]
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((2, 3, 2, 2, 3), np.float32, (2, 3), np.int32)


def test_batches_pair_each_image_with_its_own_label():
    for images, labels in batches():
        expected = np.broadcast_to((labels[..., None, None, None] - 1000) / 127.5 - 1, images.shape)
        np.testing.assert_allclose(images, expected, atol=1e-6)


def test_batches_go_through_every_image_once_an_epoch():
    records = labels_of(total_steps=13).ravel().reshape(12, 13)
    np.testing.assert_array_equal(np.sort(records), np.tile(np.arange(1000, 1013), (12, 1)))


def test_batches_are_shuffled_anew_each_epoch():
    records = labels_of(total_steps=13).ravel().reshape(12, 13)
    assert len({tuple(epoch) for epoch in records.tolist()}) == 12


def test_batches_of_neighbouring_seeds_share_no_epoch():
    epochs = [
        epoch for seed in (0, 1, 2**32 - 1) for epoch in labels_of(total_steps=13, seed=seed).reshape(12, 13).tolist()
    ]
    assert len({tuple(epoch) for epoch in epochs}) == 36


def test_batches_of_a_seed_are_the_same_in_every_run():
    np.testing.assert_array_equal(labels_of(), labels_of())


def test_batches_taken_up_at_a_step_are_those_of_the_run_that_never_stopped():
    np.testing.assert_array_equal(labels_of(first_step=4), labels_of()[4:])


def test_batches_do_not_depend_on_the_number_of_processes():
    parts = [labels_of(process_index=p, process_count=3) for p in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), labels_of())


def test_batches_of_a_step_are_consecutive_records_of_one_order():
    np.testing.assert_array_equal(labels_of().ravel(), labels_of(batch_size=12, discriminator_steps=1).ravel())


def test_batch_larger_than_the_set_repeats_it():
    records = labels_of(count=3, batch_size=7, discriminator_steps=1, total_steps=3).ravel()
    np.testing.assert_array_equal(np.sort(records.reshape(7, 3)), np.tile([1000, 1001, 1002], (7, 1)))


def test_batches_far_beyond_int32_records_are_still_epochs():
    # Step 13 k starts at record 12 x 13 k, which is the beginning of an epoch.
    records = labels_of(first_step=13 * 10**9, total_steps=13 * 10**9 + 13).reshape(12, 13)
    np.testing.assert_array_equal(np.sort(records), np.tile(np.arange(1000, 1013), (12, 1)))


@pytest.mark.parametrize("first_step", [9, 11])
def test_batches_of_a_run_that_has_ended_are_none(first_step):
    assert batches(first_step=first_step) == []


def test_batches_leave_no_thread_behind_when_closed_early():
    before = set(threading.enumerate())
    stream = training_batches(Numbered(13), batch_size=6, discriminator_steps=2, seed=5, first_step=0, total_steps=1000)
    next(stream)
    during = set(threading.enumerate()) - before
    stream.close()
    for thread in during:
        thread.join(timeout=10)
    assert during
    assert not any(thread.is_alive() for thread in during)


def test_batches_pass_on_the_error_of_an_unreadable_image():
    class Broken(Numbered):
        def __getitem__(self, index):
            if index == 4:
                raise InvalidInputError("Cannot read image 'b.png'.")
            return super().__getitem__(index)

    stream = training_batches(Broken(13), batch_size=6, discriminator_steps=2, seed=5, first_step=0, total_steps=9)
    with pytest.raises(InvalidInputError, match=r"^Cannot read image 'b\.png'\.$"):
        list(itertools.islice(stream, 9))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"process_count": 4}, "got 6 and 4"),
        ({"process_index": 2, "process_count": 2}, r"in \[0, 2\); got 2"),
        ({"process_index": -1}, r"in \[0, 1\); got -1"),
        ({"seed": -1}, "got -1"),
        ({"seed": 2**32}, "got 4294967296"),
        ({"batch_size": 0}, "got 0, 2, 1 and 0"),
        ({"discriminator_steps": 0}, "got 6, 0, 1 and 0"),
        ({"first_step": -3}, "got 6, 2, 1 and -3"),
    ],
)
def test_batches_refuse_numbers_out_of_range_at_the_call(options, said):
    options = {"batch_size": 6, "discriminator_steps": 2, "seed": 5, "first_step": 0, "total_steps": 9, **options}
    with pytest.raises(InvalidInputError, match=said):
        training_batches(Numbered(13), **options)


class Labelled(Numbered):
    """Images whose labels are the given ones."""

    def __init__(self, labels):
        super().__init__(len(labels))
        self.labels = labels

    def __getitem__(self, index):
        return super().__getitem__(index)[0], self.labels[index]


def batches_labelled(labels):
    stream = training_batches(
        Labelled(labels), batch_size=4, discriminator_steps=1, seed=0, first_step=0, total_steps=1
    )
    return np.sort(next(stream)[1].ravel())


@pytest.mark.parametrize(
    "labels", [[0.5] * 4, np.arange(4.0), [True] * 4, [2**31] * 4, [2**70] * 4, ["1"] * 4, [[1, 2]] * 4, [None] * 4]
)
def test_labels_that_a_cast_would_change_are_refused(labels):
    with pytest.raises(InvalidInputError, match=r"^A source needs labels that are integers below 2\*\*31; got"):
        batches_labelled(labels)


@pytest.mark.parametrize("labels", [[3, 1, 2, 0], np.array([3, 1, 2, 0], np.uint8), np.array([3, 1, 2, 0], np.int64)])
def test_labels_of_each_integer_type_are_read(labels):
    assert batches_labelled(labels).tolist() == [0, 1, 2, 3]
