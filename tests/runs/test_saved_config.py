"""The config of a run: what is refused of `config.json`, and how the checkpoint's own copy guards it."""

import copy
import dataclasses
import json
import random

import numpy as np
import pytest
from PIL import Image

import sagan_jax
from sagan_jax.config import CompletionExperiment, Experiment, Networks, to_dict
from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.build import build_adversarial_task, build_completion_task, image_shape
from sagan_jax.runs.load import load_run
from sagan_jax.runs.report import config_to_show, write_report
from sagan_jax.runs.resume import check_same_run, check_same_sizes
from sagan_jax.runs.saved_config import read_experiment
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.environment import write_run_files
from sagan_jax.training import adversarial
from support.array_files import arrays_of
from support.assertions import refusal
from support.commands import command, error_line

pytestmark = pytest.mark.one_jax

GENERATING = Experiment(
    networks=Networks(
        resolution=32,
        num_classes=2,
        base_channels=1,
        latent_size=3,
        generator_attention_resolutions=(16,),
        discriminator_attention_resolutions=(16,),
    )
)
NO_STATE = {"weight": np.zeros(2, np.float32)}


def save(workdir, experiment=GENERATING, state=NO_STATE, folder="checkpoints", meta=None):
    """Writes a run; `meta` is what its checkpoint has instead of the config."""
    write_run_files(workdir, to_dict(experiment))
    with Checkpoints(workdir / folder) as checkpoints:
        checkpoints.save(7, state, meta or {"experiment": to_dict(experiment)})
    return workdir


def change(workdir, name, value):
    """Changes a field of `config.json`, such as `networks.norm_epsilon`."""
    path = workdir / "config.json"
    values = json.loads(path.read_text())
    *sections, field = name.split(".")
    inner = values
    for section in sections:
        inner = inner[section]
    inner[field] = value
    path.write_text(json.dumps(values))


