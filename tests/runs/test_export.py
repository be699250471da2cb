"""The export of the generator: folded, it draws the same images, and the code of the page loads it."""

import doctest
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from flax.traverse_util import flatten_dict
from jax import export

from sagan_jax.config import Data, Experiment, Networks, Training, to_dict
from sagan_jax.errors import InvalidInputError, NonFiniteError, StorageError
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.interop.jax_export import to_jax_export
from sagan_jax.interop.weight_files import read_arrays
from sagan_jax.models import biggan, dcgan, folding, sagan
from sagan_jax.models.folding import fold_batch_stats
from sagan_jax.runs.build import build_adversarial_task
from sagan_jax.runs.export import export_run, exported_files
from sagan_jax.runs.load import load_run
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.training.adversarial import initial_state
from support.commands import command, error_line
from support.params import draw_tree
from support.paths import ROOT

FILES = {"generator.safetensors", "generator.jax_export", "README.md"}
SMALL = {"resolution": 32, "base_channels": 2, "attention_resolutions": (16,)}
# Each with its latent size.
GENERATORS = {
    "sagan": (sagan.Generator(**SMALL, num_classes=7, norm_epsilon=0.25), 6),
    "sagan, map": (sagan.Generator(**SMALL, num_classes=5, conditional_gain="map", attention="article"), 6),
    "sagan, free map": (sagan.Generator(**SMALL, num_classes=5, conditional_gain="free_map"), 6),
    "sagan, scaled map": (sagan.Generator(**SMALL, num_classes=9, conditional_gain="scaled_map"), 6),
    "sagan, no classes": (sagan.Generator(**SMALL, num_classes=0, image_channels=1), 9),
    "dcgan": (dcgan.Generator(**SMALL, num_classes=7, attention="residual"), 6),
    "dcgan, scaled map": (dcgan.Generator(**SMALL, num_classes=3, conditional_gain="scaled_map"), 6),
    "dcgan, no classes": (dcgan.Generator(**SMALL), 11),
    "biggan": (biggan.Generator(**SMALL, num_classes=7, shared_size=3, norm_epsilon=1e-4), 12),
    "biggan, neither": (biggan.Generator(**SMALL, num_classes=7, shared_size=0, hierarchical=False), 10),
    "biggan, no classes": (biggan.Generator(**SMALL, num_classes=0), 8),
}


def shapes_of(network, latent_size):
    inputs = jnp.zeros((1, latent_size)), jnp.zeros(1, jnp.int32)
    return jax.eval_shape(lambda: network.init(jax.random.key(0), *inputs, train=False))


def trained(network, latent_size, seed=3):
    variables = draw_tree(dict(shapes_of(network, latent_size)), seed)
    return TrainedGenerator(network, variables, latent_size, network.num_classes, step=1234)


def inputs_of(generator, count, seed=0):
    latents = np.random.default_rng(seed).normal(size=(count, generator.latent_size)).astype(np.float32)
    return latents, np.arange(count, dtype=np.int32) % max(1, generator.num_classes)


def images_of(generator, latents, labels):
    """The oracle: the images of the module as it is trained, with statistics beside its parameters."""
    network = generator.generator
    assert not network.folded
    draw = jax.jit(lambda variables, z, y: network.apply(variables, z, y, train=False))
    return np.asarray(draw(generator.variables, latents, labels))


@pytest.mark.parametrize(("network", "latent_size"), GENERATORS.values(), ids=GENERATORS)
def test_folded_generator_draws_what_the_unfolded_one_draws(network, latent_size):
    generator = trained(network, latent_size)
    latents, labels = inputs_of(generator, 9)
    wanted = images_of(generator, latents, labels)
    assert wanted.std() > 0.1
    assert np.mean(np.abs(wanted) > 0.999) < 0.1  # otherwise tanh would hide differences
    assert np.abs(wanted[0] - wanted[1:]).max() > 0.05
    params = fold_batch_stats(**generator.variables, epsilon=network.norm_epsilon)
    images = jax.jit(lambda params: network.clone(folded=True).apply({"params": params}, latents, labels, train=False))
    assert np.abs(images(params) - wanted).max() < 1e-5


@pytest.mark.parametrize(("network", "latent_size"), GENERATORS.values(), ids=GENERATORS)
def test_folded_generator_is_parameters_alone_in_the_shapes_that_folding_gives(network, latent_size):
    generator = trained(network, latent_size)
    shapes = shapes_of(network.clone(folded=True), latent_size)
    folded = fold_batch_stats(**generator.variables, epsilon=network.norm_epsilon)
    assert set(shapes) == {"params"}
    assert jax.tree.map(jnp.shape, folded) == jax.tree.map(jnp.shape, shapes["params"])
    assert {leaf.dtype for leaf in jax.tree.leaves(folded)} == {np.dtype(np.float32)}


