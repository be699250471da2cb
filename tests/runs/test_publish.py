"""A run published for the Hugging Face hub: what is written, and that it draws what the run draws."""

import dataclasses
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from PIL import Image

import sagan_jax
from sagan_jax.config import CompletionExperiment, CompletionNetworks, Data, Experiment, Networks, Training, to_dict
from sagan_jax.errors import NonFiniteError, StorageError
from sagan_jax.interop.weight_files import read_arrays, to_safetensors
from sagan_jax.runs.build import build_adversarial_task, build_completion_task
from sagan_jax.runs.load import NO_DISCRIMINATOR
from sagan_jax.runs.publish import publish_run
from sagan_jax.runs.published import arrays_of, published, read_published, state_of
from sagan_jax.runs.samples import sample_grid
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.training import adversarial, completion
from sagan_jax.training.network_state import NetworkState
from support.assertions import refusal, same_bits
from support.commands import command, error_line
from support.params import draw_tree
from support.paths import ROOT

pytestmark = pytest.mark.one_jax

FILES = {"config.json", "model.safetensors", "README.md", "samples.png"}
SMALL = {"resolution": 32, "base_channels": 2, "num_classes": 3, "discriminator_attention_resolutions": (8,)}
NETWORKS = {
    "sagan": Networks(**SMALL, latent_size=6, generator_attention_resolutions=(16,)),
    "dcgan": Networks(**SMALL, latent_size=7, generator_attention_resolutions=(), family="dcgan", image_channels=1),
    "biggan": Networks(
        **SMALL, latent_size=8, generator_attention_resolutions=(16,), family="biggan", spectral_evaluation="stored"
    ),
}
AVERAGED = Training(batch_size=8, ema_decay=0.9)
SCORES = {"fd5k_train_random": 1.25, "diversity": 0.5}


def drawn_state(shapes, seed):
    """A state at step 30; its optimisers are zeros, and every other array has entries of its own."""
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    drawn = {"step": np.int32(30), "average": draw_tree(state.average, seed)}
    for number, name in enumerate(("generator", "discriminator", "network"), start=seed + 1):
        network = getattr(state, name, None)
        if network:
            kinds = {kind: getattr(network, kind) for kind in ("params", "batch_stats", "spectral")}
            drawn[name] = network.replace(**draw_tree(kinds, number))
    return state.replace(**drawn)


