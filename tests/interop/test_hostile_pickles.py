"""Pickles that would run code in Python's unpickler. Our reader refuses each of them, and no code runs."""

import copyreg
import os
import pickle

import pytest

from sagan_jax.interop.pytorch import read_pth
from sagan_jax.interop.restricted_pickle import RefusedPickleError, read_pickle
from support.assertions import refusal
from support.pickles import MakesFolder
from support.pytorch_files import FORMATS, called, dictionary, instructions, looked_up, tensor

pytestmark = pytest.mark.one_jax

CODE = 0xF1  # a code in Python's registry of extensions
MKDIR = f"{os.mkdir.__module__}.mkdir"


def text(value):
    return instructions(str(value))


def eval_of(path):
    return text(f"__import__('os').mkdir({str(path)!r})")


def stack_global(module, name):
    return instructions(module) + instructions(name) + b"\x93"


def lazily(path):
    """NEWOBJ makes a `map` of `eval`, which a `list` then runs through."""
    made = looked_up("builtins.map") + b"(" + looked_up("builtins.eval") + b"(" + eval_of(path) + b"tt\x81"
    return called("builtins.list", made)


def with_setstate(path):
    """BUILD first gives an object a __setstate__, and then calls it."""
    start = looked_up("types.SimpleNamespace") + b")\x81" + dictionary({"__setstate__": looked_up(MKDIR)}) + b"b"
    return start + text(path) + b"b"


def hidden_in_a_tensor(path):
    """Puts the call where PyTorch stores the hooks of a tensor."""
    start = tensor((4,), (1,)).removesuffix(called("collections.OrderedDict") + b"tR")
    return start + called(MKDIR, text(path)) + b"tR"


