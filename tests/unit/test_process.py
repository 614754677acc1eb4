"""Importing a module changes nothing outside it; an entry point sets its process up once."""

import ast
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import components
import pipelines.cli
from elcrec import cli
from elcrec.custody import stage_output
from elcrec.process import ended_by_sigterm
from tests.support.imports import imports_at_import

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = {"elcrec": ROOT / "src" / "elcrec", "components": ROOT / "components", "pipelines": ROOT / "pipelines"}
OURS = (*PACKAGES, "benchmarks", "features")
VARIABLES = ("OMP_WAIT_POLICY", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")

IMPORT_ALL = """
import atexit, importlib, json, logging, os, signal, sys, warnings
third_party, ours = json.loads(sys.argv[1])

# What a library changes when it is imported is its own affair, so all of them are there before the first look.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in third_party:
        importlib.import_module(name)
import torch, typeguard

registered = []
register = atexit.register
atexit.register = lambda work, *a, **k: (registered.append(work), register(work, *a, **k))[1]

def state():
    loggers = {name: logging.getLogger(name) for name in logging.root.manager.loggerDict} | {"": logging.root}
    return {
        "environment": dict(os.environ),
        "levels": {name: logger.level for name, logger in loggers.items() if logger.level},
        "log handlers": {name: list(logger.handlers) for name, logger in loggers.items() if logger.handlers},
        "disabled logging": logging.root.manager.disable,
        "warning filters": list(warnings.filters),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "hooks": (sys.excepthook, list(sys.path), list(sys.meta_path), list(sys.path_hooks), os.getcwd()),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "typeguard": typeguard.typechecked,
        "oneDNN": (torch._C._get_mkldnn_enabled(), torch.backends.mkldnn.is_available()),
        "torch": (
            torch.get_num_threads(),
            torch.get_num_interop_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.benchmark,
        ),
        "exit handlers": list(registered),
    }

changed = []
before = state()
for name in ours:
    importlib.import_module(name)
    after = state()
    changed += [f"{name} changes {what}" for what in before if before[what] != after[what]]
    before = after
print(json.dumps(changed))
"""


def modules() -> dict[str, Path]:
    """Every module of ours by name; `__main__` is an entry point and runs when it is imported."""
    return {
        ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"): path
        for package, folder in PACKAGES.items()
        for path in sorted(folder.rglob("*.py"))
        if path.name != "__main__.py"
    }


def run(program: str, *arguments: str, **environment: str) -> str:
    """Run a program in a process of its own, without what the tests' process was set up with."""
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**inherited, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answer(program: str, **environment: str) -> Any:
    return json.loads(run(program, **environment))


def test_importing_a_module_changes_nothing() -> None:
    pytest.importorskip("pyspark", reason="the extra spark is not installed: make spark")
    ours = modules()
    names = {each.module for path in ours.values() for each in imports_at_import(path)}
    third_party = sorted(name for name in names if name.partition(".")[0] not in (*OURS, *sys.stdlib_module_names))
    assert {"torch", "feast.errors", "mlflow.artifacts", "kfp"} <= {*third_party}

    assert json.loads(run(IMPORT_ALL, json.dumps([third_party, list(ours)]))) == []


def test_the_first_call_sets_up_what_the_environment_leaves_open() -> None:
    program = (
        "import json, os, sys; from elcrec.process import set_up_process; set_up_process(); set_up_process();"
        f"print(json.dumps([[os.environ[name] for name in {VARIABLES}], len([f for f in sys.meta_path "
        "if type(f).__module__ == 'elcrec.process'])]))"
    )

    assert answer(program) == [["passive", "true", "false"], 1]
    assert answer(program, OMP_WAIT_POLICY="active") == [["active", "true", "false"], 1]


@pytest.mark.parametrize("program", ["set_up_process(); import torch", "import torch; set_up_process()"])
def test_torch_works_without_onednn_in_a_process_of_ours_alone(program: str) -> None:
    head, tail = "import json; from elcrec.process import set_up_process;", "; print(json.dumps(%s))"
    enabled = tail % "torch._C._get_mkldnn_enabled()"

    assert answer(f"{head} {program}{enabled}") is False
    assert answer(f"{head} import torch, elcrec.model.encoder{enabled}") is True


REWRITTEN = """
import json, typeguard
from typeguard import _decorators
{first}
checked, instrument, rewritten = typeguard.typechecked, _decorators.instrument, []
_decorators.instrument = lambda target: (rewritten.append(target), instrument(target))[1]
import elcrec.adapters.feast_store
print(json.dumps([len(rewritten), typeguard.typechecked is checked]))
"""


def test_feast_is_imported_as_it_is_and_typeguard_works_afterwards() -> None:
    functions, restored = answer(REWRITTEN.format(first="from elcrec.process import set_up_process; set_up_process()"))
    assert (functions, restored) == (0, True)

    functions, restored = answer(REWRITTEN.format(first=""))
    assert functions > 0, "typeguard is no longer what makes Feast slow to import"
    assert restored


@pytest.mark.parametrize(
    ("first", "loaded"), [("from elcrec.process import set_up_process; set_up_process()", False), ("", True)]
)
def test_the_feature_store_does_without_torch_and_torch_can_be_had_later(first: str, *, loaded: bool) -> None:
    program = f"{first}\nimport json, sys, elcrec.adapters.feast_store\nearly = 'torch' in sys.modules\nimport torch\n"

    assert answer(f"{program}print(json.dumps([early, torch.ones(2).sum().item()]))") == [loaded, 2.0]


def test_the_command_line_sets_itself_up_and_loads_no_library() -> None:
    program = (
        "import contextlib, json, os, sys; from elcrec.cli import main\n"
        "with contextlib.suppress(SystemExit), open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):\n"
        "    main(['--help'])\n"
        "heavy = {'torch', 'mlflow', 'feast', 'typeguard', 'pandas', 'numpy', 'pyarrow', 'duckdb', 'msgspec'}\n"
        "print(json.dumps([sorted(heavy & set(sys.modules)), os.environ.get('OMP_WAIT_POLICY')]))"
    )

    assert answer(program) == [[], "passive"]


def test_sigterm_clears_scratch_away_says_so_and_exits_with_143(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with ended_by_sigterm(), stage_output(tmp_path / "out") as scratch:
            (scratch / "half").touch()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    with pytest.raises(SystemExit) as ended:
        work()
    assert ended.value.code == 143
    assert "terminated" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_works_with_standard_streams_closed(tmp_path: Path, closed: str) -> None:
    command = f"{sys.executable} -m elcrec fetch --set fetch.synthetic.users=50 --out {tmp_path / 'raw'} {closed}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "raw" / "checksums.json").is_file()


@pytest.mark.parametrize("main", [cli.main, pipelines.cli.main], ids=lambda main: main.__module__)
def test_a_command_sets_its_process_up_first(main: Any) -> None:
    _, first, *_ = ast.parse(inspect.getsource(main)).body[0].body  # type: ignore[attr-defined]
    assert ast.unparse(first) == "set_up_process()"


@pytest.mark.parametrize("path", sorted(Path(components.__file__).parent.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_component_sets_its_process_up_before_it_imports_anything_else(path: Path) -> None:
    (body,) = (node.body for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    assert [ast.unparse(node) for node in body[1:3]] == [
        "from elcrec.process import set_up_process",
        "set_up_process()",
    ]
