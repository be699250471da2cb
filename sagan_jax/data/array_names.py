"""Selection of the image and label arrays in an .npz file, by the names that are common in published files."""

from collections.abc import Collection

from sagan_jax.errors import InvalidInputError

_IMAGES = {
    "train": ("x_train", "train_x", "train_images", "images_train", "train_data", "data_train"),
    "": ("images", "arr_0", "image", "imgs", "x", "data", "samples"),
    "test": ("x_test", "test_x", "test_images", "images_test", "test_data", "data_test"),
}
_LABELS = {
    "train": ("y_train", "train_y", "train_labels", "labels_train", "train_label", "train_targets"),
    "": ("labels", "arr_1", "label", "y", "target", "targets", "classes"),
    "test": ("y_test", "test_y", "test_labels", "labels_test", "test_label", "test_targets"),
}
_FIRST = ("images", "arr_0", "labels", "arr_1")
_ALL = tuple(name for names in _IMAGES.values() for name in names)


def choose_arrays(present: Collection[str], where: str) -> tuple[str, str]:
    """Returns the names of the images and of the labels among the arrays of a file; "" when there are no labels.

    Names are not case-sensitive. `images` and `labels`, or `arr_0` and `arr_1` (from `numpy.savez` without names), have
    priority. Next come the arrays of a training split, such as `x_train` and `y_train` of Keras or `train_images` and
    `train_labels` of MedMNIST. Then come arrays such as `x` and `y` or `data` and `target`. Arrays of a test split are
    used only if there are no others.

    Args:
        present: the names of all arrays.
        where: the file, quoted, for messages.

    Raises:
        InvalidInputError: when no array or several arrays could hold the images, or several could hold the labels.

    Examples:
        >>> choose_arrays(["x_train", "y_train", "x_test", "y_test"], "'mnist.npz'")
        ('x_train', 'y_train')
    """
    if "images" in present or "arr_0" in present:
        split = ""
    else:
        lowered = {name.lower() for name in present}
        split = next((split for split, names in _IMAGES.items() if not lowered.isdisjoint(names)), None)
    if split is None:
        raise InvalidInputError(
            f"{where} needs an array named `images` or `arr_0`, or one of {', '.join(_ALL)}; it holds {list(present)}."
        )
    images = _only(_IMAGES[split], present, "images", where)
    # A file may have `x_train` and `labels`.
    return images, _only(_LABELS[split], present, "labels", where) or _only(_LABELS[""], present, "labels", where)


def _only(names: tuple[str, ...], present: Collection[str], what: str, where: str) -> str:
    first = next((name for name in _FIRST if name in names and name in present), "")
    found = [name for name in present if name.lower() in names]
    if not first and len(found) > 1:
        raise InvalidInputError(
            f"{where} needs one array of {what}; any of {found} may be it. Save the file again with the arrays "
            f"`images` and `labels`."
        )
    return first or "".join(found)
