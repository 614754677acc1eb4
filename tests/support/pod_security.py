"""The Pod Security Standard `restricted`, rule by rule, and our further requirements for pods.

Source: the Kubernetes documentation, "Pod Security Standards", `baseline` and `restricted`, for Linux pods.
"""

from collections.abc import Callable, Iterator
from typing import Any

Node = dict[str, Any]

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_PROBES = {"startupProbe", "readinessProbe", "livenessProbe"}


def pods(node: Any) -> Iterator[Node]:
    """Yield every pod specification of a document: whatever holds containers."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for value in node.values():
            yield from pods(value)
    elif isinstance(node, list):
        for item in node:
            yield from pods(item)


def violations(pod: Node) -> list[str]:
    """Return the names of the rules that a pod breaks."""
    rules = {**_POD_RULES, **_pod_level(pod)}
    broken = [name for name, holds in rules.items() if not holds(pod)]
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        broken += [name for name, holds in _CONTAINER_RULES.items() if not holds(container)]
    return broken


def _pod_level(pod: Node) -> dict[str, Callable[[Node], bool]]:
    """Rules that either the pod or each of its containers may satisfy, and no container may undo."""

    def everywhere(field: str, allowed: Callable[[Any], bool]) -> bool:
        inherited = _context(pod).get(field)
        each = [_context(c).get(field, inherited) for c in (*pod["containers"], *pod.get("initContainers", []))]
        return all(allowed(value) for value in each)

    return {
        "runAsNonRoot": lambda _: everywhere("runAsNonRoot", lambda value: value is True),
        "runAsUser": lambda _: everywhere("runAsUser", lambda value: value != 0),
        "seccompProfile": lambda _: everywhere(
            "seccompProfile", lambda value: (value or {}).get("type") in {"RuntimeDefault", "Localhost"}
        ),
    }


def _context(node: Node) -> Node:
    return node.get("securityContext") or {}


_POD_RULES: dict[str, Callable[[Node], bool]] = {
    "host namespaces": lambda pod: not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
    "volume types": lambda pod: all(set(volume) - {"name"} <= _VOLUMES for volume in pod.get("volumes", [])),
    "sysctls": lambda pod: not _context(pod).get("sysctls"),
    "SELinux": lambda pod: "seLinuxOptions" not in _context(pod),
    "own account": lambda pod: pod.get("serviceAccountName", "default") != "default",
    "no token": lambda pod: pod.get("automountServiceAccountToken") is False,
}
_CONTAINER_RULES: dict[str, Callable[[Node], bool]] = {
    "privileged": lambda c: not _context(c).get("privileged"),
    "allowPrivilegeEscalation": lambda c: _context(c).get("allowPrivilegeEscalation") is False,
    "capabilities dropped": lambda c: "ALL" in (_context(c).get("capabilities") or {}).get("drop", []),
    "capabilities added": lambda c: set((_context(c).get("capabilities") or {}).get("add", [])) <= {"NET_BIND_SERVICE"},
    "procMount": lambda c: _context(c).get("procMount", "Default") == "Default",
    "container SELinux": lambda c: "seLinuxOptions" not in _context(c),
    "host ports": lambda c: not any(port.get("hostPort") for port in c.get("ports", [])),
    "host in probes": lambda c: not any("host" in c.get(p, {}).get("httpGet", {}) for p in _PROBES),
    "read-only root": lambda c: _context(c).get("readOnlyRootFilesystem") is True,
    "requests": lambda c: {"cpu", "memory"} <= set(c["resources"]["requests"]),
    "limits": lambda c: {"cpu", "memory"} <= set(c["resources"]["limits"]),
    "memory as asked for": lambda c: c["resources"]["limits"].get("memory") == c["resources"]["requests"].get("memory"),
}
