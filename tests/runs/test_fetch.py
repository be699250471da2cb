"""Downloads from a server on this machine: complete, interrupted, resumed, wrong, and without a network."""

import hashlib
import http.server
import math
import re
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from sagan_jax.cli.fetch_weights import DINOV2_URL, INCEPTION_URL
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.dinov2 import default_weights_path as default_dinov2_path
from sagan_jax.evaluation.inception import default_weights_path
from sagan_jax.interop.dinov2 import published_shapes as published_dinov2_shapes
from sagan_jax.interop.inception import published_shapes
from sagan_jax.interop.weight_files import read_arrays
from sagan_jax.models.dinov2 import DinoV2
from sagan_jax.runs import fetch as fetching
from support.commands import command, error_line
from support.pytorch_files import as_sequence, dictionary, tensor

pytestmark = pytest.mark.one_jax

CONTENT = np.random.default_rng(0).bytes(700_000)
NAME = f"weights-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT under any path, and does what its attributes say."""

    daemon_threads = True
    status = 200
    sends = len(CONTENT)  # bytes before it breaks off
    ranges = True
    location = ""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []

    def url(self, name=NAME):
        return f"http://127.0.0.1:{self.server_address[1]}/releases/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        if self.server.status != 200:
            self.send_response(self.server.status)
            self.send_header("Location", self.server.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.server.sends])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def fetch(server, tmp_path):
    return lambda name=NAME: fetching.fetch(server.url(name), tmp_path)


def test_fetch_writes_the_file_under_its_name(fetch, tmp_path):
    assert fetch() == tmp_path / NAME
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_fetch_leaves_nothing_else(fetch, tmp_path):
    fetch()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_fetch_makes_the_folders_above(server, tmp_path):
    assert fetching.fetch(server.url(), tmp_path / "a" / "b").parent == tmp_path / "a" / "b"


def test_fetch_of_what_is_there_asks_for_nothing(fetch, server):
    fetch()
    fetch()
    assert server.asked == [None]


def test_fetch_of_what_is_there_and_damaged_says_so(fetch, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT[1:])
    with pytest.raises(InvalidInputError, match="needs a sha256 that starts with"):
        fetch()


def test_fetch_that_breaks_off_says_how_to_go_on(fetch, server, tmp_path):
    server.sends = 300_000
    with pytest.raises(InvalidInputError, match=r"after 300,000 of 700,000 bytes: the same command resumes it"):
        fetch()
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.part"]


def test_fetch_goes_on_where_it_broke_off(fetch, server):
    server.sends = 300_000
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="broke off"):
            fetch()
    assert fetch().read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-"]


def test_fetch_starts_over_where_the_server_cannot_go_on(fetch, server):
    server.sends = 300_000
    with pytest.raises(InvalidInputError, match="broke off"):
        fetch()
    server.sends, server.ranges = len(CONTENT), False
    assert fetch().read_bytes() == CONTENT


