"""SparkApplications through a Kubernetes API with an operator that has the states of the real one."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from elcrec.adapters.spark_application import on_shared_volume, spark_connect
from elcrec.adapters.spark_cluster import LABELS, PORT, SparkCluster, application, parse_spark
from elcrec.adapters.train_nodes import Owner, Toleration
from elcrec.errors import LostWorkError, UserError
from tests.support.spark_operator import SCHEMA, Operator, operating

ADDRESS = f"sc://127.0.0.1:{PORT}"


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    monkeypatch.setattr("elcrec.adapters.kubernetes_api.POLL_SECONDS", 0.01)
    with operating(tmp_path) as found:
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(found.kubeconfig))
        yield found


def cluster(**changes: Any) -> SparkCluster:
    return SparkCluster(**{"executors": 2, "workspace_claim": "workspace", **changes})


def fail(
    operator: Operator,
    caplog: pytest.LogCaptureFixture,
    state: str,
    error: str = "Spark cannot go on (connection refused)",
) -> None:
    """A stage that fails once its application has come to a state; `gone` is none that an operator knows."""
    caplog.set_level(logging.INFO)
    with spark_connect("run/validate", cluster()):
        while "a job has begun" not in caplog.messages:  # the log is followed beside the stage
            time.sleep(0.01)
        operator.states = [state]
        if state == "gone":
            operator.applications.clear()
        raise UserError(error)


def start(key: str, **changes: Any) -> None:
    """A stage that needs nothing but a running application."""
    with spark_connect(key, cluster(**changes)):
        pass


def test_the_request_satisfies_the_schema_of_the_crd_whatever_is_set() -> None:
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    full = cluster(
        owner=Owner(name="p", uid="u"),
        tolerations=(Toleration(key="k", value="v", effect="NoSchedule"),),
        labels={"kueue.x-k8s.io/queue-name": "batch"},
        configuration={"spark.sql.shuffle.partitions": "400"},
    )
    for one in (cluster(), full):
        jsonschema.Draft202012Validator(schema).validate(application("name", one))
    unknown = application("name", full)
    unknown["spec"]["executor"]["instance"] = 3
    with pytest.raises(jsonschema.ValidationError, match="'instance' was unexpected"):
        jsonschema.Draft202012Validator(schema).validate(unknown)


def test_every_setting_reaches_the_request() -> None:
    asked = cluster(
        executors=7,
        cores=3,
        memory="9g",
        driver_cores=2,
        driver_memory="5g",
        image="i",
        version="4.3.1",
        home="/spark",
        service_account="s",
        configuration={"a": "b"},
        labels={"team": "r"},
        workspace="/mnt",
        tolerations=(Toleration(key="k"),),
        owner=Owner(name="p", uid="u"),
    )
    body = application("name", asked)
    spec, driver, executor = body["spec"], body["spec"]["driver"], body["spec"]["executor"]
    assert (executor["instances"], executor["cores"], executor["memory"]) == (7, 3, "9g")
    assert (driver["cores"], driver["memory"], driver["serviceAccount"]) == (2, "5g", "s")
    assert (spec["image"], spec["sparkVersion"]) == ("i", "4.3.1")
    assert spec["mainApplicationFile"] == "local:///spark/jars/spark-connect_2.13-4.3.1.jar"
    assert spec["sparkConf"] == {"spark.connect.grpc.binding.port": str(PORT), "a": "b"}
    assert spec["volumes"] == [{"name": "workspace", "persistentVolumeClaim": {"claimName": "workspace"}}]
    assert body["metadata"]["labels"] == LABELS | {"team": "r"}
    assert body["metadata"]["ownerReferences"][0]["uid"] == "u"
    for pod in (driver, executor):
        assert pod["volumeMounts"] == [{"name": "workspace", "mountPath": "/mnt"}]
        assert pod["tolerations"] == [{"key": "k", "operator": "Exists"}]
        assert pod["podSecurityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert pod["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_with_a_bucket_pods_mount_no_volume_and_get_its_keys(operator: Operator) -> None:
    asked = SparkCluster(executors=2, bucket="s3://b/tables", secrets={"s3": ["AWS_ACCESS_KEY_ID"]})
    with spark_connect("run/validate", asked):
        (created,) = operator.created  # whose schema the operator has checked
    key = {"name": "s3", "key": "AWS_ACCESS_KEY_ID", "optional": True}
    assert "volumes" not in created["spec"]
    assert created["spec"]["sparkConf"]["spark.executor.memoryOverheadFactor"] == "0.4"
    for pod in (created["spec"]["driver"], created["spec"]["executor"]):
        assert "volumeMounts" not in pod
        assert pod["env"] == [{"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": key}}]


@pytest.mark.parametrize(
    "text", ["{}", '{"workspace_claim": "c", "executers": 2}', '{"bucket": "/mnt"}', '{"bucket": "s3://"}', "no json"]
)
def test_a_description_that_breaks_the_schema_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^spark: .*see the fields in"):
        parse_spark(text)


def test_a_server_lasts_as_long_as_the_block_and_its_log_is_ours(
    operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="elcrec")
    with spark_connect("run/validate", cluster()) as address:
        assert address == ADDRESS
        assert len(operator.applications) == 1
    assert operator.applications == {}
    assert [line for line in caplog.messages if line in {"the server listens", "a job has begun"}] == [
        "the server listens",
        "a job has begun",
    ]


def test_a_submission_that_is_tried_again_and_a_queue_are_waited_for(operator: Operator) -> None:
    operator.states = ["", "SUSPENDED", "SUBMITTED", "SUBMISSION_FAILED", "PENDING_RERUN", "SUBMITTED", "RUNNING"]
    with spark_connect("run/validate", cluster()) as address:
        assert address == ADDRESS


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("FAILED", "its driver ended .state FAILED: driver container failed with ExitCode: 137, Reason: OOMKilled"),
        ("FAILING", "its driver ended .state FAILING"),
        ("PENDING_RERUN", "its driver ended .state PENDING_RERUN"),
        ("SUSPENDED", "its driver ended .state SUSPENDED"),
    ],
)
def test_a_driver_that_died_or_was_preempted_is_lost_work_and_stays_to_be_looked_at(
    operator: Operator, caplog: pytest.LogCaptureFixture, state: str, said: str
) -> None:
    operator.message = "driver container failed with ExitCode: 137, Reason: OOMKilled"
    with pytest.raises(LostWorkError, match=said) as raised:
        fail(operator, caplog, state)
    assert "driver | a job has begun" in raised.value.details
    assert "FailedScheduling: 0/3 nodes are available: insufficient memory" in raised.value.details
    assert operator.deleted == []


def test_a_deleted_application_is_lost_work(operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(LostWorkError, match="the application was deleted"):
        fail(operator, caplog, "gone")


def test_an_error_of_the_stage_is_reported_and_the_application_is_deleted(
    operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match="the log is empty") as raised:
        fail(operator, caplog, "RUNNING", "the log is empty")
    assert not isinstance(raised.value, LostWorkError)
    assert len(operator.deleted) == 1


def test_a_failed_submission_is_a_mistake_and_a_driver_that_never_ran_is_lost_work(operator: Operator) -> None:
    operator.message = "failed to run spark-submit: no service account elcrec-spark"
    operator.states, operator.submitted = ["SUBMISSION_FAILED", "FAILED"], False
    with pytest.raises(UserError, match="no service account elcrec-spark") as raised:
        start("a")
    assert not isinstance(raised.value, LostWorkError)
    operator.states, operator.submitted = ["SUBMITTED", "FAILED"], True
    with pytest.raises(LostWorkError):
        start("b")


def test_a_driver_without_a_machine_is_given_up_with_a_reason(operator: Operator) -> None:
    operator.states = ["SUBMITTED"]
    with pytest.raises(LostWorkError, match="is not running after 1 s") as raised:
        start("a", timeout_seconds=1)
    assert "insufficient memory" in raised.value.details
    assert len(operator.deleted) == 1


def test_the_application_of_an_earlier_attempt_is_removed_first(
    operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(LostWorkError):
        fail(operator, caplog, "FAILED")
    operator.states = ["", "RUNNING"]
    start("run/validate")
    assert len({body["metadata"]["name"] for body in operator.created}) == 1
    assert (len(operator.created), len(operator.deleted)) == (2, 2)


def test_a_missing_permission_is_named(operator: Operator) -> None:
    operator.forbidden = "POST"
    with pytest.raises(UserError, match=r"is forbidden.*give this pod's service account the role"):
        start("a")


def test_without_a_cluster_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="no Kubernetes cluster for a SparkApplication"):
        start("a")


def test_inputs_are_copied_to_the_shared_volume_and_removed(tmp_path: Path) -> None:
    given = tmp_path / "raw"
    given.mkdir()
    (given / "data.csv").write_text("a\n")
    shared = cluster(workspace=str(tmp_path / "workspace"))
    with on_shared_volume(given, shared, "key") as (copy, work):
        assert (copy / "data.csv").read_text() == "a\n"
        assert copy.is_relative_to(shared.workspace)
        assert work.is_relative_to(shared.workspace)
    assert list((tmp_path / "workspace" / "spark").iterdir()) == []


@pytest.mark.parametrize(
    ("workspace", "reason"), [("a file", "Not a directory"), ("workspace", "No such file or directory")]
)
def test_an_input_that_cannot_be_copied_says_what_to_mount(workspace: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    given = tmp_path / "raw"
    given.mkdir()
    (given / "data.csv").symlink_to(tmp_path / "absent")
    shared = cluster(workspace=str(tmp_path / workspace))
    with (
        pytest.raises(UserError, match=rf"cannot be copied there .*{reason}.*mount claims\.workspace"),
        on_shared_volume(given, shared, "key"),
    ):
        pass


def test_an_error_of_the_stage_is_not_taken_for_one_of_the_shared_volume(tmp_path: Path) -> None:
    given = tmp_path / "raw"
    given.mkdir()
    with (
        pytest.raises(FileNotFoundError, match="another file"),
        on_shared_volume(given, cluster(workspace=str(tmp_path / "workspace")), "key"),
    ):
        raise FileNotFoundError(2, "No such file or directory", "another file")
    assert list((tmp_path / "workspace" / "spark").iterdir()) == []
