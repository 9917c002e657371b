"""What the data cost: decoding once, opening the store, and the part of a training step that is not the network.

    python benchmarks/data_costs.py FOLDER [--batches 100] [--threads 2]

FOLDER is in the layout of Speech Commands. The table gives medians; the machine should be otherwise idle. Where
it is not, --cpu-time --threads 1 counts the process's own seconds, and tells each part's best, which other processes
change the least.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table

from asr_dni.data import AugmentationSettings, Folder, KeywordData
from asr_dni.data.store import PackedStore, pack, usable_cores
from asr_dni.features import MFCC
from asr_dni.memory import keep_freed_memory
from asr_dni.model.network import KeywordNetwork, NetworkSettings
from asr_dni.noise import Noise

Result = TypeVar("Result")

PUBLISHED = AugmentationSettings(
    time_shift_ms=100,
    background_probability=0.8,
    background_volume=0.1,
    time_masks=2,
    frequency_masks=2,
)
EIGHT_WORDS = AugmentationSettings(
    time_shift_ms=100,
    speed=(0.909, 1.1),
    gain_db=(-6.0, 6.0),
    background_probability=0.8,
    background_volume=None,
    background_snr_db=(2.0, 40.0),
    time_masks=1,
    time_mask_frames=8,
)
"""As in conf/experiment/eight_words_lstm_dni.yaml."""

AUGMENTATIONS = {"published": PUBLISHED, "eight words": EIGHT_WORDS}
FRONT_END = {"n_mels": 40, "n_mfcc": 40, "window_ms": 40.0, "hop_ms": 20.0, "n_fft": 640, "padding": "center"}


clock = time.perf_counter


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = clock()
    result = work()
    return 1000 * (clock() - start), result


def measure_decoding(folder: Folder, cache: Path) -> tuple[int, dict[int, float], PackedStore]:
    """Return the number of clips and the seconds per number of threads; the files are in the system's cache."""
    clips, background = folder.clips(), folder.background()
    for path in [clip.path for clip in clips] + background:
        path.read_bytes()
    seconds = {}
    for threads in sorted({1, usable_cores(), 2 * usable_cores()}):
        milliseconds, store = timed(
            lambda threads=threads: pack(
                clips,
                background,
                identity=folder.identity,
                cache_dir=cache / str(threads),
                num_workers=threads,
            )
        )
        seconds[threads] = milliseconds / 1000
    return len(clips), seconds, store


def measure_steps(data: KeywordData, n_batches: int, noise: Noise | None) -> dict[str, list[float]]:
    """Time the parts of training steps one after the other, as the data module and a trainer go through them."""
    torch.manual_seed(0)
    network = KeywordNetwork(
        NetworkSettings("lstm", units=128, layers=2), data.n_features, len(data.label_names)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    if noise is not None:
        network.noise = noise
    loader = data.train_dataloader()
    background = data._background_on(torch.device("cpu"))
    times: dict[str, list[float]] = {name: [] for name in ("gather", "augment", "MFCC", "network")}

    def network_step(features: torch.Tensor, labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(features), labels).backward()
        optimizer.step()

    epoch = 0
    while len(times["network"]) < n_batches + 3:
        loader.sampler.set_epoch(epoch)
        iterator = iter(loader)
        for _ in range(len(loader)):
            gather, audio = timed(lambda iterator=iterator: next(iterator))
            if len(audio.labels) < data.batch_size or len(times["network"]) == n_batches + 3:
                break
            waveforms, ids = audio.waveforms, audio.clip_ids
            shift, waveforms = timed(
                lambda w=waveforms, i=ids, e=epoch: data.augment.waveforms(w, i, e, background)
            )
            with torch.no_grad():
                mfcc, features = timed(lambda w=waveforms: data.features(w))
            mask, features = timed(lambda f=features, i=ids, e=epoch: data.augment.features(f, i, e))
            step, _ = timed(lambda f=features, a=audio: network_step(f, a.labels))
            for name, value in zip(times, (gather, shift + mask, mfcc, step), strict=True):
                times[name].append(value)
        epoch += 1
    return {name: values[3:] for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="recordings in the layout of Speech Commands")
    parser.add_argument("--batches", type=int, default=100, help="training steps to time")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=None, help="torch's threads; all cores without it")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU seconds instead of wall-clock seconds"
    )
    arguments = parser.parse_args()
    summary = min if arguments.cpu_time else median
    global clock
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as the command asr-dni does
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        cache = Path(temporary)
        folder = Folder(arguments.folder)
        n_clips, seconds, store = measure_decoding(folder, cache)
        openings = [timed(lambda: PackedStore(store.path))[0] for _ in range(20)]

        def data(augmentation: AugmentationSettings) -> KeywordData:
            return KeywordData(
                folder,
                front_end=MFCC(**FRONT_END),
                augmentation=augmentation,
                cache_dir=cache / "1",
                batch_size=arguments.batch_size,
            )

        first, again = data(PUBLISHED), data(PUBLISHED)
        statistics, _ = timed(lambda: first.setup("fit"))
        setup, _ = timed(lambda: again.setup("fit"))

        once = Table("once", "time", title=f"{folder.identity}: {n_clips:,} clips, {usable_cores()} cores")
        for threads, value in seconds.items():
            once.add_row(f"decode, {threads} thread{'s' * (threads > 1)}", f"{value:.2f} s")
        once.add_row("open the store", f"{median(openings):.2f} ms")
        once.add_row("set up: list and check the files, open, statistics", f"{statistics:.0f} ms")
        once.add_row("set up again, statistics from the cache", f"{setup:.0f} ms")
        console.print(once)

        frames, batch, threads = again.n_frames, arguments.batch_size, torch.get_num_threads()
        for name, augmentation in AUGMENTATIONS.items():
            its = data(augmentation)
            its.setup("fit")
            title = f"a step of {batch} clips, LSTM 2 x 128, {frames} frames, {threads} threads, augmentation: {name}"
            steps = Table("part", "without noise", "DNI, sigma 1", title=title)
            measured = [measure_steps(its, arguments.batches, noise) for noise in (None, Noise(1.0))]
            columns = [{part: summary(times) for part, times in parts.items()} for parts in measured]
            for part in columns[0]:
                steps.add_row(part, *(f"{column[part]:.2f} ms" for column in columns))
            totals = [sum(column.values()) for column in columns]
            shares = [1 - column["network"] / total for column, total in zip(columns, totals, strict=True)]
            steps.add_row("not the network", *(f"{100 * share:.1f} %" for share in shares))
            console.print(steps)
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        console.print(f"load average at the end: {load:.1f}")


if __name__ == "__main__":
    main()
