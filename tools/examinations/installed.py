"""
What is installed: the packages, FFmpeg, and whether a video comes back from them as it was.

Nothing heavy is imported at the top: that torch cannot be imported is a finding too.
"""
import importlib
import importlib.metadata
import platform
import re
import shutil
import tempfile
from argparse import Namespace
from pathlib import Path

from tools.examinations.findings import Finding, Findings, numbers

ROOT = Path(__file__).parents[2]
TOGETHER = ("pip install --upgrade torch torchvision torchcodec, "
            "in one command and from one index")
MISFIT = f"its version does not fit torch's: {TOGETHER}"
FFMPEG = "apt-get install ffmpeg, conda install ffmpeg, or brew install ffmpeg"


# --- 1. packages: without them nothing else can be looked at --------------------------------------
def packages(options: Namespace) -> Findings:
    """Those of pyproject.toml are there, new enough and can be imported.

    mote itself need not be installed.
    """
    good = [f"Python {platform.python_version()}"]
    for name, least in [*required(), ("torchvision", ""), ("tqdm", "")]:
        try:
            version = importlib.metadata.version(name)
            # The package open_clip_torch is the module open_clip; all others share one name.
            importlib.import_module(name.removesuffix("_torch"))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(False, f"{name} is not installed", "pip install -e .")
        # A library that does not load may raise anything: OSError, RuntimeError, ImportError.
        except Exception as error:
            yield Finding(False, *explain(name, error, MISFIT))
        else:
            good.append(f"{name} {version}")
            if numbers(version) < numbers(least):
                yield Finding(False, f"{name} {version} is older than {least}",
                              f'pip install --upgrade "{name}>={least}"')
    yield Finding(True, ", ".join(good))


def required() -> list[tuple[str, str]]:
    """(name, least version or "") of pyproject's dependencies. Python 3.10 cannot read TOML."""
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[(.*?)\]", text, re.M | re.S)[1]
    return re.findall(r'"([\w-]+)(?:>=([\d.]+))?"', listed)


def explain(name: str, error: Exception, advice: str) -> tuple[str, str]:
    """What was found where something raised, and what to do.

    torchcodec's message holds a traceback for each FFmpeg that it has tried to load. The libraries
    of FFmpegs that are not installed are missing in any case: what else is missing is the reason.
    """
    message = str(error)
    if "libtorchcodec" not in message:
        lines = message.strip().splitlines() or [type(error).__name__]
        return f"{name}: {lines[0][:300]}", advice

    lines = re.findall(r"\S.*(?:undefined symbol|cannot open shared object|Library not loaded).*",
                       message)
    of_ffmpeg = re.compile(r"\blib(av|sw)\w+\.|undefined symbol: (av|sw)")
    others = [line for line in lines if not of_ffmpeg.search(line)]
    if others:
        return f"torchcodec does not load: {others[0]}", MISFIT

    last = lines[-1] if lines else ""
    found = f"torchcodec finds no FFmpeg libraries ({last})"
    if shutil.which("ffmpeg"):
        found += "; the ffmpeg program alone is not enough"
    return found, FFMPEG


# --- 2. FFmpeg ------------------------------------------------------------------------------------
def ffmpeg(options: Namespace) -> Findings:
    """What torchcodec has loaded.

    Since its version 0.16, importing it says nothing where there is no FFmpeg: it must decode.
    """
    import torchcodec.decoders
    try:
        torchcodec.decoders.VideoDecoder(b"no video")
    except Exception as error:       # of the bytes, which are no video, or of the libraries
        if "libtorchcodec" in str(error):
            raise
    version = torchcodec.ffmpeg_major_version
    yield Finding(True, f"torchcodec has loaded FFmpeg {version}'s libraries")

    program = shutil.which("ffmpeg")
    yield Finding(program is not None, f"the ffmpeg program: {program or 'none'}",
                  f"only tools/prepare.py needs it: {FFMPEG}", "warn")


def generated(options: Namespace) -> Findings:
    """A clip, written as toyworld's are, comes back whole and in order."""
    import numpy as np
    from torchcodec.encoders import VideoEncoder

    from mote.data import decode
    from mote.toyworld import make_clip

    clip = make_clip("star", "red", "moving left", (0,))
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/clip.mp4"
        encoder = VideoEncoder(clip, frame_rate=12)
        encoder.to_file(file, codec="libx264", crf=18, preset="veryfast")
        frames = decode(file, np.arange)

    # How far each decoded frame is from each encoded one: (decoded, encoded).
    apart = (frames.float()[:, None] - clip.float()).abs().mean((2, 3, 4))
    # Lossy, so frames are not equal: each must be nearest to the one in its own place.
    in_order = apart.argmin(1).tolist() == list(range(len(clip)))
    mean = float(apart.amin(1).mean())
    order = "in order" if in_order else "not in order"
    yield Finding(in_order and mean < 16,
                  f"a generated video: {len(frames)} of {len(clip)} frames decoded, {order}, "
                  f"mean error {mean:.1f} of 255", f"another FFmpeg: {FFMPEG}")
