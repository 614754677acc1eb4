"""A container engine, started by the tests or already running."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT.parent / "shared" / "tools" / "container-engine"


def docker(*arguments: str) -> str:
    """Run `docker`; return what it printed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def start_engine(patch: pytest.MonkeyPatch) -> list[str]:
    """Make an engine reachable; return the command that builds an image with it."""
    if TOOL.is_file() and os.geteuid() == 0 and shutil.which("apt-get"):
        started = subprocess.run([TOOL, "up"], capture_output=True, text=True, check=False)
        if started.returncode == 0:
            patch.setenv("DOCKER_HOST", started.stdout.split("DOCKER_HOST=")[1].strip())
            return [str(TOOL), "build"]
    info = subprocess.run(["docker", "info"], capture_output=True, check=False) if shutil.which("docker") else None
    if info is not None and info.returncode == 0:
        return ["docker", "build"]
    pytest.skip("no container engine: neither a running Docker nor ../shared/tools/container-engine")


def build_image(build: list[str], tag: str, target: str, *options: str) -> None:
    """Build a target of this checkout's Dockerfile."""
    command = [*build, "--target", target, *options, "--tag", tag, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