def test_folding_leaves_what_it_is_given_as_it_was():
    generator = trained(*GENERATORS["sagan"])
    before = jax.tree.map(np.copy, generator.variables)
    fold_batch_stats(**generator.variables, epsilon=0.25)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, generator.variables))


def test_folding_refuses_statistics_of_another_network():
    generator = trained(*GENERATORS["dcgan"])
    params = {name: leaf for name, leaf in generator.variables["params"].items() if name != "norm_2"}
    with pytest.raises(KeyError, match=r"needs the entries of params, \['attention_16'.*got also \['norm_2'\]"):
        fold_batch_stats(params, generator.variables["batch_stats"], epsilon=1e-5)


def test_doctest_of_folding_holds():
    assert doctest.testmod(folding) == (0, 9)


def recipes(page):
    """Returns the Python of both recipes: of the function, of the weights."""
    function, weights = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return function, weights


@pytest.mark.slow
@pytest.mark.one_jax
@pytest.mark.parametrize("name", ["biggan", "dcgan, no classes", "sagan, no classes", "sagan, scaled map"])
def test_recipes_draw_what_the_generator_draws(name, tmp_path, monkeypatch):
    generator = trained(*GENERATORS[name])
    files = exported_files(generator, "a name")
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for code in recipes(files["README.md"].decode()):
        exec(compile(code, "README.md", "exec"), found := {})
        wanted = images_of(generator, found["latents"], found["labels"])
        assert found["images"].shape == (4, 32, 32, generator.generator.image_channels)
        assert np.abs(found["images"] - wanted).max() < 1e-5


def test_recipe_of_the_function_says_both_versions_of_jax_before_it_is_read(tmp_path, monkeypatch, capsys):
    files = exported_files(trained(*GENERATORS["dcgan, no classes"]), "a name")
    (tmp_path / "generator.jax_export").write_bytes(files["generator.jax_export"])
    monkeypatch.chdir(tmp_path)
    page = files["README.md"].decode()
    assert f"jax {jax.__version__} wrote it," in page
    assert f"install jax {jax.__version__}." in page

    def older(content):
        raise NotImplementedError("unsupported version")

    written = jax.__version__
    monkeypatch.setattr(export, "deserialize", older)
    monkeypatch.setattr(jax, "__version__", "0.4.35")
    with pytest.raises(NotImplementedError):
        exec(compile(recipes(page)[0], "README.md", "exec"), {})
    assert capsys.readouterr().out == f"written by jax {written}, read by jax 0.4.35\n"


def test_function_runs_on_every_platform_for_any_batch():
    network, latent_size = GENERATORS["sagan"]
    variables = trained(network, latent_size).variables
    exported = export.deserialize(bytearray(to_jax_export(network, variables, latent_size)))
    assert exported.platforms == ("cpu", "cuda", "rocm", "tpu")
    (latents, labels), (images,) = exported.in_avals, exported.out_avals
    assert (str(latents), str(labels)) == ("float32[b,6]", "int32[b]")
    assert str(images) == "float32[b,32,32,3]"


def test_function_gives_a_grey_image_for_a_label_that_is_no_class():
    network, latent_size = GENERATORS["sagan"]
    function = export.deserialize(
        bytearray(exported_files(trained(network, latent_size), "tiny")["generator.jax_export"])
    )
    latents = np.random.default_rng(0).normal(size=(4, latent_size)).astype(np.float32)
    classes = network.num_classes
    images = np.asarray(function.call(latents, np.array([0, classes, -1, classes - 1], np.int32)))
    same = np.asarray(function.call(latents, np.array([0, 0, 0, classes - 1], np.int32)))
    assert not images[1:3].any()
    assert np.array_equal(images[[0, 3]], same[[0, 3]])
    assert same[1:3].any()


def test_diverged_generator_is_not_exported():
    generator = trained(*GENERATORS["dcgan, no classes"])
    generator.variables["params"]["conv"]["bias"][1] = np.nan
    with pytest.raises(NonFiniteError, match=r"has diverged: 'conv/bias' has entries that are not finite\.$"):
        exported_files(generator, "a name")


