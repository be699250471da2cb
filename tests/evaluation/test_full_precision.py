"""Programs that give comparable numbers are traced with float32 products, whatever precision jax is set to."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.evaluation import attention, completer, completion_quality, generator, inversion, replaced_attention
from sagan_jax.evaluation.embeddings import random_embedding
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.inception import inception_taps
from sagan_jax.functional.spectral import init_spectral
from sagan_jax.interop import networks
from sagan_jax.interop.jax_export import to_jax_export
from sagan_jax.models import sagan
from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.models.inception import Inception
from sagan_jax.models.lite0 import Lite0
from support.lowered import product_precisions

LATENTS, LABELS, IMAGES = np.ones((2, 6), np.float32), np.zeros(2, np.int32), np.zeros((2, 32, 32, 3), np.float32)
G = sagan.Generator(32, 3, 1, attention_resolutions=(8,))
D = sagan.Discriminator(32, 3, 1, attention_resolutions=(8,))
COMPLETION = CompletionNetwork(64, 3, 1, 6, attention_resolutions=(8,))
HOLES = np.zeros((2, 64, 64, 3), np.float32), np.ones((2, 64, 64), bool)


@pytest.fixture(autouse=True)
def jax_set_to_inexact_products():
    with jax.default_matmul_precision("bfloat16"):
        yield


def shapes(network, *inputs, **options):
    return jax.eval_shape(partial(network.init, **options), jax.random.key(0), *inputs)


def programs():
    """Yields the name of each program and a function that traces it."""
    drawing = shapes(G, LATENTS, LABELS, train=False)
    yield "samples", lambda: generator._draw.lower(G, False, drawing, LATENTS, LABELS)
    yield "attention of G", lambda: attention._apply.lower(G, drawing, LATENTS, LABELS)
    yield (
        "attention of D",
        lambda: attention._apply.lower(D, shapes(D, IMAGES, LABELS, train=False), IMAGES, LABELS),
    )
    params = shapes(COMPLETION, *HOLES)["params"]
    keys = jax.random.split(jax.random.key(0), 2)
    yield "completions", lambda: completer._forward.lower(COMPLETION, True, params, *HOLES, keys)
    yield "attention of a completion", lambda: completer._attention.lower(COMPLETION, params, *HOLES)
    uint8 = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.uint8)
    inputs = jnp.zeros((1, 299, 299, 3))
    yield "inception", lambda: jax.jit(inception_taps).lower(shapes(Inception(), inputs), uint8)
    features = random_embedding()
    yield "features of scores", lambda: features._apply.lower(features.variables, IMAGES.astype(np.uint8))
    floats = shapes(Lite0(), IMAGES)
    yield "perceptual distance", lambda: completion_quality._lite0_distance.lower(floats, IMAGES, IMAGES)
    moments = jax.eval_shape(inversion._ADAM.init, LATENTS)
    search = drawing, None, IMAGES[0], np.ones(2, np.float32), LATENTS, LABELS, moments, np.float32(0)
    yield "inversion", lambda: inversion._descend.lower(G, *search)
    maps = {name: np.zeros(shape.shape, np.float32) for name, shape in replaced_maps(drawing).items()}
    is_given = dict.fromkeys(maps, np.array(True))
    yield "replaced maps", lambda: replaced_attention._draw.lower(G, drawing, LATENTS, LABELS, maps, is_given)
    vectors = jax.eval_shape(partial(init_spectral, jax.random.key(0)), drawing["params"])
    yield (
        "weights of other code bases",
        lambda: networks._outputs.lower(G, (), False, {**drawing, "spectral": vectors}, LATENTS, LABELS),
    )


def replaced_maps(drawing):
    trained = TrainedGenerator(G, drawing, 6, 3, step=0)
    return replaced_attention._map_shapes(trained, LATENTS, LABELS)


PROGRAMS = dict(programs())


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_product_is_traced_in_float32(name):
    found = product_precisions(PROGRAMS[name]())
    assert len(found) > 5
    assert set(found) == {"HIGHEST"}


@pytest.mark.parametrize("name", ["_map", "_rows"])
def test_maps_that_are_looked_at_have_float32_products(name):
    queries, keys = np.ones((2, 9, 3), np.float32), np.ones((2, 4, 3), np.float32)
    given = (queries, keys, np.arange(2)) if name == "_rows" else (queries, keys)
    assert set(product_precisions(getattr(attention, name).lower(*given))) == {"HIGHEST"}


@pytest.mark.slow
@pytest.mark.one_jax
def test_exported_function_has_float32_products():
    pytest.importorskip("flatbuffers")
    variables = G.init(jax.random.key(0), LATENTS, LABELS, train=False)
    exported = jax.export.deserialize(bytearray(to_jax_export(G, variables, 6)))
    found = product_precisions(str(exported.mlir_module()))
    assert len(found) > 5
    assert set(found) == {"HIGHEST"}
