"""Train one population of a study, evaluate its members, and write their results down."""

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]

from asr_dni.checkpoint import check_resumable, read_checkpoint, write_checkpoint
from asr_dni.data import SequenceData
from asr_dni.data.population_data import PopulationData
from asr_dni.errors import UserError
from asr_dni.evaluation.measurement.stacked import evaluate_votes
from asr_dni.files import write_atomically
from asr_dni.model.members import split_checkpoint
from asr_dni.model.network import KeywordNetwork
from asr_dni.model.population_spotter import Member, PopulationSpotter
from asr_dni.model.spotter import KeywordSpotter
from asr_dni.nn.stacking import stack_networks
from asr_dni.study.cost import DataSize
from asr_dni.study.folder import Progress, StudyFolder
from asr_dni.study.plan import PlannedMember, Population
from asr_dni.study.reading import Study
from asr_dni.study.results import result_rows
from asr_dni.study.training_callbacks import ProgressNote, ResumeCheckpoint, quiet

CHECKPOINT_SECONDS = 30.0
"""What is lost at most, and one batch, where a worker dies."""


@dataclass(frozen=True)
class Outcome:
    """What became of a population.

    Attributes:
        population: its id.
        state: ``done``; ``busy``, another run works on it.
        results: how many results were added.
        notes: what was out of the ordinary.
    """

    population: str
    state: Literal["done", "busy"]
    results: int = 0
    notes: tuple[str, ...] = ()


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether a smaller population might do what this one could not."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    if type(error).__name__ == "OutOfMemoryError":  # Ray's
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text.lower() or "can't allocate memory" in text
    )