COMMANDS = {
    "sample": ["--out", "out.png"],
    "evaluate": ["--source", "digits"],
    "attend": [],
    "explore": ["--out", "out.html"],
    "interpolate": ["--out", "out.png"],
    "neighbours": ["--out", "out.png"],
    "export": [],
    "report": [],
    "train": [],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_changed_config_is_refused_by_every_command_and_the_field_is_named(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = save(tmp_path / "run")
    change(workdir, "networks.norm_epsilon", 0.5)
    before = sorted(tmp_path.rglob("*"))
    assert command(name, "--workdir", workdir, *COMMANDS[name]) == 2
    assert "checkpoint 7 was saved with (checkpoint -> config.json): networks.norm_epsilon: 1e-05 -> 0.5." in (
        line := error_line(capsys)
    )
    assert line.endswith("or give --trust-checkpoint to use the checkpoint's.")
    assert sorted(tmp_path.rglob("*")) == before


def test_changed_config_of_a_run_that_completes_is_refused(tmp_path, capsys):
    workdir = save(tmp_path / "run", CompletionExperiment())
    change(workdir, "networks.skips", False)
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    for words in (["complete", tmp_path / "photo.png", "--holes", "centre"], ["evaluate"]):
        assert command(*words, "--workdir", workdir) == 2
        assert "networks.skips: True -> False" in error_line(capsys)
    assert sagan_jax.open_completion_run(workdir, trust_checkpoint=True).experiment == CompletionExperiment()


def test_changed_config_of_the_run_to_start_from_is_refused(tmp_path, capsys):
    workdir = save(tmp_path / "run")
    change(workdir, "networks.conditional_gain", "map")
    line = refusal(check_same_sizes, workdir, GENERATING.networks)
    assert line.endswith("networks.conditional_gain: table -> map. Restore the file.")
    assert command("train", "--init-from", workdir, "--workdir", tmp_path / "new") == 2
    assert error_line(capsys).endswith(line)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_trusted_checkpoint_draws_the_images_that_it_drew(tmp_path, capsys):
    task = build_adversarial_task(GENERATING)
    workdir = save(tmp_path / "run", state=adversarial.initial_state(task, 0, image_shape(GENERATING)))
    drawn = load_run(workdir).generate(4).images
    change(workdir, "networks.norm_epsilon", 0.5)
    with pytest.raises(InvalidInputError, match="norm_epsilon"):
        load_run(workdir)
    assert np.array_equal(load_run(workdir, trust_checkpoint=True).generate(4).images, drawn)
    (workdir / "config.json").write_text("[")
    words = "--workdir", workdir, "--num-images", 4, "--out", tmp_path / "out.npz", "--trust-checkpoint"
    assert command("sample", *words) == 0
    assert np.array_equal(arrays_of(tmp_path / "out.npz")["arr_0"], drawn)


def test_trusted_checkpoint_decides_also_where_the_file_is_damaged(tmp_path):
    workdir = save(tmp_path / "run")
    for content in ("{}", "[", "null"):
        (workdir / "config.json").write_text(content)
        with pytest.raises(InvalidInputError):
            sagan_jax.open_run(workdir)
        assert sagan_jax.open_run(workdir, trust_checkpoint=True).experiment == GENERATING


def test_best_checkpoint_has_a_config_of_its_own(tmp_path):
    workdir = save(tmp_path / "run", folder="best")
    change(workdir, "networks.norm_decay", 0.5)
    assert sagan_jax.open_run(workdir).experiment.networks.norm_decay == 0.5
    with pytest.raises(InvalidInputError, match=r"networks.norm_decay: 0.999 -> 0.5"):
        sagan_jax.open_run(workdir, checkpoint="best")


def test_what_a_resumed_run_may_change_is_not_refused(tmp_path):
    workdir = save(tmp_path / "run")
    changes = {
        "name": "other",
        "recording.keep_checkpoints": 9,
        "evaluation.protocols": ["fid5k_train"],
        "data.held_out": "elsewhere",
        "data.cache": "",
        "training.total_steps": 5,
        "training.driver": "shard_map",
    }
    for name, value in changes.items():
        change(workdir, name, value)
    found = read_experiment(workdir)
    assert (found.name, found.evaluation.protocols, found.training.total_steps) == ("other", ("fid5k_train",), 5)


def test_older_checkpoints_without_a_config_or_with_fewer_fields_are_opened(tmp_path):
    without = save(tmp_path / "without", meta={"data": "fingerprint"})
    change(without, "networks.norm_epsilon", 0.5)
    assert read_experiment(without, trust_checkpoint=True).networks.norm_epsilon == 0.5
    fewer = to_dict(GENERATING)
    del fewer["networks"]["discriminator_norm"], fewer["evaluation"]
    older = save(tmp_path / "older", meta={"experiment": fewer})
    assert read_experiment(older) == GENERATING
    (older / "config.json").write_text(json.dumps(fewer))
    assert read_experiment(older) == GENERATING
    change(older, "networks.discriminator_norm", "batch")
    assert "networks.discriminator_norm: none -> batch" in refusal(read_experiment, older)


def test_newest_checkpoint_that_is_damaged_leaves_the_one_before_to_decide(tmp_path):
    workdir = save(tmp_path / "run")
    with Checkpoints(workdir / "checkpoints", keep=2) as checkpoints:
        checkpoints.save(9, NO_STATE, {"experiment": to_dict(GENERATING)})
    metadata = workdir / "checkpoints" / "9" / "meta" / "metadata"
    metadata.write_text(metadata.read_text().replace("1e-05", "0.5"))
    change(workdir, "networks.norm_epsilon", 0.5)
    assert "checkpoint 7 was saved with" in refusal(read_experiment, workdir)


def test_resumed_run_is_compared_with_the_trusted_checkpoint(tmp_path):
    workdir = save(tmp_path / "run")
    change(workdir, "networks.norm_epsilon", 0.5)
    check_same_run(workdir, GENERATING, trust_checkpoint=True)
    other = dataclasses.replace(GENERATING, training=dataclasses.replace(GENERATING.training, seed=3))
    assert "training.seed: 0 -> 3" in refusal(check_same_run, workdir, other, trust_checkpoint=True)


def test_report_shows_the_config_of_the_trusted_checkpoint(tmp_path):
    workdir = save(tmp_path / "run")
    change(workdir, "networks.norm_epsilon", 0.4375)
    write_report(workdir, tmp_path / "changed.html")
    write_report(workdir, tmp_path / "trusted.html", config=config_to_show(workdir, trust_checkpoint=True))
    pages = [(tmp_path / f"{name}.html").read_text() for name in ("changed", "trusted")]
    assert ["0.4375" in page for page in pages] == [True, False]


@pytest.mark.parametrize("read", [None, 7 * 64, 3 * 32 + 4 * 64])
def test_report_goes_by_the_images_that_the_checkpoint_has_read(tmp_path, read):
    experiment = dataclasses.replace(GENERATING, training=dataclasses.replace(GENERATING.training, batch_size=64))
    meta = {"experiment": to_dict(experiment)} | ({"images_read": read} if read else {})
    workdir = save(tmp_path / "run", experiment, meta=meta)
    (workdir / "metrics.jsonl").write_text('{"step": 7, "images_per_second": 4.0}\n')
    write_report(workdir)
    assert ("time of training" in (workdir / "report.html").read_text()) == (read != 3 * 32 + 4 * 64)


# --- what is refused of config.json

WRONG = {
    "[" * 100_000: "nested too deeply",
    "null": "needs a JSON object",
    "[]": "needs a JSON object",
    '"x"': "needs a JSON object",
    '{"networks": 3}': "needs a JSON object",
    '{"networks": {"resolution": "x"}}': r"--resolution needs to be one of 32, 64, 128, 256, 512; got 'x'",
    '{"networks": {"resolution": 32.0}}': r"--resolution needs to be one of",
    '{"networks": {"latent_size": 1%s}}' % ("0" * 400): "--latent-size needs to be at most",
    '{"networks": {"latent_size": 1%s}}' % ("0" * 5000): "cannot be read as JSON",
    '{"networks": {"latent_size": 1048577}}': "--latent-size needs to be at most 1,048,576; got 1048577",
    '{"networks": {"latent_size": true}}': "--latent-size needs a value of type int; got True",
    '{"networks": {"norm_epsilon": NaN}}': "--norm-epsilon needs to be at least 0; got nan",
    '{"networks": {"norm_epsilon": 1%s}}' % ("0" * 400): "--norm-epsilon needs to be at most",
    '{"networks": {"generator_attention_resolutions": 32}}': "needs a list of values; got 32",
    '{"networks": {"generator_attention_resolutions": ["32"]}}': "needs a value of type int; got '32'",
    '{"networks": {"generator_attention_resolutions": [31]}}': "no block of the 128-pixel network ends at 31",
    '{"training": {"augmentation": ["color", "colour"]}}': "Perhaps you meant color",
    '{"data": {"source": "a\\u0000b"}}': "--source needs text that can be the name of a file",
    '{"data": {"source": "\\ud800"}}': "--source needs text that can be the name of a file",
    '{"name": 3}': "--name needs letters",
    '{"nom": 3}': "unknown field 'nom'",
    '{"task": "completion", "networks": {"blocks": 1000000}}': "--blocks needs to be at most 1,024",
    '{"task": "completion", "training": {"holes": "round"}}': "--holes needs to be one of",
    '{"task": []}': "unknown field 'task'",
}


@pytest.mark.parametrize("content", WRONG, ids=lambda content: content[:60])
def test_wrong_config_is_refused_in_one_line(content, tmp_path, capsys):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InvalidInputError, match=WRONG[content]) as caught:
        read_experiment(tmp_path)
    assert len(line := str(caught.value)) < 600
    assert "\n" not in line
    assert command("sample", "--workdir", tmp_path, "--out", tmp_path / "out.png") == 2
    assert line in error_line(capsys)


def test_config_of_a_run_on_more_devices_is_read(tmp_path):
    many = dataclasses.replace(GENERATING, training=dataclasses.replace(GENERATING.training, batch_size=7 * 11))
    write_run_files(tmp_path, to_dict(many))
    assert read_experiment(tmp_path) == many


VALUES = [None, True, -1, 0, 3, 2**31, 2**64, 10**400, 0.5, -0.0, 1e300, float("nan"), float("inf"), "", "x", "\0"]
VALUES += ["\ud800", "a" * 3000, [], {}, [[]], [0], ["x"], [None], {"a": 1}, {"": {"": []}}, "32", 32, 64.0, [32, 32]]


def mutated(values, random_):
    """Returns a copy in which a field, a section or all of it has another value, is left out, or was renamed."""
    values = copy.deepcopy(values)
    sections = [name for name in values if isinstance(values[name], dict)]
    inner = values if random_.random() < 0.2 else values[random_.choice(sections)]
    name = random_.choice(list(inner))
    kind = random_.randrange(10)
    if kind == 0:
        inner[random_.choice(["", "x", "task", "\ud800", "a" * 3000])] = inner.pop(name)
    elif kind == 1:
        del inner[name]
    else:
        inner[name] = copy.deepcopy(random_.choice(VALUES))
    return random_.choice(VALUES) if random_.random() < 0.01 else values


def damaged(content, random_):
    """Returns bytes with one to three bytes replaced, inserted or cut off."""
    content = bytearray(content)
    for _ in range(random_.randint(1, 3)):
        place = random_.randrange(len(content) + 1)
        kind = random_.randrange(4)
        if kind == 0:
            content[place : place + 1] = [random_.randrange(256)]
        elif kind == 1:
            content[place:place] = random_.choice([b"[" * 3000, b"{", b"\0", b"\xff", b"9" * 400, b'"', b",", b"e99"])
        elif kind == 2:
            del content[place : place + random_.randint(1, 40)]
        else:
            content = content[: place + 1]
    return bytes(content)


@pytest.mark.parametrize("experiment", [GENERATING, CompletionExperiment()], ids=["generating", "completing"])
def test_mutated_configs_are_read_or_refused_and_give_no_other_error(experiment, tmp_path):
    random_, values = random.Random(21), to_dict(experiment)
    read, refused = 0, []
    for number in range(1000):
        mutation = json.dumps(mutated(values, random_)).encode()
        if number % 2:
            mutation = damaged(mutation, random_)
        (tmp_path / "config.json").write_bytes(mutation)
        try:
            found = read_experiment(tmp_path)
        except InvalidInputError as error:
            refused.append(str(error))
            continue
        assert found is not None
        build = build_adversarial_task if isinstance(found, Experiment) else build_completion_task
        build(found)
        read += 1
    assert min(read, len(refused)) > 50
    assert max(map(len, refused)) < 1000
