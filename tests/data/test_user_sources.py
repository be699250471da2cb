"""Data sets of a user: how they are read, and the message for one that breaks the contract."""

import threading
from pathlib import Path

import grain
import numpy as np
import pytest
from PIL import Image

from sagan_jax.data import natural_resolution, open_source, sources, user_sources
from support.assertions import refusal
from support.images import noise

pytestmark = pytest.mark.one_jax

COUNT = 7


def pixels(number, height=6, width=5):
    return noise(height, width, 3, seed=number)


class Numbered:
    """Seven images of noise with the labels 0, 1, 2, 0, ..; a subclass changes an item."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return pixels(index), index % 3


def opened(data, **options):
    data = str(data) if isinstance(data, Path) else data
    return open_source(data, **{"resolution": 5, "notify": lambda line: None, **options})


def refused(data, **options):
    return refusal(opened, data, **options)


def with_item(item, number=4, kind=Numbered):
    """Returns a data set with one item replaced by `item`, or by its result if it is a function."""

    class Changed(kind):
        def __getitem__(self, index):
            if index == number:
                return item() if callable(item) else item
            return super().__getitem__(index)

    return Changed()


def test_images_are_cropped_to_the_centre_square_and_keep_their_labels():
    source = opened(Numbered())
    assert (len(source), source.class_names) == (COUNT, ("0", "1", "2"))
    for index in range(COUNT):
        image, label = source[index]
        np.testing.assert_array_equal(image, pixels(index)[:5])
        assert label == index % 3
    assert source.description == "Numbered: 7 images, 3 classes"


@pytest.mark.parametrize("kind", [list, tuple, np.asarray])
def test_rows_without_labels_may_be_images_alone(kind):
    data = kind([pixels(number) for number in range(COUNT)])
    if kind is tuple:
        data = [(image, None) for image in data]
    source = opened(data)
    assert (source.num_classes, source[3][1]) == (0, 0)
    np.testing.assert_array_equal(source[3][0], pixels(3)[:5])


def test_sources_of_grain_are_taken():
    source = opened(grain.MapDataset.range(COUNT).map(lambda index: (pixels(index), index % 2)))
    np.testing.assert_array_equal(source[5][0], pixels(5)[:5])
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_images_and_images_of_pillow_become_what_is_wanted(channels):
    grey = noise(6, 5, seed=9)
    colour = Image.fromarray(pixels(1))
    clear = Image.fromarray(np.zeros((6, 5, 4), np.uint8), "RGBA")
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    data = [grey, grey[..., None], Image.fromarray(grey), deep, colour.convert("P"), clear, colour]
    source = opened(data, image_channels=channels)
    images = np.stack([source[index][0] for index in range(len(data))])
    assert images.shape == (7, 5, 5, channels)
    for index in range(4):
        np.testing.assert_array_equal(images[index], np.broadcast_to(grey[:5, :, None], (5, 5, channels)))
    assert (images[5] == 255).all()
    if channels == 3:
        np.testing.assert_array_equal(images[6], pixels(1)[:5])


def test_labels_and_names_of_a_data_set_may_be_attributes():
    class Named(Numbered):
        class_names = ("ant", "bee", "cat", "dog")
        labels = (0, 1, 2, 0, 1, 2, 0)

    lines = []
    source = opened(Named(), notify=lines.append)
    assert source.class_names == Named.class_names
    assert "1 of 4 classes" in lines[0]
    assert opened(with_item((pixels(0), None), None, Named)).labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    line = refused(with_item((pixels(4), 2), kind=Named))
    assert "item 4 needs the label 1, according to its attribute labels; got 2" in line


@pytest.fixture
def no_memory(monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 100)


class Counting(Numbered):
    """Counts how often each item is read."""

    def __init__(self):
        self.times, self._lock = np.zeros(COUNT, int), threading.Lock()

    def __getitem__(self, index):
        with self._lock:
            self.times[index] += 1
        return super().__getitem__(index)


def test_small_set_is_read_once_and_kept():
    data = Counting()
    source = opened(data)
    for index in range(COUNT):
        assert source[index][0].any()
    assert data.times.tolist() == [3, 1, 1, 1, 1, 1, 1]  # item 0 is read twice more, to see that it stays the same


def test_large_set_is_read_again_and_is_the_same(no_memory):
    data = Counting()
    large = opened(data)
    assert data.times[1:].tolist() == [1] * 6
    for index in range(COUNT):
        np.testing.assert_array_equal(large[index][0], pixels(index)[:5])
    assert data.times[1:].tolist() == [2] * 6


def test_large_set_that_declares_its_content_is_not_read_through(no_memory):
    class Declared(Counting):
        fingerprint = "version 3"
        labels = np.arange(COUNT) % 3

    data = Declared()
    source = opened(data)
    assert data.times[1:].tolist() == [0] * 6
    source.fingerprint  # noqa: B018
    assert data.times[1:].tolist() == [0, 1, 0, 1, 0, 1]
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    source = opened(with_item((pixels(1), 2), number=1, kind=Declared))
    assert "item 1 needs the label 1, according to its attribute labels; got 2" in refusal(source.__getitem__, 1)


def test_label_that_changes_between_two_readings_is_named(no_memory):
    data = Counting()
    source = opened(data)
    data.__class__ = type(with_item((pixels(4), 2)))
    assert "item 4 needs the label 1, as before; got 2" in refusal(source.__getitem__, 4)


def test_fingerprint_is_that_of_pixels_and_labels_and_not_of_the_size(monkeypatch):
    same = [opened(Numbered(), resolution=size).fingerprint for size in (3, 5)]
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 100)
    same += [opened(Numbered()).fingerprint, opened([(pixels(n), n % 3) for n in range(COUNT)]).fingerprint]
    assert len(set(same)) == 1
    last = pixels(6)
    last[5, 4, 2] ^= 1  # outside of the centre square
    others = [with_item((last, 0), 6), with_item((pixels(6), 1), 6), [(pixels(n), n % 3) for n in range(6)]]
    others.append([(pixels(n).reshape(5, 6, 3), n % 3) for n in range(COUNT)])
    assert len({same[0], *(opened(data).fingerprint for data in others)}) == 5


def test_declared_fingerprint_decides_where_length_and_a_few_items_are_the_same():
    class Declared(Numbered):
        fingerprint = "1"

    class Shorter(Declared):
        def __len__(self):
            return COUNT - 1

    class Shifted(Declared):
        def __getitem__(self, index):
            return pixels(index + 10), index % 3

    found = [opened(kind()).fingerprint for kind in (Declared, Declared, Shorter, Shifted)]
    assert found[0] == found[1]
    assert len(set(found)) == 3
    changed = with_item((pixels(9), 0), number=3, kind=Declared)
    assert opened(changed).fingerprint == opened(Declared()).fingerprint
    changed.fingerprint = "2"
    assert opened(changed).fingerprint != opened(Declared()).fingerprint


@pytest.mark.parametrize("most_bytes", [100, 2**30])
def test_part_of_a_set_is_the_same_choice_as_of_files(most_bytes, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", most_bytes)
    source = opened(Numbered(), max_images=4)
    assert sorted(source.labels.tolist()) in ([0, 0, 1, 2], [0, 1, 1, 2], [0, 1, 2, 2])
    for image, label in (source[index] for index in range(4)):
        assert any((image == pixels(number)[:5]).all() for number in range(COUNT) if number % 3 == label)
    assert source.description == "Numbered: 4 of 7 images, 3 classes"
    assert source.fingerprint != opened(Numbered()).fingerprint


def raising():
    raise ValueError("no such row")


BROKEN = {
    "floats": ((pixels(4) / 255, 1), "got float64 [6, 5, 3]. Scale floats to 0..255."),
    "channels first": ((pixels(4).transpose(2, 0, 1), 1), "got uint8 [3, 6, 5]. Put the channels last."),
    "four channels": ((np.zeros((6, 5, 4), np.uint8), 1), "got uint8 [6, 5, 4]."),
    "a batch": ((np.zeros((2, 6, 5, 3), np.uint8), 1), "got uint8 [2, 6, 5, 3]."),
    "an empty image": ((np.zeros((0, 5, 3), np.uint8), 1), "got uint8 [0, 5, 3]."),
    "a row of a table": ({"image": 1}, "got an object of type dict."),
    "three parts": ((pixels(4), 1, 2), "got a tuple of 3."),
    "nothing": (None, "got an object of type NoneType."),
    "bytes": ((b"x", 1), "got an object of type bytes."),
    "no label": ((pixels(4), None), "item 4 needs a label, as item 0 has; got None."),
    "a name for a label": ((pixels(4), "cat"), "item 4 needs a label that is an integer from 0, or None; got 'cat'."),
    "a truth for a label": ((pixels(4), True), "or None; got True."),
    "a part for a label": ((pixels(4), 1.0), "or None; got 1.0."),
    "labels of one image": ((pixels(4), np.array([1])), "or None; got int64 [1]."),
    "a label below 0": ((pixels(4), -1), "or None; got -1."),
    "a label beyond 32 bits": ((pixels(4), 2**31), "or None; got 2147483648."),
    "an error": (raising, "item 4: ValueError in line"),
    "floating pixels": ((Image.new("F", (5, 6)), 1), "item 4: ValueError: the range of its grey levels is unknown"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_item_is_named_with_what_it_is(case):
    item, said = BROKEN[case]
    line = refused(with_item(item))
    assert line.startswith("the data source Changed: item 4")
    assert said in line


def test_first_broken_item_is_named_whichever_is_read_first(monkeypatch):
    monkeypatch.setattr(user_sources, "_CHUNK", 1)
    assert ": item 2 " in refused(with_item(None, 2, type(with_item(None, 6))))


class Empty(Numbered):
    def __len__(self):
        return 0


class Endless(Numbered):
    def __len__(self):
        raise TypeError("no length")


class Random(Numbered):
    def __getitem__(self, index):
        return np.random.default_rng().integers(0, 256, (6, 5, 3), np.uint8), 0


class Raising(Numbered):
    @property
    def labels(self):
        raise KeyError("planted")


class NamedByMethod(Numbered):
    def class_names(self): ...


class Unsigned(Numbered):
    @property
    def fingerprint(self):
        raise OSError("gone")


def declaring(**attributes):
    data = Numbered()
    vars(data).update(attributes)
    return data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Empty(), "needs at least one item; len() is 0."),
        (Endless(), "len(): TypeError in line"),
        (Random(), "item 0 needs to be the same whenever it is read"),
        (declaring(labels=[0, 1]), "its attribute labels needs integer labels [7], one for each image; got int64 [2]."),
        (declaring(labels=list("abcdefg")), "got <U1 [7]."),
        (declaring(fingerprint=3), "needs an attribute fingerprint that is a string, or none; got 3."),
        (declaring(class_names="abc"), "needs an attribute class_names of strings; got 'abc'."),
        (declaring(class_names=["ant", "bee"]), "needs labels from 0 to 1, because it names 2 classes; got 2 in row 2"),
        (declaring(class_names=2), "its attribute class_names: TypeError: 'int' object is not iterable."),
        (declaring(class_names=["ant", 2]), "needs an attribute class_names of strings; got a list of 2."),
        (declaring(labels=[[0], [0, 1]]), "its attribute labels: ValueError: "),
        (NamedByMethod(), "its attribute class_names: TypeError: 'method' object is not iterable."),
        (Raising(), "its attribute labels: KeyError in line"),
        (Unsigned(), "its attribute fingerprint: OSError in line"),
        ([(pixels(0), 0), (pixels(1), 2)], "needs an image of every class from 0 to the largest label, 2"),
        ({"a": 1}, "or an object with __len__ and __getitem__; got an object of type dict."),
        (Numbered, "got an object of type type."),
    ],
)
def test_broken_data_set_is_refused_in_one_line(data, said):
    assert said in refused(data)


def test_labels_in_a_file_columns_and_skipping_are_for_files():
    assert "A CSV file of labels is for images in a folder or a zip" in refused(Numbered(), labels="x.csv")
    assert "A label column is for parquet files" in refused(Numbered(), label_column="x")
    assert "An image column is for parquet files" in refused(Numbered(), image_column="x")
    assert "remove such images from the data source Numbered" in refused(Numbered(), skip_unreadable=1)


FILE = """
import numpy as np

