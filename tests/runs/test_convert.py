"""Released weights as a run: converted networks give the images and logits of their source, or are refused."""

import dataclasses
import json
import pickle
import re
import shutil
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from sagan_jax import interop
from sagan_jax.interop.weight_files import to_safetensors
from sagan_jax.runs.families import build_networks, networks_config
from sagan_jax.runs.load import load_run, open_run, read_experiment
from support.array_files import arrays_of
from support.assertions import same_bits
from support.commands import command, error_line
from support.pickles import MakesFolder
from support.pytorch_generators import generate
from support.tensorflow_checkpoints import write_checkpoint

# Whole networks are converted and compiled.
pytestmark = [pytest.mark.slow, pytest.mark.one_jax]

FILES = {
    "studiogan-sagan-32": "studiogan",
    "studiogan-dcgan-32": "studiogan",
    "biggan-128": "biggan-pytorch",
    "official-feat32": "official",
}
PARTS = ("generator", "discriminator")


def tensors(golden, name, part):
    """The tensors of one network under the names that its own file has."""
    prefix = "var/" if name.startswith("official") else f"{part}/"
    with np.load(golden / f"{name}.npz") as file:
        found = {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}
    if name.startswith("official"):
        found = {key: array for key, array in found.items() if f"/{part[0]}_" in key}
    return found


def vectors(golden, name):
    with np.load(golden / f"{name}.npz") as file:
        return {key: file[key] for key in file.files if key.startswith(("in/", "out/"))}


