"""What of Lightning's and torch's chatter a run leaves out."""

import logging
import warnings


def quiet_expected_warnings() -> None:
    """Leave out Lightning's chatter and advice that does not apply here."""
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric.utilities.seed").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric.utilities.distributed").setLevel(logging.WARNING)
    # "Received SIGTERM": the command's last line says so.
    logging.getLogger("pytorch_lightning.trainer.connectors.signal_connector").setLevel(logging.WARNING)
    for message in (
        ".*LightningCLI's args parameter is intended.*",
        ".*callbacks used to create the checkpoint need to be provided.*",  # they only matter to a training
        ".*is smaller than the logging interval.*",  # epoch metrics are logged all the same
        ".*GPU available but not used.*",  # then the user chose so
        ".*does not have many workers.*",  # batches are gathered from memory, not made by workers
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*Experiment logs directory .* exists and is not empty.*",  # W&B's folder is in it
        ".*isinstance.treespec, LeafSpec.*",
        ".*loading a checkpoint outside the 'fit' stage.*",  # what is averaged is in the checkpoint
        ".*The checkpoint was not created with WeightAveraging.*",
        ".*SWA is currently only supported every epoch.*",  # it takes the place of the schedule by step
        ".*Couldn't infer the batch indices.*",  # clips are told apart by their own identities
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # what is logged so is the same in all processes
    ):
        warnings.filterwarnings("ignore", message)