def save(workdir, experiment, meta=None, diverged=False):
    if isinstance(experiment, Experiment):
        task, size = build_adversarial_task(experiment), experiment.networks.resolution
        shape = size, size, experiment.networks.image_channels
        shapes = jax.eval_shape(lambda: adversarial.initial_state(task, 0, shape))
    else:
        task = build_completion_task(experiment)
        shapes = jax.eval_shape(lambda: completion.initial_state(task, 0))
    state = drawn_state(shapes, 5)
    if diverged:
        next(iter(jax.tree.leaves(state.average))).flat[0] = np.nan
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(to_dict(experiment)))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(30, state, meta or {})
    return workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a sagan with scores of two steps; read only."""
    data = Data("/home/me/private/photos.zip", cache="/home/me/cache")
    workdir = save(tmp_path_factory.mktemp("hub") / "run", Experiment("tiny-run", data, NETWORKS["sagan"], AVERAGED))
    (workdir / "scores").mkdir()
    for step, factor in ((20, 2), (30, 1)):
        for name, value in SCORES.items():
            result = {"values": {name: factor * value}, "embedding": "random|weights"}
            result["reference"] = {"images": "photos.zip: 9 images", "fingerprint": "f1f2f3"}
            (workdir / "scores" / f"{name}-{step:08d}.json").write_text(json.dumps(result))
    (workdir / "scores" / "broken-00000030.json").write_text("{")
    return workdir


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """What the command writes for it; read only."""
    out = tmp_path_factory.mktemp("published") / "new" / "sagan"
    assert command("export", "--workdir", run, "--format", "hub", "--out", out, "--license", "apache-2.0") == 0
    return out


@pytest.fixture
def copy(folder, tmp_path):
    """A copy to damage."""
    for name in FILES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    return tmp_path


def front_matter(card):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])


def assert_same_networks(workdir, folder):
    """Fails unless both generators, averaged and as trained, and the discriminators have the same bits."""
    run = sagan_jax.open_run(workdir)
    for raw in (False, True):
        found, wanted = sagan_jax.load_pretrained(folder, raw=raw), run.generator(raw=raw)
        generator = found.generator()
        assert generator.generator == wanted.generator
        assert same_bits(generator.variables, wanted.variables)
        facts = ("latent_size", "num_classes", "step", "averaged")
        assert [getattr(generator, name) for name in facts] == [getattr(wanted, name) for name in facts]
        discriminators = found.discriminator(), run.discriminator()
        assert discriminators[0].discriminator == discriminators[1].discriminator
        assert same_bits(discriminators[0].variables, discriminators[1].variables)


def test_images_are_those_of_the_sample_command_and_the_networks_those_of_the_run(run, folder, tmp_path):
    assert command("sample", "--workdir", run, "--num-images", 7, "--seed", 3, "--out", tmp_path / "images.npz") == 0
    images = sagan_jax.load_pretrained(folder).generator().generate(7, seed=3).images
    with np.load(tmp_path / "images.npz") as sampled:
        assert np.array_equal(images, sampled["arr_0"])
    assert images.std() > 1
    assert_same_networks(run, folder)
    averaged, raw = (sagan_jax.load_pretrained(folder, raw=raw).generator() for raw in (False, True))
    assert not np.array_equal(*(jax.tree.leaves(of.variables["params"])[0] for of in (averaged, raw)))


@pytest.mark.parametrize("family", ["dcgan", "biggan"])
def test_networks_of_other_families_are_those_of_the_run(family, tmp_path):
    training = dataclasses.replace(AVERAGED, ema_decay=0.9 if family == "biggan" else 0.0)
    workdir = save(tmp_path / "run", Experiment("tiny-run", Data("digits"), NETWORKS[family], training))
    written = publish_run(workdir)
    assert {path.name for path in written} == {path.name for path in (workdir / "hub").iterdir()} == FILES
    assert_same_networks(workdir, workdir / "hub")


def test_completing_network_is_that_of_the_run(tmp_path, capsys):
    experiment = CompletionExperiment(networks=CompletionNetworks(base_channels=1, latent_size=3))
    workdir = save(tmp_path / "run", experiment)
    assert command("export", "--workdir", workdir, "--format", "hub") == 0
    folder = workdir / "hub"
    assert {path.name for path in folder.iterdir()} == FILES - {"samples.png"}
    for raw in (False, True):
        found = sagan_jax.load_pretrained(folder, raw=raw)
        wanted = sagan_jax.load_completer(workdir, raw=raw)
        completer = found.completer()
        assert (completer.network, completer.step, completer.averaged) == (wanted.network, 30, not raw)
        assert same_bits(completer.params, wanted.params)
    assert "completes images and has no generator" in refusal(found.generator)
    assert "completes images and has no generator" in refusal(found.discriminator)
    assert "networks.completer().complete(images, masks)" in (folder / "README.md").read_text()


def test_weights_have_names_by_network_and_kind(run, folder):
    arrays = read_arrays(folder / "model.safetensors").arrays
    parts = {tuple(name.split("/")[:2]) for name in arrays}
    kinds = {("generator", kind) for kind in ("params", "batch_stats", "spectral", "average")}
    assert parts == kinds | {("discriminator", "params"), ("discriminator", "spectral")}
    state = sagan_jax.open_run(run).state
    kernel = state.generator.params["block_1"]["conv_1"]["kernel"]
    assert np.array_equal(arrays["generator/params/block_1/conv_1/kernel"], kernel)
    averaged = state.average["params"]["block_1"]["conv_1"]["kernel"]
    assert np.array_equal(arrays["generator/average/params/block_1/conv_1/kernel"], averaged)


def test_parameters_of_half_precision_come_back_with_their_bits():
    drawn = np.random.default_rng(0).normal(size=(3, 5))
    params = {"a": jax.numpy.asarray(drawn, jax.numpy.bfloat16), "b": drawn.astype(np.float16), "c": np.float32(2)}
    network = NetworkState(params, {}, {}, ())
    state = adversarial.AdversarialState(np.int32(3), np.uint32(0), network, network, {})
    arrays = arrays_of(state, True)
    assert (arrays["generator/params/a"].dtype, len(arrays)) == (np.float32, 6)
    back = state_of(state, arrays, 3, True, "a file")
    assert same_bits(back.discriminator.params, params)
    assert back.step == 3


def test_card_has_the_fields_of_the_hub_and_the_scores_of_its_step(folder):
    card = (folder / "README.md").read_text()
    assert front_matter(card) == {
        "license": "apache-2.0",
        "library_name": "sagan_jax",
        "tags": ["jax", "flax", "gan", "sagan"],
    }
    assert "| `fd5k_train_random` | 1.25 | photos.zip: 9 images. random\\|weights |\n" in card
    assert "f1f2f3" not in card
    assert "| `diversity` | 0.5 | " in card
    assert "2.5" not in card
    assert "broken" not in card
    assert "trained for 30 steps on `photos.zip`" in card
    assert "(samples.png)" in card


def test_card_without_license_and_scores_says_so(tmp_path):
    workdir = save(tmp_path / "run", Experiment("tiny-run", Data("digits"), NETWORKS["dcgan"], AVERAGED))
    publish_run(workdir)
    card = (workdir / "hub" / "README.md").read_text()
    assert "license" not in front_matter(card)
    assert "The license is not stated." in card
    assert "None of this step were on record." in card


def test_code_of_the_card_loads_what_lies_beside_it(folder, monkeypatch):
    monkeypatch.chdir(folder)
    code = re.search(r"^```python\n(.*?)^```", Path("README.md").read_text(), re.DOTALL | re.MULTILINE)[1]
    exec(compile(code, "README.md", "exec"), found := {})
    assert found["images"].shape == (4, 32, 32, 3)


def test_picture_is_that_of_fixed_latents(run, folder):
    with Image.open(folder / "samples.png") as picture:
        assert np.array_equal(np.asarray(picture), sample_grid(sagan_jax.load_run(run)))


def test_no_folder_of_this_machine_is_published(folder):
    for name in ("config.json", "README.md"):
        assert "/home/me" not in (folder / name).read_text()
    assert sagan_jax.load_pretrained(folder).experiment.data == Data("photos.zip")


def test_weights_without_a_discriminator_give_none(tmp_path):
    experiment = Experiment("tiny-run", Data("digits"), NETWORKS["dcgan"], AVERAGED)
    workdir = save(tmp_path / "run", experiment, {"discriminator": NO_DISCRIMINATOR})
    publish_run(workdir)
    assert not [name for name in read_arrays(workdir / "hub" / "model.safetensors").arrays if name.startswith("disc")]
    found = sagan_jax.load_pretrained(workdir / "hub")
    assert found.discriminator() is None
    assert same_bits(found.generator().variables, sagan_jax.load_run(workdir).variables)


# What cannot be published.


def test_page_of_something_else_is_not_replaced(run, tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    for form in ("hub", "files"):
        assert command("export", "--workdir", run, "--format", form, "--out", tmp_path) == 2
        assert f"{str(tmp_path)!r} has another README.md" in error_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--license", "my own: license"], "--license needs an identifier of the hub, such as apache-2.0; got 'my own"),
        (["--raw"], "--raw does nothing with --format hub"),
        (["--format", "files", "--license", "mit"], "--license is for the model card of --format hub"),
        (["--out", "RUN"], "--out needs a folder in which no other file is replaced: 'RUN/config.json' needs"),
        (["--format", "hugging"], "--format needs to be one of files, hub"),
    ],
)
def test_what_cannot_be_published_is_one_line_and_no_file(run, tmp_path, capsys, flags, words):
    before = (run / "config.json").read_bytes()
    flags = [flag.replace("RUN", str(run)) for flag in flags]
    assert command("export", "--workdir", run, "--out", tmp_path / "out", "--format", "hub", *flags) == 2
    assert words.replace("RUN", str(run)) in error_line(capsys)
    assert not (tmp_path / "out").exists()
    assert (run / "config.json").read_bytes() == before


def test_diverged_networks_are_not_published(tmp_path):
    experiment = Experiment("tiny-run", Data("digits"), NETWORKS["dcgan"], AVERAGED)
    workdir = save(tmp_path / "run", experiment, diverged=True)
    with pytest.raises(NonFiniteError, match=r"^The networks have diverged: 'generator/average/.* not finite\.$"):
        publish_run(workdir)
    assert not (workdir / "hub").exists()


def test_full_disk_leaves_what_was_published_before(run, copy, monkeypatch):
    before = {name: (copy / name).read_bytes() for name in FILES}
    write_bytes = Path.write_bytes

    def write_until_the_picture(path, content):
        if "samples" in path.name:
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_until_the_picture)
    with pytest.raises(StorageError, match=r"samples\.png could not be written: No space left on device"):
        publish_run(run, copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


# Damaged and foreign folders.


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rename_array(path, name, new):
    arrays = {new if known == name else known: array for known, array in read_arrays(path).arrays.items()}
    path.write_bytes(to_safetensors(arrays, {}))


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


CONFIG, WEIGHTS = "config.json", "model.safetensors"
GAMMA = "generator/params/attention_16/gamma"
DAMAGE = {
    "no config": (lambda of: (of / CONFIG).unlink(), "needs a file config.json, as sagan-jax export --format hub"),
    "no JSON": (lambda of: (of / CONFIG).write_text("{"), "config.json' cannot be read as JSON: Expecting"),
    "another library": (
        lambda of: (of / CONFIG).write_text('{"model_type": "bert"}'),
        "config.json' needs 'library_name': 'sagan_jax', as sagan-jax export --format hub writes it; it does not say "
        "so. Is it a model of another library?",
    ),
    "a run": (
        lambda of: (of / CONFIG).write_text(json.dumps(to_dict(Experiment()))),
        "It is a run: open it with sagan_jax.open_run.",
    ),
    "a newer format": (lambda of: edit(of / CONFIG, format=2), "needs format 1, which this version reads; it has 2."),
    "no step": (lambda of: edit(of / CONFIG, step="30"), "needs a field 'step', as"),
    "an unknown field": (
        lambda of: edit(of / CONFIG, experiment={"networks": {"depth": 3}}),
        "config.json' is not the config of a run that this version can read: unknown field 'depth'.",
    ),
    "no weights": (lambda of: (of / WEIGHTS).unlink(), "model.safetensors': there is no such file."),
    "weights cut short": (
        lambda of: (of / WEIGHTS).write_bytes((of / WEIGHTS).read_bytes()[:-9]),
        "model.safetensors' is not: ",
    ),
    "a flipped bit": (lambda of: flip_a_bit(of / WEIGHTS), "its arrays differ from those that were written."),
    "an absent array": (
        lambda of: rename_array(of / WEIGHTS, GAMMA, "generator/params/gamma"),
        f"model.safetensors' needs '{GAMMA}' [] for the networks of config.json; it has none.",
    ),
    "an unknown array": (
        lambda of: edit(of / CONFIG, discriminator=False),
        "model.safetensors' has 'discriminator/params/attention_8/gamma', which the networks of config.json do",
    ),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_or_foreign_folder_is_one_line(copy, damage, words):
    damage(copy)
    line = refusal(sagan_jax.load_pretrained, copy)
    assert words in line
    assert str(copy) in line


def test_step_that_no_run_has_is_one_line(tmp_path):
    content = published(Experiment("tiny-run", Data(), NETWORKS["sagan"]), 30, has_discriminator=True).content()
    (tmp_path / CONFIG).write_text(json.dumps(content))
    assert read_published(tmp_path).step == 30
    edit(tmp_path / CONFIG, step=2**31)
    assert "needs a step from 0 to 2,147,483,647; it has 2,147,483,648." in refusal(read_published, tmp_path)


def test_weights_of_other_sizes_are_one_line(copy):
    values = json.loads((copy / CONFIG).read_text())
    values["experiment"]["networks"]["latent_size"] = 9
    edit(copy / CONFIG, **values)
    assert re.search(
        r"needs 'generator/\S+' \[9, \d+\] for .*; it has \[6, \d+\]", refusal(sagan_jax.load_pretrained, copy)
    )


# Repositories of the hub.


def test_what_is_neither_folder_nor_repository_is_one_line(tmp_path, folder):
    for source in (tmp_path / "gone", str(tmp_path / "gone"), "a/b/c", ""):
        assert f"there is no folder {str(source)!r}" in refusal(sagan_jax.load_pretrained, source)
    with pytest.raises(StorageError, match="xxx' could not be read: File name too long"):
        sagan_jax.load_pretrained("x" * 300)
    assert "revision is for a repository" in refusal(sagan_jax.load_pretrained, folder, revision="main")


def test_absent_package_is_one_line_on_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    line = refusal(sagan_jax.load_pretrained, "me/tiny")
    assert line.startswith("There is no folder 'me/tiny', and a repository of the Hugging Face hub needs the package")
    assert line.endswith("pip install 'sagan-jax[hub]'")


def test_repository_is_loaded_from_where_the_hub_puts_it(folder, monkeypatch):
    asked = []

    def snapshot_download(*repository, **options):
        asked.append((repository, options))
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    found = sagan_jax.load_pretrained("me/tiny", revision="v1")
    assert asked == [(("me/tiny",), {"revision": "v1", "allow_patterns": [CONFIG, WEIGHTS]})]
    assert found.folder == folder
    assert found.step == 30


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (
            RuntimeError("404\nnot found."),
            ValueError,
            "the hub did not give a repository of that name at 'v1': RuntimeError: 404",
        ),
        (OSError(28, "No space left on device", "/cache/x"), StorageError, "No space left on device"),
    ],
)
def test_what_the_hub_refuses_is_one_line(raised, kind, words, monkeypatch):
    def snapshot_download(*repository, **options):
        raise raised

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(kind, match=words) as caught:
        sagan_jax.load_pretrained("me/tiny", revision="v1")
    assert "\n" not in str(caught.value)


class Hub(http.server.BaseHTTPRequestHandler):
    """What the hub answers for one repository."""

    folder: Path
    commit = "a" * 40

    def log_message(self, format, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = self.path.partition("?")[0]
        resolved = re.fullmatch(rf"/me/tiny/resolve/{self.commit}/(\S+)", path)
        if re.fullmatch(r"/api/models/me/tiny/revision/\w+", path):
            files = [{"rfilename": name} for name in sorted(FILES)]
            body = json.dumps({"id": "me/tiny", "sha": self.commit, "siblings": files}).encode()
            self.reply(200, body, "application/json")
        elif re.fullmatch(r"/api/models/me/tiny/tree/\S+", path):
            found = [
                {"type": "file", "path": n, "size": (self.folder / n).stat().st_size, "oid": n} for n in sorted(FILES)
            ]
            self.reply(200, json.dumps(found).encode(), "application/json")
        elif resolved and resolved[1] in FILES:
            self.reply(200, (self.folder / resolved[1]).read_bytes(), "application/octet-stream")
        else:
            self.reply(404, b"no such thing", "text/plain")

    def reply(self, code, body, kind):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{len(body)}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(folder):
    """The address of a hub on this machine, which has what is in `folder` as me/tiny."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (Hub,), {"folder": folder}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_two_files_are_downloaded_from_a_hub(hub, folder, tmp_path):
    pytest.importorskip("huggingface_hub", reason="it is in the extra `hub`")
    program = """
import numpy as np

import sagan_jax
from sagan_jax.runs.hub_download import downloaded

print(downloaded("me/tiny", None, ("config.json", "model.safetensors")))
found = sagan_jax.load_pretrained("me/tiny")
print(found.folder)
latents = np.full((2, found.generator().latent_size), 0.5, np.float32)
drawn = [
    sagan_jax.load_pretrained("me/tiny", raw=raw).generator().images(latents, np.zeros(2, np.int32))
    for raw in (False, True)
]
print(*(int(images.astype(np.int64).sum()) for images in drawn))
print(found.discriminator() is not None)
try:
    downloaded("me/other", "v1", ("config.json",))
except ValueError as error:
    print(error)
"""
    environment = os.environ | {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    environment |= {"HF_HUB_DISABLE_XET": "1", "no_proxy": "127.0.0.1"}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    place, of_hub, sums, has_discriminator, refused = answer.stdout.splitlines()
    assert of_hub == place
    local = sagan_jax.load_pretrained(folder)
    latents, labels = np.full((2, local.generator().latent_size), 0.5, np.float32), np.zeros(2, np.int32)
    both = [sagan_jax.load_pretrained(folder, raw=raw).generator() for raw in (False, True)]
    drawn = [generator.images(latents, labels) for generator in both]
    assert sums.split() == [str(images.astype(np.int64).sum()) for images in drawn]
    assert has_discriminator == str(local.discriminator() is not None)
    assert {path.name for path in Path(place).iterdir()} == {CONFIG, WEIGHTS}
    assert same_bits(sagan_jax.load_pretrained(place).state, sagan_jax.load_pretrained(folder).state)
    assert refused.startswith(
        "There is no folder 'me/other', and the hub did not give a repository of that name at 'v1'"
    )