def work_on(
    study: Study,
    folder: StudyFolder,
    population: Population,
    run: str,
    device: str = "auto",
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Outcome:
    """Train a population, evaluate its members, and add their results to the ledger.

    Only members that lack results are trained; where there is a checkpoint, the training goes on from it.

    Args:
        study: the study.
        folder: its folder.
        population: what to train.
        run: who works on it, see :meth:`StudyFolder.claim`.
        device: cpu, cuda, cuda:1 ... or auto.
        checkpoint_seconds: time between checkpoints.

    Returns:
        What became of it.

    Raises:
        UserError: the settings or the data are not valid.
        KeyboardInterrupt: it was interrupted; what it is resumed from is in the folder.
    """
    with folder.claim(population.id, run, (member.training for member in population.members)) as ours:
        if not ours:
            return Outcome(population.id, "busy")
        done = folder.ledger.members()
        missing = [member for member in population.members if not member.results <= done]
        if not missing:
            _finish(folder, population)
            return Outcome(population.id, "done")
        checkpoint = folder.checkpoint(population.id)
        notes = []

        def train(resume: bool) -> int:
            members = _members_of_checkpoint(checkpoint, population, missing) if resume else None
            if members is None:
                checkpoint.unlink(missing_ok=True)
                members = missing
                with write_atomically(_names_of(checkpoint)) as temporary:
                    temporary.write_text(
                        json.dumps([member.training for member in members]), encoding="utf-8"
                    )
            with quiet():
                return PopulationWork(
                    study, folder, population, members, _device(device), checkpoint_seconds
                ).run()

        try:
            added = train(resume=True)
        except _CannotBeResumed as error:
            aside = checkpoint.with_name("damaged.ckpt")
            os.replace(checkpoint, aside)
            notes.append(
                f"{population.title}: its checkpoint cannot be resumed from ({error}): set aside as {aside}, and"
                " trained anew"
            )
            added = train(resume=False)
        _finish(folder, population)
        return Outcome(population.id, "done", added, tuple(notes))


class _CannotBeResumed(Exception):
    """A checkpoint is damaged, or not what it should be."""


def _names_of(checkpoint: Path) -> Path:
    return checkpoint.with_name("trained.json")


def _members_of_checkpoint(
    checkpoint: Path, population: Population, missing: Sequence[PlannedMember]
) -> list[PlannedMember] | None:
    """Return the members that a checkpoint holds, if those that are missing are among them.

    Raises:
        _CannotBeResumed: the list of its members is damaged.
    """
    if not checkpoint.is_file():
        return None
    names_file = _names_of(checkpoint)
    try:
        names = json.loads(names_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _CannotBeResumed(f"{names_file.name} is damaged") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _CannotBeResumed(f"{names_file.name} is damaged")
    known = {member.training: member for member in population.members}
    if not {member.training for member in missing} <= set(names) or not set(names) <= set(known):
        return None
    return [known[name] for name in names]


def _in_one_line(error: BaseException, longest: int = 160) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= longest else f"{line[:longest]} ..."


def _finish(folder: StudyFolder, population: Population) -> None:
    checkpoint = folder.checkpoint(population.id)
    checkpoint.unlink(missing_ok=True)
    _names_of(checkpoint).unlink(missing_ok=True)
    progress = folder.progress(population.id)
    folder.write_progress(population.id, replace(progress, state="done", fraction=1.0, message=""))


def _device(name: str) -> torch.device:
    # Not choose_device: that a GPU is full, or gone, is no mistake of the user's; the population is begun again.
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


class PopulationWork:
    """One population's training and evaluation."""

    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        population: Population,
        members: Sequence[PlannedMember],
        device: torch.device,
        checkpoint_seconds: float,
    ) -> None:
        self.study, self.folder, self.population, self.members = study, folder, population, members
        self.device, self.checkpoint_seconds = device, checkpoint_seconds
        self.checkpoint = folder.checkpoint(population.id)
        before = folder.progress(population.id) if self.checkpoint.is_file() else Progress()
        self.progress = replace(
            before,
            state="training",
            epochs=study.settings.epochs,
            members=len(members),
            device=_name_device(device),
            message="",
        )
        self._began = time.monotonic()
        self._seconds_before = before.seconds
        self._noted = 0.0
        self._training_part = 1.0
        self.training = False

    def run(self) -> int:
        """Train what has no checkpoint, evaluate, and return how many results were added."""
        self.note(force=True)
        data = PopulationData.from_seeds(self.study.make_data, [member.data_seed for member in self.members])
        data.prepare_data()
        data.setup("fit")
        network = self._kept_network()
        if network is not None:
            self._training_part = 0.0
            return self._evaluate(network, data)
        spotter = self._spotter(data)
        self._training_part = self._part_of_training(data)
        self._train(spotter, data)
        if self.study.settings.keep_checkpoints:
            self._keep_checkpoints()
        return self._evaluate(spotter.network, data)

    def _kept_network(self) -> KeywordNetwork | None:
        """Return the members as their own checkpoints have them; ``None`` where not all have one that can be read."""
        if self.checkpoint.is_file() or not self.folder.keeps(self.members):
            return None
        try:
            spotters = [
                KeywordSpotter.from_checkpoint(self.folder.checkpoint_of_member(member.training))
                for member in self.members
            ]
        except UserError:
            return None
        return stack_networks([spotter.network for spotter in spotters])

    def _spotter(self, data: PopulationData) -> PopulationSpotter:
        first, training = self.members[0], self.study.settings.training
        return PopulationSpotter(
            [Member(member.seed, member.data_seed, dict(member.annealing)) for member in self.members],
            data.label_names,
            data.n_features,
            first.network,
            first.noise.training_noise(),
            self.study.make_optimizer(first.cell),
            **asdict(training),
        )

    def _part_of_training(self, data: PopulationData) -> float:
        """Return the part of all work that the training is: backward takes twice what forward does."""
        clips = len(data.data[0].train_dataloader()) * data.batch_size * self.study.settings.epochs
        data.setup(_stage(self.study))
        evaluated = self.members[0].n_passes * len(_loader(self.study, data)) * data.batch_size
        trained = 3 * clips * self.study.settings.training.passes
        return trained / (trained + evaluated)

    def _train(self, spotter: PopulationSpotter, data: PopulationData) -> None:
        on_gpu = self.device.type == "cuda"
        trainer = pl.Trainer(
            max_epochs=self.study.settings.epochs,
            accelerator="gpu" if on_gpu else "cpu",
            devices=[self.device.index or 0] if on_gpu else 1,
            logger=False,
            callbacks=[ProgressNote(self), ResumeCheckpoint(self)],
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(self.checkpoint.parent),
            plugins=[LightningEnvironment()],  # the study's engine is what starts processes, not Slurm
        )
        resumed = str(self.checkpoint) if self.checkpoint.is_file() else None
        if resumed is not None:
            try:
                check_resumable(
                    read_checkpoint(resumed),
                    resumed,
                    spotter.optimizer_callable,
                    spotter,
                    may_have_diverged=True,
                )
            except UserError as error:
                raise _CannotBeResumed(_in_one_line(error).removeprefix(f"{resumed}: ")) from error
        in_main_thread = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGINT) if in_main_thread else None
        try:
            trainer.fit(spotter, datamodule=data, ckpt_path=resumed, weights_only=True)
        except SystemExit:
            if not trainer.interrupted:
                raise
            raise KeyboardInterrupt from None
        except Exception as error:
            # Data and disk are no fault of the checkpoint's, and neither is anything once the training goes on.
            if resumed is None or self.training or ran_out_of_memory(error) or isinstance(error, OSError):
                raise
            raise _CannotBeResumed(_in_one_line(error)) from error
        finally:
            if in_main_thread:  # an interrupted trainer leaves none
                signal.signal(signal.SIGINT, handler)
        if trainer.interrupted:
            raise KeyboardInterrupt

    def _keep_checkpoints(self) -> None:
        for member, contents in zip(self.members, split_checkpoint(self.checkpoint), strict=True):
            write_checkpoint(contents, self.folder.checkpoint_of_member(member.training))

    def _evaluate(self, network: KeywordNetwork, data: PopulationData) -> int:
        split = self.study.settings.evaluation.split
        self.progress = replace(self.progress, state="evaluating", epoch=self.study.settings.epochs)
        network.to(self.device)
        data.setup(_stage(self.study))
        measured = self.members[0].measured  # the same for all members of a shape
        batches = len(_loader(self.study, data))
        total = self.members[0].n_passes * batches
        passed = 0

        def advance() -> None:
            nonlocal passed
            passed += 1
            self.note(fraction=self._training_part + (1 - self._training_part) * passed / total)

        added = 0
        shares = self._training_shares()
        for index, group in enumerate(measured):
            done = self.folder.ledger.members()
            of_members = [member.measured[index] for member in self.members]
            missing = [
                number
                for number, one in enumerate(group)
                if not {its[number].result for its in of_members} <= done
            ]
            if not missing:
                passed += group[0].n_passes * batches
                continue
            curves = evaluate_votes(
                network,
                data.batches(split, self.device),
                group[0].sweep,
                [group[number].votes for number in missing],
                [member.compensated(its[0]) for member, its in zip(self.members, of_members, strict=True)],
                progress=advance,
            )
            for number, (place, member) in itertools.product(missing, enumerate(self.members)):
                evaluation = of_members[place][number]
                if evaluation.result in done:
                    continue
                curve = curves[evaluation.votes][place]
                share = shares[member.training]
                rows = result_rows(self.study, member, evaluation, curve, data.data[0], share)
                self.folder.ledger.append(evaluation.result, rows)
                added += 1
        self.note(force=True, fraction=1.0)
        return added

    def _training_shares(self) -> dict[str, float]:
        """Return the seconds that each member's training took: of one that was kept, as its first results say."""
        if self._training_part:
            share = self.progress.train_seconds / len(self.members)
            return {member.training: share for member in self.members}
        known = self.folder.ledger.frame(["training", "train_seconds"]).groupby("training")["train_seconds"]
        before = known.first().to_dict()
        return {member.training: float(before.get(member.training, 0.0)) for member in self.members}

    def note(self, force: bool = False, **changes: Any) -> None:
        """Write down how far the work is, not more often than twice a second."""
        now = time.monotonic()
        self.progress = replace(self.progress, **changes)
        if force or now - self._noted >= 0.5:
            self._noted = now
            seconds = self._seconds_before + now - self._began
            self.progress = replace(self.progress, seconds=seconds)
            self.folder.write_progress(self.population.id, self.progress)

    @property
    def training_part(self) -> float:
        """Part of all work that the training is."""
        return self._training_part


def _stage(study: Study) -> str:
    return "test" if study.settings.evaluation.split == "test" else "validate"


def _loader(study: Study, data: PopulationData) -> Any:
    return data.test_dataloader() if study.settings.evaluation.split == "test" else data.val_dataloader()


def _name_device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def set_threads(threads: int) -> None:
    """Use so many threads of the CPU in this process."""
    if threads < 1:
        raise UserError(f"cpus_per_worker is {threads}: give 1 or more")
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


def data_size(study: Study, data: SequenceData) -> DataSize:
    """Return how much data there are; they have to be set up for training and for the evaluation's stage."""
    loader: Any = (
        data.test_dataloader() if study.settings.evaluation.split == "test" else data.val_dataloader()
    )
    training: Any = data.train_dataloader()
    return DataSize(
        n_train=_clips(training, data.batch_size),
        n_evaluated=_clips(loader, data.batch_size),
        n_frames=data.n_frames,
        n_features=data.n_features,
        batch_size=data.batch_size,
    )


def _clips(loader: Any, batch_size: int) -> int:
    sampler = getattr(loader, "sampler", None)
    return int(getattr(sampler, "n_clips", len(loader) * batch_size))
