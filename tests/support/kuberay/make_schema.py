"""Write schema.json: `pip install kubernetes-validate==1.37.0`, then `python tests/support/kuberay/make_schema.py`.

The Ray objects are the tables below, written from KubeRay's API reference; everything of Kubernetes that they embed is
taken from that package. README.md says which revisions.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

KUBERNETES = "v1.36.0-local-strict"
"""KubeRay 1.7 is built with k8s.io/api v0.36."""

SHORT = {
    "io.k8s.api.core.v1.": "core.",
    "io.k8s.api.networking.v1.": "networking.",
    "io.k8s.apimachinery.pkg.apis.meta.v1.": "meta.",
    "io.k8s.apimachinery.pkg.api.resource.": "",
    "io.k8s.apimachinery.pkg.util.intstr.": "",
}

# `name!` is required, `[X]` a list, `{X}` a map, `a|b` a choice; any other word is a scalar or an object.
RAY: dict[str, dict[str, str]] = {
    "RayService": {
        "apiVersion!": "ray.io/v1|",
        "kind!": "RayService|",
        "metadata!": "meta.ObjectMeta",
        "spec!": "RayServiceSpec",
    },
    "RayJob": {"apiVersion!": "ray.io/v1|", "kind!": "RayJob|", "metadata!": "meta.ObjectMeta", "spec!": "RayJobSpec"},
    "RayCluster": {
        "apiVersion!": "ray.io/v1|",
        "kind!": "RayCluster|",
        "metadata!": "meta.ObjectMeta",
        "spec!": "RayClusterSpec",
    },
    "RayServiceSpec": {
        "rayClusterConfig!": "RayClusterSpec",
        "serveConfigV2": "string",
        "serveService": "Service",
        "upgradeStrategy": "RayServiceUpgradeStrategy",
        "rayClusterDeletionDelaySeconds": "count",
        "excludeHeadPodFromServeSvc": "boolean",
        "suspend": "boolean",
        "managedBy": "ray.io/kuberay-operator|kueue.x-k8s.io/multikueue",
        "serviceUnhealthySecondThreshold": "integer",
        "deploymentUnhealthySecondThreshold": "integer",
    },
    "RayServiceUpgradeStrategy": {
        "type": "NewCluster|NewClusterWithIncrementalUpgrade|None",
        "clusterUpgradeOptions": "ClusterUpgradeOptions",
    },
    "ClusterUpgradeOptions": {
        "gatewayClassName!": "string",
        "stepSizePercent!": "integer",
        "intervalSeconds!": "integer",
        "maxSurgePercent": "integer",
    },
    "RayJobSpec": {
        "entrypoint": "string",
        "entrypointNumCpus": "number",
        "entrypointNumGpus": "number",
        "entrypointResources": "string",
        "runtimeEnvYAML": "string",
        "metadata": "{string}",
        "jobId": "string",
        "submissionMode": "K8sJobMode|HTTPMode|InteractiveMode|SidecarMode",
        "submitterPodTemplate": "PodTemplateSpec",
        "submitterConfig": "SubmitterConfig",
        "rayClusterSpec": "RayClusterSpec",
        "clusterSelector": "{string}",
        "shutdownAfterJobFinishes": "boolean",
        "ttlSecondsAfterFinished": "integer",
        "activeDeadlineSeconds": "integer",
        "preRunningDeadlineSeconds": "positive",
        "backoffLimit": "integer",
        "deletionStrategy": "DeletionStrategy",
        "suspend": "boolean",
        "managedBy": "ray.io/kuberay-operator|kueue.x-k8s.io/multikueue",
    },
    "SubmitterConfig": {"backoffLimit": "integer"},
    "DeletionStrategy": {
        "onSuccess": "DeletionPolicy",
        "onFailure": "DeletionPolicy",
        "deletionRules": "[DeletionRule]",
    },
    "DeletionPolicy": {"policy": "DeleteCluster|DeleteWorkers|DeleteSelf|DeleteNone"},
    "DeletionRule": {
        "policy!": "DeleteCluster|DeleteWorkers|DeleteSelf|DeleteNone",
        "condition!": "DeletionCondition",
    },
    "DeletionCondition": {"jobStatus": "SUCCEEDED|FAILED", "jobDeploymentStatus": "Failed|", "ttlSeconds": "count"},
    "RayClusterSpec": {
        "headGroupSpec!": "HeadGroupSpec",
        "workerGroupSpecs": "[WorkerGroupSpec]",
        "rayVersion": "string",
        "enableInTreeAutoscaling": "boolean",
        "autoscalerOptions": "AutoscalerOptions",
        "authOptions": "AuthOptions",
        "tlsOptions": "TLSOptions",
        "networkPolicy": "NetworkPolicyConfig",
        "gcsFaultToleranceOptions": "GcsFaultToleranceOptions",
        "historyServerOptions": "HistoryServerOptions",
        "headServiceAnnotations": "{string}",
        "upgradeStrategy": "RayClusterUpgradeStrategy",
        "suspend": "boolean",
        "managedBy": "ray.io/kuberay-operator|kueue.x-k8s.io/multikueue",
    },
    "RayClusterUpgradeStrategy": {"type": "Recreate|None"},
    "HeadGroupSpec": {
        "template!": "PodTemplateSpec",
        "rayStartParams": "{string}",
        "resources": "{string}",
        "labels": "{string}",
        "serviceType": "string",
        "headService": "Service",
        "enableIngress": "boolean",
        "ingressOptions": "IngressOptions",
    },
    # minReplicas and maxReplicas are required too, but the API server fills them in: 0 and 2147483647.
    "WorkerGroupSpec": {
        "groupName!": "string",
        "template!": "PodTemplateSpec",
        "rayStartParams": "{string}",
        "resources": "{string}",
        "labels": "{string}",
        "replicas": "integer",
        "minReplicas": "integer",
        "maxReplicas": "integer",
        "numOfHosts": "integer",
        "priority": "integer",
        "idleTimeoutSeconds": "integer",
        "scaleStrategy": "ScaleStrategy",
        "suspend": "boolean",
    },
    "ScaleStrategy": {"workersToDelete": "[string]"},
    "AutoscalerOptions": {
        "version": "v1|v2",
        "idleTimeoutSeconds": "integer",
        "upscalingMode": "Default|Aggressive|Conservative",
        "resources": "core.ResourceRequirements",
        "image": "string",
        "imagePullPolicy": "string",
        "securityContext": "core.SecurityContext",
        "env": "[core.EnvVar]",
        "envFrom": "[core.EnvFromSource]",
        "volumeMounts": "[core.VolumeMount]",
        "command": "[string]",
        "args": "[string]",
    },
    "AuthOptions": {"mode": "disabled|token", "secretName": "string", "enableK8sTokenAuth": "boolean"},
    "TLSOptions": {"enabled": "boolean"},
    "GcsFaultToleranceOptions": {
        "backend": "redis|rocksdb",
        "redisAddress": "string",
        "redisUsername": "RedisCredential",
        "redisPassword": "RedisCredential",
        "externalStorageNamespace": "string",
        "storage": "GcsEmbeddedStorage",
    },
    "RedisCredential": {"value": "string", "valueFrom": "core.EnvVarSource"},
    "GcsEmbeddedStorage": {
        "claimName": "string",
        "size": "Quantity",
        "storageClassName": "string",
        "accessModes": "[string]",
        "subPath": "string",
        "deletionPolicy": "DeleteWithCluster|Retain",
    },
    "HistoryServerOptions": {"collectorOptions": "CollectorOptions"},
    "CollectorOptions": {
        "image": "string",
        "imagePullPolicy": "string",
        "resources": "core.ResourceRequirements",
        "env": "[core.EnvVar]",
    },
    "IngressOptions": {
        "host": "string",
        "path": "string",
        "pathType": "Exact|Prefix|ImplementationSpecific",
        "tls": "[networking.IngressTLS]",
    },
    "NetworkPolicyConfig": {
        "mode": "DenyAll|DenyAllIngress|DenyAllEgress",
        "head": "NetworkPolicyRules",
        "worker": "NetworkPolicyRules",
        "workerGroups": "[WorkerGroupNetworkPolicyRules]",
    },
    "NetworkPolicyRules": {
        "ingressRules": "[networking.NetworkPolicyIngressRule]",
        "egressRules": "[networking.NetworkPolicyEgressRule]",
    },
    "WorkerGroupNetworkPolicyRules": {
        "groupName!": "string",
        "ingressRules": "[networking.NetworkPolicyIngressRule]",
        "egressRules": "[networking.NetworkPolicyEgressRule]",
    },
    # What a CRD keeps of objects that are embedded in it.
    "PodTemplateSpec": {"metadata": "EmbeddedObjectMeta", "spec": "core.PodSpec"},
    "Service": {
        "apiVersion": "string",
        "kind": "string",
        "metadata": "EmbeddedObjectMeta",
        "spec": "core.ServiceSpec",
    },
    "EmbeddedObjectMeta": {
        "name": "string",
        "namespace": "string",
        "labels": "{string}",
        "annotations": "{string}",
        "finalizers": "[string]",
    },
}

# Rules over several fields, which the CRD states in CEL.
ACROSS_FIELDS: dict[str, dict[str, Any]] = {
    "DeletionStrategy": {
        "oneOf": [
            {
                "required": ["deletionRules"],
                "not": {"anyOf": [{"required": ["onSuccess"]}, {"required": ["onFailure"]}]},
            },
            {"required": ["onSuccess", "onFailure"], "not": {"required": ["deletionRules"]}},
        ]
    },
    "DeletionCondition": {"oneOf": [{"required": ["jobStatus"]}, {"required": ["jobDeploymentStatus"]}]},
}

SCALARS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "number": {"type": "number"},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "count": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    "positive": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
}

# A CRD takes an integer or a string of Kubernetes' grammar of quantities: `cpu: 0.5` must be "500m" or "0.5".
QUANTITY = {
    "anyOf": [
        {"type": "integer"},
        {"type": "string", "pattern": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"},
    ]
}


def ray_type(word: str) -> dict[str, Any]:
    if word.startswith("["):
        return {"type": "array", "items": ray_type(word[1:-1])}
    if word.startswith("{"):
        return {"type": "object", "additionalProperties": ray_type(word[1:-1])}
    if "|" in word:
        return {"enum": [choice for choice in word.split("|") if choice]}
    return dict(SCALARS[word]) if word in SCALARS else {"$ref": f"#/$defs/{word}"}


def ray_object(name: str) -> dict[str, Any]:
    fields = RAY[name]
    made: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {field.rstrip("!"): ray_type(word) for field, word in fields.items()},
    }
    if required := [field[:-1] for field in fields if field.endswith("!")]:
        made["required"] = required
    if name == "DeletionStrategy":
        made["properties"]["deletionRules"]["minItems"] = 1
    return made | ACROSS_FIELDS.get(name, {})


def short(name: str) -> str:
    return next((name.replace(long, brief) for long, brief in SHORT.items() if name.startswith(long)), name)


def kubernetes(node: Any, *, field_names: bool = False) -> Any:
    """The same without descriptions, extensions and null: a key without a value is a slip in a manifest."""
    if isinstance(node, list):
        return [kubernetes(part) for part in node]
    if not isinstance(node, dict):
        return node
    if field_names:
        return {name: kubernetes(part) for name, part in node.items()}
    made: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("description", "format") or key.startswith("x-"):
            continue
        if key == "$ref":
            made[key] = "#/$defs/" + short(value.rsplit("/", 1)[-1])
        elif key == "type" and isinstance(value, list):
            made[key] = next(kind for kind in value if kind != "null")
        elif key == "enum":
            made[key] = [choice for choice in value if choice is not None]
        else:
            made[key] = kubernetes(value, field_names=key == "properties")
    return made


def mentioned(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(mentioned, node))
    if not isinstance(node, dict):
        return set()
    found = {node["$ref"].rsplit("/", 1)[-1]} if isinstance(node.get("$ref"), str) else set()
    return found.union(*map(mentioned, node.values()))


def main() -> None:
    source = resources.files("kubernetes_validate") / "kubernetes-json-schema" / KUBERNETES / "_definitions.json"
    upstream = {short(name): kubernetes(node) for name, node in json.loads(source.read_text())["$defs"].items()}
    upstream["Quantity"] = QUANTITY
    upstream["IntOrString"] = {"type": ["integer", "string"]}
    kinds = {"NetworkPolicy": upstream["networking.NetworkPolicy"]}
    defs = {name: ray_object(name) for name in RAY} | kinds
    waiting = set().union(*map(mentioned, defs.values())) - set(defs)
    while waiting:
        name = waiting.pop()
        defs[name] = upstream[name]
        waiting |= mentioned(defs[name]) - set(defs)
    for name in kinds:
        defs[name]["required"] = ["apiVersion", "kind", "metadata", "spec"]
    ordered = [*RAY, *kinds, *sorted(set(defs) - set(RAY) - set(kinds))]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(defs[name])}" for name in ordered)
    dialect, comment = "https://json-schema.org/draft/2020-12/schema", "Made by make_schema.py; see README.md."
    text = f'{{"$schema": "{dialect}",\n"$comment": "{comment}",\n"$defs": {{\n{lines}\n}}}}\n'
    Path(__file__).with_name("schema.json").write_text(text)


if __name__ == "__main__":
    main()
