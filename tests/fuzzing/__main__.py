"""Feed damaged models to graphprune in this process: `python -m fuzzing load|prune FOLDER FIRST COUNT`.

Ends with status 1 at the first case that is refused in any other way than by an error of ours in one line, that hangs,
or that leaves a file behind; a native crash ends the process by its signal. FOLDER keeps the case at hand.
"""

from __future__ import annotations

import faulthandler
import os
import random
import resource
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from fuzzing.damage import damage_bytes, damage_message, structural

SEEDS = (
    "mnist_cntk_8",
    "cifar10_winml_tutorial",
    "dnsmos_model_v8",
    "superres_subpixel_x3",
    "yunet_n_320",
    "mediapipe_face_detection_short",
    "text_angle_cls_ppocr",
)
SECONDS = 60
MEMORY = 8 << 30


class Hang(BaseException):
    """A case that took longer than its alarm."""


def ring(number: int, frame: FrameType | None) -> None:
    raise Hang


def case(number: int, files: list[tuple[bytes, list[int]]]) -> bytes:
    """Return the damaged file of this number."""
    rng = random.Random(number)
    content, offsets = rng.choice(files)
    other, _ = rng.choice(files)
    return rng.choice((damage_bytes, damage_message))(content, other, offsets, rng)


def attempt(mode: str) -> bool:
    """Try the case at hand; returns whether it opened. Anything but a refusal in one line escapes."""
    import graphprune
    from graphprune.frontends.onnx_file import load

    try:
        load("case.onnx")
    except graphprune.ModelError as error:
        check_line(error)
        return False
    if mode == "prune":
        try:
            graphprune.prune("case.onnx", output="slim.onnx", ratio=0.5)
            Path("slim.onnx").unlink()
        except graphprune.GraphpruneError as error:
            check_line(error)
    return True


def check_line(error: Exception) -> None:
    """Check that a message is one printable line of bounded length."""
    if not str(error).isprintable() or not 0 < len(str(error)) < 1000:
        raise AssertionError(f"not one line: {error}") from error


def main(mode: str, folder: str, first: int, count: int) -> int:
    """Run cases from number `first` on: `count` of them, or in mode `prune` until `count` have opened."""
    os.chdir(folder)
    faulthandler.enable()
    signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    corpus = Path(os.environ["GRAPHPRUNE_CORPUS"], "onnx")
    contents = [(corpus / f"{name}.onnx").read_bytes() for name in SEEDS]
    files = [(content, structural(content)) for content in contents]
    number, opened = first, 0
    while (opened if mode == "prune" else number - first) < count:
        Path("case.onnx").write_bytes(case(number, files))
        Path("number").write_text(str(number))
        faulthandler.dump_traceback_later(SECONDS + 10, exit=True)
        signal.alarm(SECONDS)
        try:
            opened += attempt(mode)
        except (Exception, Hang):
            sys.stdout.write(f"case {number}: {traceback.format_exc()}")
            return 1
        finally:
            signal.alarm(0)
        left = sorted(path.name for path in Path().iterdir() if path.name not in ("case.onnx", "number"))
        if left:
            sys.stdout.write(f"case {number} left {left} behind\n")
            return 1
        number += 1
    sys.stdout.write(f"{opened} of {number - first} opened\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
