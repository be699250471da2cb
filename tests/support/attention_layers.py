"""Attention layers of given maps."""

import numpy as np

from sagan_jax.evaluation.attention import AttentionLayer


def layer_of_map(network: str, attention_map: np.ndarray, query: int, key: int, gamma: float = 0.5) -> AttentionLayer:
    """Returns a layer with this map `[B, N, M]`: queries are its logarithms, and keys the unit vectors."""
    queries = np.log(attention_map, out=np.full(attention_map.shape, -1e4), where=attention_map > 0)
    keys = np.broadcast_to(np.eye(attention_map.shape[-1]), (len(attention_map), *2 * attention_map.shape[-1:]))
    operands = queries.astype(np.float32), keys.astype(np.float32)
    return AttentionLayer(network, query, gamma, *operands, (query, query), (key, key))
