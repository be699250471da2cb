"""Reading of the training configuration of another code base from a small YAML or JSON file, without running code."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sagan_jax.errors import InvalidInputError, one_line

_MAX_BYTES = 2**16  # thirty times the longest configuration of StudioGAN
_MAX_DEPTH = 20


def read_source_config(path: str | Path) -> dict[str, Any]:
    """Returns the content of a configuration file as a dictionary, with nested dictionaries for sections.

    Args:
        path: a YAML or JSON file of at most 64 KiB, without anchors and with at most 20 levels.

    Raises:
        InvalidInputError: when the file is missing, is not a regular file, is too large, or is not such YAML.
    """
    path = Path(path)
    where = repr(str(path))
    try:
        if not path.is_file():  # reading a pipe or a device could block forever
            raise FileNotFoundError("there is no such file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"Cannot read the configuration {where}: {error.strerror or error}.") from error
    if len(content) > _MAX_BYTES:
        raise InvalidInputError(
            f"--source-config needs a file of at most {_MAX_BYTES // 1024} KiB; {where} is larger. Is it another file?"
        )
    try:
        text = content.decode()
        _check_tokens(text)
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:  # dates and digits raise ValueError
        cause = str(getattr(error, "problem", None) or one_line(error))
        raise InvalidInputError(f"--source-config needs a YAML file; {where} is not: {cause[:200]}.") from error
    if not isinstance(document, dict):
        raise InvalidInputError(
            f"--source-config needs a YAML file of names and values; {where} holds a {type(document).__name__}."
        )
    return document


def _check_tokens(text: str) -> None:
    """Raises ValueError for YAML that could take time or memory out of proportion to the file size."""
    depth = 0
    opening = yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken, yaml.FlowMappingStartToken
    closing = yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
            raise ValueError("it has anchors, which no configuration of these code bases has")
        depth += isinstance(token, (*opening, yaml.FlowSequenceStartToken)) - isinstance(token, closing)
        if depth > _MAX_DEPTH:
            raise ValueError(f"it has more than {_MAX_DEPTH} levels")


class Settings:
    """The values of one section. Raises InvalidInputError, which names the value, if a value has the wrong type.

    Args:
        values: the values by name.
        section: the name of the section, for messages; empty if there are no sections.
    """

    def __init__(self, values: Any, section: str = "") -> None:
        if not isinstance(values, Mapping):
            raise InvalidInputError(
                f"The source's configuration needs names and values in {section or 'it'}; got {shortened(values)}."
            )
        self.values = values
        self._prefix = f"{section}." if section else ""

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def word(self, name: str, default: str) -> str:
        """Returns a string."""
        value = self.values.get(name, default)
        return value if isinstance(value, str) else self._refuse(name, "a word")

    def flag(self, name: str, default: bool) -> bool:
        """Returns a boolean."""
        value = self.values.get(name, default)
        return value if isinstance(value, bool) else self._refuse(name, "True or False")

    def integer(self, name: str, default: int) -> int:
        """Returns an integer of at least 0."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            return self._refuse(name, "an integer of at least 0")
        return value

    def positive(self, name: str, default: float) -> float:
        """Returns a positive number. YAML reads 1e-05, which has no decimal point, as a string."""
        value = self.values.get(name, default)
        try:
            number = float(value) if isinstance(value, int | float | str) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not (math.isfinite(number) and number > 0):
            return self._refuse(name, "a positive number")
        return number

    def integers(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Returns a list of integers in ascending order."""
        value = self.values.get(name, default)
        if not isinstance(value, list | tuple) or not all(type(entry) is int for entry in value):
            return self._refuse(name, "a list of integers")
        return tuple(sorted(value))

    def _refuse(self, name: str, wanted: str) -> Any:
        raise InvalidInputError(
            f"The source's configuration needs {wanted} for {self._prefix}{name}; got {shortened(self.values[name])}."
        )


def shortened(value: Any) -> str:
    """Returns a configuration value in short form for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def refuse_feature(feature: str) -> None:
    """Raises InvalidInputError for an unsupported feature of a network."""
    raise InvalidInputError(f"The weights cannot be converted: this package has no networks with {feature}.")


def check_agreement(pairs: Mapping[str, tuple[Any, Any]]) -> None:
    """Raises InvalidInputError for the first setting that the weights contradict.

    Args:
        pairs: the value of each setting in the configuration and in the weights.
    """
    for name, (configured, found) in pairs.items():
        if configured != found:
            shown = [list(value) if isinstance(value, tuple) else value for value in (configured, found)]
            raise InvalidInputError(
                f"The source's configuration says {name}: {shown[0]}, but the weights have {shown[1]}. "
                f"Is it the configuration of another run?"
            )
