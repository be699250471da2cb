"""Classes by their names: those of the checkpoint, or of the training images."""

from types import SimpleNamespace

import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.class_names import class_numbers
from support.assertions import refusal

pytestmark = pytest.mark.one_jax

NAMES = ("airplane", "Bird", "cat", "3")


class Run:
    """Stands for a run whose checkpoint and training images have these names."""

    def __init__(self, stored=(), source=(), num_classes=4):
        self.experiment = SimpleNamespace(networks=SimpleNamespace(num_classes=num_classes))
        self.class_names, self.source = stored, source

    def images(self):
        if not self.source:
            raise InvalidInputError("There is no 'photos.zip'.")
        return SimpleNamespace(class_names=self.source)


def test_names_and_numbers_may_be_mixed():
    assert class_numbers(Run(NAMES), ["cat", "0", 1, "airplane"]) == [2, 0, 1, 0]


def test_number_is_a_number_also_where_a_class_has_that_name():
    assert class_numbers(Run(("1", "0")), ["1", "0"]) == [1, 0]


def test_name_of_digits_and_other_signs_is_a_name():
    assert class_numbers(Run(("0", "2019_01", "1_0")), ["1_0", "2019_01"]) == [2, 1]


def test_numbers_alone_need_no_names():
    assert class_numbers(Run(), ["7", "-1"]) == [7, -1]


def test_names_are_those_of_the_checkpoint_before_those_of_the_images():
    assert class_numbers(Run(NAMES, NAMES[::-1]), ["cat"]) == [2]


def test_checkpoint_without_names_takes_them_from_the_images():
    assert class_numbers(Run((), NAMES), ["cat"]) == [2]


@pytest.mark.parametrize(
    ("run", "word", "said"),
    [
        (Run(NAMES), "BRID", "There is no class 'BRID'. Perhaps you meant 'Bird'."),
        (Run(NAMES), "cats", "Perhaps you meant 'cat'."),
        (Run(NAMES), "xyz", "There is no class 'xyz'. There are 4: 'airplane', 'Bird', 'cat', '3'."),
        (Run(tuple(f"class {n}" for n in range(12))), "xyz", "There are 12: 'class 0', 'class 1', "),
        (Run(num_classes=0), "cat", "The generator has no classes; got the class 'cat'."),
        (Run(("a", "b", "a")), "a", "There are 2 classes 'a': give a number, 0 or 2."),
        (Run(), "cat", "give the number of 'cat', 0 to 3. (There is no 'photos.zip'.)"),
    ],
)
def test_name_that_is_not_known_is_refused(run, word, said):
    assert said in refusal(class_numbers, run, ["0", word])
