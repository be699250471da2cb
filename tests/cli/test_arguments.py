"""How arguments are read. A mistake gives one line with the flag and, for a misspelling, the closest valid name."""

import ast
from pathlib import Path

import pytest

import sagan_jax
from sagan_jax.cli.arguments import expand_home
from support.commands import command, error_line

pytestmark = pytest.mark.one_jax

PACKAGE = Path(sagan_jax.__file__).parent


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "train digits_32 --total-stps 3",
            "train digits_32: there is no flag '--total-stps'. Perhaps you meant --total",
        ),
        ("train --lr 3", "Perhaps you meant --generator-learning-rate or --discriminator-learning-rate. See sagan-jax"),
        ("train faces_completion_64 --lr 3", "Perhaps you meant --learning-rate or --discriminator-learning-rate."),
        ("train --epochs 3", "Perhaps you meant --total-steps."),
        ("train --data=a.zip", "there is no flag '--data'. Perhaps you meant --source."),
        ("train --image_size 64", "Perhaps you meant --resolution."),
        ("sample --workdir a --out b --n 3", "Perhaps you meant --num-images."),
        ("sample --wrkdir a", "there is no flag '--wrkdir'. Perhaps you meant --workdir. --workdir and --out must be"),
        ("sample", "sample: --workdir and --out must be given. See sagan-jax sample --help."),
        ("complete", "complete: PHOTOS and --workdir must be given."),
        ("sample --workdir", "--workdir needs a value, a path; got none."),
        ("train --total-steps abc", "train: --total-steps needs a whole number; got 'abc'."),
        ("train --ema-decay x", "--ema-decay needs a number; got 'x'."),
        ("sample --workdir a --out b --truncation x", "--truncation needs a number; got 'x'."),
        (
            "explore --workdir a --out b.html --seeds 1 x",
            "needs values that are each a whole number; got '1', 'x'.",
        ),
        (
            "train --loss hing",
            "relativistic or an object of yours as file.py:NAME; got 'hing'. Perhaps you meant hinge.",
        ),
        (
            "convert --from x",
            "--from needs to be one of inception, dinov2, official, studiogan, biggan-pytorch; got 'x'.",
        ),
        ("train --fresh=True", "'True' is not expected here."),
        ("train digits_32 cifar10_32", "'cifar10_32' is not expected here. See"),
    ],
)
def test_arguments_that_are_wrong_are_refused_in_one_line(words, said, capsys):
    assert command(*words.split()) == 2
    assert said in error_line(capsys)


@pytest.mark.parametrize(
    "words",
    [
        "--workdir a digits_32",
        "--fresh digits_32",
        "--generator-attention-resolutions 16 digits_32",
        "--augmentation color digits_32",
    ],
)
def test_experiment_after_the_flags_gets_a_hint(words, capsys):
    assert command("train", *words.split()) == 2
    assert "EXPERIMENT comes before the flags: sagan-jax train digits_32 ..." in error_line(capsys)


def test_home_is_expanded_also_behind_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = ["--workdir=~/x", "~/y", "--held-out", "a~b", "--name=~", "./~"]
    assert expand_home(given) == ["--workdir=/home/me/x", "/home/me/y", "--held-out", "a~b", "--name=/home/me", "./~"]


def test_workdir_in_the_home_folder_is_not_a_folder_of_that_name(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert command("sample", "--workdir=~/run", "--out=~/x.npz") == 2
    assert repr(str(tmp_path / "run")) in error_line(capsys)


def test_old_name_of_megabytes_works_and_prints_a_note(capsys, tmp_path):
    assert command("explore", "--workdir", tmp_path, "--out", tmp_path / "e.html", "--budget-mb=0") == 2
    note, refused = capsys.readouterr().err.splitlines()
    assert "--budget-mb is now called --megabytes" in note
    assert "--megabytes needs to be a number above 0" in refused


def undocumented(path):
    """Yields the fields of dataclasses of flags that have no docstring, except those that hold another dataclass."""
    for section in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)):
        for field, after in zip(section.body, [*section.body[1:], None], strict=True):
            if not isinstance(field, ast.AnnAssign) or section.name in ("Table", "_Early"):
                continue
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            holds_flags = isinstance(field.value, ast.Call) and not field.value.args
            if not documented and not holds_flags:
                yield f"{section.name}.{field.target.id}"


@pytest.mark.parametrize("path", [PACKAGE / "config.py", *(PACKAGE / "cli").glob("*.py")], ids=lambda path: path.stem)
def test_every_flag_has_a_word_of_help(path):
    assert list(undocumented(path)) == []


@pytest.mark.parametrize(("name", "default"), [("digits_32", "2000"), ("faces_completion_64", "0.998")])
def test_help_of_train_shows_every_default(name, default, capsys):
    with pytest.raises(SystemExit):
        command("train", name, "--help")
    text = " ".join(capsys.readouterr().out.split())
    flags = text.count(" --") - text.count(", --no-") - text.count("`--")
    assert text.count("(default:") > 40
    assert f"(default: {default})" in text
    assert flags >= text.count("(default:")
