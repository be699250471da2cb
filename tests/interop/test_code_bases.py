"""Weight files of other code bases than the one that the user named."""

import numpy as np
import pytest

from sagan_jax import interop
from sagan_jax.interop.code_bases import name_code_base
from support.assertions import refusal

pytestmark = pytest.mark.one_jax

# A few names as each code base writes them.
FOREIGN = {
    "heykeetae/Self-Attention-GAN": [
        "l1.0.module.bias",
        "l1.0.module.weight_bar",
        "attn1.query_conv.weight",
        "last.0.bias",
    ],
    "mmgeneration (OpenMMLab)": ["noise2feat.0.weight_orig", "conv_blocks.0.conv_1.conv.weight", "to_rgb.bn.weight"],
    "Hugging Face diffusers": [
        "conv_in.weight",
        "down_blocks.0.resnets.0.conv1.weight",
        "mid_block.attentions.0.proj.bias",
    ],
    "Hugging Face transformers": ["vit.embeddings.patch_embeddings.bias", "vit.encoder.layer.0.attention.key.weight"],
    "Hugging Face pytorch-pretrained-BigGAN": ["embeddings.weight", "generator.layers.0.bn_0.scale.weight_orig"],
    "NVIDIA's StyleGAN": ["synthesis.b4.conv1.weight", "mapping.fc0.weight"],
    "kwotsin/mimicry": ["l1.weight", "block2.c1.weight", "block2.c_sc.weight"],
    "torchvision": ["layer1.0.conv1.weight", "fc.weight"],
}


def arrays(names):
    return {f"generator/{name}": np.ones((2, 3), np.float32) for name in names}


@pytest.mark.parametrize("source", ["official", "studiogan", "biggan-pytorch"])
@pytest.mark.parametrize("title", FOREIGN)
def test_weights_of_a_code_base_that_is_not_converted_are_named(title, source):
    line = refusal(interop.load, source, arrays(FOREIGN[title]))
    assert f"weights of another code base, {title}" in line
    assert "studiogan (PyTorch-StudioGAN), biggan-pytorch (BigGAN-PyTorch)" in line


def test_prefixes_of_trainers_do_not_hide_the_code_base():
    for prefix in ("module.", "generator.", "generator_ema."):
        assert name_code_base([f"{prefix}noise2feat.0.bias"])[1] == "mmgeneration (OpenMMLab)"


@pytest.mark.parametrize(
    ("file", "word"),
    [("studiogan-sagan-32", "studiogan"), ("studiogan-dcgan-32", "studiogan"), ("biggan-128", "biggan-pytorch")],
)
def test_weights_of_another_converted_code_base_say_which_word_it_has(file, word, golden):
    with np.load(golden / f"{file}.npz") as vectors:
        found = {name: vectors[name] for name in vectors.files if name.startswith(("generator/", "discriminator/"))}
    for source in {"official", "studiogan", "biggan-pytorch"} - {word}:
        assert f"Convert them with --from {word}." in refusal(interop.load, source, found)
    for network in ("generator", "discriminator"):
        assert name_code_base(name for name in found if name.startswith(network))[0] == word


def test_official_release_is_known(golden):
    with np.load(golden / "official-none.npz") as vectors:
        names = [name.removeprefix("var/") for name in vectors.files if name.startswith("var/")]
    assert name_code_base(names)[0] == "official"
    assert "--from official" in refusal(interop.load, "studiogan", arrays(names))


def test_unknown_tensor_names_give_no_code_base():
    assert name_code_base(["a.weight", "conv.bias"]) == (None, None, None)
