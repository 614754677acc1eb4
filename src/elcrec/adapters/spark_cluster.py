"""The executors of a SparkApplication: the settings by a cluster's owner, and the resulting request."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from elcrec.adapters.train_nodes import NO_SIDECAR, POD_PRIVILEGES, PRIVILEGES, Owner, Toleration, set_fields
from elcrec.config import NonNegative, Positive, Section, is_bucket
from elcrec.errors import UserError

GROUP, VERSION, PLURAL = "sparkoperator.k8s.io", "v1beta2", "sparkapplications"
LABELS = {"app.kubernetes.io/name": "elcrec-spark"}
"""Label of the application and its pods; deploy/base/network.yaml uses it to restrict access."""
PORT = 15002
"""Port of Spark Connect."""
Memory = Annotated[str, Meta(pattern="^[1-9][0-9]*[kmgt]$")]


class SparkSettings(Section, frozen=True, kw_only=True):
    """What a cluster's owner decides about Spark."""

    executors: NonNegative = 0
    """Number of executors of a SparkApplication for validate and sequences if `engine.kind` is `spark`; 0 runs Spark in
    the step's pod, or on `engine.master`."""
    image: str = "elcrec-spark:0.1.0"
    """Image of these steps, of the driver and of the executors: the target `spark` of the Dockerfile."""
    home: str = "/opt/venv/lib/python3.11/site-packages/pyspark"
    """Folder of Spark in the image."""
    version: str = "4.3.0"
    """Version of Spark."""
    cores: Positive = 4
    """Cores of an executor."""
    memory: Memory = "16g"
    """Memory of an executor, in Spark's notation."""
    driver_cores: Positive = 1
    """Cores of the driver, which only plans."""
    driver_memory: Memory = "4g"
    """Memory of the driver."""
    service_account: str = "elcrec-spark"
    """Kubernetes service account of the driver, which creates the executors' pods."""
    configuration: dict[str, str] = msgspec.field(default_factory=dict)
    """Further settings of Spark, such as `spark.dynamicAllocation.enabled`."""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    """Labels of the application, such as Kueue's queue name, or a team."""
    bucket: str = ""
    """`s3://BUCKET/FOLDER` through which step, driver and executors hand each other tables; then they need no claim.
    All of them get the secrets of the step."""

    def __post_init__(self) -> None:
        """Refuse what is no bucket."""
        if self.bucket and not is_bucket(self.bucket):
            raise ValueError("bucket is s3://BUCKET/FOLDER")


class SparkCluster(SparkSettings, frozen=True, kw_only=True):
    """Place and resources of the application."""

    workspace_claim: str = ""
    """PersistentVolumeClaim that the step, the driver and every executor mount, unless they use a bucket; it must be
    ReadWriteMany unless all are on one machine."""
    workspace: str = "/workspace"
    """Path at which it is mounted, in all these pods."""
    secrets: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """Secret -> its keys that driver and executors get as environment variables."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that are tolerated on machines."""
    timeout_seconds: Positive = 3600
    """Longest time in seconds from the creation of the application until its driver runs."""
    owner: Owner | None = None
    """Pod with which the application is deleted; `None`: it stays until someone deletes it."""

    def __post_init__(self) -> None:
        """Refuse a cluster whose machines share nothing."""
        super().__post_init__()
        if not (self.bucket or self.workspace_claim):
            raise ValueError("executors need workspace_claim or bucket")


def parse_spark(text: str) -> SparkCluster:
    """Read the description of the cluster from JSON.

    Raises:
        UserError: a field is unknown or missing, or a value has the wrong type.
    """
    try:
        return msgspec.json.decode(text, type=SparkCluster)
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(f"{error}", where="spark", fix="see the fields in elcrec/adapters/spark_cluster.py") from error


def application(name: str, cluster: SparkCluster) -> dict[str, Any]:
    """Return the SparkApplication: a Spark Connect server, which runs until it is deleted."""
    metadata: dict[str, Any] = {"name": name, "labels": LABELS | cluster.labels}
    if cluster.owner is not None:
        metadata["ownerReferences"] = [cluster.owner.reference]
    driver = {"cores": cluster.driver_cores, "memory": cluster.driver_memory, "serviceAccount": cluster.service_account}
    executor = {"instances": cluster.executors, "cores": cluster.cores, "memory": cluster.memory}
    jar = f"local://{cluster.home}/jars/spark-connect_2.13-{cluster.version}.jar"
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "SparkApplication",
        "metadata": metadata,
        "spec": {
            "type": "Scala",
            "mode": "cluster",
            "sparkVersion": cluster.version,
            "image": cluster.image,
            "mainClass": "org.apache.spark.sql.connect.service.SparkConnectServer",
            "mainApplicationFile": jar,
            "sparkConf": {"spark.connect.grpc.binding.port": str(PORT), **_overhead(cluster), **cluster.configuration},
            # A new driver would not have the tables of the old one, so only the submission is retried.
            "restartPolicy": {
                "type": "OnFailure",
                "onFailureRetries": 0,
                "onFailureRetryInterval": 10,
                "onSubmissionFailureRetries": 3,
                "onSubmissionFailureRetryInterval": 10,
            },
            "driver": driver | _pod(cluster),
            "executor": executor | _pod(cluster),
        }
        | _volumes(cluster),
    }


def _overhead(cluster: SparkCluster) -> dict[str, str]:
    """Return what is left beside Java for the Python workers that read and write a bucket; Spark leaves a tenth."""
    sides = ("driver", "executor") if cluster.bucket else ()
    return {f"spark.{side}.memoryOverheadFactor": "0.4" for side in sides}


def _volumes(cluster: SparkCluster) -> dict[str, Any]:
    if cluster.bucket:
        return {}
    return {"volumes": [{"name": "workspace", "persistentVolumeClaim": {"claimName": cluster.workspace_claim}}]}


def _pod(cluster: SparkCluster) -> dict[str, Any]:
    optional = {
        "tolerations": [set_fields(toleration) for toleration in cluster.tolerations],
        "volumeMounts": [] if cluster.bucket else [{"name": "workspace", "mountPath": cluster.workspace}],
        "env": [
            {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}}
            for secret, keys in cluster.secrets.items()
            for key in keys
        ],
    }
    pod = {"labels": LABELS | NO_SIDECAR, "securityContext": PRIVILEGES, "podSecurityContext": POD_PRIVILEGES}
    return pod | {name: value for name, value in optional.items() if value}
