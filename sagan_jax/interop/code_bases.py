"""Identification of the code base that wrote a weight file, by the names of its arrays."""

import re
from collections.abc import Iterable

from sagan_jax.errors import InvalidInputError

# Each regular expression matches names that no other code base here uses. Some layer names occur in several code bases.
_CONVERTED = {
    "official": ("the SAGAN authors' release", r"(.*/)?[gd]_(snh0|block\d+|non_local|optimized_block1|sn_linear)/"),
    "studiogan": ("PyTorch-StudioGAN", r"(linear0|blocks\.\d+\.\d+\.((de)?conv(2d)?0|conv2d\d|bn\d\.embed\d))\."),
    "biggan-pytorch": ("BigGAN-PyTorch", r"(output_layer\.\d|blocks\.\d+\.\d+\.(conv_sc|theta|phi))\."),
}
_OTHERS = {
    "heykeetae/Self-Attention-GAN": (
        r"(l[1-4]\.\d\.(module\.)?(weight|bias)|attn[12]\.((query|key|value)_conv|[fgh]_)\.)"
    ),
    "mmgeneration (OpenMMLab)": r"((generator|generator_ema|discriminator)\.)?(noise2feat|conv_blocks|to_rgb|proj_y)\.",
    "Hugging Face diffusers": r"(unet\.|vae\.|encoder\.|decoder\.)?(down_blocks|up_blocks|mid_block|time_embedding)\.",
    "Hugging Face transformers": (
        r"((\w+\.)?(encoder|decoder)\.layers?\.\d+\.|(\w+\.)?embeddings\.\w*embed|(model\.)?layers\.\d+\.self_attn\.|"
        r"(transformer\.)?h\.\d+\.|(vision|text)_model\.)"
    ),
    "Hugging Face pytorch-pretrained-BigGAN": r"generator\.(gen_z|layers\.\d+\.(bn_\d|conv_\d|snconv1x1))",
    "NVIDIA's StyleGAN": r"(G_ema\.|G\.)?(synthesis\.b\d+|mapping\.fc\d+|b\d+\.(torgb|fromrgb))\.",
    "rosinality/stylegan2-pytorch": r"(style\.\d+\.weight|to_rgbs?\.\d|convs\.\d+\.conv\.)",
    "kwotsin/mimicry": r"(block\d\.c(1|2|_sc)|l1|c\d|activation)\.(weight|bias)",
    "torchvision": r"(layer[1-4]\.\d+\.(conv|bn|norm)\d|features\.\d+|Mixed_5b|AuxLogits)\.",
}


def name_code_base(names: Iterable[str]) -> tuple[str | None, str | None, str | None]:
    """Identifies the code base that wrote arrays with these names.

    Args:
        names: the names of the arrays, with or without the prefixes `generator/`, `discriminator/` and `module.`.

    Returns:
        The value of the code base for `convert --from`, or None if it cannot be converted. Then its title, or None if
        it is unknown. Then an array name that identifies it, or None.

    Examples:
        >>> name_code_base(["l1.0.module.weight_bar", "attn1.gamma"])[1]
        'heykeetae/Self-Attention-GAN'
    """
    plain = sorted(re.sub(r"^(generator/|discriminator/)?(module\.)?", "", name) for name in names)
    for word, (title, pattern) in _CONVERTED.items():
        for name in plain:
            if re.match(pattern, name):
                return word, title, name
    for title, pattern in _OTHERS.items():
        for name in plain:
            if re.match(pattern, name):
                return None, title, name
    return None, None, None


def refuse_other_code_base(source: str, names: Iterable[str]) -> None:
    """Raises InvalidInputError when the names belong to another code base than `source`."""
    word, title, name = name_code_base(names)
    if title is None or word == source:
        return
    if word:
        hint = f"Convert them with --from {word}."
    else:
        known = ", ".join(f"{other} ({of})" for other, (of, _) in _CONVERTED.items())
        hint = f"The code bases that can be converted are {known}."
    raise InvalidInputError(
        f"--from {source} needs weights of {_CONVERTED[source][0]}; these are weights of another code base, {title}, "
        f"as the name {name!r} shows. {hint}"
    )
