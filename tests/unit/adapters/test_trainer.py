"""TrainJobs through Kubeflow's SDK against a Kubernetes API whose pods are real processes."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api import models
from safetensors.numpy import load_file

from elcrec.adapters import train_job
from elcrec.adapters.train_job import run_job
from elcrec.adapters.train_nodes import LABELS, Nodes, Owner, parse_nodes
from elcrec.adapters.trainer import command, train_in_processes, train_on_nodes
from elcrec.artifacts import read_json
from elcrec.config import TrainConfig
from elcrec.errors import LostWorkError, UserError
from elcrec.training.checkpoint import FILE
from tests.support.checkpoints import epochs_in
from tests.support.kubernetes_api import Cluster, running
from tests.support.raw_log import write_sequences
from tests.unit.training.helpers import tiny_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
NAME = "elcrec-test"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    monkeypatch.setattr("elcrec.adapters.kubernetes_api.POLL_SECONDS", 0.2)
    with running(tmp_path / "cluster") as found:
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(found.kubeconfig))
        yield found


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="elcrec")
    return caplog


def nodes(workspace: Path | str = "/workspace", **changes: Any) -> Nodes:
    return Nodes(image="registry.example/elcrec:1", workspace_claim="workspace", workspace=str(workspace), **changes)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


class TestRequest:
    def create(self, cluster: Cluster, **changes: Any) -> dict[str, Any]:
        """The body of the request for a job that ends at once."""
        run_job(NAME, python("pass"), nodes(**changes))
        return cluster.created[0]

    def pod(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the request patches into the pod of a node."""
        patch = body["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]
        return patch["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]

    def test_the_request_equals_what_the_sdks_models_read_of_it(self, cluster: Cluster) -> None:
        body = self.create(cluster, num_nodes=1, timeout_seconds=3600)
        job = models.TrainerV1alpha1TrainJob.from_dict(body)
        assert job.to_dict() == body
        assert (job.api_version, job.kind, job.metadata.name) == ("trainer.kubeflow.org/v1alpha1", "TrainJob", NAME)
        assert (job.spec.runtime_ref.kind, job.spec.runtime_ref.name) == ("ClusterTrainingRuntime", "torch-distributed")
        assert job.spec.active_deadline_seconds == 3600
        assert (job.spec.trainer.image, job.spec.trainer.num_nodes) == ("registry.example/elcrec:1", 1)
        assert (job.spec.trainer.command, job.spec.trainer.args) == ([sys.executable], ["-c", "pass"])

    def test_every_field_of_the_platform_reaches_the_package(self, cluster: Cluster) -> None:
        given = {
            "num_nodes": 2,
            "resources": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"},
            "environment": {"NCCL_DEBUG": "INFO"},
            "node_selector": {"gpu": "a100"},
            "tolerations": [{"key": "gpu", "effect": "NoSchedule"}],
            "service_account": "trainer",
            "shared_memory": "8Gi",
            "workspace": "/mnt",
        }
        text = json.dumps({"image": "i", "workspace_claim": "claim", **given})
        run_job(NAME, python("pass"), parse_nodes(text))
        spec = cluster.created[0]["spec"]
        trainer, patch = spec["trainer"], spec["runtimePatches"][0]
        assert trainer["numNodes"] == 2
        assert trainer["resourcesPerNode"] == {"requests": given["resources"], "limits": given["resources"]}
        assert trainer["env"] == [{"name": "NCCL_DEBUG", "value": "INFO"}]
        (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        pod = self.pod(cluster.created[0])
        (container,) = pod["containers"]
        assert (node["name"], container["name"]) == ("node", "node")
        assert pod["nodeSelector"] == {"gpu": "a100"}
        assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
        assert pod["serviceAccountName"] == "trainer"
        assert {"name": "workspace", "persistentVolumeClaim": {"claimName": "claim"}} in pod["volumes"]
        assert {"name": "workspace", "mountPath": "/mnt"} in container["volumeMounts"]
        assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in pod["volumes"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]

    def test_the_nodes_have_the_account_that_is_deployed_for_them(self, cluster: Cluster) -> None:
        assert self.pod(self.create(cluster))["serviceAccountName"] == "elcrec-trainer"

    def test_without_shared_memory_the_containers_own_stays(self, cluster: Cluster) -> None:
        pod = self.pod(self.create(cluster, shared_memory=None))
        assert [volume["name"] for volume in pod["volumes"]] == ["workspace"]
        assert [mount["name"] for mount in pod["containers"][0]["volumeMounts"]] == ["workspace"]

    def test_the_pods_have_no_privileges(self, cluster: Cluster) -> None:
        pod = self.pod(self.create(cluster))
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        context = pod["containers"][0]["securityContext"]
        assert context == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

    def test_the_job_has_the_labels_of_the_platform_beside_ours(self, cluster: Cluster) -> None:
        body = self.create(cluster, labels={"kueue.x-k8s.io/queue-name": "gpu", "team": "recommendations"})
        assert body["metadata"]["labels"] == LABELS | {"kueue.x-k8s.io/queue-name": "gpu", "team": "recommendations"}

    def test_no_proxy_is_injected_into_a_node(self, cluster: Cluster) -> None:
        patch = self.create(cluster)["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]
        template = patch["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
        assert template["metadata"] == {"labels": {"sidecar.istio.io/inject": "false"}}

    def test_the_job_is_deleted_with_the_pod_of_its_step(self, cluster: Cluster) -> None:
        self.create(cluster, owner=Owner(name="elcrec-training-abc-1", uid="5a1b"))
        pod = {"apiVersion": "v1", "kind": "Pod", "name": "elcrec-training-abc-1", "uid": "5a1b"}
        assert cluster.owners == {NAME: [pod]}

    def test_without_permission_to_own_the_job_it_trains_and_warns(
        self, cluster: Cluster, log: pytest.LogCaptureFixture
    ) -> None:
        cluster.forbidden = ("PATCH", NAME)
        self.create(cluster, owner=Owner(name="p", uid="u"))
        assert any(message.endswith("not deleted with its run: Forbidden") for message in log.messages)

    def test_a_runtime_of_the_namespace_will_do(self, cluster: Cluster) -> None:
        cluster.runtimes = {"ours": cluster.runtimes["torch-distributed"]}
        with pytest.raises(UserError, match=r"torch-distributed.*check that Kubeflow Trainer 2.2 or later"):
            self.create(cluster)
        assert cluster.created == []

    def test_torchrun_gets_the_processes_of_a_node_only_if_they_are_set(self) -> None:
        plain = command(nodes(), Path("/workspace/run/nodes"), Path("/workspace/run"))
        assert plain[:4] == ["torchrun", "-m", "elcrec", "train"]
        four = command(nodes(processes_per_node=4), Path("/workspace/run/nodes"), Path("/workspace/run"))
        assert four == ["torchrun", "--nproc-per-node", "4", *plain[1:]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "i"}', "missing required field `workspace_claim`"),
        ('{"image": "i", "workspace_claim": "c", "nodes": 2}', "unknown field `nodes`"),
        ('{"image": "i", "workspace_claim": "c", "num_nodes": 0}', "num_nodes"),
        ('{"image": "i", "workspace_claim": "c", "environment": {"PET_NNODES": "2"}}', "PET_NNODES is set by the"),
        ("image", "nodes: JSON is malformed"),
    ],
)
def test_a_faulty_platform_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_nodes(text)


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    log = {f"u{user}": [(user + step) % 10 for step in range(6)] for user in range(40)}
    return write_sequences(log, tmp_path / "data")


@pytest.fixture
def config() -> TrainConfig:
    return tiny_config(epochs=2)


class TestProcesses:
    def test_what_training_refuses_is_its_own_line_and_the_exit_status(
        self, config: TrainConfig, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        given = {"checkpoint": tmp_path / "checkpoint", "processes": 2}
        with pytest.raises(UserError, match=r"torchrun: .*split.json: no such file.*\(exit status 1\)") as raised:
            train_in_processes(config, tmp_path / "empty", tmp_path / "model", **given)
        assert "split.json" in raised.value.details
        assert not (tmp_path / "model").exists()

    def test_sigterm_ends_torchrun_and_its_processes(
        self, sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = (
            "from pathlib import Path\n"
            "from elcrec.adapters.trainer import train_in_processes\n"
            "from tests.unit.training.helpers import tiny_config\n"
            f"train_in_processes(tiny_config(epochs=100000, patience=100000), Path({str(sequences)!r}), Path('model'),"
            " checkpoint=Path('checkpoint'), processes=2)"
        )
        environment = os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}"}
        process = subprocess.Popen(python(program), env=environment, cwd=tmp_path, start_new_session=True)
        while not list(tmp_path.glob("checkpoint/*")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


class TestTraining:
    @pytest.mark.parametrize(("count", "processes"), [(1, 2), (2, 1)])
    def test_the_model_of_two_ranks_is_returned(
        self,
        cluster: Cluster,
        sequences: Path,
        config: TrainConfig,
        tmp_path: Path,
        log: pytest.LogCaptureFixture,
        count: int,
        processes: int,
    ) -> None:
        cluster.processes_per_node = processes
        workspace, out = tmp_path / "workspace", tmp_path / "model"
        given = nodes(workspace, num_nodes=count)
        metrics = train_on_nodes(config, sequences, out, checkpoint=workspace / "run", nodes=given)
        assert len(load_file(out / "model.safetensors")) > 0
        facts = read_json(out / "config.json")
        assert metrics["epochs"] == facts["epochs"] == 2
        assert metrics["valid_ndcg@20"] == facts["valid"]["ndcg@20"]
        trainer = cluster.created[0]["spec"]["trainer"]
        assert trainer["command"] == ["torchrun"]
        assert trainer["args"][:3] == ["-m", "elcrec", "train"]
        assert sum("epoch 2/2" in message for message in log.messages) == 1, "the first node's log is copied once"
        assert cluster.jobs == {}
        assert list((workspace / "run").iterdir()) == [], "nothing stays on the volume"

    def test_after_a_killed_launcher_the_next_attempt_goes_on_from_the_third_epoch_or_later(
        self, cluster: Cluster, sequences: Path, tmp_path: Path, log: pytest.LogCaptureFixture
    ) -> None:
        train_job.import_sdk()  # it takes seconds, in which the nodes would finish
        epochs, workspace, out = 400, tmp_path / "workspace", tmp_path / "model"
        program = (
            "from pathlib import Path\n"
            "from elcrec.adapters.train_nodes import Nodes\n"
            "from elcrec.adapters.trainer import train_on_nodes\n"
            "from tests.unit.training.helpers import tiny_config\n"
            f"nodes = Nodes(image='i', workspace_claim='c', workspace={str(workspace)!r}, num_nodes=1)\n"
            f"config = tiny_config(epochs={epochs}, patience={epochs})\n"
            f"train_on_nodes(config, Path({str(sequences)!r}), Path({str(out)!r}),"
            f" checkpoint=Path({str(workspace / 'run')!r}), nodes=nodes)"
        )
        paths = {"KUBECONFIG": str(cluster.kubeconfig), "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
        launcher = subprocess.Popen(python(program), env=os.environ | paths, cwd=tmp_path)
        while epochs_in(workspace / "run" / FILE) < 3:
            assert launcher.poll() is None
            time.sleep(0.02)
        launcher.kill()
        launcher.wait()
        config, given = tiny_config(epochs=epochs, patience=epochs), nodes(workspace, num_nodes=1)
        metrics = train_on_nodes(config, sequences, out, checkpoint=workspace / "run", nodes=given)
        (resumed,) = [int(found[1]) for m in log.messages if (found := re.search(r"resuming after epoch (\d+)", m))]
        assert 3 <= resumed < epochs
        assert metrics["epochs"] == epochs
        assert (len(cluster.created), len(cluster.deleted)) == (2, 2), "the first job was not left to run beside"

    def test_errors_of_training_are_reported_as_one_line(
        self, cluster: Cluster, config: TrainConfig, tmp_path: Path
    ) -> None:
        empty, workspace = tmp_path / "empty", tmp_path / "workspace"
        empty.mkdir()
        given = nodes(workspace, num_nodes=1)
        with pytest.raises(UserError, match=r"TrainJob team/elcrec-[0-9a-f]{12}: .*split.json: no such file") as raised:
            train_on_nodes(config, empty, tmp_path / "model", checkpoint=workspace / "run", nodes=given)
        assert not isinstance(raised.value, LostWorkError), "trying it again would not help"
        assert "node-0: Failed" in raised.value.details
        assert not (tmp_path / "model").exists()

    def test_the_checkpoint_must_be_on_the_shared_volume(self, config: TrainConfig, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="not on the volume that the nodes share; choose a folder below /workspace"):
            train_on_nodes(config, tmp_path, tmp_path / "m", checkpoint=tmp_path / "c", nodes=nodes())

    def test_nodes_that_leave_no_model_are_an_error(
        self, cluster: Cluster, sequences: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("elcrec.adapters.trainer.command", lambda *_: python("pass"))
        workspace = tmp_path / "workspace"
        with pytest.raises(UserError, match="left no model here; check that every node mounts the same claim"):
            train_on_nodes(config, sequences, tmp_path / "m", checkpoint=workspace / "run", nodes=nodes(workspace))


class TestJob:
    def test_a_failed_job_reports_the_end_of_every_log_and_stays(
        self, cluster: Cluster, log: pytest.LogCaptureFixture
    ) -> None:
        program = "import os; rank = os.environ['PET_NODE_RANK']; print('hello from', rank); exit(int(rank))"
        with pytest.raises(LostWorkError, match=f"training failed; kubectl -n team describe trainjob {NAME}") as raised:
            run_job(NAME, python(program), nodes())
        details = raised.value.details.splitlines()
        assert {"node-0: Succeeded", "node-1: Failed", "node-0 | hello from 0", "node-1 | hello from 1"} <= set(details)
        assert (list(cluster.jobs), cluster.deleted) == ([NAME], [])
        assert "hello from 0" in log.messages

    def test_a_job_that_takes_too_long_is_deleted(self, cluster: Cluster) -> None:
        with pytest.raises(LostWorkError, match="not finished after 1 s, and deleted"):
            run_job(NAME, python("import time; time.sleep(600)"), nodes(timeout_seconds=1))
        assert (cluster.jobs, cluster.deleted) == ({}, [NAME])

    def test_pods_without_a_machine_say_why(self, cluster: Cluster) -> None:
        cluster.pending = True
        with pytest.raises(UserError) as raised:
            run_job(NAME, python("pass"), nodes(timeout_seconds=1))
        assert "FailedScheduling: 0/3 nodes are available: insufficient nvidia.com/gpu" in raised.value.details

    def test_a_broken_log_connection_loses_and_repeats_no_line(
        self, cluster: Cluster, log: pytest.LogCaptureFixture
    ) -> None:
        cluster.break_log_after = 2
        run_job(NAME, python("import time\nfor i in range(8): print('line', i); time.sleep(0.1)"), nodes(num_nodes=1))
        assert [m for m in log.messages if m.startswith("line")] == [f"line {i}" for i in range(8)]

    def test_the_job_of_an_earlier_attempt_is_removed_first(
        self, cluster: Cluster, log: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(UserError, match="training failed"):
            run_job(NAME, python("exit(1)"), nodes())
        cluster.lingering = 3
        run_job(NAME, python("print('second')"), nodes())
        assert (len(cluster.created), cluster.deleted) == (2, [NAME, NAME])
        assert "second" in log.messages

    def test_a_deleted_job_ends_the_wait(self, cluster: Cluster) -> None:
        cluster.vanishing = True
        with pytest.raises(UserError, match=r"Failed to get TrainJob: team/elcrec-test: .* not found"):
            run_job(NAME, python("import time; time.sleep(600)"), nodes())

    def test_a_missing_permission_is_named(self, cluster: Cluster) -> None:
        cluster.forbidden = ("POST", "trainjobs")
        with pytest.raises(UserError, match=r"trainjobs is forbidden.*give this pod's service account the role"):
            run_job(NAME, python("pass"), nodes())

    def test_events_may_be_forbidden(self, cluster: Cluster) -> None:
        cluster.forbidden = ("GET", "events")
        with pytest.raises(UserError, match="training failed"):
            run_job(NAME, python("exit(1)"), nodes())

    def test_without_a_cluster_the_error_says_what_to_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "absent"))
        with pytest.raises(UserError, match=r"no Kubernetes cluster for a TrainJob.*or set KUBECONFIG"):
            run_job(NAME, python("pass"), nodes())

    def test_sigterm_deletes_the_job(self, cluster: Cluster, tmp_path: Path) -> None:
        program = (
            "from elcrec.adapters.train_job import run_job\n"
            "from elcrec.adapters.train_nodes import Nodes\n"
            f"run_job({NAME!r}, ['sleep', '600'], Nodes(image='i', workspace_claim='c'))"
        )
        environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "PYTHONPATH": f"{ROOT}/src"}
        process = subprocess.Popen(python(program), env=environment, cwd=tmp_path)
        while NAME not in cluster.jobs:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
        assert (cluster.jobs, cluster.deleted) == ({}, [NAME])


def test_the_parameters_that_the_nodes_read_are_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elcrec.adapters import trainer  # noqa: PLC0415
    from elcrec.config import EncoderConfig, SequencesConfig, load_config  # noqa: PLC0415

    (tmp_path / "sequences").mkdir()
    (tmp_path / "nodes").mkdir()
    config = tiny_config(objective="iclrec", encoder=EncoderConfig(window=SequencesConfig().history + 1))
    trainer._hand_over(config, tmp_path / "sequences", None, tmp_path / "nodes")
    assert load_config(tmp_path / "nodes" / "params.yaml").train == config
    written = yaml.safe_load((tmp_path / "nodes" / "params.yaml").read_text(encoding="utf-8"))
    assert list(written) == ["sequences", "train"]
