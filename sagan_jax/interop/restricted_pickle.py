"""A restricted interpreter for pickles of plain data: it imports nothing and calls no object from the pickle.

Python's unpickler looks objects up by name and calls them. Here names are not looked up. The few names that plain data
needs are mapped to functions in this module, and all other names are rejected.
"""

import dataclasses
import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Constructor = Callable[[tuple[Any, ...]], Any]

_INSTRUCTIONS = {opcode.code: opcode.name for opcode in pickletools.opcodes}
_MAX_STEPS = 5_000_000  # a tensor takes about forty; the maximum takes seconds
_MAX_INTEGER_BYTES = 16
_LATEST_PROTOCOL = 5
_MAX_KEY = 2**31  # larger integers could be chosen to have colliding hashes
_LINE = re.compile(rb"[^\n]{0,1000}\n")
_MAX_SHOWN = 100  # characters of a name to show in a message


class RefusedPickleError(ValueError):
    """The pickle contains more than plain data."""


@dataclasses.dataclass(frozen=True)
class Name:
    """The name of a Python object in a pickle. The object itself is not looked up."""

    text: str


@dataclasses.dataclass
class NumpyType:
    """A numpy dtype in a pickle.

    Attributes:
        code: kind and size, such as `f8`.
        order: the byte order, in numpy's notation.
    """

    code: str
    order: str = "="