def written(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        path.write_bytes(to_safetensors(arrays, {}))
    return path


def convert(source, out, *flags):
    return command("convert", "--from", source, *flags, out)


@pytest.fixture(scope="module", params=FILES)
def converted(request, golden, tmp_path_factory):
    """(name, workdir): G as .npz, D as .safetensors."""
    folder = tmp_path_factory.mktemp("converted")
    flags = []
    for part, suffix in zip(PARTS, (".npz", ".safetensors"), strict=True):
        flags += [f"--{part}", written(folder / f"{part}{suffix}", tensors(golden, request.param, part))]
    assert convert(FILES[request.param], folder / "run", *flags) == 0
    return request.param, folder / "run"


@pytest.fixture(scope="module")
def small(golden, tmp_path_factory):
    """The workdir of a generator that was converted without a discriminator. Its weight file lies beside it."""
    folder = tmp_path_factory.mktemp("alone")
    file = written(folder / "G.npz", tensors(golden, "studiogan-sagan-32", "generator"))
    assert convert("studiogan", folder / "run", "--generator", file) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three classes of a few images."""
    folder, numbers = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(12):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return folder


def wanted(golden, name):
    """Latents, labels, images `[B, H, W, C]` for D, and the outputs of the original G and D for them."""
    found = vectors(golden, name)
    if name.startswith("official"):
        inputs = found["in/z"], found["in/fake_labels"], found["in/real_images"]
        return *inputs, found["out/fake_eval"], found.get("out/real_logits")
    images, drawn = (found[key].transpose(0, 2, 3, 1) for key in ("in/images_nchw", "out/fake_eval_nchw"))
    return found["in/z"], found["in/labels"], images, drawn, found["out/real_logits"]


def outputs(network, variables, inputs, labels):
    """Returns what a network makes of its inputs, as one program."""
    return jax.jit(partial(network.apply, train=False))(variables, inputs, labels)


def test_converted_run_gives_the_images_and_logits_of_its_weights(golden, converted):
    name, workdir = converted
    latents, labels, images, drawn, logits = wanted(golden, name)
    run = open_run(workdir)
    generator, discriminator = run.generator(), run.discriminator()
    found = outputs(generator.generator, generator.variables, latents, labels)
    assert np.abs(found - drawn).max() < 1e-4
    if not name.startswith("official"):  # its golden logits are of a training step
        judged = outputs(discriminator.discriminator, discriminator.variables, images, labels)
        assert np.abs(judged - logits).max() < 1e-4


def test_converted_run_remembers_where_it_came_from(converted):
    name, workdir = converted
    experiment = read_experiment(workdir)
    assert experiment is not None
    assert experiment.training.differentiate_spectral_vectors == name.startswith("official")
    assert experiment.networks.spectral_evaluation == ("stored" if name.startswith("studiogan") else "iterated")
    document = json.dumps(json.loads(next(workdir.rglob("meta/metadata")).read_text()))
    assert "generator.npz" in document
    assert "discriminator.safetensors" in document


@pytest.mark.parametrize("name", FILES)
def test_config_of_released_networks_builds_them(golden, name):
    found = {}
    for part in PARTS:
        prefix = "" if name.startswith("official") else f"{part}/"
        found |= {f"{prefix}{key}": array for key, array in tensors(golden, name, part).items()}
    released = interop.load(FILES[name], found)
    generator, discriminator = build_networks(networks_config(released))
    assert generator == released.generator
    assert discriminator.attention_resolutions == released.discriminator.attention_resolutions
    # A width of D that differs from G's needs one more field.
    wide = dataclasses.replace(released, discriminator=released.discriminator.clone(base_channels=96))
    assert networks_config(wide).discriminator_base_channels == 96
    assert build_networks(networks_config(wide))[1].base_channels == 96
    # So does another kind of attention.
    other = dataclasses.replace(released, discriminator=released.discriminator.clone(attention="article"))
    kinds = [network.attention for network in build_networks(networks_config(other))]
    assert kinds == [released.generator.attention, "article"]


@pytest.fixture(scope="module")
def pair(golden, tmp_path_factory):
    """The flags that name the files of both networks of a StudioGAN run."""
    folder, flags = tmp_path_factory.mktemp("pair"), []
    for part in PARTS:
        flags += [f"--{part}", written(folder / f"{part}.npz", tensors(golden, "studiogan-sagan-32", part))]
    return flags


def configuration(path, **model):
    """Writes StudioGAN's settings of the released networks, with the given ones changed."""
    known = {"g_cond_mtd": "cBN", "d_cond_mtd": "PD", "apply_g_sn": True, "apply_d_sn": True, "apply_attn": True}
    known |= {"attn_g_loc": [2], "attn_d_loc": [1], "g_conv_dim": 8, "d_conv_dim": 8}
    path.write_text(json.dumps({"MODEL": known | model, "LOSS": {"adv_loss": "hinge"}}))
    return path


def test_converted_pair_is_checked_by_numbers_that_the_source_gives_too(golden, pair, tmp_path, capsys):
    assert convert("studiogan", tmp_path / "run", *pair) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("check: "))
    assert "numpy.random.default_rng(0).normal(size=(4, 128)), labels [0, 1, 2, 3]" in line
    found = [float(number) for number in re.findall(r"(?:mean|deviation) (-?\d+\.\d+)", line)]
    latents = np.random.default_rng(0).normal(size=(4, 128)).astype(np.float32)
    arrays = tensors(golden, "studiogan-sagan-32", "generator")
    images = generate(arrays, latents, np.arange(4), norm_epsilon=1e-4, last_norm_epsilon=1e-4)
    run = open_run(tmp_path / "run")
    judge = run.discriminator()
    logits = outputs(judge.discriminator, judge.variables, images.transpose(0, 2, 3, 1), np.arange(4))
    np.testing.assert_allclose(found, [images.mean(), images.std(), logits.mean(), logits.std()], atol=2e-5)


def test_what_weights_do_not_say_is_listed_unless_a_configuration_says_it(pair, tmp_path, capsys):
    assert convert("studiogan", tmp_path / "one", *pair) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("assumed")]
    assert len(lines) == 1
    assert "ReLU, norms with epsilon 0.0001, latents from N(0, 1)" in lines[0]
    file = configuration(tmp_path / "run.yaml", bn_eps="1e-3")
    assert convert("studiogan", tmp_path / "two", *pair, "--source-config", file) == 0
    assert "assumed" not in capsys.readouterr().out
    assert read_experiment(tmp_path / "two").networks.norm_epsilon == 1e-3


