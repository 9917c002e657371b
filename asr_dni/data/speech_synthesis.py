"""Speech from the eSpeak NG library, made in a process of its own.

The library keeps its state (random numbers, phases of oscillators, timers of flutter) in static variables that
no call resets, so a word sounds a little different after other words. :func:`main` therefore speaks a fixed
block of speakers in a fresh process: the bytes depend on the block alone. It is run as a program, by the path of
this file, and imports nothing of its package, so that it starts quickly and the user's script needs no guard.
"""

import ctypes
import json
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_FASTEST = 450
"""Words per minute, the library's limit."""

SAMPLE_RATE = 16000
"""Of the clips, in Hz."""

CLIP_SAMPLES = 16000
"""Length of a clip in samples."""


class SpeechError(Exception):
    """The library is missing, broken or cannot say a word; one line."""


class Espeak:
    """The eSpeak NG library of the package ``espeakng-loader``; at most one per process.

    Raises:
        SpeechError: the library or its data cannot be loaded.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader

            library_path = espeakng_loader.get_library_path()
            data_path = espeakng_loader.get_data_path()
            self._library = ctypes.CDLL(library_path)
        except (ImportError, OSError, RuntimeError) as error:
            raise SpeechError(f"the eSpeak NG library cannot be loaded ({error})") from None
        library = self._library
        callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
        library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        library.espeak_SetSynthCallback.argtypes = [callback_type]
        library.espeak_SetSynthCallback.restype = None
        self.sample_rate: int = library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, str(data_path).encode(), _INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise SpeechError(f"the eSpeak NG library cannot use its data in {data_path}")
        # The library seeds the breath of some voices with the time of day.
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        library.espeak_ng_SetRandSeed(1)
        self._pieces: list[bytes] = []
        self._callback = callback_type(self._receive)  # kept: the library holds only its address
        library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: int | None, n_samples: int, _events: int | None) -> int:
        if samples and n_samples > 0:
            self._pieces.append(ctypes.string_at(samples, 2 * n_samples))
        return 0

    def set_voice(self, name: str) -> None:
        """Choose a voice, such as ``en-us+f3``: accent and variant.

        Raises:
            SpeechError: there is no such voice.
        """
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise SpeechError(f"the eSpeak NG library has no voice {name}")

    def say(self, text: str, rate: int, pitch: int, pitch_range: int) -> NDArray[np.float32]:
        """Speak a text.

        Args:
            text: what to say.
            rate: words per minute, 80 to 450.
            pitch: 0 to 100.
            pitch_range: 0 (monotone) to 100.

        Returns:
            ``(S,)`` samples in [-1, 1] at :attr:`sample_rate`.
        """
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces.clear()
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
        return np.frombuffer(b"".join(self._pieces), dtype=np.int16).astype(np.float32) / np.float32(32768)


def trim(samples: NDArray[np.float32], threshold_db: float = -40.0) -> NDArray[np.float32]:
    """Cut what is quieter than the loudest sample by the threshold off both ends; ``(S,)`` to ``(S',)``."""
    if not len(samples):
        return samples
    magnitudes = np.abs(samples)
    loud = np.flatnonzero(magnitudes > magnitudes.max() * 10 ** (threshold_db / 20))
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:0]


def coloured_noise(generator: np.random.Generator, n_samples: int, slope: float) -> NDArray[np.float32]:
    """Draw Gaussian noise of unit power whose power falls as ``frequency ** -slope``.

    Args:
        generator: where the randomness comes from.
        n_samples: length.
        slope: 0 for white, 1 for pink, 2 for brown noise; flat below 20 Hz.

    Returns:
        ``(n_samples,)`` float32.
    """
    spectrum = np.fft.rfft(generator.standard_normal(n_samples))
    frequencies = np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE)
    spectrum *= np.maximum(frequencies, 20.0) ** (-slope / 2)
    spectrum[0] = 0.0
    noise = np.fft.irfft(spectrum, n_samples)
    scaled: NDArray[np.float32] = (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)
    return scaled


def room_response(generator: np.random.Generator, rt60: float, direct_db: float) -> NDArray[np.float32]:
    """Draw a room's impulse response: the direct sound and an exponentially decaying noise tail.

    J. Moorer, "About this reverberation business", Computer Music Journal 3(2), 1979.

    Args:
        generator: where the randomness comes from.
        rt60: time in which the tail falls by 60 dB, in seconds.
        direct_db: power of the direct sound over that of the tail, in dB.

    Returns:
        ``(S,)`` float32 that begins with the direct sound, 1.
    """
    time = np.arange(1, int(rt60 * SAMPLE_RATE)) / SAMPLE_RATE
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    tail *= np.sqrt(10 ** (-direct_db / 10) / np.sum(tail**2))
    return np.concatenate(([1.0], tail)).astype(np.float32)


