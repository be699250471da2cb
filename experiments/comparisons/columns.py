"""Columns that several tables have."""

FOLLOWS_RULE = {
    "rule5k": "follow the rule",
    "rule5k/chance": "by chance",
    "rule5k/beyond_chance": "beyond chance",
    "rule5k/parts": "two clear blobs",
    "rule5k/hue": "same hue",
    "rule5k/hue_chance": "by chance",
    "rule5k/form": "same form",
    "rule5k/form_chance": "by chance",
    "rule5k/kinds": "kinds",
}
"""Columns on how well images of `pairs` follow their rule; see `sagan_jax/evaluation/rules.py`.

Older results have no `rule5k/chance`, and no `rule5k/beyond_chance`.
"""

FOLLOWS_RULE_SHARE_OF = {
    **{f"rule5k/{name}": "rule5k/parts" for name in ("hue", "hue_chance", "form", "form_chance")},
    "rule5k/kinds": "rule5k",
}
"""The score with the count that each of these columns is a share of."""
