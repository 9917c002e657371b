"""Ordinary checkpoints of the members of a population."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from asr_dni.checkpoint import write_checkpoint
from asr_dni.model.population_spotter import DATA_KEY, STATE_KEY, PopulationSpotter, read_population


def save_members(population: PopulationSpotter, directory: str | Path) -> list[Path]:
    """Write every member into a checkpoint of its own, ``member_00.ckpt`` and so on, while a trainer is attached.

    They are as ``asr-dni fit`` writes them, see :func:`split_checkpoint`.

    Args:
        population: that is being trained, or was.
        directory: is made where it does not exist.

    Returns:
        The paths, in the order of the members.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".population-", dir=directory) as temporary:
        whole = Path(temporary) / "population.ckpt"
        population.trainer.save_checkpoint(whole)
        return write_members(whole, directory)


def split_checkpoint(checkpoint: str | Path | Mapping[str, Any]) -> list[dict[str, Any]]:
    """Take a population's checkpoint apart into ordinary ones.

    Each is a checkpoint as ``asr-dni fit`` writes it of the member alone: ``KeywordSpotter.from_checkpoint``,
    ``KeywordData.from_checkpoint``, ``asr-dni noise-curve`` and ``asr-dni test`` take it, and a training goes on from
    it, with its optimiser's state and its place in the data. What it cannot hold is what a run's ``config.yaml`` has:
    the optimiser's class, the annealing and the trainer's settings have to be given again.

    Args:
        checkpoint: a checkpoint file of a population, or what ``torch.load`` made of one.

    Returns:
        One checkpoint per member.

    Raises:
        UserError: the file is missing, cannot be read, or holds no population.
    """
    contents = read_population(checkpoint)
    population = PopulationSpotter.from_checkpoint(contents)
    return [_of_member(contents, population, member) for member in range(population.networks)]


def _of_member(contents: Mapping[str, Any], population: PopulationSpotter, member: int) -> dict[str, Any]:
    spotter = population.unstack(member)
    left_out = {STATE_KEY, DATA_KEY}
    if DATA_KEY in contents:
        left_out.add(pl.LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY)
    ordinary = {key: value for key, value in contents.items() if key not in left_out}
    ordinary["state_dict"] = spotter.state_dict()
    ordinary[spotter.CHECKPOINT_HYPER_PARAMS_KEY] = dict(spotter.hparams)
    if "callbacks" in contents:
        ordinary["callbacks"] = {}  # they are those of the population's run
    if "optimizer_states" in contents:
        ordinary["optimizer_states"] = [_slice(state, member) for state in contents["optimizer_states"]]
    spotter.on_save_checkpoint(ordinary)
    data = contents.get(DATA_KEY)
    if data is not None:
        ordinary |= data["members"][member]
        ordinary["loops"] = _with_loader(contents["loops"], data["of_member"][member])
    return ordinary


def _slice(state: Mapping[str, Any], member: int) -> dict[str, Any]:
    """Return a member's part of an optimiser's state; what has no dimension is common to all."""

    def part(value: Any) -> Any:
        return value[member].clone() if isinstance(value, Tensor) and value.dim() else value

    return {
        **state,
        "state": {
            index: {name: part(value) for name, value in values.items()}
            for index, values in state["state"].items()
        },
    }


def _with_loader(loops: Mapping[str, Any], loader: int) -> dict[str, Any]:
    """Return the loops' state with that of one of the training's loaders."""
    fit = dict(loops["fit_loop"])
    states = fit["state_dict"].get("combined_loader", [])
    if len(states) > 1:
        fit["state_dict"] = {**fit["state_dict"], "combined_loader": [states[loader]]}
    return {**loops, "fit_loop": fit}


def write_members(checkpoint: str | Path | Mapping[str, Any], directory: str | Path) -> list[Path]:
    """Write what :func:`split_checkpoint` makes of a checkpoint, as ``member_00.ckpt`` and so on.

    Args:
        checkpoint: a checkpoint file of a population, or what ``torch.load`` made of one.
        directory: is made where it does not exist.

    Returns:
        The paths, in the order of the members.
    """
    members = split_checkpoint(checkpoint)
    digits = max(2, len(str(len(members) - 1)))
    paths = [Path(directory) / f"member_{member:0{digits}d}.ckpt" for member in range(len(members))]
    for path, contents in zip(paths, members, strict=True):
        write_checkpoint(contents, path)
    return paths
