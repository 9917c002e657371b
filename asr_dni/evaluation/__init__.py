"""Noise curves: measure, save, draw, tabulate, log and compare them.

What it offers is in ``__init__.pyi``, and imported when it is asked for: what reads curves needs no Lightning.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