def test_error_of_a_layer_of_a_user_is_one_line_with_its_file():
    def by_len(features):
        return features + len(features)

    with pytest.raises(InvalidInputError, match=r"could not be exported for any b.*in line \d+ of 'test_export.py'"):
        exported_files(trained(sagan.Generator(**SMALL, num_classes=0, attention=by_len), 6), "a name")


def test_weights_that_would_overflow_when_folded_are_not_exported():
    generator = trained(dcgan.Generator(**SMALL, norm_epsilon=0.0), 6)
    generator.variables["batch_stats"]["norm_1"]["variance"][2] = 0
    with pytest.raises(NonFiniteError, match="'norm_1/s"):
        exported_files(generator, "a name")


# A saved run with a drawn state, so that no statistic and no gate has its initial value.

EXPERIMENT = Experiment(
    "tiny-run",
    Data("digits"),
    Networks(
        resolution=32,
        num_classes=7,
        base_channels=2,
        latent_size=6,
        generator_attention_resolutions=(16,),
        discriminator_attention_resolutions=(8,),
    ),
    Training(batch_size=8, ema_decay=0.9),
)


def save_state(workdir, folder, step, seed):
    game = build_adversarial_task(EXPERIMENT)
    shapes = jax.eval_shape(lambda: initial_state(game, 0, (32, 32, 3)))
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    variables = {"params": shapes.generator.params, "batch_stats": shapes.generator.batch_stats}
    state = state.replace(
        step=np.int32(step),
        generator=state.generator.replace(
            **draw_tree(variables, seed), spectral=draw_tree(shapes.generator.spectral, seed)
        ),
        average=draw_tree(variables, seed + 1),
    )
    with Checkpoints(workdir / folder) as checkpoints:
        checkpoints.save(step, state, {})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with a newest and a best checkpoint; read only."""
    workdir = tmp_path_factory.mktemp("export") / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(to_dict(EXPERIMENT)))
    save_state(workdir, "checkpoints", 30, 20)
    save_state(workdir, "best", 20, 40)
    return workdir


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The folder that the command writes; read only."""
    folder = tmp_path_factory.mktemp("exported") / "new" / "folder"
    assert command("export", "--workdir", run, "--out", folder) == 0
    return folder


def test_command_writes_three_files_and_a_line_on_each(run, tmp_path, capsys):
    assert command("export", "--workdir", run, "--out", tmp_path / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert [re.sub(r"[\d.]+ kB$", "SIZE", line) for line in lines] == [
        f"{tmp_path / 'out' / name}: SIZE" for name in ("generator.safetensors", "generator.jax_export", "README.md")
    ]


# Packages that a machine without sagan_jax may lack.
ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"sagan_jax", "flax", "optax", "orbax", "chex", "grain", "safetensors", "jinja2"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
try:
    import sagan_jax
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("sagan_jax is there")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "before", "draw"),
    [
        (0, ABSENT, "generate(more, classes)"),
        (1, "", 'generator.apply({"params": params}, more, classes, train=False)'),
    ],
    ids=["function without the package", "weights with it"],
)
def test_page_has_ten_lines_that_draw_what_the_run_draws(exported, run, tmp_path, which, before, draw):
    code = recipes((exported / "README.md").read_text())[which]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    generator = load_run(run)
    more, classes = inputs_of(generator, 7, seed=5)
    np.savez(tmp_path / "inputs.npz", more=more, classes=classes)
    after = f"""
more, classes = (np.load({str(tmp_path / "inputs.npz")!r})[name] for name in ("more", "classes"))
np.savez({str(tmp_path / "outputs.npz")!r}, of_page=images, of_test={draw})
"""
    environment = os.environ | {"PYTHONPATH": "" if before else str(ROOT)}
    subprocess.run([sys.executable, "-c", before + code + after], cwd=exported, env=environment, check=True)
    with np.load(tmp_path / "outputs.npz") as outputs:
        assert outputs["of_page"].dtype == np.float32
        assert np.abs(outputs["of_page"] - images_of(generator, *inputs_of(generator, 4))).max() < 1e-5
        assert np.abs(outputs["of_test"] - images_of(generator, more, classes)).max() < 1e-5


