"""The settings of ``asr-dni fit``, ``validate``, ``test`` and ``predict``, and how they are read."""

from argparse import ArgumentError, RawDescriptionHelpFormatter
from typing import Any, Literal

from lightning_fabric.utilities.seed import seed_everything
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from asr_dni.cli.help_formatter import HelpFormatter
from asr_dni.cli.lists import with_brackets
from asr_dni.cli.run import BestCheckpoint
from asr_dni.configuration import check_groups, refused_arguments
from asr_dni.data import data_modules, find_data_class
from asr_dni.errors import UserError
from asr_dni.evaluation import NoiseCurveCallback
from asr_dni.model import KeywordSpotter, NoiseAnnealing

_DESCRIPTIONS = {
    "fit": "Train a keyword spotter, then test it and draw its noise curve.",
    "validate": "Evaluate a checkpoint on the validation split.",
    "test": "Evaluate a checkpoint on the test split and draw its noise curve.",
    "predict": "Write a checkpoint's decisions on the test split to predictions.csv.",
}
_KEYS = """
The settings that matter most; all of them are listed below, and "asr-dni conf list" has names of files of them:
  --config FILE                          YAML, or such a name; several are layered, later ones and the command line win
  --data.source, --data.source.path      where the recordings come from (asr_dni.data.Folder, ...)
  --data_class                           which data; without it recordings. --data.* are the settings of this class
  --data.front_end, .n_mels, ...         the features: MFCC, LogMel
  --data.augmentation.*                  what happens to training clips
  --model.network.cell, .units, .layers  the network
  --annealing.sigma                      sigma_train: the noise that is trained under; 0 is conventional training
  --trainer.max_epochs                   length of the run
  --noise_curve.sigmas                   the levels at which accuracy is measured
  --name, --runs                         results go to RUNS/NAME/version_0, version_1, ...
  --ckpt_path FILE                       {use}
  --allow MODULE                         may name classes of this module of yours too, as often as given; without it
                                         only those of asr_dni, Lightning and torch.optim
  --print_config                         shows what would be used, and ends
"""
_USES = {
    "fit": "resume this checkpoint; alone it finds the config.yaml of its run's folder",
    "validate": "the checkpoint; alone it finds its settings",
    "test": "the checkpoint; alone it finds its settings",
    "predict": "the checkpoint; alone it finds its settings",
}


def describe(subcommand: str) -> str:
    """Return what the help of a subcommand begins with."""
    return _DESCRIPTIONS[subcommand] + "\n" + _KEYS.format(use=_USES[subcommand])


class _HelpFormatter(RawDescriptionHelpFormatter, HelpFormatter):
    """Keeps the lines of the description as they are."""


class RunParser(LightningCLI):
    """Lightning's command line, of one subcommand, with the settings of a run.

    Attributes:
        command: what the user calls it, where that is not the subcommand's name.
    """

    command: str = ""

    def __init__(self, subcommand: str, data_class: str, **keywords: Any) -> None:
        self._only = subcommand
        self.command = self.command or subcommand
        self._data_class = data_class
        module = find_data_class(data_class)
        super().__init__(KeywordSpotter, module, **keywords)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the one subcommand that is run: building the parsers of the others takes a second each."""
        skipped = LightningCLI.subcommands()[self._only]
        return {self._only: {*skipped, "verbose", "weights_only", "return_predictions"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what every run has."""
        parser.add_argument("--name", type=str, default="spotter", help="folder of the run, under --runs")
        parser.add_argument("--runs", type=str, default="runs", help="folder that all results go to")
        parser.add_argument(
            "--wandb",
            type=Literal["auto", "online", "offline", "disabled"],
            default="auto",
            help="W&B: auto is online where there is a login and a network, else offline; WANDB_MODE decides before it",
        )
        parser.add_argument(
            "--wandb_project",
            type=str | None,
            default=None,
            help="project in W&B; by default that of WANDB_PROJECT, else asr-dni",
        )
        parser.add_argument(
            "--wandb_group",
            type=str | None,
            default=None,
            help="group of the run in W&B, such as a study; by default that of WANDB_RUN_GROUP, else the name",
        )
        parser.add_argument(
            "--wandb_checkpoints",
            type=bool,
            default=False,
            help="log the checkpoint that is the result as an artifact in W&B",
        )
        parser.add_argument(
            "--weights",
            type=str | None,
            default=None,
            help="begin with the weights of this file: a .ckpt that asr-dni fit or convert wrote, or what torch.save"
            " made of the state_dict of a network with torch's RNN, LSTM or GRU and a linear layer",
        )
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=True,
            help="test the chosen checkpoint (without a choice the last one) when the training has ended",
        )
        parser.add_argument(
            "--data_class",
            type=str,
            default=self._data_class,
            help="the data module that --data.* are the settings of: KeywordData for recordings, another task's"
            f" ({', '.join(data_modules())}), or the class_path of one of your own",
        )
        parser.add_lightning_class_args(NoiseAnnealing, "annealing")
        parser.add_lightning_class_args(NoiseCurveCallback, "noise_curve")
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/accuracy",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.link_arguments("data.label_names", "model.label_names", apply_on="instantiate")
        parser.link_arguments("data.n_features", "model.n_features", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_seed_of)
        parser.link_arguments("seed_everything", "model.noise.seed", compute_fn=_seed_of)

    def setup_parser(self, *arguments: Any) -> None:
        """Build the parser; its help begins with the lines that matter most."""
        super().setup_parser(*arguments)
        for parser in self._subcommand_parsers.values():
            parser.formatter_class = _HelpFormatter

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Check the configurations' groups, then parse the command line, on which lists need no brackets."""
        own = self._subcommand_parsers[self._only]
        check_groups(own, args)
        try:
            super().parse_arguments(parser, with_brackets(args, own))
        except ArgumentError as error:
            raise refused_arguments(error, own, self.command) from error

    def _parse_ckpt_path(self) -> None:
        # The settings of a checkpoint's run come as a configuration, see with_configuration.
        pass

    def _set_seed(self) -> None:
        if self._get(self.config, "seed_everything") is False:
            raise UserError(
                "seed_everything is false, but every run has a seed: give a number, or true (Lightning's choice)"
            )
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {' '.join(str(error).split())}") from error


def _seed_of(seed: bool | int) -> int:
    """Return the seed of data and noise: the run's, also where Lightning chooses it (true)."""
    try:
        return seed_everything(workers=True, verbose=False) if seed is True else int(seed)
    except ValueError as error:  # what the environment says
        raise UserError(f"seed_everything: {error}") from error
