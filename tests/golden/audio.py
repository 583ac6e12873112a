"""Golden values of the audio front ends, computed in float64 with numpy alone.

    pip install numpy safetensors
    python tests/golden/audio.py           # rewrites tests/golden/audio/<digit>.safetensors

For recordings of the set `allison` a file holds

    mfcc        [frames, 13]  as torchaudio.transforms.MFCC(sample_rate=8000, n_mfcc=13) has it: the recipe of `fsdd`
    htk         [frames, 20]  log-mel: windows of 25 ms every 10 ms, HTK's scale
    slaney      [frames, 40]  log-mel: windows of 32 ms every 8 ms, Slaney's scale, 50 to 3500 Hz, centred

The formulas are written out from the definitions; nothing of ringtape and no library of audio takes part.
"""

import wave
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
VOICE = HERE.parent.parent / "datasets" / "allison"


def samples(digit):
    with wave.open(str(VOICE / f"{digit}.wav")) as w:
        return np.frombuffer(w.readframes(w.getnframes()), "<i2").astype(np.float64) / 32768


def power(x, window, hop, centred):
    """|STFT|² of every frame under a periodic Hann window."""
    if centred:
        x = np.pad(x, window // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    starts = range(0, len(x) - window + 1, hop)
    return np.stack([np.abs(np.fft.rfft(x[s : s + window] * hann)) ** 2 for s in starts])


def htk(hz):
    return 2595 * np.log10(1 + hz / 700)


def htk_back(mel):
    return 700 * (10 ** (mel / 2595) - 1)


def slaney(hz):
    return np.where(hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4))


def slaney_back(mel):
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))


def bank(rate, window, mels, low, high, scale, back, unit_area):
    bins = np.arange(window // 2 + 1) * rate / window
    edges = back(np.linspace(scale(np.float64(low)), scale(np.float64(high)), mels + 2))
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rise = (bins[:, None] - left) / (middle - left)
    fall = (right - bins[:, None]) / (right - middle)
    weights = np.maximum(0, np.minimum(rise, fall))
    return weights * 2 / (right - left) if unit_area else weights


def mfcc(x):
    energies = power(x, 400, 200, True) @ bank(8000, 400, 128, 0, 4000, htk, htk_back, False)
    db = 10 * np.log10(np.maximum(energies, 1e-10))
    db = np.maximum(db, db.max() - 80)
    k, m = np.arange(13)[:, None], np.arange(128)[None]
    cosines = np.cos(np.pi / 128 * (m + 0.5) * k) * np.sqrt(2 / 128)
    cosines[0] /= np.sqrt(2)
    return db @ cosines.T


def log_mel(x, window, hop, centred, weights):
    return np.log(np.maximum(power(x, window, hop, centred) @ weights, 1e-10))


def main():
    (HERE / "audio").mkdir(exist_ok=True)
    for digit in (0, 3, 7):
        x = samples(digit)
        save_file(
            {
                "mfcc": np.ascontiguousarray(mfcc(x)),
                "htk": log_mel(x, 200, 80, False, bank(8000, 200, 20, 0, 4000, htk, htk_back, False)),
                "slaney": log_mel(x, 256, 64, True, bank(8000, 256, 40, 50, 3500, slaney, slaney_back, True)),
            },
            HERE / "audio" / f"{digit}.safetensors",
        )


if __name__ == "__main__":
    main()
