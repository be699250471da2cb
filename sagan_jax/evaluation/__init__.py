"""Drawing samples from trained networks, and judging them."""
