"""Feed damaged models to graphprune in this process: `python -m fuzzing load|prune FOLDER FIRST COUNT`.

Ends with status 1 at the first case that raises anything but a GraphpruneError, hangs, writes to the terminal or leaves
a file behind; a native crash ends the process by its signal. FOLDER keeps the case at hand.
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
SECONDS = 20
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


def run(mode: str) -> bool:
    """Run the case at hand; returns whether it was accepted. Anything but the expected refusal escapes."""
    import graphprune
    from graphprune.frontends.onnx_file import load

    if mode == "load":
        load("case.onnx")
    else:
        graphprune.prune("case.onnx", output="slim.onnx", ratio=0.5)
        Path("slim.onnx").unlink(missing_ok=True)
    return True


def main(mode: str, folder: str, first: int, count: int) -> int:
    """Run the cases `first` to `first + count - 1`; returns the exit status."""
    from graphprune.errors import GraphpruneError, ModelError

    expected = ModelError if mode == "load" else GraphpruneError
    os.chdir(folder)
    faulthandler.enable()
    signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    corpus = Path(os.environ["GRAPHPRUNE_CORPUS"], "onnx")
    contents = [(corpus / f"{name}.onnx").read_bytes() for name in SEEDS]
    files = [(content, structural(content)) for content in contents]
    accepted = 0
    for number in range(first, first + count):
        Path("case.onnx").write_bytes(case(number, files))
        Path("number").write_text(str(number))
        faulthandler.dump_traceback_later(SECONDS + 10, exit=True)
        signal.alarm(SECONDS)
        trouble = ""
        try:
            accepted += run(mode)
        except expected as error:
            if len(str(error)) > 1000 or not str(error).isprintable():
                trouble = f"the message is not one line: {error}"
        except (Exception, Hang):
            trouble = traceback.format_exc()
        finally:
            signal.alarm(0)
        left = sorted(path.name for path in Path().iterdir() if path.name not in ("case.onnx", "number"))
        trouble = trouble or (f"left {left} behind" if left else "")
        if trouble:
            sys.stdout.write(f"case {number}: {trouble}\n")
            return 1
    sys.stdout.write(f"{accepted} of {count} accepted\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
