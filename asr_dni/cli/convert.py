"""``asr-dni convert``: weights that were trained elsewhere, as a checkpoint that every command takes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser
from torch import Tensor

from asr_dni.cli.lightning import SpotterCLI, build
from asr_dni.cli.quiet import quiet_expected_warnings
from asr_dni.cli.run_arguments import with_configuration
from asr_dni.data import SequenceData
from asr_dni.errors import UserError
from asr_dni.model import KeywordSpotter
from asr_dni.model.foreign_weights import SavedWeights, begin_with
from asr_dni.named_classes import only_named_classes
from asr_dni.nn import calibrate

_DESCRIPTION = """Make a checkpoint of weights that torch's own layers were trained to.

WEIGHTS is a file that torch.save(network.state_dict(), ...) wrote, of a network with an RNN, LSTM or GRU and a linear
layer. The configuration says what they were trained on: data, features and network, as asr-dni fit has them
(they are listed below). The result is validated and written; noise-curve, evaluate and predict take it,
and asr-dni fit --weights trains on from it under noise.
"""
_CALIBRATION_BATCHES = 4


class Conversion(SpotterCLI):
    """The settings of a run, with those of a conversion beside them."""

    command = "convert"

    def __init__(
        self, subcommand: str, held: ExitStack, data_class: str, weights: Path, **keywords: Any
    ) -> None:
        self._file = weights
        super().__init__(subcommand, held, data_class, **keywords)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a conversion has."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--output", type=str, default="converted.ckpt", help="the checkpoint that is written"
        )
        parser.add_argument(
            "--recurrent",
            type=str | None,
            default=None,
            help="what stands before the names of the recurrent layer's weights, such as lstm; by default there is one",
        )
        parser.add_argument(
            "--classifier",
            type=str | None,
            default=None,
            help="likewise of the linear layer; by default there is one of that shape",
        )
        parser.add_argument(
            "--labels",
            type=list[str] | None,
            default=None,
            help="the words in the order of the classifier's outputs; by default that of the data",
        )

    @property
    def _settings(self) -> Any:
        return self.config["fit"]

    def before_instantiate_classes(self) -> None:
        """Find mistakes in what is read and written before anything is built."""
        output = Path(self._settings.output)
        if output.suffix != ".ckpt" or output.is_dir():
            raise UserError(f"output is {output}: give the name of a .ckpt file")
        self._weights = SavedWeights.read(self._file)

    def instantiate_trainer(self, **keywords: Any) -> pl.Trainer:
        """Return a trainer that logs nothing, and leaves no configuration in the current folder."""
        self.save_config_callback = None
        self._check_data()
        return super(SpotterCLI, self).instantiate_trainer(**{**keywords, "logger": False})

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        quiet = {
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [],
        }
        return super(SpotterCLI, self)._instantiate_trainer({**config, **quiet}, [])

    def fit(self, **arguments: Any) -> None:
        """Take the weights over in place of training, validate them and write the checkpoint."""
        model, data = cast(KeywordSpotter, self.model), cast(SequenceData, self.datamodule)
        left = begin_with(
            model,
            self._weights,
            recurrent=self._settings.recurrent,
            classifier=self._settings.classifier,
            order=self._order(data.label_names),
        )
        if left:
            print(f"not needed: {', '.join(left)}")
        self.trainer.validate(model, datamodule=data, verbose=False)
        data.setup("fit")
        calibrate(model.network, self._features_of_training(data))
        output = Path(self._settings.output)
        self.trainer.save_checkpoint(output, weights_only=True)
        accuracy = float(self.trainer.callback_metrics["val/accuracy"])
        print(
            f"{output}: accuracy {100 * accuracy:.1f} % on the validation split, without noise (near chance, the labels"
            " are in another order, see --labels, or the features are others)"
        )

    def after_fit(self) -> None:
        """Test nothing."""

    def _features_of_training(self, data: SequenceData) -> Iterator[Tensor]:
        for batch in islice(data.train_dataloader(), _CALIBRATION_BATCHES):
            moved = data.transfer_batch_to_device(batch, self.model.device, 0)
            yield data.on_after_batch_transfer(moved, 0).features

    def _order(self, names: Sequence[str]) -> list[int] | None:
        labels = self._settings.labels
        if labels is None:
            return None
        if sorted(labels) != sorted(names):
            raise UserError(
                f"labels are {', '.join(labels)}, but the data have {', '.join(names)}: give these"
            )
        return [labels.index(name) for name in names]


def convert(arguments: Sequence[str]) -> None:
    """Run ``asr-dni convert``.

    Raises:
        UserError: there are no weights, or they do not fit the configuration.
    """
    weights, *rest = arguments or [""]
    asks_for_help = {"-h", "--help"} & set(arguments)
    if not asks_for_help and (not weights or weights.startswith("-")):
        raise UserError(
            "convert needs weights: asr-dni convert WEIGHTS --config FILE (--help lists the settings)"
        )
    quiet_expected_warnings()
    with ExitStack() as held, only_named_classes():
        settings = with_configuration("fit", list(arguments) if asks_for_help else rest)
        build(Conversion, "fit", settings, held, "convert WEIGHTS", _DESCRIPTION, weights=Path(weights))