# Each trick with what the refusal names.
TRICKS = {
    "REDUCE of a system call": (lambda path: called(MKDIR, text(path)), MKDIR),
    "REDUCE of os.system": (lambda path: called("os.system", text(f"mkdir '{path}'")), "'os.system'"),
    "REDUCE of eval": (lambda path: called("builtins.eval", eval_of(path)), "'builtins.eval'"),
    "REDUCE of exec": (lambda path: called("builtins.exec", eval_of(path)), "'builtins.exec'"),
    "REDUCE of subprocess": (
        lambda path: called("subprocess.check_call", instructions(["mkdir", str(path)])),
        "'subprocess.check_call'",
    ),
    "STACK_GLOBAL": (lambda path: stack_global(*MKDIR.split(".")) + text(path) + b"\x85R", MKDIR),
    "STACK_GLOBAL with a dotted name": (
        lambda path: stack_global("os", "path.os.mkdir") + text(path) + b"\x85R",
        "'os.path.os.mkdir'",
    ),
    "STACK_GLOBAL through an allowed name": (
        lambda path: stack_global("collections", "_sys.modules") + b"0" + called(MKDIR, text(path)),
        "'collections._sys.modules'",
    ),
    "INST": (lambda path: b"(" + text(path) + b"i" + MKDIR.replace(".", "\n").encode() + b"\n", MKDIR),
    "OBJ": (lambda path: b"(" + looked_up("builtins.eval") + eval_of(path) + b"o", "'builtins.eval'"),
    "NEWOBJ": (lazily, "'builtins.list'"),
    "NEWOBJ_EX": (
        lambda path: (
            looked_up("builtins.map")
            + b"("
            + looked_up("builtins.eval")
            + b"("
            + eval_of(path)
            + b"tt}\x92"
            + b"q\x00"
            + called("builtins.list", b"h\x00")
        ),
        "'builtins.map'",
    ),
    "a chain of getattr": (
        lambda path: (
            called("builtins.getattr", called("builtins.__import__", text("os")), text("mkdir")) + text(path) + b"\x85R"
        ),
        "'builtins.getattr'",
    ),
    "EXT1": (lambda path: b"\x82" + bytes([CODE]) + text(path) + b"\x85R", "EXT1"),
    "EXT2": (lambda path: b"\x83" + bytes([CODE, 0]) + text(path) + b"\x85R", "EXT2"),
    "EXT4": (lambda path: b"\x84" + bytes([CODE, 0, 0, 0]) + text(path) + b"\x85R", "EXT4"),
    "BUILD with __setstate__": (with_setstate, "'types.SimpleNamespace'"),
    "a pickle in a pickle": (
        lambda path: called("pickle.loads", instructions_of_bytes(pickle.dumps(MakesFolder(path)))),
        "'pickle.loads'",
    ),
    "functools.partial": (
        lambda path: called("functools.partial", looked_up(MKDIR), text(path)) + b")R",
        "'functools.partial'",
    ),
    "operator.methodcaller": (
        lambda path: (
            called("operator.methodcaller", text("mkdir"), text(path))
            + called("importlib.import_module", text("os"))
            + b"\x85R"
        ),
        "'operator.methodcaller'",
    ),
    "the memo": (
        lambda path: looked_up(MKDIR) + b"q\x05" + b"0" + text(path) + b"q\x060" + b"h\x05h\x06\x85R",
        MKDIR,
    ),
    "what is popped again": (lambda path: called(MKDIR, text(path)) + b"0N", MKDIR),
    "the hooks of a tensor": (hidden_in_a_tensor, MKDIR),
    "the optimiser beside the tensors": (
        lambda path: dictionary({"state_dict": dictionary({"a": tensor((4,), (1,))}), "b": called(MKDIR, text(path))}),
        MKDIR,
    ),
}
# Tricks that run only with PyTorch or other packages.
UNTRIED = {
    "torch.hub": (called("torch.hub.load", text("owner/repository"), text("model")), "'torch.hub.load'"),
    "torch.load": (called("torch.serialization.load", text("http://host/file")), "'torch.serialization.load'"),
    "a jit function": (
        called("torch.jit._script.unpackage_script_module"),
        "'torch.jit._script.unpackage_script_module'",
    ),
    "a dotted storage": (
        stack_global("torch", "FloatStorage.__init__.__globals__"),
        "'torch.FloatStorage.__init__.__g",
    ),
    "numpy.load": (called("numpy.load", text("file")), "'numpy.load'"),
    "numpy objects": (
        called("numpy.dtype", text("O8"), instructions(False), instructions(True)),
        "a dtype of numpy that is not a number",
    ),
    "numpy's reconstruct": (called("numpy.core.multiarray._reconstruct"), "'numpy.core.multiarray._reconstruct'"),
    "a codec": (called("_codecs.decode", text("a"), text("zip")), "'_codecs.decode'"),
    "encoding by another codec": (called("_codecs.encode", text("a"), text("rot13")), "bytes as latin1"),
    "copyreg": (called("copyreg._reconstructor", looked_up("collections.OrderedDict")), "'copyreg._reconstructor'"),
    "a class of this package": (
        looked_up("sagan_jax.runtime.files.write_atomically"),
        "'sagan_jax.runtime.files.write_",
    ),
    "persistent id of a class": (b"(" + text("storage") + looked_up(MKDIR) + b"tQ", MKDIR),
    "persistent id of text": (b"Pcos.system\n", "PERSID"),
    "persistent id of a module": (b"(" + text("module") + looked_up("collections.OrderedDict") + b"tQ", "whole module"),
    "persistent id of a storage that is none": (
        b"("
        + text("storage")
        + looked_up("collections.OrderedDict")
        + text("0")
        + text("cpu")
        + instructions(1)
        + b"tQ",
        "describes a storage in an unknown way",
    ),
    "OBJ of an allowed name": (b"(" + looked_up("collections.OrderedDict") + b"o", "OBJ"),
    "NEWOBJ of an allowed name": (looked_up("collections.OrderedDict") + b")\x81", "NEWOBJ"),
    "BUILD of an allowed name": (
        looked_up("collections.OrderedDict") + dictionary({"a": text("b")}) + b"b",
        "of a Name",
    ),
    "BUILD of a tensor": (tensor((4,), (1,)) + dictionary({"data": text("b")}) + b"b", "attributes of a Tensor"),
    "a call of what is no function": (looked_up("torch.FloatStorage") + b")R", "its pickle calls"),
    "a call of text": (text("os.system") + b")R", "its pickle calls a str"),
    "a call without a tuple": (looked_up("collections.OrderedDict") + b"]R", "its pickle calls"),
    "an ordered dictionary of text": (called("collections.OrderedDict", text("ab")), "something else than pairs"),
    "a set": (b"\x8f", "EMPTY_SET"),
    "a buffer": (b"\x97", "NEXT_BUFFER"),
    "protocol 0": (b"S'a'\n", "STRING"),
    "a name of a megabyte": (b"c" + b"a" * 10**6 + b"\nb\n", "damaged at byte"),
    "a name with lines in it": (stack_global("os\nimport", "a\x1b[2J"), "os\\nimport.a\\x1b[2J"),
}


