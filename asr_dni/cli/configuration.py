"""Layered configuration files on the command line; see :mod:`asr_dni.configuration`."""

from asr_dni.configuration import LAYERS_KEY, expand_layers, explain, read_layers

__all__ = ["LAYERS_KEY", "expand_layers", "explain", "read_layers"]
