"""The weights of DINOv2: sizes read off the arrays, and files that hold something else."""

import math

import flax.traverse_util
import jax
import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.interop.dinov2 import load, network_of, published_arrays, published_shapes
from sagan_jax.models.dinov2 import DinoV2

pytestmark = pytest.mark.one_jax

TINY = DinoV2(width=64, depth=2, num_heads=1, hidden=7, patch_size=3, table_side=2)


def zeros(network):
    """Arrays that take no memory."""
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in published_shapes(network).items()}
    return arrays | {"mask_token": np.zeros((1, network.width), np.float32)}


@pytest.mark.parametrize(
    ("width", "depth", "heads", "hidden", "gated", "parameters"),
    [
        (384, 12, 6, 1536, False, 22_056_576),
        (768, 12, 12, 3072, False, 86_580_480),
        (1024, 24, 16, 4096, False, 304_368_640),
        (1536, 40, 24, 4096, True, 1_136_480_768),
    ],
    ids=["S", "B", "L", "g"],
)
@pytest.mark.parametrize("registers", [0, 4])
def test_published_sizes_are_read_off_the_arrays(width, depth, heads, hidden, gated, parameters, registers):
    network = DinoV2(width, depth, heads, hidden, gated, registers=registers)
    arrays = zeros(network)
    assert network_of(arrays) == network
    assert sum(math.prod(array.shape) for array in arrays.values()) == parameters + registers * width
    assert published_arrays(arrays, network).keys() == arrays.keys() - {"mask_token"}


def test_defaults_are_those_of_the_large_network():
    assert len(zeros(DinoV2())) == 343  # tensors in the published file
    assert network_of(zeros(DinoV2(1024, 24, 16, 4096))) == DinoV2()


def test_variables_are_what_the_network_asks_for():
    network, variables = load(zeros(TINY))
    wanted = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 3, 3, 3), np.float32))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, wanted)
    assert {leaf.dtype for leaf in flax.traverse_util.flatten_dict(variables).values()} == {np.dtype(np.float32)}


def change(**arrays):
    given = zeros(TINY)
    for name, shape in arrays.items():
        if shape is None:
            del given[name]
        else:
            given[name] = np.zeros(shape, np.float32)
    return given


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"conv.weight": np.zeros((3, 3))}, "needs 'cls_token', which is missing"),
        (change(cls_token=(1, 64)), r"needs 'cls_token' of \[1, 1, any\]; got \[1, 64\]"),
        (change(pos_embed=(1, 6, 64)), r"a position for each patch of a square image.*'pos_embed' of \[1, 6, 64\]"),
        (change(pos_embed=(1, 1, 64)), r"a position for each patch of a square image"),
        (change(**{"patch_embed.proj.weight": (64, 3, 3, 2)}), r"square patches.*\[64, 3, 3, 2\]"),
        (change(**{"patch_embed.proj.weight": (64, 1, 3, 3)}), r"'patch_embed.proj.weight' of \[64, 3, any, any\]"),
        (change(**{"blocks.1.ls2.gamma": None}), "depth 2 needs the 34 arrays.*'blocks.1.ls2.gamma' is missing"),
        (change(**{"blocks.1.ls2.gamma": (65,)}), r"'blocks.1.ls2.gamma' has \[65\] instead of \[64\]"),
        (change(**{"head.weight": (10, 64)}), "'head.weight' is unknown.*with a head on top"),
        (change(**{"blocks.123456789.norm1.bias": (64,)}), "depth 3 needs.*'blocks.2.attn.proj.bias' is missing"),
        (change(register_tokens=(1, 2, 63)), r"'register_tokens' of \[1, any, 64\]"),
        (change(**{"blocks.0.mlp.w12.weight": (7, 64)}), "two equal halves in SwiGLU"),
    ],
)
def test_arrays_of_another_network_are_refused_by_name(arrays, words):
    with pytest.raises(InvalidInputError, match=f"'a.pth': DINOv2.*{words}") as caught:
        load(arrays, file="a.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("width", "heads", "words"), [(48, None, "got no number"), (48, 5, "got 5"), (64, 0, "got 0"), (64, -1, "got -1")]
)
def test_heads_that_do_not_divide_the_width_are_refused(width, heads, words):
    network = DinoV2(width, 1, 1, 7, patch_size=3, table_side=2)
    with pytest.raises(InvalidInputError, match=f"width {width} needs a number of heads.*{words}"):
        load(zeros(network), heads)


@pytest.mark.parametrize(("heads", "found"), [(None, 1), (4, 4), (64, 64)])
def test_heads_follow_from_the_width_unless_they_are_given(heads, found):
    assert load(zeros(TINY), heads).network.num_heads == found