def instructions_of_bytes(content):
    return b"B" + len(content).to_bytes(4, "little") + content


def refused(folder, form, body):
    path = folder / "a.pth"
    path.write_bytes(FORMATS[form](body, {"0": bytes(16)}))
    line = refusal(read_pth, path)
    assert line.isprintable()
    assert "a.pth" in line
    return line


@pytest.fixture
def registered():
    """Puts the system call into Python's registry of extensions."""
    copyreg.add_extension(*MKDIR.split("."), CODE)
    yield
    copyreg.remove_extension(*MKDIR.split("."), CODE)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("trick", TRICKS)
def test_trick_is_refused_by_name_and_not_run(trick, form, tmp_path, registered):
    make, words = TRICKS[trick]
    line = refused(tmp_path, form, dictionary({"a": make(tmp_path / "ran")}))
    assert words in line
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("trick", [trick for trick in TRICKS if "tensor" not in trick])
def test_trick_runs_in_pythons_unpickler(trick, tmp_path, registered):
    """Shows that the tests above can fail: Python's own unpickler runs these tricks."""
    pickle.loads(b"\x80\x04" + TRICKS[trick][0](tmp_path / "ran") + b".")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("trick", UNTRIED)
def test_other_tricks_are_refused_for_what_they_are(trick, form, tmp_path):
    body, words = UNTRIED[trick]
    assert words in refused(tmp_path, form, dictionary({"a": body}))


@pytest.mark.parametrize("place", range(3))
def test_every_pickle_of_the_older_format_is_guarded(place, tmp_path):
    content = FORMATS["sequence"](dictionary({"a": tensor((4,), (1,))}), {"0": bytes(16)})
    bad = pickle.dumps(MakesFolder(tmp_path / "ran"), 2)
    version = pickle.dumps(1001, 2)
    start = content.index(version)
    heads = [b"", content[:start], content[: start + len(version)]]
    path = tmp_path / "a.pth"
    path.write_bytes(heads[place] + bad)
    assert MKDIR in refusal(read_pth, path)
    path.write_bytes(content[: content.rindex(b"\x80\x02]")] + bad)
    assert MKDIR in refusal(read_pth, path)
    assert not (tmp_path / "ran").exists()


def test_the_whole_standard_library_is_refused():
    """Looks up every name of the loaded standard modules. Only two, which make plain data, are allowed."""
    import sys

    allowed = 0
    for module in sorted(sys.modules):
        for name in sorted(vars(sys.modules[module])) if module.isascii() and module in sys.stdlib_module_names else ():
            if not name.isidentifier():
                continue
            for body in (looked_up(f"{module}.{name}"), stack_global(module, name)):
                try:
                    read_pickle(b"\x80\x04" + body + b".")
                except RefusedPickleError:
                    continue
                allowed += 1
    assert allowed == 4  # collections.OrderedDict and _codecs.encode, in two ways