def test_weights_have_the_names_of_the_parameters_and_notes_on_what_they_are(exported):
    read = read_arrays(exported / "generator.safetensors")  # verifies the digest
    wanted = shapes_of(build_adversarial_task(EXPERIMENT).generator.clone(folded=True), 6)
    assert {name: array.shape for name, array in read.arrays.items()} == {
        name: leaf.shape for name, leaf in flatten_dict(wanted["params"], sep="/").items()
    }
    assert "block_1/conv_1/kernel" in read.arrays
    assert {array.dtype for array in read.arrays.values()} == {np.dtype(np.float32)}
    notes = dict(read.metadata)
    fields = json.loads(notes.pop("generator"))
    fields["attention_resolutions"] = tuple(fields["attention_resolutions"])
    assert sagan.Generator(**fields) == build_adversarial_task(EXPERIMENT).generator.clone(folded=True)
    assert len(notes.pop("arrays_sha256")) == 64
    assert notes == {
        "sagan_jax": "0.1.0",
        "run": "tiny-run",
        "family": "sagan",
        "latent_size": "6",
        "num_classes": "7",
        "step": "30",
        "weights": "moving average",
    }


def test_page_has_the_sizes_and_the_digests_of_the_files(exported):
    page = (exported / "README.md").read_text()
    for name in FILES - {"README.md"}:
        assert f"`{hashlib.sha256((exported / name).read_bytes()).hexdigest()}`" in page
    with safetensors.safe_open(exported / "generator.safetensors", "np") as file:
        count = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118  it is no dictionary
    for words in (f"{count:,} parameters", "A sagan after 30 steps (moving average)", "`[b, 6]`", "in [0, 7)"):
        assert words in page


@pytest.mark.parametrize(
    ("flags", "chosen", "notes"),
    [
        ([], {}, ("30", "moving average")),
        (["--raw"], {"raw": True}, ("30", "as trained")),
        (["--checkpoint", "best"], {"checkpoint": "best"}, ("20", "moving average")),
    ],
    ids=["average", "raw", "best"],
)
def test_command_takes_the_weights_that_are_asked_for(run, tmp_path, flags, chosen, notes):
    assert command("export", "--workdir", run, "--out", tmp_path, *flags) == 0
    read = read_arrays(tmp_path / "generator.safetensors")
    assert (read.metadata["step"], read.metadata["weights"]) == notes
    wanted = load_run(run, **chosen).variables["params"]["conv"]["kernel"]
    assert np.array_equal(read.arrays["conv/kernel"], wanted)


def test_raw_and_averaged_weights_and_those_of_the_best_checkpoint_differ(run):
    kernels = [
        np.asarray(load_run(run, **chosen).variables["params"]["conv"]["kernel"])
        for chosen in ({}, {"raw": True}, {"checkpoint": "best"})
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(kernels[one] - kernels[other]).max() > 0.01


def test_folder_is_export_in_the_workdir_unless_given(run, tmp_path):
    workdir = tmp_path / "copy"
    workdir.mkdir()
    for name in ("config.json", "checkpoints"):
        (workdir / name).symlink_to(run / name)
    assert export_run(workdir) == [
        workdir / "export" / name for name in ("generator.safetensors", "generator.jax_export", "README.md")
    ]
    assert {path.name for path in (workdir / "export").iterdir()} == FILES


@pytest.mark.parametrize(
    ("workdir", "flags", "words"),
    [
        ("nowhere", [], "There is no run in"),
        ("unsaved", [], "has no checkpoint yet"),
        ("unsaved", ["--checkpoint", "best"], "has no best checkpoint"),
        ("saved", ["--out", "file"], "--out needs a folder; got 'file', where 'file' is a file."),
        ("saved", ["--out", "file/below"], "--out needs a folder; got 'file/below', where "),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_no_file(run, tmp_path, monkeypatch, capsys, workdir, flags, words):
    monkeypatch.chdir(tmp_path)
    Path("saved").symlink_to(run)
    Path("unsaved").mkdir()
    Path("unsaved/config.json").write_text((run / "config.json").read_text())
    Path("file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert command("export", "--workdir", workdir, *flags) == 2
    assert words in error_line(capsys)
    assert sorted(tmp_path.rglob("*")) == before
    assert Path("file").read_text() == "mine"


def test_absent_flatbuffers_is_one_line_on_what_to_install(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    assert command("export", "--workdir", run, "--out", tmp_path / "out") == 2
    assert error_line(capsys).endswith("pip install flatbuffers")
    assert not (tmp_path / "out").exists()


def test_full_disk_leaves_the_export_before_as_it_was(run, tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).write_text(f"old {name}")
    write_bytes = Path.write_bytes

    def write_until_the_last(path, content):
        if "README" in path.name:
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_until_the_last)
    with pytest.raises(StorageError, match=r"README\.md could not be written: No space left on device"):
        export_run(run, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: f"old {name}" for name in FILES}


def test_function_refuses_to_be_made_without_flatbuffers(monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(InvalidInputError, match="flatbuffers"):
        to_jax_export(sagan.Generator(), {}, 6)
