"""aihwkit with or without its compiled core: its noise models and its torch tile compute nothing in it."""

import importlib
import importlib.util
import sys
import types

import pytest


class _Named(types.ModuleType):
    """A module that has a class of every name, which nothing calls."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, type(name, (), {}))
        return getattr(self, name)


def import_aihwkit() -> None:
    """Import aihwkit; where its core was not built, names stand in its place, which its torch tile imports only.

    Skips the test, or the module, where it is not installed.
    """
    if importlib.util.find_spec("aihwkit") is None:
        pytest.skip("aihwkit is not installed", allow_module_level=True)
    try:
        importlib.import_module("aihwkit.simulator.rpu_base")
    except ImportError:
        core = _Named("aihwkit.simulator.rpu_base")
        sys.modules[core.__name__] = core
        for part in ("tiles", "cuda", "devices"):
            its = _Named(f"{core.__name__}.{part}")
            setattr(core, part, its)
            sys.modules[its.__name__] = its
        core.cuda.is_compiled = lambda: False
