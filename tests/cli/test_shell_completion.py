"""The script of `sagan-jax completion`, as bash runs it."""

import shutil
import subprocess
from typing import get_args

import pytest

from sagan_jax.config import AttentionName, LossName
from sagan_jax.models.attention import AttentionKind
from support.commands import command

pytestmark = pytest.mark.one_jax

COMPLETE = """
source /dev/stdin <<< "$1"; shift
function=$(complete -p sagan-jax | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); $function; echo "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["sa"], ["sample"]),
        (["fetch"], ["fetch-weights"]),
        (["train", "--total"], ["--total-steps"]),
        (["train", "--atten"], ["--attention"]),  # its help has several lines
        (["train", "--spectral-norm", ""], ["both", "discriminator", "generator", "none"]),
        (["train", "--loss", ""], sorted(get_args(LossName))),  # a user's own loss is valid too
        (["train", "--generator-attention", "r"], ["release", "residual"]),
        (["train", "--callbacks", ""], ["tensorboard", "wandb"]),
        (["train", "--augmentation", "c"], ["color", "cutout"]),
        (["sample", "--checkpoint", ""], ["best", "newest"]),
        (["explore", "--megab"], ["--megabytes"]),
        (["plan", "--topo"], ["--topology"]),
        (["sample", "--lat"], ["--latents"]),
        (["invert", "--percep"], ["--perceptual"]),
    ],
)
def test_completion_script_completes_commands_flags_and_choices(words, found, capsys):
    assert command("completion", "bash") == 0
    script = capsys.readouterr().out
    call = ["bash", "-c", COMPLETE, "bash", script, "sagan-jax", *words]
    said = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(word for word in said if word not in ("-h", "--help")) == found


def test_names_of_attention_are_those_of_the_networks():
    assert get_args(AttentionName) == get_args(AttentionKind)
