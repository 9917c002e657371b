"""Which runs are repetitions of one experiment, what each experiment is called, and which curve replaces another."""

import hashlib
from collections.abc import Mapping
from typing import Any

from asr_dni.catalogue.entry import Entry
from asr_dni.catalogue.finding import CURVE
from asr_dni.catalogue.settings_book import Parts, SettingsBook
from asr_dni.evaluation.curves.experiments import label_experiments, older_of_one_training
from asr_dni.identity import REPETITION_KEYS, experiment_key
from asr_dni.noise import Strength

OF_THE_START = ("seed_everything", "name", "runs", "ckpt_path", "wandb", "wandb_project")
"""Settings of a configuration in which repetitions differ, or that do not change the result."""


class Names:
    """Gives experiments their keys and labels; what it has computed for settings it keeps.

    Args:
        book: decodes settings.
    """

    def __init__(self, book: SettingsBook) -> None:
        self._book = book
        self._keys: dict[Parts, str] = {}

    def of_curve(self, parts: Parts) -> str:
        """Return the key of the experiment that a curve is of."""
        return self._key(tuple(part for part in parts if part.partition("\n")[0] not in REPETITION_KEYS))

    def of_configuration(self, parts: Parts) -> str:
        """Return the key of a configuration, that of its repetitions too."""
        return self._key(tuple(part for part in parts if part.partition("\n")[0] not in OF_THE_START))

    def _key(self, parts: Parts) -> str:
        if parts not in self._keys:
            settings = self._book.nested(parts)
            if parts and parts[0].startswith("\n"):  # all settings are one part
                settings = {key: value for key, value in settings.items() if key not in OF_THE_START}
            text = experiment_key(settings)
            self._keys[parts] = hashlib.blake2b(
                text.encode("utf-8", "surrogatepass"), digest_size=6
            ).hexdigest()
        return self._keys[parts]

    def give(self, entries: Mapping[str, Entry]) -> None:
        """Give each run its experiment's key and label, and a remark where another curve replaces its own.

        A run has the experiment of its curve; without one that of a run with the same configuration but for the seed.
        Labels are made for all experiments over one strength together.
        """
        by_configuration: dict[str, str] = {}
        experiments: dict[Strength | None, dict[str, Mapping[str, Any]]] = {}
        for entry in entries.values():
            entry.remark = ""
            if entry.main is not None:
                entry.key = self.of_curve(entry.main.parts)
                experiments.setdefault(entry.main.strength, {}).setdefault(entry.key, entry.main.settings)
        if any(entry.main is None for entry in entries.values()):
            for entry in entries.values():
                if entry.main is not None and entry.found.configuration:
                    by_configuration.setdefault(self.of_configuration(entry.parts), entry.key)
        for entry in entries.values():
            if entry.main is None:
                own = self.of_configuration(entry.parts)
                entry.key = by_configuration.get(own, own)
                if own not in by_configuration:
                    settings = curve_settings_of(self._book.flat(entry.parts))
                    experiments.setdefault(None, {}).setdefault(entry.key, settings)
        labels: dict[str, str] = {}
        for together in experiments.values():
            labels |= dict(zip(together, label_experiments(list(together.values())), strict=True))
        for entry in entries.values():
            entry.label = labels[entry.key]
        tested = {
            identity: entry.curves[CURVE] for identity, entry in entries.items() if CURVE in entry.curves
        }
        for identity in older_of_one_training(
            {identity: curve.settings for identity, curve in tested.items()},
            {identity: curve.changed for identity, curve in tested.items()},
            {identity: entries[identity].key for identity in tested},
        ):
            entries[identity].remark = "the same weights were tested again later"


def curve_settings_of(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration, by dotted names, says of a training, under the names of a curve's settings."""
    found = {key: names.get(f"model.network.{key}") for key in ("cell", "units", "layers")}
    sigma = names.get("annealing.sigma")
    if isinstance(sigma, int | float):
        found["sigma_train"] = float(sigma)
    return {**found, "training": {key: value for key, value in names.items() if key not in OF_THE_START}}
