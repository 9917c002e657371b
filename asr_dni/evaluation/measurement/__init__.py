"""How a network is measured under noise: what is run, and what is counted."""