def test_configuration_of_other_networks_is_refused_and_nothing_is_written(pair, tmp_path, capsys):
    file = configuration(tmp_path / "run.yaml", d_act_fn="Leaky_ReLU")
    assert convert("studiogan", tmp_path / "run", *pair, "--source-config", file) == 2
    assert "Leaky_ReLU (d_act_fn)" in error_line(capsys)
    assert convert("studiogan", tmp_path / "run", *pair, "--source-config", tmp_path / "absent.yaml") == 2
    assert "absent.yaml" in error_line(capsys)
    assert not (tmp_path / "run").exists()


def test_biggan_without_classes_becomes_a_run_without_classes(golden, tmp_path, capsys):
    arrays = {
        name: array[:, -4:] if name.endswith((".gain.weight", ".bias.weight")) else array
        for name, array in tensors(golden, "biggan-128", "generator").items()
        if not name.startswith("shared")
    }
    file = written(tmp_path / "G.npz", arrays)
    assert convert("biggan-pytorch", tmp_path / "run", "--generator", file) == 0
    assert "no classes" in capsys.readouterr().out
    networks = read_experiment(tmp_path / "run").networks
    assert (networks.num_classes, networks.hierarchical, networks.latent_size) == (0, True, 24)


@pytest.mark.parametrize("name", ["blocks.2.0.conv1x1_theta.weight_orig", "blocks.2.0.conv1x1_attn.weight_orig"])
def test_attention_kernel_of_zeros_is_refused_by_name(name, golden, tmp_path, capsys):
    arrays = tensors(golden, "studiogan-sagan-32", "generator")
    arrays[name] = np.zeros_like(arrays[name])
    assert convert("studiogan", tmp_path / "run", "--generator", written(tmp_path / "G.npz", arrays)) == 2
    assert f"'generator/{name}' is all zeros" in error_line(capsys)
    assert not (tmp_path / "run").exists()


def test_weights_that_give_no_numbers_are_refused(golden, tmp_path, capsys):
    arrays = tensors(golden, "studiogan-sagan-32", "generator")
    arrays["bn4.running_var"] = -np.ones_like(arrays["bn4.running_var"])
    assert convert("studiogan", tmp_path / "run", "--generator", written(tmp_path / "G.npz", arrays)) == 2
    assert "the images that they give are not finite" in error_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_both_networks_in_one_file_are_found(golden, suffix, tmp_path):
    both = {
        f"{part}/{key}": array for part in PARTS for key, array in tensors(golden, "studiogan-dcgan-32", part).items()
    }
    assert convert("studiogan", tmp_path / "run", "--generator", written(tmp_path / f"both{suffix}", both)) == 0
    assert open_run(tmp_path / "run").discriminator() is not None


def test_official_export_is_one_file_whose_names_may_end_in_0(golden, tmp_path):
    both = tensors(golden, "official-feat32", "generator") | tensors(golden, "official-feat32", "discriminator")
    file = written(
        tmp_path / "export.npz", {f"{name}:0": array for name, array in both.items()} | {"global_step:0": np.array(7)}
    )
    assert convert("official", tmp_path / "run", "--generator", file) == 0
    assert open_run(tmp_path / "run").discriminator() is not None
    latents, labels, _, drawn, _ = wanted(golden, "official-feat32")
    generator = load_run(tmp_path / "run")
    assert np.abs(outputs(generator.generator, generator.variables, latents, labels) - drawn).max() < 1e-4


@pytest.fixture(scope="module")
def official_arrays(golden, tmp_path_factory):
    """The tensors of the official release, and the workdir that they become as an .npz file."""
    folder = tmp_path_factory.mktemp("official")
    both = tensors(golden, "official-feat32", "generator") | tensors(golden, "official-feat32", "discriminator")
    assert convert("official", folder / "npz", "--generator", written(folder / "export.npz", both)) == 0
    return both, folder / "npz"


