"""The code blocks of the documentation, and a folder in which they run as they stand.

The blocks of a page run from top to bottom in a copy of a small run. A program that needs what a test has not, such as
a cluster, is a stand-in: its call is noted and checked. `PARSED_ONLY` says which programs these are, and why.
"""

import contextlib
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import yaml

from elcrec import cli
from elcrec.config import load_config, merge
from elcrec.errors import UserError
from pipelines import cli as pipeline_cli

ROOT = Path(__file__).parents[2]
PAGES = [path for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "adr") for path in sorted(folder.glob("*.md"))]
PARSERS = {"elcrec": cli._parser, "elcrec-pipeline": pipeline_cli._parser}
LANGUAGES = {
    "bash": "commands: they run",
    "console": "commands after `$ ` and what they print: they run, and the first word of each shown line is printed",
    "python": "it runs; all blocks of a page are one program",
    "yaml": "parsed as what it configures; a first line `# NAME.yaml` puts it into that file",
    "json": "compared with the type that we send",
    "diff": "lines that are added to a file of ours, on a page of TESTED_ELSEWHERE",
    "text": "output or a drawing: nothing to run",
}
TESTED_ELSEWHERE = {"extending.md": "tests/unit/test_extending.py writes its files and trains with them"}
PARSED_ONLY = {
    "apt-get": "changes the system",
    "argocd": "needs a cluster",
    "docker": "tests/container builds and runs the images",
    "dvc repro": "tests/parity/test_dvc.py runs every stage",
    "elcrec events consume": "needs a broker; see tests/serving/test_stream_consumer.py",
    "elcrec fetch --set fetch.dataset=beauty": "is a download",
    "elcrec import-weights": "needs a published checkpoint; see tests/unit/stages/test_import_weights.py",
    "elcrec evaluate": "needs a published checkpoint; see tests/unit/stages/test_import_weights.py",
    "elcrec rollback": "needs two versions; see tests/unit/stages/test_rollback.py",
    "elcrec run": "has made the folder in which the blocks run",
    "elcrec serve": "never ends; one real server answers the requests of all pages",
    "elcrec train": "takes long; tests/unit/training trains in all these ways",
    "elcrec-pipeline run": "takes long; tests/parity/test_local_run.py runs the pipelines",
    "elcrec-pipeline schedule": "needs a cluster",
    "elcrec-pipeline status": "needs a cluster",
    "elcrec-pipeline submit": "needs a cluster",
    "feast serve_registry": "never ends",
    "feast ui": "never ends",
    "grep": "reads what a stand-in prints",
    "jq": "reads what a stand-in prints",
    "kubectl": "needs a cluster; tests/unit/deploy renders and checks the manifests",
    "less": "never ends",
    "make": "takes long; `make --dry-run` runs instead",
    "pip": "tests/parity/test_wheel.py installs the wheel",
    "python -c from mlflow": "needs a server of MLflow",
    "python -m benchmarks": "takes up to an hour",
    "python -m pytest": "takes long",
    "torchrun": "takes long; see tests/unit/training/test_distributed.py",
}
"""First words of the commands that are checked and not run, and why."""
RUN = ("cat", "cp", "curl", "dvc", "feast", "git", "ls", "mkdir", "mktemp", "mv", "openssl", "python", "rm", "touch")
"""Programs that run."""
_SECONDS = 300
_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
_MARK, _FAILED, _WORD, _CALL = "\x1c", "\x1d", "\x1f", "\x1e"
_PREAMBLE = f"""set -E
trap 'printf "{_FAILED}status %s of: %s{_FAILED}" $? "$BASH_COMMAND"' ERR
command_not_found_handle() {{ echo "$1: the documentation may not call it yet, see PARSED_ONLY"; return 127; }}
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str:
        """The file that the first line of a YAML block names, or nothing."""
        named = re.match(r"# (\S+\.yaml)\b", self.text)
        return named[1] if named else ""

    def commands(self) -> list[tuple[str, str]]:
        """Return the commands, each with the output that the page shows of it."""
        if self.language == "bash":
            return [(self.text, "")]
        found: list[tuple[str, str]] = []
        for line in self.text.splitlines(keepends=True):
            if found and not _is_whole(found[-1][0]):
                found[-1] = (found[-1][0] + line, "")
            elif line.startswith("$ "):
                found.append((line.removeprefix("$ "), ""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + line)
        return found


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page; those of a list lose its indentation."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, one.start()) + 1, one[2], re.sub(rf"(?m)^{one[1]}", "", one[3]))
        for one in re.finditer(r"(?ms)^( *)```([^\n]*)\n(.*?)^\1```$", text)
    ]


def locate(program: str) -> str | None:
    """Return where a program is: beside Python, or on this machine."""
    return shutil.which(program, path=_PATH)


def _is_whole(command: str) -> bool:
    done = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and not command.endswith("\\\n")


def _words(shown: str) -> list[str]:
    """Return what must be printed where a page shows this: the keys of JSON, else the first word of each line."""
    if shown.startswith("{"):
        return re.findall(r'"\w+":', shown)
    return re.findall(r"(?m)^ *([\w-]+)", shown)


class Folder:
    """A copy of a small run, with what a checkout has beside it, in which blocks run."""

    def __init__(self, path: Path, run: Path, port: int) -> None:
        self.path, self._port, self._calls = path, port, path / ".calls"
        shutil.copytree(run, path)
        for name in ("deploy", "features", "pipelines", "presets", ".dvc"):
            ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp")
            shutil.copytree(ROOT / name, path / name, ignore=ignored, dirs_exist_ok=True)
        for name in ("dvc.yaml", ".gitignore", "Dockerfile"):
            shutil.copy(ROOT / name, path / name)
        (path / "artifacts").symlink_to("runs/sample")
        (path / ".venv" / "bin").mkdir(parents=True)
        (path / ".venv" / "bin" / "activate").touch()
        self._add_programs(path / ".programs")
        (path / ".venv" / "bin" / "python").symlink_to(path / ".programs" / "python")
        user = ["-c", "user.name=Reader", "-c", "user.email=reader@example.org"]
        for arguments in (["init"], ["add", "params.yaml"], [*user, "commit", "--message", "A first commit"]):
            subprocess.run(["git", *arguments], cwd=path, check=True, capture_output=True)

    def _add_programs(self, folder: Path) -> None:
        """Write a script for each program: it notes the call, and then ends or calls the program."""
        folder.mkdir()
        modules = {"elcrec": "elcrec.cli", "elcrec-pipeline": "pipelines.cli"}
        for name in sorted({*RUN, *(words.split()[0] for words in PARSED_ONLY)}):
            real = locate(name)
            if name in modules:
                real = f"{sys.executable} -c 'import sys; from {modules[name]} import main; sys.exit(main())'"
            given = '"$@"'
            if name == "curl":
                given = f'--fail-with-body --no-progress-meter "${{@//localhost:8080/127.0.0.1:{self._port}}}"'
            cases = [f'"{words}"*' for words in PARSED_ONLY if words.split()[0] == name]
            # In one go, as the programs of a pipe note themselves at the same time.
            script = ["#!/bin/bash", f"call=$(printf '%s{_WORD}' {name} \"$@\")"]
            script += [f"printf '%s{_CALL}' \"$call\" >>'{self._calls}'"]
            script += [f'case "{name} $*" in {" | ".join(cases)}) exit ;; esac'] if cases else []
            script += [f"PATH='{_PATH}' exec {real} {given}"]
            (folder / name).write_text("\n".join(script) + "\n", encoding="utf-8")
            (folder / name).chmod(0o755)

    def write(self, block: Block) -> None:
        """Put a YAML block into the file that it names: over the parameters, or as a file of its own."""
        path, content = self.path / block.file, yaml.safe_load(block.text)
        before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(yaml.safe_dump(merge(before, content), sort_keys=False), encoding="utf-8")

    def run(self, block: Block) -> Iterator[str]:
        """Run a block of commands; yield what is wrong with it."""
        commands = block.commands()
        self._calls.write_text("", encoding="utf-8")
        script = "".join(f"printf '{_MARK}'\n{command}\n" for command, _ in commands)
        read = self._execute("/bin/bash", "-n", "-c", script)
        if read.returncode:
            yield f"bash could not read it: {read.stdout}"
            return
        printed = self._execute("/bin/bash", "-c", _PREAMBLE + script).stdout.split(_MARK)[1:]
        if len(printed) != len(commands):
            yield f"it ended early: {printed}"
            return
        for (command, shown), said in zip(commands, printed, strict=True):
            if _FAILED in said and ": error: " not in shown:
                yield said.replace(_FAILED, "\n")
            elif not command.startswith(tuple(PARSED_ONLY)):
                yield from (f"{word!r} was not printed: {said}" for word in _words(shown) if word not in said)
        for call in self._calls.read_text(encoding="utf-8").split(_CALL)[:-1]:
            program, *arguments = call.split(_WORD)[:-1]
            yield from (f"{program} {' '.join(arguments)}: {each}" for each in self._complaints(program, arguments))

    def run_python(self, program: str) -> Iterator[str]:
        """Run a program; yield its traceback where it fails."""
        done = self._execute(sys.executable, "-c", program)
        if done.returncode:
            yield done.stdout

    def _execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        variables = {**os.environ, "PATH": str(self.path / ".programs"), "EDITOR": "touch", "PYTHONOPTIMIZE": "1"}
        variables["ELCREC_FEATURES"] = str(self.path / "features")
        return subprocess.run(
            command,
            cwd=self.path,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_SECONDS,
        )

    def _complaints(self, program: str, arguments: Sequence[str]) -> Iterator[str]:
        """Yield what is wrong with a call, whether or not it was made."""
        checks: dict[str, Callable[[Sequence[str]], Iterator[str]]] = {
            "docker": self._of_docker,
            "elcrec": self._of_elcrec,
            "elcrec-pipeline": lambda given: complaints_of_parser("elcrec-pipeline", given),
            "kubectl": self._of_kubectl,
            "make": complaints_of_make,
            "python": _of_python,
            "torchrun": lambda given: self._of_elcrec(given[given.index("elcrec") + 1 :]),
        }
        if program in checks:
            yield from checks[program](arguments)

    def _of_elcrec(self, arguments: Sequence[str]) -> Iterator[str]:
        """Its parser must understand it, and there must be each parameter that it sets."""
        wrong = list(complaints_of_parser("elcrec", arguments))
        yield from wrong
        options = None if wrong else PARSERS["elcrec"]().parse_args(arguments)
        if "overrides" in vars(options or object):
            try:
                presets = [self.path / preset for preset in options.presets]
                load_config(self.path / options.params, presets=presets, overrides=options.overrides)
            except UserError as error:
                yield str(error)

    def _of_kubectl(self, arguments: Sequence[str]) -> Iterator[str]:
        named = _values(arguments, "-f", "-k", "kustomize")
        yield from (f"no {name}" for name in named if name != "-" and not (self.path / name).exists())

    def _of_docker(self, arguments: Sequence[str]) -> Iterator[str]:
        text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        given = [value.split("=")[0] for value in _values(arguments, "--build-arg")]
        yield from (f"no argument {name}" for name in given if not re.search(rf"(?m)^ARG {name}\b", text))
        targets = _values(arguments, "--target")
        yield from (f"no target {name}" for name in targets if not re.search(rf"(?m)^FROM .* AS {name}$", text))


def _values(arguments: Sequence[str], *options: str) -> list[str]:
    return [value for option, value in pairwise(arguments) if option in options]


def complaints_of_parser(program: str, arguments: Sequence[str]) -> Iterator[str]:
    """Yield what one of our programs says of arguments that it does not understand."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            PARSERS[program]().parse_args(arguments)
    except SystemExit as ended:
        if ended.code:
            yield said.getvalue()


def complaints_of_make(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what make says of a target that it does not have."""
    command = ["make", "--dry-run", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        yield done.stderr


def _of_python(arguments: Sequence[str]) -> Iterator[str]:
    match arguments:
        case ["-m", module, *_] if importlib.util.find_spec(module) is None:
            yield f"no module {module}"
        case ["-c", program, *_]:
            compile(program, "<documentation>", "exec")
