"""A plan on the four devices of the tests, on GPUs that are not here, and its files."""

import dataclasses
import json
import re

import jax
import pytest

from sagan_jax.config import Experiment, Networks, Training
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import lite0
from sagan_jax.runs import plan as planning
from sagan_jax.runs import plan_targets
from sagan_jax.runs.build import build_adversarial_task
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.plan import Plan, plans
from sagan_jax.runs.plan_table import plan_rows
from sagan_jax.runs.plan_targets import Target
from sagan_jax.runtime.chips import CHIPS
from sagan_jax.runtime.collectives import Collectives
from sagan_jax.runtime.compiled_programs import CompiledProgram
from sagan_jax.training.adversarial import initial_state
from sagan_jax.training.flops import step_flops
from support.commands import command, error_line

NETWORKS = Networks(
    family="dcgan",
    resolution=32,
    num_classes=0,
    base_channels=2,
    latent_size=6,
    generator_attention_resolutions=(),
    discriminator_attention_resolutions=(),
    spectral_norm="none",
)
TINY = Experiment("tiny", networks=NETWORKS, training=Training(total_steps=900, batch_size=24, discriminator_steps=2))
PROGRAM = CompiledProgram(
    arguments=2**30,
    outputs=2**30,
    aliased=2**30 - 512,
    temporary=3 * 2**29,
    bytes_accessed=7 * 2**20,
    written=(Collectives("all-reduce", 40, 40, 4000),),
    collectives=(Collectives("all-reduce", 5, 39, 3900),),
)
MADE = Plan("tiny", "v5e:2x4", "TPU v5 lite", 8, "bfloat16", 64, 2, 128, 9000, 2e12, 16 * 2**30, 2e14, PROGRAM)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the files of one plan, an experiment of the same name, and a cache of its own."""
    folder = tmp_path_factory.mktemp("plan")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAGAN_JAX_CACHE", str(folder / "cache"))
        (folder / "tiny.py").write_text(
            "from sagan_jax.config import *\n"
            f"def experiment():\n    return {dataclasses.replace(TINY, name='tiny')!r}\n"
        )
        assert command("plan", "tiny.py") == 0
        yield folder


@pytest.mark.slow
@pytest.mark.one_jax
def test_plan_of_the_devices_here_counts_memory_and_operations_as_they_are(home):
    (found,) = json.loads((home / "plans" / "tiny.json").read_text())["plans"]
    task = build_adversarial_task(TINY)
    state = jax.eval_shape(lambda: initial_state(task, 0, (32, 32, 3)))
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    share = 24 // jax.device_count()
    used_batch = 2 * share * 32 * 32 * 3 * 4  # without classes the labels are not read
    assert found["program"]["arguments"] in (state_bytes + used_batch, state_bytes + used_batch + 2 * share * 4)
    assert found["flops"] == step_flops(task, share, (32, 32, 3), discriminator_steps=2)
    assert {collective["kind"] for collective in found["program"]["collectives"]} == {"all-gather", "all-reduce"}
    assert (found["device_count"], found["precision"], found["images_per_step"]) == (4, "float32", 48)
    assert (found["fits"], found["times"]) == (None, {})
    assert "4 x cpu" in (home / "plans" / "tiny.html").read_text()


def test_second_plan_compiles_nothing_and_says_the_same(home, monkeypatch):
    monkeypatch.setattr(planning, "compile_program", lambda traced: pytest.fail("compiled again"))
    monkeypatch.setattr(planning, "program_flops", lambda *arguments: pytest.fail("counted again"))
    before = (home / "plans" / "tiny.json").read_text()
    assert command("plan", "tiny.py", "--out", "other") == 0
    assert (home / "other.json").read_text() == before


def test_what_does_not_change_a_program_keeps_its_key_and_all_else_changes_it(home, monkeypatch):
    here = Target("4 x cpu", "cpu", "cpu", 4, None, None, ())

    def key(target=here, **training):
        return planning._key(dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, **training)), target)

    assert key() == key(total_steps=7, seed=3, driver="shard_map")
    others = [key(batch_size=32), key(adam_beta1=0.5), key(precision="bfloat16"), key(here._replace(count=8))]
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--flag")
    others.append(key())
    assert len({key(), *others}) == len(others)
    monkeypatch.delenv("LIBTPU_INIT_ARGS")
    assert key() not in others


def test_damaged_result_is_found_anew(home, monkeypatch):
    (kept,) = (home / "cache" / "plans").glob("*.json")
    content = kept.read_text()
    monkeypatch.setattr(planning, "_find", lambda *arguments: planning._Found(3.0, PROGRAM))
    for damaged in (content[:50], "[]", content.replace('"temporary"', '"temporaries"')):
        kept.write_text(damaged)
        (made,) = plans(TINY)
        assert (made.flops, made.program) == (3.0, PROGRAM)
        assert json.loads(kept.read_text())["program"]["arguments"] == PROGRAM.arguments
    kept.write_text(content)


def test_gpus_that_are_not_here_get_operations_and_times_without_a_compiler(home, capsys, monkeypatch):
    monkeypatch.setattr(plan_targets, "has_gpu_compiler", lambda: False)
    (here,) = plans(TINY)
    assert command("plan", "tiny.py", "--compare", "h200:4", "--accumulation-steps", 3, "--out", "gpus") == 0
    said = capsys.readouterr().out
    assert re.search(r"^ +h200:4$", said, re.MULTILINE)
    assert "One H200 reached 158 TFLOP/s" in said
    (made,) = json.loads((home / "gpus.json").read_text())["plans"]
    assert made["flops"] == here.flops  # each of the microbatches is counted
    assert made["program"] is made["fits"] is None
    seconds = here.flops / 494.7e12 / 0.3
    assert made["times"]["30%"] == pytest.approx(
        {
            "step_seconds": seconds,
            "hours": 900 * seconds / 3600,
            "chip_hours": 4 * 900 * seconds / 3600,
            "input_images_per_second": 48 / seconds,
        }
    )


def test_program_of_a_gpu_has_memory_and_collectives_but_no_counts_of_xla(home, monkeypatch):
    monkeypatch.setattr(plan_targets, "has_gpu_compiler", lambda: True)
    monkeypatch.setattr(plan_targets, "gpu_devices", lambda chip, count: jax.devices()[:count])
    counted = dataclasses.replace(PROGRAM, flops=3.0, seconds=0.5, kernels=1948)
    monkeypatch.setattr(planning, "compile_program", lambda traced: counted)
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(home / "gpu"))
    (made,) = plans(TINY, ["a100-40gb:2"])
    assert (made.device_count, made.memory_limit) == (2, 30 * 10**9)
    assert made.program == dataclasses.replace(PROGRAM, bytes_accessed=None, kernels=1948)
    assert plan_rows(made)["kernels"] == "1,948 a step; a call of a library counts as one"
    assert made.fits
    assert set(made.step_seconds) == {"15%", "30%", "45%"}


@pytest.mark.slow
def test_completion_is_planned_too(monkeypatch):
    monkeypatch.setattr(plan_targets, "has_gpu_compiler", lambda: False)
    experiment = load_experiment("faces_completion_64")
    networks = dataclasses.replace(experiment.networks, base_channels=2, latent_size=4)
    small = dataclasses.replace(experiment, networks=networks)
    one, four = plans(small, ["h100:1", "h100:4"])
    assert one.flops / four.flops == pytest.approx(4, rel=0.2)
    assert (one.batch_size, one.images_per_step, one.accumulation_steps) == (32, 32, 1)
    if lite0.is_installed():
        perceptual = dataclasses.replace(small, training=dataclasses.replace(small.training, perceptual_weight=1.0))
        (more,) = plans(perceptual, ["h100:4"])
        assert more.flops > 1.5 * four.flops


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--topology", "h200:5"], "h200:5: --batch-size needs a multiple of the 5 devices"),
        (["--topology", "h200:0"], "GPUs are named with their number, such as h200:8"),
        (["--topology", "h200:2", "--accumulation-steps", "5"], "h200:2: --accumulation-steps needs to divide the 12"),
        (["--topology", "h200:2", "--largest-batch"], "--largest-batch needs devices with a known memory"),
        (["--norm-decay", "2"], "--norm-decay needs to be in [0, 1)"),
    ],
)
def test_impossible_plan_is_refused_in_one_line_and_writes_nothing(words, message, home, capsys, monkeypatch):
    monkeypatch.setattr(plan_targets, "has_gpu_compiler", lambda: False)
    assert command("plan", "tiny.py", "--out", "refused/plan", *words) == 2
    assert message in error_line(capsys)
    assert not (home / "refused").exists()


def test_largest_batch_is_searched_among_programs_that_are_compiled(home, monkeypatch):
    def find(experiment, target, notify):
        images = experiment.training.batch_size // target.count
        return planning._Found(1.0, CompiledProgram(arguments=5, outputs=0, aliased=0, temporary=images * 10**6))

    monkeypatch.setattr(planning, "_find", find)
    here = planning.open_target()
    monkeypatch.setattr(planning, "open_target", lambda: here._replace(memory=12 * 10**6))
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(home / "other"))
    (made,) = plans(TINY, find_largest_batch=True)
    assert (made.fits, made.largest_batch) == (True, 44)
    assert plan_rows(made)["largest batch"] == "44 images, to within an eighth"
    assert len(list((home / "other" / "plans").glob("*.json"))) > 2  # all tried programs are kept


def test_rows_say_what_a_plan_holds():
    rows = plan_rows(MADE)
    assert rows["batch"] == "64 images, 8 a device, in 2 microbatches"
    assert rows["memory of a device"] == "2.50 GiB of 16.00 GiB: fits"
    assert rows["- new outputs"] == "512 bytes"
    assert rows["collectives"] == "5 a step, 40 as written"
    assert "kernels" not in rows
    assert rows["- all-reduce"] == "5 with 39 arrays, 3,900 bytes"
    assert rows["time of a step"] == "66.67 / 33.33 / 22.22 ms"
    assert rows["time of the run"] == "0.167 / 0.0833 / 0.0556 hours"
    assert rows["chip-hours of the run"] == "1.33 / 0.667 / 0.444"
    assert rows["input needed"] == "1,920 / 3,840 / 5,760 images/s"


@pytest.mark.parametrize(("told", "basis"), [(0.02, ["XLA's estimate"]), (-1.0, 3), (0.009, 3), (None, 3)])
def test_estimate_of_the_compiler_is_shown_where_no_chip_would_be_faster(told, basis):
    made = dataclasses.replace(MADE, program=dataclasses.replace(PROGRAM, seconds=told))
    assert list(made.step_seconds) == (["15%", "30%", "45%"] if basis == 3 else basis)


def test_program_that_was_refused_does_not_fit():
    refused = CompiledProgram(refused="Ran out of memory", needed=21 * 2**30)
    rows = plan_rows(dataclasses.replace(MADE, program=refused))
    assert rows["memory of a device"] == "at least 21.00 GiB of 16.00 GiB: does not fit"


def test_peak_is_that_of_the_precision():
    assert CHIPS["v5e"].peak["float32"] == pytest.approx(197e12 / 6)
    assert CHIPS["h200"].peak["tensorfloat32"] == 494.7e12
    with pytest.raises(InvalidInputError, match="There is no TPU slice"):
        list(plans(TINY, ["v7:1x1"]))