def test_official_files_of_two_steps_are_not_mixed(official_arrays, tmp_path, capsys):
    both, exported = official_arrays
    files = [written(tmp_path / "7.npz", both), tmp_path / "9.npz"]
    name = max(both)
    written(files[1], both | {name: both[name] + 1})
    assert convert("official", tmp_path / "run", "--generator", files[0], "--discriminator", files[1]) == 2
    assert f"--generator and --discriminator both hold {name!r}, with other values" in error_line(capsys)
    assert not (tmp_path / "run").exists()
    assert convert("official", tmp_path / "run", "--generator", files[0], "--discriminator", files[0]) == 0
    assert same_bits(*(open_run(run).generator().variables for run in (tmp_path / "run", exported)))


@pytest.mark.parametrize("name", ["model.ckpt-7", "model.ckpt-7.index"])
def test_official_checkpoint_becomes_the_same_run_as_its_exported_arrays(official_arrays, name, tmp_path, capsys):
    both, exported = official_arrays
    slots = {f"{key}/Adam": np.full_like(array, np.nan) for key, array in both.items() if key.endswith("biases")}
    others = {"beta1_power": np.float32(0), "global_step": np.int64(7)}
    write_checkpoint(tmp_path / "model.ckpt-7", both | slots | others)
    assert convert("official", tmp_path / "run", "--generator", tmp_path / name) == 0
    assert "read  model.ckpt-7.index  sha256" in capsys.readouterr().out
    for which in ("generator", "discriminator"):
        found, expected = (getattr(open_run(run), which)().variables for run in (tmp_path / "run", exported))
        assert same_bits(found, expected)


def test_official_checkpoint_that_is_cut_is_refused_by_variable_and_nothing_is_written(golden, tmp_path, capsys):
    write_checkpoint(tmp_path / "model.ckpt-7", tensors(golden, "official-feat32", "generator"))
    file = tmp_path / "model.ckpt-7.data-00000-of-00001"
    file.write_bytes(file.read_bytes()[:-1])
    assert convert("official", tmp_path / "run", "--generator", tmp_path / "model.ckpt-7") == 2
    line = error_line(capsys)
    assert "'model/g_snh0/u' needs the bytes up to" in line
    assert str(tmp_path / "model.ckpt-7") in line
    assert not (tmp_path / "run").exists()


def test_official_generator_alone_is_enough(golden, tmp_path):
    file = written(tmp_path / "G.npz", tensors(golden, "official-feat32", "generator"))
    assert convert("official", tmp_path / "run", "--generator", file) == 0
    assert open_run(tmp_path / "run").discriminator() is None


def test_generator_alone_is_sampled_and_looked_at(small, tmp_path, capsys):
    assert command("sample", "--workdir", small, "--num-images", 3, "--out", tmp_path / "s.npz") == 0
    assert arrays_of(tmp_path / "s.npz")["arr_0"].shape == (3, 32, 32, 3)
    assert command("attend", "--workdir", small, "--num-images", 1, "--out", tmp_path / "a") == 0
    assert (tmp_path / "a" / "generator-0.png").is_file()
    assert not (tmp_path / "a" / "discriminator-0.png").exists()
    page = tmp_path / "page.html"
    assert command("explore", "--workdir", small, "--num-samples", 1, "--steps", 1, "--out", page) == 0
    capsys.readouterr()
    assert command("attend", "--workdir", small, "--image", tmp_path / "a" / "generator-0.png") == 2
    assert "came without one" in error_line(capsys)


def test_converted_run_is_scored(small, tmp_path, capsys):
    images = tmp_path / "images.npz"
    rng = np.random.default_rng(0)
    np.savez(images, images=rng.integers(0, 256, (60, 32, 32, 3), np.uint8), labels=np.arange(60) % 10)
    flags = ["--protocol", "fd50_train_random", "--source", str(images), "--out", str(tmp_path)]
    assert command("evaluate", "--workdir", small, *flags) == 0
    assert "fd50_train_random" in capsys.readouterr().out


