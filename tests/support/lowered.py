"""What is in a program that jax has traced and not compiled."""

import re


def product_precisions(lowered) -> list[str]:
    """Returns the precision of each product and convolution of float32 numbers in a lowered program or its text."""
    found = []
    for line in (lowered if isinstance(lowered, str) else lowered.as_text()).splitlines():
        if re.search(r"stablehlo\.(dot_general|convolution)\b", line) and re.search(
            r"xf32>( loc\(.*\))?$", line.rstrip()
        ):
            names = re.search(r"precision(?:_config)? = \[(.*?)\]", line)
            found += sorted(set(re.findall(r"DEFAULT|HIGHEST|HIGH", names[1]))) if names else ["DEFAULT"]
    return found
