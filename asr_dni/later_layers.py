"""What a configuration keeps of a setting when a later layer, or the command line, gives another in its place."""

import importlib
from collections.abc import Mapping
from functools import cache, wraps
from typing import Any

from jsonargparse import Namespace


@cache
def replace_lists() -> None:
    """Have jsonargparse take a list that is given as it is.

    It fills in what an entry leaves out from the entry at its place in the former list, if that is of the same length:
    ``[{channels: 64}]`` in place of ``[{channels: 32, separable: true}]`` would be separable. Entries that are added
    (``+=``), and settings of the last one (``--trainer.callbacks.decay``), are not concerned.
    """
    hints = importlib.import_module("jsonargparse._typehints")
    original = hints.adapt_typehints

    @wraps(original)
    def adapt(val: Any, typehint: Any, *positional: Any, **settings: Any) -> Any:
        if isinstance(val, list) and not settings.get("append"):
            settings["prev_val"] = None
        return original(val, typehint, *positional, **settings)

    vars(hints)["adapt_typehints"] = adapt


@cache
def start_from_own_defaults() -> None:
    """Have jsonargparse carry over to another class only what was said, not what the former class does by itself.

    It fills in the defaults of a class as soon as that is named, and keeps all arguments that the next class has too.
    """
    hints = importlib.import_module("jsonargparse._typehints")
    original = hints.discard_init_args_on_class_path_change

    @wraps(original)
    def discard(parser_or_action: Any, former: Any, now: Any) -> Any:
        named = former.get("class_path") if isinstance(former, Namespace) else None
        said = (
            former.get("init_args")
            if isinstance(named, str) and now and now.get("class_path") != named
            else None
        )
        if isinstance(said, Namespace):
            defaults = hints.ActionTypeHint.get_class_parser(named, {}).get_defaults()
            for name, value in list(said.items()):
                if name in defaults and _same(defaults[name], value):
                    del said[name]
        return original(parser_or_action, former, now)

    vars(hints)["discard_init_args_on_class_path_change"] = discard


def _same(default: Any, value: Any) -> bool:
    plain = [item.as_dict() if isinstance(item, Namespace) else item for item in (default, value)]
    if all(isinstance(item, Mapping) for item in plain):
        return bool(plain[0] == plain[1])
    return type(plain[0]) is type(plain[1]) and bool(plain[0] == plain[1])