@pytest.mark.parametrize("form", [True, False])
def test_pth_is_converted_in_both_formats(golden, form, small, tmp_path):
    torch = pytest.importorskip("torch", reason="these files are written by PyTorch, which few machines have")
    state = {
        f"module.{name}": torch.from_numpy(np.array(array))
        for name, array in tensors(golden, "studiogan-sagan-32", "generator").items()
    }
    file = tmp_path / "G.pth"
    torch.save({"state_dict": state, "step": 7}, file, _use_new_zipfile_serialization=form)
    assert convert("studiogan", tmp_path / "run", "--generator", file) == 0
    found, expected = load_run(tmp_path / "run").variables, load_run(small).variables
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_pickle_with_code_is_refused_and_not_run(tmp_path, capsys):
    file = tmp_path / "G.pth"
    file.write_bytes(pickle.dumps({"linear0.weight_orig": MakesFolder(tmp_path / "made")}))
    assert convert("studiogan", tmp_path / "run", "--generator", file) == 2
    assert "G.pth" in error_line(capsys)
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "run").exists()


def without(arrays):
    return {name: array for name, array in arrays.items() if name != "linear0.weight_orig"}


def unknown(arrays):
    return arrays | {"mapping.weight": np.ones(3, np.float32)}


def contradicting(arrays):
    return arrays | {"bn4.weight": arrays["bn4.weight"][:-1]}


@pytest.mark.parametrize(
    ("change", "word"),
    [(without, "linear0.weight"), (unknown, "mapping.weight"), (contradicting, "bn4.weight")],
)
def test_tensors_that_do_not_belong_together_are_named_and_nothing_is_written(golden, change, word, tmp_path, capsys):
    file = written(tmp_path / "G.npz", change(tensors(golden, "studiogan-sagan-32", "generator")))
    assert convert("studiogan", tmp_path / "run", "--generator", file) == 2
    assert re.fullmatch(rf"sagan-jax: 'G.npz': .*{re.escape(word)}.*", error_line(capsys))
    assert not (tmp_path / "run").exists()


def test_layers_normalised_in_part_are_refused(golden, tmp_path, capsys):
    arrays = tensors(golden, "studiogan-sagan-32", "generator")
    for side in "uv":
        del arrays[f"linear0.weight_{side}"]
    arrays["linear0.weight"] = arrays.pop("linear0.weight_orig")
    assert convert("studiogan", tmp_path / "run", "--generator", written(tmp_path / "G.npz", arrays)) == 2
    assert "in some layers and not in others" in error_line(capsys)
    assert not (tmp_path / "run").exists()


