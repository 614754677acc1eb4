"""Submitting, scheduling and following runs, against a server that checks its requests."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from elcrec.errors import UserError
from pipelines.client import wait
from pipelines.server import Connection
from tests.support.kfp_server import Server, error, running
from tests.support.packages import elcrec_pipeline, load_package

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
VARIABLES = ("KF_PIPELINES_ENDPOINT", "KFP_ENDPOINT", "KFP_NAMESPACE", "KFP_EXISTING_TOKEN", "KUBERNETES_SERVICE_HOST")
MD5 = "0" * 32
LOGIN = (200, "text/html", "<!doctype html><title>Log in to Your Account</title>")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "training.yaml"
    options = ["--params", str(ROOT / "params.yaml"), "--store-claim", "elcrec-store"]
    assert elcrec_pipeline(["compile", "--output", str(path), *options]) == 0
    return path


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*VARIABLES, "KF_PIPELINES_SA_TOKEN_PATH", "KF_PIPELINES_UI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with running() as found:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", found.host)
        yield found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command; returns its exit status, output and error."""
    monkeypatch.chdir(ROOT)

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            code = elcrec_pipeline([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = stopped.code
        output, complaint = capsys.readouterr()
        return code, output, complaint.removeprefix("elcrec-pipeline: error: ").strip()

    return call


def task(name: str, state: str, start: str = "", end: str = "", **more: Any) -> dict[str, Any]:
    times = {key: f"2026-11-23T{time}Z" for key, time in {"start_time": start, "end_time": end}.items() if time}
    return {"task_id": f"id-{name}", "display_name": name, "state": state, **times, **more}


def run_of(state: str, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    spec = {"pipeline_spec": {"pipelineInfo": {"name": "elcrec-training"}}}
    details = {"task_details": [task("elcrec-training-x7k2p", state), task("root", state), *tasks]}
    return {
        "run_id": "r1",
        "display_name": "nightly",
        "state": state,
        "pipeline_spec": spec,
        "run_details": details,
    } | more


FAILED = run_of(
    "FAILED",
    task("fetch-driver", "SUCCEEDED", "10:00:00", "10:00:02"),
    task("fetch", "SUCCEEDED", "10:00:02", "10:00:10"),
    task("train", "FAILED", "10:00:12", "10:05:12", child_tasks=[{"pod_name": "elcrec-training-x7k2p-1"}]),
    task(
        "executor", "FAILED", pod_name="elcrec-training-x7k2p-1", error={"code": 13, "message": "OOMKilled (exit 137)"}
    ),
)


class TestSubmit:
    def test_the_package_its_platform_and_the_parameters_arrive(self, server: Server, package: Path, run: Run) -> None:
        given = ["--param", "dataset=beauty", "--param", 'overrides={"train": {"epochs": 5}}', "--name", "try"]
        code, out, err = run("submit", "--package", package, *given, "--service-account", "elcrec")
        assert code == 0, err
        (body,) = server.sent("POST", "runs")
        assert body["runtime_config"]["parameters"] == {"dataset": "beauty", "overrides": '{"train": {"epochs": 5}}'}
        assert (body["experiment_id"], body["display_name"], body["service_account"]) == ("e1", "try", "elcrec")
        documents = load_package(package)
        assert body["pipeline_spec"]["pipeline_spec"]["pipelineInfo"] == documents[0]["pipelineInfo"]
        assert body["pipeline_spec"]["platform_spec"] == documents[1]
        assert out == f"run r1\n{server.host}/#/runs/details/r1\n"

    def test_without_a_package_one_is_compiled(self, server: Server, run: Run) -> None:
        assert run("submit")[0] == 0
        (body,) = server.sent("POST", "runs")
        assert body["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "elcrec-training"
        assert body["display_name"].startswith("elcrec-training 20")

    def test_the_option_no_cache_reaches_every_task(self, server: Server, package: Path, run: Run) -> None:
        assert run("submit", "--package", package, "--no-cache")[0] == 0
        (body,) = server.sent("POST", "runs")
        spec = body["pipeline_spec"]["pipeline_spec"]
        dags = [part["dag"] for part in (spec["root"], *spec["components"].values()) if "dag" in part]
        tasks = {name: task for dag in dags for name, task in dag["tasks"].items()}
        assert "train" in tasks
        assert not any(task.get("cachingOptions", {}).get("enableCache") for task in tasks.values())

    def test_an_experiment_is_created_only_on_demand(self, server: Server, package: Path, run: Run) -> None:
        code, _, err = run("submit", "--package", package, "--experiment", "new")
        assert (code, server.sent("POST", "runs")) == (2, [])
        assert "no experiment new" in err
        assert "--create-experiment" in err
        assert run("submit", "--package", package, "--experiment", "new", "--create-experiment")[0] == 0
        assert server.sent("POST", "runs")[0]["experiment_id"] == "e2"

    @pytest.mark.parametrize(
        ("param", "message"),
        [
            ("datasets=beauty", "no parameter datasets; did you mean dataset?"),
            ("dataset=beuty", "'beuty' is not one of sample, file, beauty"),
            ("overrides={", "parameter overrides: not a JSON object"),
            ('overrides={"train": {"epoch": 5}}', "parameter train: Object contains unknown field `epoch`"),
            ('overrides={"train": {"epochs": 0}}', "train.epochs"),
            ("min_ndcg=2", "floors: ndcg@20 is 1 at most, so no model could reach 2"),
            ("dvc_path=log.txt", "dvc_path has no effect without dvc_repository"),
            (f"dvc_md5={MD5}", "dvc_md5 has no effect without dvc_repository"),
            ("dvc_revision=main", "dvc_revision has no effect without dvc_repository"),
            ("dvc_repository=r", "r: dvc_repository needs dvc_revision and dvc_path"),
            ("dvc_repository=r dvc_revision=main", "r: dvc_repository needs dvc_revision and dvc_path"),
            (f"dvc_repository=r dvc_path=p dvc_md5={MD5}", "r: dvc_repository needs dvc_revision and dvc_path"),
            ("dvc_repository=r dvc_revision=v1 dvc_path=p dvc_md5=abc", "parameter dvc_md5: 'abc' is not an md5"),
            ("epochs=5 epochs=6", "parameter epochs is given twice"),
        ],
    )
    def test_a_faulty_parameter_is_refused_before_anything_is_sent(
        self, server: Server, package: Path, run: Run, param: str, message: str
    ) -> None:
        names = re.findall(r"\S+=(?:\{.*\}|\S+)", param)
        code, _, err = run("submit", "--package", package, *(part for name in names for part in ("--param", name)))
        assert code == 2
        assert message in err
        assert "\n" not in err
        assert server.requests == []

    def test_an_error_about_a_parameter_names_the_pipeline_and_no_scratch_file_of_ours(
        self, server: Server, run: Run
    ) -> None:
        code, _, err = run("submit", "--param", "datasets=beauty")
        assert code == 2
        assert "elcrec-training: the pipeline has no parameter datasets; did you mean dataset?" in err
        assert server.requests == []

    @pytest.mark.parametrize(
        ("revision", "md5"), [("main", ""), ("v1", MD5), ("0" * 40, "")], ids=["branch", "tag and md5", "commit"]
    )
    def test_a_file_of_a_repository_is_taken_by_any_revision(
        self, server: Server, package: Path, run: Run, revision: str, md5: str
    ) -> None:
        given = {"dvc_repository": "r", "dvc_revision": revision, "dvc_path": "p"} | ({"dvc_md5": md5} if md5 else {})
        options = [part for name, value in given.items() for part in ("--param", f"{name}={value}")]
        assert run("submit", "--package", package, *options)[0] == 0
        assert server.sent("POST", "runs")[0]["runtime_config"]["parameters"] == given

    @pytest.mark.parametrize(
        ("param", "message"),
        [
            ("users=[1", "parameter users: not a JSON list of ids"),
            ("users=[1]", "parameter users: not a JSON list of ids"),
            ("k=0", "parameter k: 0 is not positive"),
        ],
    )
    def test_faulty_arguments_of_a_recommendation_run_are_refused_before_submission(
        self, server: Server, run: Run, param: str, message: str
    ) -> None:
        code, _, err = run("submit", "recommendation", "--param", param)
        assert (code, server.requests) == (2, [])
        assert err.startswith(message)

    def test_a_package_that_is_none_is_refused(self, server: Server, tmp_path: Path, run: Run) -> None:
        (tmp_path / "dvc.yaml").write_text("stages: {}", encoding="utf-8")
        code, _, err = run("submit", "--package", tmp_path / "dvc.yaml")
        assert (code, server.requests) == (2, [])
        assert "not a compiled pipeline" in err


class TestParameters:
    @pytest.fixture
    def typed(self, package: Path, tmp_path: Path) -> Path:
        """A package with parameters of every type."""
        spec = load_package(package)[0]
        kinds = {"share": "NUMBER_DOUBLE", "gpu": "BOOLEAN", "seeds": "LIST"}
        spec["root"]["inputDefinitions"]["parameters"] |= {
            name: {"parameterType": kind, "isOptional": True} for name, kind in kinds.items()
        }
        (tmp_path / "typed.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
        return tmp_path / "typed.yaml"

    @pytest.mark.parametrize(
        ("param", "value"),
        [("epochs=5", 5), ("share=0.5", 0.5), ("share=1", 1), ("gpu=true", True), ("seeds=[1, 2]", [1, 2])],
    )
    def test_text_becomes_what_the_pipeline_declares(
        self, server: Server, typed: Path, run: Run, param: str, value: object
    ) -> None:
        assert run("submit", "--package", typed, "--param", param)[0] == 0
        (body,) = server.sent("POST", "runs")
        assert list(body["runtime_config"]["parameters"].values()) == [value]

    @pytest.mark.parametrize("param", ["epochs=5.5", "epochs=true", "epochs=many", "share=true", "gpu=1", "seeds=1"])
    def test_a_column_of_another_type_is_refused(self, server: Server, typed: Path, run: Run, param: str) -> None:
        code, _, err = run("submit", "--package", typed, "--param", param)
        assert (code, server.requests) == (2, [])
        assert err.startswith(f"parameter {param.split('=', maxsplit=1)[0]}: ")

    def test_a_check_inside_an_exit_handler_is_found(self, server: Server, typed: Path, run: Run) -> None:
        code, _, err = run("submit", "--package", typed, "--param", "dataset=beuty")
        assert (code, server.requests) == (2, [])
        assert "beuty" in err


class TestSchedule:
    def test_a_cron_schedule_runs_one_at_a_time_and_catches_nothing_up(
        self, server: Server, package: Path, run: Run
    ) -> None:
        options = ["--name", "nightly", "--cron", "0 30 3 * * *", "--param", "dataset=beauty"]
        code, out, err = run("schedule", "--package", package, *options)
        assert code == 0, err
        (body,) = server.sent("POST", "recurringruns")
        assert body["trigger"] == {"cron_schedule": {"cron": "0 30 3 * * *"}}
        assert (body["max_concurrency"], body["no_catchup"], body["mode"]) == (1, True, "ENABLE")
        assert body["runtime_config"]["parameters"] == {"dataset": "beauty"}
        assert out == f"recurring run s1\n{server.host}/#/recurringrun/details/s1\n"

    @pytest.mark.parametrize("tag", ["2.16.0", "2.16.1"])
    def test_an_account_that_the_server_would_ignore_is_refused(
        self, server: Server, package: Path, run: Run, tag: str
    ) -> None:
        server.health = {"tag_name": tag, "multi_user": False}
        options = ["--name", "n", "--every", "1d", "--service-account", "elcrec"]
        code, _, err = run("schedule", "--package", package, *options)
        assert (code, server.recurring) == (2, [])
        assert err.startswith("--service-account elcrec, on 2.16: before Kubeflow Pipelines 2.17 a schedule's service")

    @pytest.mark.parametrize("tag", ["2.17.0", "master"])
    def test_the_service_account_is_sent_to_a_server_that_uses_it(
        self, server: Server, package: Path, run: Run, tag: str
    ) -> None:
        server.health = {"tag_name": tag, "multi_user": False}
        options = ["--name", "n", "--every", "1d", "--service-account", "elcrec"]
        assert run("schedule", "--package", package, *options)[0] == 0
        assert server.sent("POST", "recurringruns")[0]["service_account"] == "elcrec"

    def test_an_interval_is_sent_in_seconds(self, server: Server, package: Path, run: Run) -> None:
        assert run("schedule", "--package", package, "--name", "n", "--every", "12h", "--max-concurrency", 2)[0] == 0
        (body,) = server.sent("POST", "recurringruns")
        assert body["trigger"] == {"periodic_schedule": {"interval_second": 43200}}
        assert body["max_concurrency"] == 2

    def test_a_second_schedule_of_the_name_needs_replace(self, server: Server, package: Path, run: Run) -> None:
        command = ["schedule", "--package", package, "--name", "nightly", "--every", "1d"]
        assert run(*command)[0] == 0
        code, _, err = run(*command)
        assert (code, len(server.recurring)) == (2, 1)
        assert "the recurring run nightly exists (s1)" in err
        assert run(*command, "--replace")[0] == 0
        assert [r["recurring_run_id"] for r in server.recurring] == ["s2"]

    @pytest.mark.parametrize(
        "options",
        [("--cron", "30 3 * * *"), ("--every", "1w"), (), ("--cron", "@daily", "--every", "1d")],
        ids=["five fields", "unknown unit", "neither", "both"],
    )
    def test_a_faulty_time_is_refused_here(self, server: Server, package: Path, run: Run, options: tuple[str]) -> None:
        assert run("schedule", "--package", package, "--name", "n", *options)[0] == 2
        assert server.requests == []

    def test_what_the_server_refuses_is_one_line(self, server: Server, package: Path, run: Run) -> None:
        code, _, err = run("schedule", "--package", package, "--name", "n", "--every", "1d", "--max-concurrency", 11)
        assert code == 2
        assert err.endswith("400: Invalid input error: The max concurrency must be at least 1 and at most 10.")


class TestStatus:
    def test_it_lists_the_tasks_in_order_with_time_and_error(self, server: Server, run: Run) -> None:
        server.runs["r1"] = [FAILED]
        code, out, _ = run("status", "r1")
        assert code == 1
        fetch, train, outcome, link = (line.split() for line in out.splitlines())
        assert fetch == ["SUCCEEDED", "8", "s", "fetch"]
        assert train == ["FAILED", "300", "s", "train:", "OOMKilled", "(exit", "137)"]
        assert outcome == ["nightly:", "FAILED"]
        assert link == [f"{server.host}/#/runs/details/r1"]

    def test_the_error_of_a_failed_driver_is_shown_for_its_task(self, server: Server, run: Run) -> None:
        driver = task("train-driver", "FAILED", "10:00:00", "10:00:01", error={"message": "no such\ninput"})
        server.runs["r1"] = [run_of("FAILED", driver, task("train", "FAILED", "10:00:00", "10:00:01"))]
        assert "train: no such input" in run("status", "r1")[1]

    def test_a_running_run_is_not_a_failure(self, server: Server, run: Run) -> None:
        server.runs["r1"] = [run_of("RUNNING", task("fetch", "RUNNING", "10:00:00", end_time="0001-01-01T00:00:00Z"))]
        code, out, _ = run("status", "r1")
        assert code == 0
        assert "nightly: RUNNING" in out

    def test_links_lead_to_the_ui(self, server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example/pipeline")
        server.runs["r1"] = [FAILED]
        assert "https://kubeflow.example/pipeline/#/runs/details/r1" in run("status", "r1")[1]

    def test_an_unknown_run_is_one_line(self, server: Server, run: Run) -> None:
        code, _, err = run("status", "r9")
        assert (code, err) == (2, f"{server.host}: 404: ResourceNotFoundError: Run r9 not found")


class TestWait:
    def follow(self, server: Server) -> tuple[str, list[str]]:
        said: list[str] = []
        found = wait("r1", Connection(host=server.host), say=said.append, poll_seconds=0)
        return found.state, [" ".join(line.split()) for line in said]

    @pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"])
    def test_it_reports_every_change_once_until_the_end(self, server: Server, end: str) -> None:
        running = task("fetch", "RUNNING", "10:00:00", "10:00:04")
        done = task("fetch", end, "10:00:00", "10:00:08")
        server.runs["r1"] = [
            run_of("PENDING"),
            run_of("RUNNING", running),
            run_of("RUNNING", running),
            run_of(end, done),
        ]
        assert self.follow(server) == (end, ["RUNNING 4 s fetch", f"{end} 8 s fetch"])

    @pytest.mark.parametrize("away", [error(503, "upstream connect error"), LOGIN], ids=["503", "login page"])
    def test_a_server_that_is_briefly_unreachable_is_asked_again(self, server: Server, away: Any) -> None:
        server.runs["r1"] = [run_of("RUNNING"), away, run_of("SUCCEEDED")]
        state, said = self.follow(server)
        assert state == "SUCCEEDED"
        assert len(said) == 1
        assert said[0].endswith("; asking again")

    def test_a_server_that_stays_unreachable_ends_the_wait(self, server: Server) -> None:
        server.runs["r1"] = [run_of("RUNNING"), error(503, "upstream connect error")]
        with pytest.raises(UserError, match="503: upstream connect error"):
            self.follow(server)

    @pytest.mark.parametrize(("end", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 1)])
    def test_the_exit_status_is_the_runs(self, server: Server, package: Path, run: Run, end: str, code: int) -> None:
        server.runs["r1"] = [run_of(end, error={"message": "task train failed"} if code else None)]
        found, out, _ = run("submit", "--package", package, "--wait")
        assert found == code
        assert out.splitlines()[-2] == (f"nightly: {end}" + (": task train failed" if code else ""))


class TestConnection:
    def test_a_missing_address_is_reported_first(self, run: Run) -> None:
        code, _, err = run("status", "r1")
        assert code == 2
        assert "no address of a Kubeflow Pipelines server is set; give --host or set KF_PIPELINES_ENDPOINT" in err

    @pytest.mark.parametrize("host", ["ftp://foo", "https://", "http://[foo"])
    def test_an_address_of_another_kind_is_one_line(
        self, run: Run, recwarn: pytest.WarningsRecorder, host: str
    ) -> None:
        code, out, err = run("status", "r1", "--host", host)
        assert (code, out, recwarn.list) == (2, "", [])
        assert err.startswith(f"{host}: not the address of a Kubeflow Pipelines server; give one such as https://")
        assert "\n" not in err

    def test_a_server_that_does_not_listen_is_explained(self, run: Run) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            host = f"http://127.0.0.1:{closed.getsockname()[1]}"
            code, out, err = run("status", "r1", "--host", host)
        assert (code, out) == (2, "")
        assert err.startswith(f"{host}: no answer ([Errno 111] Connection refused); check the address")

    def test_plain_http_behind_https(self, server: Server, run: Run) -> None:
        code, _, err = run("status", "r1", "--host", server.host.removeprefix("http://"))
        assert code == 2
        assert err.startswith(server.host.replace("http:", "https:"))
        assert "SSL: WRONG_VERSION_NUMBER" in err

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (LOGIN, "a web page instead of Kubeflow Pipelines' API; a login page means that the token is missing"),
            ((404, "text/html", "<h1>Not Found</h1>"), "404: no Kubeflow Pipelines 2 API at this address"),
            ((200, "application/json", '{"status": "ok"}'), "instead of Kubeflow Pipelines' API"),
            ((403, "text/html", "RBAC: access denied"), "403: not allowed here"),
            (error(401, "no valid user identity"), "401: no token was sent; set KFP_EXISTING_TOKEN"),
            (error(500, "database is down"), "500: database is down"),
        ],
    )
    def test_an_answer_that_is_not_kfps_is_explained(self, server: Server, run: Run, answer: Any, message: str) -> None:
        server.broken = answer
        code, _, err = run("status", "r1")
        assert code == 2
        assert message in err
        assert "\n" not in err

    @pytest.mark.parametrize(
        ("health", "refused"),
        [
            ({"tag_name": "2.15.2", "multi_user": False}, True),
            ({"tag_name": "1.8.22", "multi_user": False}, True),
            ({"apiServerTagName": "2.5.0", "apiServerMultiUser": False}, True),
            ({"tag_name": "2.16.0", "multi_user": False}, False),
            ({"apiServerTagName": "3.0.1", "multi_user": False}, False),
            ({"tag_name": "master", "multi_user": False}, False),
            ({"multi_user": False}, False),
        ],
        ids=str,
    )
    def test_only_a_server_that_is_too_old_is_refused(
        self, server: Server, run: Run, health: dict[str, Any], refused: bool
    ) -> None:
        server.health, server.runs["r1"] = health, [FAILED]
        code, _, err = run("status", "r1")
        assert code == (2 if refused else 1)
        assert ("at least 2.16 is needed" in err) == refused

    def test_the_token_of_the_environment_is_sent(
        self, server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.token, server.runs["r1"] = "secret", [FAILED]
        monkeypatch.setenv("KFP_EXISTING_TOKEN", "old")
        assert "401: the token has expired" in run("status", "r1")[2]
        monkeypatch.setenv("KFP_EXISTING_TOKEN", "secret")
        assert run("status", "r1")[0] == 1

    def test_the_token_file_is_read_again_for_every_request(
        self, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        path = tmp_path / "token"
        path.write_text("first", encoding="utf-8")
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(path))
        server.token = "first"
        server.runs["r1"] = [run_of("RUNNING", task("fetch", "RUNNING")), run_of("SUCCEEDED")]

        def rotate(_: str) -> None:
            server.token = "second"
            path.write_text("second", encoding="utf-8")

        assert wait("r1", Connection.from_environment(), say=rotate, poll_seconds=0).succeeded

    def test_a_token_file_that_is_absent_is_named(
        self, server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", "/absent/token")
        assert run("status", "r1")[2] == "/absent/token: not readable, but needed for the connection"
        assert server.requests == []

    @pytest.mark.parametrize(
        ("several", "namespace", "message"),
        [
            (True, None, "several users, each with a namespace; give --namespace or set KFP_NAMESPACE"),
            (True, "absent", "403: not allowed namespace absent: PermissionDenied: User 'ann' is not authorized"),
            (False, "team", "a single user and no namespaces; leave out --namespace"),
        ],
    )
    def test_a_namespace_that_does_not_fit_is_explained(
        self, server: Server, package: Path, run: Run, several: bool, namespace: str | None, message: str
    ) -> None:
        server.health["multi_user"] = several
        options = ["--namespace", namespace] if namespace else []
        code, _, err = run("submit", "--package", package, *options)
        assert (code, server.sent("POST", "runs")) == (2, [])
        assert message in err

    def test_a_run_is_submitted_to_the_given_namespace(
        self, server: Server, package: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.health["multi_user"] = True
        monkeypatch.setenv("KFP_NAMESPACE", "team")
        assert run("submit", "--package", package)[0] == 0
        (listed,) = [r.query for r in server.requests if r.path.endswith("/experiments")]
        assert listed["namespace"] == "team"
