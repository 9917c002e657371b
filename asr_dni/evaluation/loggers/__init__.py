"""Curves and evaluations in W&B, TensorBoard and CSV, while a network is trained and after."""