def test_fetch_takes_a_part_that_is_whole(fetch, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch().read_bytes() == CONTENT


@pytest.mark.parametrize("begun", [b"", b"of another file", bytes(len(CONTENT))], ids=["new", "mixed", "full"])
def test_fetch_of_another_file_names_both_hashes_and_keeps_nothing(begun, fetch, tmp_path):
    name = "weights-0123abcd.pth"
    (tmp_path / f"{name}.part").write_bytes(begun)
    got = hashlib.sha256(begun + CONTENT[len(begun) :]).hexdigest()
    with pytest.raises(InvalidInputError, match=f"starts with 0123abcd.*{got}"):
        fetch(name)
    assert list(tmp_path.iterdir()) == []


def test_fetch_says_what_the_server_said(fetch, server, tmp_path):
    server.status = 404
    with pytest.raises(InvalidInputError, match=r"could not be downloaded: HTTP Error 404.*by other means"):
        fetch()
    assert list(tmp_path.iterdir()) == []


def test_fetch_stops_at_what_is_far_too_large(fetch, monkeypatch):
    monkeypatch.setitem(fetching._MAX_BYTES, "inception", 600_000)
    with pytest.raises(InvalidInputError, match="more than 600,000 bytes"):
        fetch()


def test_fetch_does_not_wait_for_ever(fetch, monkeypatch, server):
    monkeypatch.setattr(fetching, "_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(Handler, "do_GET", lambda handler: threading.Event().wait(2))
    with pytest.raises(InvalidInputError, match="timed out"):
        fetch()


def test_fetch_follows_a_redirection_on_the_same_terms(fetch, server):
    server.status, server.location = 302, f"http://192.0.2.1/{NAME}"
    with pytest.raises(InvalidInputError, match=r"https address; got 'http://192.0.2.1"):
        fetch()


@pytest.mark.parametrize("url", [f"http://example.com/{NAME}", f"file:///tmp/{NAME}", f"ftp://127.0.0.1/{NAME}", NAME])
def test_fetch_refuses_addresses_that_are_not_secure(url, tmp_path):
    with pytest.raises(InvalidInputError, match="https"):
        fetching.fetch(url, tmp_path)


@pytest.mark.parametrize("name", ["weights.pth", "", "..%2F..%2Fweights.pth"])
def test_fetch_refuses_names_without_a_hash(name, fetch, server):
    with pytest.raises(InvalidInputError, match=r"ends in NAME-0123abcd\.pth"):
        fetch(name)
    assert server.asked == []


def test_fetch_stays_in_its_folder(fetch, tmp_path):
    assert fetch(f"..%2F..%2F{NAME}").parent == tmp_path


def test_fetch_into_a_file_is_the_disk_refusing(server, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert command("fetch-weights", "--url", server.url(), "--out", tmp_path / "file") == 6
    assert NAME in error_line(capsys)
    assert (tmp_path / "file").read_text() == "mine"


def test_fetch_weights_offline_is_one_line_that_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/{NAME}"
        assert command("fetch-weights", "--url", url, "--out", tmp_path) == 2
    line = error_line(capsys)
    assert "Connection refused. Without a network" in line
    assert "sagan-jax convert --from inception FILE" in line


@pytest.fixture
def published(server, monkeypatch):
    """Serves weights of the FID network in PyTorch's format, all of one value. Returns their address."""
    shapes = published_shapes()
    sizes = {math.prod(shape) for shape in shapes.values()}
    body = dictionary(
        {name: tensor(shape, strides_of(shape), key="0", length=max(sizes)) for name, shape in shapes.items()}
    )
    content = as_sequence(body, {"0": np.full(max(sizes), 0.5, np.float32).tobytes()})
    monkeypatch.setattr(sys.modules[__name__], "CONTENT", content)
    monkeypatch.setattr(Server, "sends", len(content))
    monkeypatch.setattr("sagan_jax.interop.pytorch._MAX_EXPANSION", 100)  # they share one storage
    return server.url(f"weights-{hashlib.sha256(content).hexdigest()[:8]}.pth")


def strides_of(shape):
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def test_fetch_weights_converts_what_it_fetched(published, tmp_path):
    assert command("fetch-weights", "--url", published, "--out", tmp_path) == 0
    found = read_arrays(tmp_path / "inception-2015-12-05.safetensors").arrays
    assert {name: array.shape for name, array in found.items()} == published_shapes()
    assert found["fc.bias"].tolist() == [0.5] * 1008


def test_fetch_weights_goes_where_evaluations_look(published, tmp_path, monkeypatch):
    monkeypatch.setenv("SAGAN_JAX_CACHE", str(tmp_path))
    assert command("fetch-weights", "inception", "--url", published) == 0
    assert default_weights_path().parent == tmp_path / "weights"
    assert default_weights_path().is_file()


def test_fetch_weights_of_other_things_says_so_and_writes_no_weights(server, tmp_path, capsys):
    assert command("fetch-weights", "--url", server.url(), "--out", tmp_path) == 2
    assert "Cannot read" in error_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_published_weights_are_named_by_their_hash():
    assert INCEPTION_URL.endswith("weights-inception-2015-12-05-6726825d.pth")


def test_every_published_dinov2_has_its_sha256():
    assert Path(DINOV2_URL).name in fetching.DINOV2_SHA256
    assert len(fetching.DINOV2_SHA256) == len({digest[:8] for digest in fetching.DINOV2_SHA256.values()}) == 8
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in fetching.DINOV2_SHA256.values())


@pytest.fixture
def dinov2(server, monkeypatch):
    """Serves the weights of a small DINOv2. Returns a function from names to addresses, and the sha256."""
    shapes = published_dinov2_shapes(DinoV2(width=64, depth=1, num_heads=1, hidden=3, patch_size=2, table_side=2))
    size = max(map(math.prod, shapes.values()))
    body = dictionary({name: tensor(shape, strides_of(shape), length=size) for name, shape in shapes.items()})
    content = as_sequence(body, {"0": np.full(size, 0.5, np.float32).tobytes()})
    monkeypatch.setattr(sys.modules[__name__], "CONTENT", content)
    monkeypatch.setattr(Server, "sends", len(content))
    monkeypatch.setattr("sagan_jax.interop.pytorch._MAX_EXPANSION", 100)
    return server.url, hashlib.sha256(content).hexdigest()


def fetch_dinov2(tmp_path, url):
    return command("fetch-weights", "dinov2", "--url", url, "--out", tmp_path)


def test_fetch_weights_verifies_dinov2_by_what_is_known_of_its_name(dinov2, tmp_path, capsys):
    address, sha256 = dinov2
    assert fetch_dinov2(tmp_path, address("dinov2_vitl14_pretrain.pth")) == 2
    assert "needs the sha256 d5383ea8f4877b24" in (line := error_line(capsys))
    assert f"got {sha256}" in line
    assert list(tmp_path.iterdir()) == []


def test_fetch_weights_puts_the_standard_dinov2_where_evaluations_look(dinov2, tmp_path, monkeypatch):
    address, sha256 = dinov2
    monkeypatch.setitem(fetching.DINOV2_SHA256, "dinov2_vitl14_pretrain.pth", sha256)
    assert fetch_dinov2(tmp_path, address("dinov2_vitl14_pretrain.pth")) == 0
    found = read_arrays(tmp_path / default_dinov2_path().name)
    assert (found.metadata["num_heads"], found.metadata["source_sha256"]) == ("1", sha256)
    assert found.arrays["blocks.0.ls1.gamma"].tolist() == [0.5] * 64


def test_fetch_weights_keeps_the_name_of_another_dinov2(dinov2, tmp_path):
    address, sha256 = dinov2
    assert fetch_dinov2(tmp_path, address(f"mine-{sha256[:8]}.pth")) == 0
    assert sorted(path.suffix for path in tmp_path.glob(f"mine-{sha256[:8]}.*")) == [".pth", ".safetensors"]


def test_fetch_weights_refuses_a_dinov2_of_which_nothing_is_known(dinov2, server, tmp_path, capsys):
    assert fetch_dinov2(tmp_path, dinov2[0]("weights.pth")) == 2
    assert "a name that its authors gave, such as dinov2_vitl14_pretrain.pth; got 'http" in error_line(capsys)
    assert server.asked == []


def test_fetch_weights_of_dinov2_offline_names_its_own_command(dinov2, server, tmp_path, capsys):
    server.status = 404
    assert fetch_dinov2(tmp_path, dinov2[0]("dinov2_vits14_pretrain.pth")) == 2
    assert "sagan-jax convert --from dinov2 FILE" in error_line(capsys)
