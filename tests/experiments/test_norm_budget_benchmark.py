"""How far the class gains of networks can move, and how far they are from 1, in tables and a picture."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from sagan_jax.config import Data, Experiment, Networks, Training, to_dict
from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.weight_files import to_safetensors
from sagan_jax.models import sagan
from sagan_jax.models.folding import fold_batch_stats
from sagan_jax.runs.build import build_adversarial_task, image_shape
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.training.adversarial import initial_state
from support.params import draw_tree, variable_shapes
from support.programs import BENCHMARKS, load_program

EXPERIMENT = Experiment(
    "tiny",
    Data("digits"),
    Networks(
        resolution=32,
        num_classes=10,
        base_channels=1,
        latent_size=3,
        generator_attention_resolutions=(),
        discriminator_attention_resolutions=(),
        conditional_gain="free_map",
    ),
    Training(batch_size=8, seed=3),
)


@pytest.fixture(scope="module")
def program():
    program = load_program(BENCHMARKS / "norm_budget.py")
    program.CLASSES, program.CHANNELS = (10, 1000), (32, 256)  # each size compiles its own program
    return program


def save(workdir, experiment, change=lambda leaf: leaf):
    """Saves a run at step 7. `change` maps the initial parameters of G to those of the run."""
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(to_dict(experiment)))
    state = initial_state(build_adversarial_task(experiment), experiment.training.seed, image_shape(experiment))
    generator = state.generator.replace(params=jax.tree.map(change, state.generator.params))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(7, jax.device_get(state.replace(generator=generator)), {})


def exported(path, gain):
    """A file as `sagan-jax export` writes it, with the gains before folding."""
    network = sagan.Generator(32, 5, 1, attention_resolutions=(), conditional_gain=gain)
    variables = draw_tree(dict(variable_shapes(network, 6)), 3)
    np.savez(path, **flatten_dict(fold_batch_stats(**variables, epsilon=1e-5), sep="/"))
    return variables["params"]["block_1"]["norm_1"]


def test_bound_and_starts_are_those_of_all_sizes(program):
    found = {(entry["classes"], entry["channels"]): entry for entry in program.starts()}
    assert len(found) == 4
    for (classes, channels), entry in found.items():
        assert entry["bound"] == pytest.approx(max(classes, channels) ** -0.5)
        assert entry["orthogonal"] == pytest.approx(entry["bound"], rel=1e-4)
        assert 0.4 * entry["bound"] < entry["xavier"] < entry["bound"]
    lines = program.starts_table(list(found.values())).splitlines()
    assert lines[-1].startswith("| 1,000 | 0.032 (")


@pytest.mark.slow
def test_file_and_run_are_lines_and_a_picture(program, tmp_path, capsys):
    norm = exported(tmp_path / "file.npz", "map")
    save(tmp_path / "run", EXPERIMENT, lambda leaf: leaf + 0.5)
    program.run([*(str(tmp_path / name) for name in ("file.npz", "run")), "--out", str(tmp_path / "out" / "here")])
    printed = capsys.readouterr().out
    out = tmp_path / "out" / "here"
    assert (out / "norm_budget.md").read_text() == printed
    written = json.loads((out / "norm_budget.json").read_text())
    assert [(line["network"], line["form"]) for line in written["norms"]] == [("file.npz", "map")] * 6 + [
        ("run", "free_map")
    ] * 6
    first, of_run = written["norms"][0], written["norms"][6]
    kernel = np.asarray(norm["scale_kernel"], np.float64)
    assert (first["classes"], first["channels"], first["bound"]) == (5, 4, pytest.approx(5**-0.5))
    assert first["gain"]["rms"] == pytest.approx(np.sqrt((kernel**2).mean()), rel=1e-3)
    assert first["gain"]["largest"] == pytest.approx(abs(kernel).max(), rel=1e-3)
    assert first["gain"]["between_classes"] == pytest.approx(kernel.std(axis=0, ddof=0).__pow__(2).mean() ** 0.5, 1e-3)
    assert first["shift"]["moved"] is None
    assert of_run["bound"] is None
    for part in ("gain", "shift"):
        assert of_run[part]["moved"] == pytest.approx(0.5)
        assert of_run[part]["rms"] != pytest.approx(0.5, rel=1e-3)
    assert printed.splitlines()[-1].startswith("| run | free_map | block_3/norm_2 | 10 × 4 | none |")
    with Image.open(out / "norm_budget.png") as picture:
        assert picture.size[0] > 1000


def test_share_of_the_bound_is_of_the_norm_itself(program):
    part = {"rms": 0.1, "between_classes": 0.05, "largest": 0.5, "moved": None}
    line = {"network": "n", "form": "map", "norm": "norm_1", "classes": 1000, "channels": 25, "bound": 0.4}
    cells = program._cells(line | {"gain": part, "shift": part | {"rms": 0.2, "moved": 0.03}})
    assert cells[3:7] == ["1,000 × 25", "0.4000", "0.1000", "25%"]
    assert cells[10:] == ["0.2000", "50%", "0.0500", "0.50", "0.0300"]


@pytest.mark.parametrize("fields", [{"num_classes": 0}, {"family": "biggan", "hierarchical": False}])
def test_run_whose_norms_read_no_label_is_refused(program, tmp_path, fields):
    networks = replace(EXPERIMENT.networks, **fields, conditional_gain="table")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(to_dict(replace(EXPERIMENT, networks=networks))))
    with pytest.raises(InvalidInputError, match="run' needs to be a sagan or a dcgan with classes"):
        program.run([str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_metadata_of_a_file_say_which_map_it_has(program, tmp_path):
    exported(tmp_path / "file.npz", "scaled_map")
    with np.load(tmp_path / "file.npz") as arrays:
        content = to_safetensors(dict(arrays), {"generator": json.dumps({"conditional_gain": "scaled_map"})})
    (tmp_path / "generator.safetensors").write_bytes(content)
    lines = program.norms_of(tmp_path / "generator.safetensors")
    assert {(line["form"], line["bound"]) for line in lines} == {("scaled_map", None)}


def test_file_of_folded_tables_is_refused(program, tmp_path):
    exported(tmp_path / "file.npz", "table")
    with pytest.raises(InvalidInputError, match=r"file.npz' needs class gains as maps"):
        program.run([str(tmp_path / "file.npz"), "--out", str(tmp_path / "out")])


def test_out_is_a_folder(program, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match=r"--out needs a folder; .*file' is a file"):
        program.run(["--out", str(tmp_path / "file")])