class Faces:
    def __len__(self):
        return 3
    def __getitem__(self, index):
        return np.full((4, 6, 3), index, np.uint8), index

FACES = Faces()
ROWS = [Faces()[1]]
NUMBER = 3

def make():
    return Faces()

def broken():
    raise ValueError("no disk")
"""


@pytest.mark.parametrize(("name", "count"), [("FACES", 3), ("Faces", 3), ("make", 3), ("ROWS", 1)])
def test_import_path_names_an_object_or_what_makes_one(name, count, tmp_path):
    file = tmp_path / "faces.py"
    file.write_text(FILE.replace("ROWS = [Faces()[1]]", "ROWS = [Faces()[0]]"))
    source = opened(f"{file}:{name}")
    assert source.description.startswith(f"faces.py:{name}: {count} image")
    assert source[count - 1][0][0, 0, 0] == count - 1
    assert natural_resolution(f"{file}:{name}") == 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NUMBER", "NUMBER needs to be an object with __len__ and __getitem__, or to make one; got 3."),
        ("broken", "broken could not be called without arguments: ValueError in line 18 of 'faces.py': no disk."),
        ("FACE", "has no 'FACE'. Perhaps you meant FACES."),
    ],
)
def test_import_path_that_is_no_data_set_is_refused(name, said, tmp_path):
    file = tmp_path / "faces.py"
    file.write_text(FILE)
    assert said in refused(f"{file}:{name}")


def test_file_that_is_gone_and_module_that_is_absent_are_named(tmp_path):
    assert "there is no file" in refused(f"{tmp_path}/gone.py:FACES")
    (tmp_path / "faces.py").write_text(FILE)
    assert refused(tmp_path / "faces.py").endswith(f"Name the object in it: {tmp_path}/faces.py:NAME.")
    assert "the module 'no_such_module' could not be imported" in refused("no_such_module:FACES")


def test_path_with_a_colon_is_still_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "faces:big"
    folder.mkdir()
    Image.fromarray(pixels(2)).save(folder / "2.png")
    np.testing.assert_array_equal(opened("faces:big")[0][0], pixels(2)[:5])
    assert "does not exist" in refused(f"{tmp_path}/faces:small")
