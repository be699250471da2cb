"""Paths that the system refuses: for every argument, the command ends with one line and an exit code."""

import shutil

import pytest
from PIL import Image

import sagan_jax.data
from sagan_jax.config import CompletionExperiment, Experiment, to_dict
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.inception import find_weights
from sagan_jax.runtime.cache_folders import cache_folder, weights_folder
from sagan_jax.runtime.environment import write_run_files
from support.commands import command, error_line
from support.permissions import permission_bits_bind

pytestmark = pytest.mark.one_jax

LONG = "x" * 300
OF_A_RUN = {
    "sample": ["--out", "out.png"],
    "evaluate": [],
    "attend": [],
    "explore": ["--out", "out.html"],
    "interpolate": ["--out", "out.png"],
    "animate": ["--out", "out.gif"],
    "neighbours": ["--out", "out.png"],
    "export": [],
    "report": [],
    "complete": ["photo.png", "--holes", "centre"],
}
# PATH stands for the refused path. Some arguments need a suffix after it.
OTHERS = [
    ["train", "digits_32", "--workdir", "PATH"],
    ["train", "--init-from", "PATH", "--workdir", "new"],
    ["train", "digits_32", "--init-from", "PATH", "--workdir", "new"],
    ["train", "digits_32", "--source", "PATH", "--workdir", "new"],
    ["train", "PATH.py", "--workdir", "new"],
    ["sample", "--workdir", "run", "--out", "PATH"],
    ["explore", "--workdir", "run", "--out", "PATH.html"],
    ["report", "--workdir", "run", "--out", "PATH.html"],
    ["export", "--workdir", "run", "--out", "PATH"],
    ["export", "--workdir", "run", "--out", "PATH", "--format", "hub"],
    ["attend", "--workdir", "run", "--image", "PATH.png"],
    ["complete", "PATH.png", "--workdir", "completing", "--holes", "centre"],
    ["complete", "photo.png", "--workdir", "completing", "--mask", "PATH.png"],
    ["complete", "photo.png", "--workdir", "completing", "--holes", "centre", "--out", "PATH"],
    ["evaluate", "--images", "PATH.npz", "--reference", "photo.png"],
    ["evaluate", "--images", "PATH", "--reference", "photo.png"],
    ["convert", "--from", "studiogan", "--generator", "PATH.npz", "new"],
    ["convert", "--from", "inception", "PATH.npz", "new.safetensors"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, experiment in {"run": Experiment(), "completing": CompletionExperiment()}.items():
        write_run_files(folder / name, to_dict(experiment))
    Image.new("RGB", (64, 64)).save(folder / "photo.png")
    shutil.copytree(folder / "run", folder / "closed" / "run")
    return folder


@pytest.mark.parametrize("path", [LONG, f"closed/{LONG}", "closed/run"], ids=["long", "long below", "below"])
@pytest.mark.parametrize(
    "words",
    [*([name, "--workdir", "PATH", *rest] for name, rest in OF_A_RUN.items()), *OTHERS],
    ids=lambda words: " ".join(words[:4]),
)
def test_path_that_the_system_refuses_is_one_line(words, path, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    closed = folder / "closed"
    closed.chmod(0)
    try:
        with permission_bits_bind():
            code = command(*(word.replace("PATH", path) for word in words))
    finally:
        closed.chmod(0o755)
    assert code in (2, 6)
    line = error_line(capsys)
    assert "File name too long" in line or "Permission denied" in line or "has no checkpoint yet" in line
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "--workdir", "run", "--out", "PATH.png"],
        ["sample", "--workdir", "run", "--out", "PATH.npz"],
        ["sample", "--workdir", "run", "--out", "PATH"],
        ["explore", "--workdir", "run", "--out", "PATH.html"],
        ["interpolate", "--workdir", "run", "--out", "PATH.gif"],
        ["animate", "--workdir", "run", "--out", "PATH.gif"],
        ["attend", "--workdir", "run", "--out", "PATH"],
        ["neighbours", "--workdir", "run", "--out", "PATH.png"],
        ["report", "--workdir", "run", "--out", "PATH.html"],
        ["evaluate", "--workdir", "run", "--save-statistics", "PATH.npz"],
        ["plan", "digits_32", "--out", "PATH"],
    ],
    ids=lambda words: " ".join(words[::4]),
)
def test_file_in_the_place_of_a_folder_is_said_before_anything_is_computed(words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert command(*(word.replace("PATH", "photo.png/x") for word in words)) == 2
    assert "photo.png' is a file, not a folder." in error_line(capsys)
    assert sorted(folder.rglob("*")) == before


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and without an entry in the password database, as in some containers."""
    for variable in ("SAGAN_JAX_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)

    def unknown(user):
        raise KeyError(user)

    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_user_without_a_home_folder_has_no_cache(homeless, tmp_path, capsys):
    assert (cache_folder("auto"), weights_folder(), find_weights()) == (None, None, None)
    Image.new("RGB", (32, 32), (7, 0, 0)).save(tmp_path / "0.png")
    assert sagan_jax.data.open_source(str(tmp_path), resolution=32)[0][0][0, 0, 0] == 7
    with pytest.raises(InvalidInputError, match="'~/x' begins with an unknown home folder"):
        cache_folder("~/x")
    for words, needed in ((["fetch-weights"], "--out"), (["convert", "--from", "inception", "x.pth"], "OUT")):
        assert command(*words) == 2
        assert f"needs {needed}" in error_line(capsys)
