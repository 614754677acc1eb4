"""Reading the progress of a running training from outside, and killing it at a given epoch."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from safetensors import SafetensorError, safe_open

from elcrec.training.checkpoint import FILE


def epochs_in(checkpoint: Path) -> int:
    """Return how many epochs a checkpoint holds; 0 where there is none, or no longer."""
    try:
        with safe_open(checkpoint, framework="np") as file:
            return int(json.loads(file.metadata()["progress"])["epoch"])
    except (OSError, SafetensorError):
        return 0


@contextmanager
def killing_a_training(checkpoints: Path, *, epochs: int, kill: Callable[[], bool]) -> Iterator[Event]:
    """Call `kill`, until it says that it did, once a checkpoint in the folder holds so many epochs; yield whether."""
    killed, done = Event(), Event()

    def hunt() -> None:
        while not done.is_set() and not killed.is_set():
            if any(epochs_in(checkpoint) >= epochs for checkpoint in checkpoints.rglob(FILE)) and kill():
                killed.set()
            time.sleep(0.02)

    hunter = Thread(target=hunt, daemon=True)
    hunter.start()
    yield killed
    done.set()
    hunter.join()