def _convolve(samples: NDArray[np.float32], response: NDArray[np.float32]) -> NDArray[np.float32]:
    n_fft = 1 << (len(samples) + len(response) - 2).bit_length()
    spectrum = np.fft.rfft(samples, n_fft) * np.fft.rfft(response, n_fft)
    convolved: NDArray[np.float32] = np.fft.irfft(spectrum, n_fft)[: len(samples)].astype(np.float32)
    return convolved


def speak_word(
    espeak: Espeak, word: str, speaker: dict[str, Any], generator: np.random.Generator
) -> NDArray[np.float32]:
    """Speak a word, trimmed and short enough for a clip.

    Args:
        espeak: the library, with the speaker's voice chosen.
        word: what to say.
        speaker: its ``rate``, ``pitch`` and ``range``, which vary a little from word to word.
        generator: where the variation comes from.

    Returns:
        ``(S,)`` samples at 16 kHz, at most 0.95 s.

    Raises:
        SpeechError: nothing can be heard.
    """
    text = word + str(generator.choice(np.array([".", "!", "?", ","])))
    rate = int(speaker["rate"] * generator.uniform(0.92, 1.08))
    pitch = int(np.clip(speaker["pitch"] + generator.integers(-5, 6), 0, 99))
    longest = int(0.95 * CLIP_SAMPLES)
    while True:
        spoken = espeak.say(text, rate, pitch, speaker["range"])
        samples = trim(soxr.resample(spoken, espeak.sample_rate, SAMPLE_RATE))
        if not len(samples):
            raise SpeechError(f"the eSpeak NG library is silent when it should say {word!r}")
        if len(samples) <= longest or rate >= _FASTEST:
            return samples[:longest]
        rate = min(_FASTEST, int(rate * len(samples) / longest) + 10)


def place_in_clip(
    spoken: NDArray[np.float32],
    response: NDArray[np.float32],
    speaker: dict[str, Any],
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Put a spoken word at a random place and level into a clip, in its speaker's room with its noise.

    Args:
        spoken: ``(S,)`` samples of the word.
        response: the room's impulse response.
        speaker: its ``snr_db`` (lowest and highest), ``noise_slope`` and ``tilt``.
        generator: where the randomness comes from.

    Returns:
        ``(CLIP_SAMPLES,)`` samples in [-1, 1].
    """
    clip = np.zeros(CLIP_SAMPLES, dtype=np.float32)
    offset = generator.integers(0, CLIP_SAMPLES - len(spoken) + 1)
    clip[offset : offset + len(spoken)] = spoken
    clip = _convolve(clip, response)
    # A microphone that favours low (positive) or high (negative) frequencies: one zero.
    clip[1:] += np.float32(speaker["tilt"]) * clip[:-1]
    speech_power = np.mean(clip[offset : offset + len(spoken)] ** 2)
    snr_db = generator.uniform(*speaker["snr_db"])
    noise = coloured_noise(generator, CLIP_SAMPLES, speaker["noise_slope"])
    clip += np.float32(np.sqrt(speech_power * 10 ** (-snr_db / 10))) * noise
    level_db = generator.uniform(-32.0, -14.0)
    clip *= np.float32(10 ** (level_db / 20) / np.sqrt(speech_power))
    return np.clip(clip, -1.0, 1.0)


def write_clip(path: Path, samples: NDArray[np.float32]) -> None:
    """Write ``(S,)`` samples in [-1, 1] as a 16-bit WAV file at 16 kHz."""
    integers = np.clip(np.round(samples * 32767), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:  # soundfile waits for the disk after each file
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(integers.tobytes())


def synthesize_block(block: dict[str, Any], report: Callable[[int], None]) -> None:
    """Write all clips of a block of speakers.

    Args:
        block: ``folder``, in which each word's folder exists; ``words``; ``takes``; ``seed``; and ``speakers``,
            each with ``id``, ``index``, ``voice``, ``rate``, ``pitch``, ``range``, ``rt60``, ``direct_db``,
            ``tilt``, ``snr_db`` and ``noise_slope``.
        report: called with the number of clips written after each speaker.
    """
    espeak = Espeak()
    folder = Path(block["folder"])
    for speaker in block["speakers"]:
        espeak.set_voice(speaker["voice"])
        room = np.random.default_rng([block["seed"], speaker["index"]])
        response = room_response(room, speaker["rt60"], speaker["direct_db"])
        for take in range(block["takes"]):
            for word in block["words"]:
                generator = np.random.default_rng([block["seed"], speaker["index"], take, *word.encode()])
                spoken = speak_word(espeak, word, speaker, generator)
                clip = place_in_clip(spoken, response, speaker, generator)
                write_clip(folder / word / f"{speaker['id']}_nohash_{take}.wav", clip)
        report(block["takes"] * len(block["words"]))


def main() -> int:
    """Read a block as JSON from standard input; write counts, or ``error`` and a line, to standard output."""
    try:
        synthesize_block(json.load(sys.stdin), lambda n_clips: print(n_clips, flush=True))
    except (SpeechError, OSError) as error:
        print("error", json.dumps(str(error)), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