def test_folder_that_holds_a_run_is_left_as_it_is(small, capsys):
    before = sorted(path.stat().st_mtime_ns for path in small.rglob("*"))
    assert convert("studiogan", small, "--generator", small.parent / "G.npz") == 2
    assert "holds a run already" in error_line(capsys)
    assert sorted(path.stat().st_mtime_ns for path in small.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "studiogan", "out"], "--from studiogan --generator FILE [--discriminator FILE] OUT"),
        (["--from", "studiogan", "--generator", "G.npz"], "--from studiogan --generator FILE"),
        (["--from", "studiogan", "--generator", "G.npz", "one", "two"], "--from studiogan --generator FILE"),
        (["--from", "inception"], "--from inception FILE [OUT]"),
        (["--from", "inception", "--generator", "G.npz", "out"], "--from inception FILE [OUT]"),
        (["--from", "inception", "--source-config", "a.yaml", "out"], "--from inception FILE [OUT]"),
        (["--from", "dinov2"], "for DINOv2: --from dinov2 FILE [OUT]"),
        (["--from", "dinov2", "absent.npz", "out.npz"], "a .safetensors file to write; got 'out.npz'"),
        (["--from", "inception", "--num-heads", "4", "a.npz"], "--num-heads goes with --from dinov2"),
        (["--from", "dinov2", "--num-heads", "-1", "a.npz"], "is at least 1; got -1"),
        (["--from", "official", "--generator", "absent.npz", "out"], "'absent.npz'"),
        (
            ["--from", "official", "--generator", "absent.npz", "--source-config", "a.yaml", "out"],
            "has no configuration file",
        ),
    ],
)
def test_convert_says_what_it_needs(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("convert", *arguments) == 2
    assert words in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def fine_tune(workdir, *flags, steps=1):
    few = ["--total-steps", str(steps), "--batch-size", "4", "--workdir", str(workdir), "--cache", ""]
    return command("train", *flags, *few)


def test_fine_tuning_starts_with_the_networks_and_goes_on_without_the_run_it_began_with(
    small, pictures, tmp_path, capsys
):
    donor, workdir = tmp_path / "donor", tmp_path / "run"
    shutil.copytree(small, donor)
    flags = ["--init-from", donor, "--source", pictures, "--num-classes", "3", "--generator-learning-rate", "1e-30"]
    assert fine_tune(workdir, *flags) == 0
    said = capsys.readouterr().out
    assert f"starting from step 0 of {donor}" in said
    assert "reinitialised in the generator: block_1/norm_1/scale_kernel, block_1/norm_1/shift_kernel" in said
    assert "reinitialised in the discriminator: all of it" in said
    before, after = load_run(small), load_run(workdir)
    kernel = before.variables["params"]["block_2"]["conv_1"]["kernel"]
    np.testing.assert_allclose(after.variables["params"]["block_2"]["conv_1"]["kernel"], kernel, atol=0.02)
    experiment = read_experiment(workdir)
    assert experiment is not None
    assert (experiment.name, experiment.networks.num_classes) == ("studiogan_sagan_tuned", 3)
    assert experiment.training.init_from == str(donor)

    shutil.rmtree(donor)
    assert fine_tune(workdir, *flags, steps=2) == 0
    assert "going on from step 1" in capsys.readouterr().out


@pytest.mark.parametrize("fresh", [True, False])
def test_fine_tuning_needs_the_checkpoint_of_its_start_before_it_removes_or_writes_anything(
    fresh, small, pictures, tmp_path, capsys
):
    donor, workdir = tmp_path / "donor", tmp_path / "run"
    shutil.copytree(small, donor)
    shutil.rmtree(donor / "checkpoints")
    shutil.copytree(small, workdir) if fresh else workdir.mkdir()
    before = sorted(workdir.rglob("*"))
    flags = ["--init-from", donor, "--source", pictures, "--num-classes", "3"]
    assert fine_tune(workdir, *flags, *["--fresh"] * fresh) == 2
    assert f"The run in {str(donor)!r} has no checkpoint yet" in error_line(capsys)
    assert sorted(workdir.rglob("*")) == before
    assert command("train", "--workdir", workdir, "--dry-run", *flags, *["--fresh"] * fresh) == 2
    assert f"The run in {str(donor)!r} has no checkpoint yet" in error_line(capsys)


def test_fresh_removes_no_run_that_it_would_start_from(small, pictures, tmp_path, capsys, monkeypatch):
    shutil.copytree(small, tmp_path / "run")
    (tmp_path / "link").symlink_to("run")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    flags = ["--source", pictures, "--num-classes", "3", "--fresh"]
    for name in ("run", "link"):
        for dry in ([], ["--dry-run"]):
            assert fine_tune(tmp_path / "run", "--init-from", name, *flags, *dry) == 2
            assert "--fresh would remove the run in" in (line := error_line(capsys))
            assert "which --init-from starts from" in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("flags", [("--base-channels", "5"), ("--latent-size", "64")])
def test_fine_tuning_refuses_networks_of_other_sizes(flags, small, pictures, tmp_path, capsys):
    assert fine_tune(tmp_path / "run", "--init-from", small, "--source", pictures, "--num-classes", "3", *flags) == 2
    assert "--init-from needs a run with the same" in error_line(capsys)
    assert not (tmp_path / "run" / "config.json").exists()


def test_fine_tuning_of_no_run_says_so(tmp_path, capsys):
    assert fine_tune(tmp_path / "run", "--init-from", tmp_path / "nothing") == 2
    assert "There is no run in" in error_line(capsys)
    assert command("train", "digits_32", "--init-from", tmp_path / "nothing", "--workdir", tmp_path / "run") == 2
    assert "There is no run in" in error_line(capsys)