def read_pickle(
    content: bytes | memoryview,
    position: int = 0,
    *,
    constructors: Mapping[str, Constructor] | None = None,
    names: frozenset[str] = frozenset(),
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Returns the plain data of a pickle, and the position after it.

    Dictionaries, lists, tuples, numbers, strings and bytes are supported. An `OrderedDict` becomes a dictionary, numpy
    scalars become numbers, and dtypes become `NumpyType`. Attributes of a dictionary are dropped. Time and memory are
    proportional to the length of the pickle.

    Args:
        content: the bytes with the pickle.
        position: the position of its first byte.
        constructors: additional names, mapped to functions of their arguments. They raise ValueError for invalid
            arguments.
        names: additional names that may occur as values, which become `Name`.
        persistent: returns the object of a persistent id, and raises ValueError for an invalid one.

    Raises:
        RefusedPickleError: when the pickle contains another object or an opcode that plain data does not need.
        ValueError: when the pickle is damaged.

    Examples:
        >>> import pickle
        >>> read_pickle(pickle.dumps({"a": [1, 2.5]}))[0]
        {'a': [1, 2.5]}
        >>> read_pickle(pickle.dumps(print))
        Traceback (most recent call last):
        ...
        sagan_jax.interop.restricted_pickle.RefusedPickleError: it needs the Python object 'builtins.print'
    """
    machine = _Machine(content, position, {**_PLAIN, **(constructors or {})}, names, persistent or _no_persistent)
    return machine.run(), machine.position


class _Machine:
    """The stack, the memo and the position of one pickle."""

    def __init__(
        self,
        content: bytes | memoryview,
        position: int,
        constructors: Mapping[str, Constructor],
        names: frozenset[str],
        persistent: Callable[[Any], Any],
    ) -> None:
        self.content, self.position = content, position
        self.constructors, self.names, self.persistent = constructors, names, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.steps = 0

    def run(self) -> Any:
        while True:
            self.charge(1)
            opcode = self.take(1)[0]
            if opcode == _STOP:
                return self.pop()
            if opcode in _VALUES:
                self.stack.append(_VALUES[opcode](self))
            elif opcode in _ACTIONS:
                _ACTIONS[opcode](self)
            else:
                self.refuse_opcode(opcode)

    def charge(self, steps: int) -> None:
        self.steps += steps
        if self.steps > _MAX_STEPS:
            raise ValueError(f"its pickle takes more than {_MAX_STEPS:,} steps")

    def refuse_opcode(self, opcode: int) -> None:
        if chr(opcode) not in _INSTRUCTIONS:
            raise ValueError(f"its pickle is damaged at byte {self.position - 1}")
        instruction = _INSTRUCTIONS[chr(opcode)]
        if instruction == "INST":  # its name makes a better message
            self.name()
        raise RefusedPickleError(f"its pickle has the instruction {instruction}, which plain data do not need")

    def take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.content):
            raise ValueError("its pickle ends too early")
        taken = bytes(self.content[self.position : end])
        self.position = end
        return taken

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def integer(self, form: str) -> int:
        """Returns an integer of any size, which is preceded by its number of bytes."""
        length = self.number(form)
        if not 0 <= length <= _MAX_INTEGER_BYTES:
            raise ValueError(f"its pickle has an integer of {length} bytes")
        return int.from_bytes(self.take(length), "little", signed=True)

    def octets(self, form: str) -> bytes:
        length = self.number(form)
        if length < 0:
            raise ValueError(f"its pickle has a string of {length} bytes")
        return self.take(length)

    def text(self, form: str) -> str:
        return self.octets(form).decode()

    def name(self) -> Name:
        """Returns the name in two lines of text: a module, and an object in it."""
        lines = []
        for _ in range(2):
            line = _LINE.match(self.content, self.position)
            if not line:
                raise ValueError(f"its pickle is damaged at byte {self.position}")
            lines.append(line[0][:-1].decode())
            self.position = line.end()
        return self.allowed(".".join(lines))

    def stack_name(self) -> Name:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("its pickle has a name that is not text")
        return self.allowed(f"{module}.{name}")

    def allowed(self, text: str) -> Name:
        if text not in self.constructors and text not in self.names:
            shown = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
            raise RefusedPickleError(f"it needs the Python object {shown!r}")
        return Name(text)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("its pickle takes a value that is not there")
        return self.stack.pop()

    def top(self) -> Any:
        self.stack.append(found := self.pop())
        return found

    def pop_mark(self) -> list[Any]:
        """Returns the values since the last mark."""
        if not self.marks:
            raise ValueError("its pickle takes a mark that is not there")
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def pop_tuple(self, length: int) -> tuple[Any, ...]:
        return tuple([self.pop() for _ in range(length)][::-1])

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise ValueError(f"its pickle appends to a {type(target).__name__}")
        target.extend(values)

    def update(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(values) % 2:
            raise ValueError(f"its pickle puts {len(values)} keys and values into a {type(target).__name__}")
        _update(target, zip(values[::2], values[1::2], strict=True))

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def get(self, index: int) -> Any:
        if index not in self.memo:
            raise ValueError(f"its pickle refers to value {index} before it is there")
        return self.memo[index]

    def reduce(self) -> None:
        arguments, name = self.pop(), self.pop()
        if not isinstance(arguments, tuple) or not isinstance(name, Name) or name.text not in self.constructors:
            raise RefusedPickleError(f"its pickle calls a {type(name).__name__}")
        # A short pickle can pass the same large value many times.
        self.charge(sum(len(value) for value in arguments if isinstance(value, dict | list | tuple | str | bytes)))
        self.stack.append(self.constructors[name.text](arguments))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, NumpyType):
            target.order = _byte_order(state)
        elif not isinstance(target, dict):
            raise RefusedPickleError(f"its pickle sets attributes of a {type(target).__name__}")

    def protocol(self) -> None:
        if (version := self.number("B")) > _LATEST_PROTOCOL:
            raise ValueError(f"its pickle has the protocol {version}")


def _update(target: dict[Any, Any], pairs: Any) -> None:
    for key, value in pairs:
        if not (isinstance(key, str) or key is None or (isinstance(key, int) and -_MAX_KEY < key < _MAX_KEY)):
            raise RefusedPickleError(f"its pickle has a dictionary with a key of type {type(key).__name__}")
        target[key] = value


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    pairs = arguments[0] if arguments else []
    if (
        len(arguments) > 1
        or not isinstance(pairs, list)
        or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs)
    ):
        raise ValueError("its pickle makes an OrderedDict of something else than pairs")
    made: dict[Any, Any] = {}
    _update(made, pairs)
    return made


def _encode(arguments: tuple[Any, ...]) -> bytes:
    match arguments:
        case (str(text), "latin1"):
            return text.encode("latin1")
    raise ValueError("its pickle needs bytes as latin1")


def _numpy_type(arguments: tuple[Any, ...]) -> NumpyType:
    match arguments:
        case (str(code), bool() | int(), bool() | int()) if re.fullmatch("b1|[iu][1248]|f[248]|c8|c16", code):
            return NumpyType(code)
    raise ValueError("its pickle has a dtype of numpy that is not a number")


def _byte_order(state: Any) -> str:
    match state:
        case (int(), str(order), None, None, None, *_) if order in ("<", ">", "|", "="):
            return order
    raise ValueError("its pickle has a dtype of numpy that is not a number")


def _numpy_scalar(arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (NumpyType(code=code, order=order), bytes(data)) if len(data) == int(code[1:]):
            return np.frombuffer(data, f"{order}{code}")[0].item()
    raise ValueError("its pickle has a scalar of numpy whose bytes do not fit its dtype")


def _no_persistent(_: Any) -> Any:
    raise RefusedPickleError("its pickle has a persistent id, which plain data do not need")


_PLAIN: dict[str, Constructor] = {
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}
_STOP = ord(".")
# Opcodes that push a value on the stack.
_VALUES: dict[int, Callable[[_Machine], Any]] = {
    ord("N"): lambda machine: None,
    0x88: lambda machine: True,
    0x89: lambda machine: False,
    ord("]"): lambda machine: [],
    ord("}"): lambda machine: {},
    ord(")"): lambda machine: (),
    ord("K"): lambda machine: machine.number("B"),
    ord("M"): lambda machine: machine.number("<H"),
    ord("J"): lambda machine: machine.number("<i"),
    0x8A: lambda machine: machine.integer("B"),
    0x8B: lambda machine: machine.integer("<i"),
    ord("G"): lambda machine: machine.number(">d"),
    0x8C: lambda machine: machine.text("B"),
    ord("X"): lambda machine: machine.text("<I"),
    0x8D: lambda machine: machine.text("<Q"),
    ord("U"): lambda machine: machine.text("B"),  # strings of Python 2
    ord("T"): lambda machine: machine.text("<i"),
    ord("C"): lambda machine: machine.octets("B"),
    ord("B"): lambda machine: machine.octets("<I"),
    0x8E: lambda machine: machine.octets("<Q"),
    ord("t"): lambda machine: tuple(machine.pop_mark()),
    0x85: lambda machine: machine.pop_tuple(1),
    0x86: lambda machine: machine.pop_tuple(2),
    0x87: lambda machine: machine.pop_tuple(3),
    ord("h"): lambda machine: machine.get(machine.number("B")),
    ord("j"): lambda machine: machine.get(machine.number("<I")),
    ord("c"): lambda machine: machine.name(),
    0x93: lambda machine: machine.stack_name(),
    ord("Q"): lambda machine: machine.persistent(machine.pop()),
}
# Opcodes that modify the stack, the memo or a value.
_ACTIONS: dict[int, Callable[[_Machine], Any]] = {
    0x80: lambda machine: machine.protocol(),
    0x95: lambda machine: machine.number("<Q"),  # the length of a frame, which is not needed
    ord("("): lambda machine: machine.marks.append(len(machine.stack)),
    ord("0"): lambda machine: machine.pop(),
    ord("1"): lambda machine: machine.pop_mark(),
    ord("a"): lambda machine: machine.extend([machine.pop()]),
    ord("e"): lambda machine: machine.extend(machine.pop_mark()),
    ord("s"): lambda machine: machine.update(list(machine.pop_tuple(2))),
    ord("u"): lambda machine: machine.update(machine.pop_mark()),
    ord("q"): lambda machine: machine.put(machine.number("B")),
    ord("r"): lambda machine: machine.put(machine.number("<I")),
    0x94: lambda machine: machine.put(len(machine.memo)),
    ord("R"): lambda machine: machine.reduce(),
    ord("b"): lambda machine: machine.build(),
}
