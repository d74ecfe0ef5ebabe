"""What a cluster is given, Serve configurations and Kubernetes manifests: a misspelt key fails here, not in production.

Serve drops keys that it does not know, and so does the API server for a client that does not ask for strict validation;
here every object is checked against a closed list of its fields, without Ray and without a network.
"""

import ast
import inspect
import json
from copy import deepcopy
from importlib.metadata import version
from typing import get_args

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from tests.conftest import ROOT

RAY_SERVICE = ROOT / "serve_configs" / "rayservice.yaml"
PRODUCTION = ROOT / "serve_configs" / "production.yaml"
PRETRAIN_JOB = ROOT / "docs" / "deploy" / "rayjob.yaml"
NETWORK_POLICY = ROOT / "docs" / "deploy" / "networkpolicy.yaml"
SERVE_CONFIGS = [
    file for file in sorted((ROOT / "serve_configs").glob("*.yaml")) if "kind" not in yaml.safe_load(file.read_text())
]
SCHEMA = json.loads((ROOT / "tests" / "support" / "kuberay" / "schema.json").read_text())


def read(file):
    return yaml.safe_load(file.read_text())


def changed(document, path, change):
    """A copy in which `change` was applied to the object at `path`, keys and positions joined by dots."""
    copy = deepcopy(document)
    node = copy
    for step in path.split(".") if path else []:
        node = node[int(step) if isinstance(node, list) else step]
    change(node)
    return copy


def rename(old, new):
    def change(node):
        node[new] = node.pop(old)

    return change


def put(key, value):
    return lambda node: node.__setitem__(key, value)


# Kubernetes


def schema_errors(manifest):
    validator = Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{manifest['kind']}"})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


RAY_JOB = yaml.safe_load("""
apiVersion: ray.io/v1
kind: RayJob
metadata: {name: pretrain}
spec:
  entrypoint: python jobs/pretrain.py
  submissionMode: K8sJobMode
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: 600
  submitterPodTemplate: {spec: {restartPolicy: Never, containers: [{name: submitter, image: mets-ray}]}}
  deletionStrategy: {deletionRules: [{policy: DeleteCluster, condition: {jobStatus: SUCCEEDED, ttlSeconds: 60}}]}
  rayClusterSpec:
    headGroupSpec: {rayStartParams: {}, template: {spec: {containers: [{name: ray-head, image: mets-ray}]}}}
""")


@pytest.mark.parametrize(
    "manifest", [read(RAY_SERVICE), read(NETWORK_POLICY), read(PRETRAIN_JOB), RAY_JOB], ids=lambda it: it["kind"]
)
def test_manifests_fit_the_schema(manifest):
    assert schema_errors(manifest) == []


def test_no_object_of_the_schema_is_open():
    assert not [name for name, it in SCHEMA["$defs"].items() if "properties" in it and it["additionalProperties"]]


CLUSTER = "spec.rayClusterConfig"
HEAD = f"{CLUSTER}.headGroupSpec"
WORKER = f"{CLUSTER}.workerGroupSpecs.0"
POD = f"{WORKER}.template.spec"
CONTAINER = f"{POD}.containers.0"


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("", rename("spec", "specs")),
        ("metadata", rename("name", "names")),
        ("spec", rename("serveConfigV2", "serveConfigv2")),
        ("spec", put("serveConfigV2", {"applications": []})),  # KubeRay wants text
        ("spec", rename("upgradeStrategy", "upgradeStategy")),
        ("spec.upgradeStrategy", rename("type", "typ")),
        ("spec.upgradeStrategy", put("type", "Newcluster")),
        ("spec.upgradeStrategy", put("clusterUpgradeOptions", {"maxSurgePercent": 50})),  # gatewayClassName is missing
        (CLUSTER, rename("enableInTreeAutoscaling", "enableInTreeAutoScaling")),
        (CLUSTER, rename("headGroupSpec", "headGroupSpecs")),
        (f"{CLUSTER}.autoscalerOptions", rename("idleTimeoutSeconds", "idleTimeoutSecond")),
        (f"{CLUSTER}.autoscalerOptions", put("version", "v3")),
        (f"{CLUSTER}.autoscalerOptions.resources", rename("limits", "limit")),
        (f"{CLUSTER}.authOptions", rename("secretName", "secretname")),
        (HEAD, rename("rayStartParams", "rayStartParam")),
        (f"{HEAD}.rayStartParams", put("num-cpus", 0)),  # a map of strings
        (f"{HEAD}.template.metadata", rename("labels", "lables")),
        (WORKER, rename("maxReplicas", "max_replicas")),
        (WORKER, put("minReplicas", "1")),
        (WORKER, rename("groupName", "name")),
        (WORKER, put("scaleStrategy", {"workerToDelete": []})),
        (POD, rename("tolerations", "toleration")),
        (f"{POD}.tolerations.0", rename("operator", "operater")),
        (f"{POD}.securityContext", rename("runAsNonRoot", "runAsNonroot")),
        (f"{POD}.securityContext.seccompProfile", rename("type", "kind")),
        (CONTAINER, rename("resources", "ressources")),
        (CONTAINER, put("resources", None)),
        (CONTAINER, rename("name", "names")),
        (f"{CONTAINER}.resources.limits", put("memory", "16GiB")),
        (f"{CONTAINER}.resources.limits", put("cpu", 0.5)),
        (f"{CONTAINER}.ports.0", rename("containerPort", "port")),
        (f"{CONTAINER}.env.0", put("value", 1)),
        (f"{CONTAINER}.env.2.valueFrom", rename("secretKeyRef", "secretRef")),
        (f"{CONTAINER}.env.2.valueFrom.secretKeyRef", rename("key", "keys")),
        (f"{CONTAINER}.envFrom.0.secretRef", rename("optional", "optionnal")),
        (f"{CONTAINER}.securityContext.capabilities", rename("drop", "dropped")),
        (CONTAINER, put("readinessProbe", {"httpGet": {"path": "/", "port": 8000}, "timeout": 1})),
    ],
)
def test_slips_in_the_rayservice_are_caught(path, change):
    assert schema_errors(changed(read(RAY_SERVICE), path, change))


@pytest.mark.parametrize(
    ("manifest", "path", "change"),
    [
        (RAY_JOB, "spec", rename("entrypoint", "entryPoint")),
        (RAY_JOB, "spec", put("submissionMode", "K8SJobMode")),
        (RAY_JOB, "spec", put("preRunningDeadlineSeconds", 0)),
        (RAY_JOB, "spec.submitterPodTemplate.spec", rename("restartPolicy", "restartpolicy")),
        (
            RAY_JOB,
            "spec.deletionStrategy.deletionRules.0.condition",
            put("jobDeploymentStatus", "Failed"),
        ),  # one of both
        (RAY_JOB, "spec.deletionStrategy.deletionRules.0", rename("condition", "conditions")),
        (RAY_JOB, "spec.deletionStrategy", put("onSuccess", {"policy": "DeleteSelf"})),  # old style and new style
        (RAY_JOB, "spec.rayClusterSpec", rename("headGroupSpec", "headGroup")),
        (read(NETWORK_POLICY), "spec", rename("policyTypes", "policyType")),
        (read(NETWORK_POLICY), "spec.podSelector", rename("matchLabels", "matchLabel")),
        (read(NETWORK_POLICY), "spec.ingress.1.ports.0", rename("protocol", "protocoll")),
    ],
)
def test_slips_in_other_manifests_are_caught(manifest, path, change):
    assert schema_errors(changed(manifest, path, change))


JOB_CLUSTER = "spec.rayClusterSpec"
JOB_WORKER = f"{JOB_CLUSTER}.workerGroupSpecs.1"


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("spec", rename("shutdownAfterJobFinishes", "shutdownAfterJobFinished")),
        ("spec", rename("ttlSecondsAfterFinished", "ttlSecondsAfterFinish")),
        ("spec", put("backoffLimit", "0")),
        ("spec", put("submissionMode", "K8sJob")),
        ("spec", rename("rayClusterSpec", "rayClusterConfig")),  # as a RayService calls it
        ("spec.submitterConfig", rename("backoffLimit", "backofLimit")),
        (JOB_CLUSTER, rename("enableInTreeAutoscaling", "enableAutoscaling")),
        (f"{JOB_CLUSTER}.autoscalerOptions", put("version", 2)),
        (f"{JOB_CLUSTER}.authOptions", put("mode", "tokens")),
        (f"{JOB_CLUSTER}.headGroupSpec.rayStartParams", put("num-cpus", 0)),
        (JOB_WORKER, rename("priority", "prioritys")),
        (JOB_WORKER, put("minReplicas", None)),
        (f"{JOB_WORKER}.template.spec", rename("nodeSelector", "nodeSelectors")),
        (f"{JOB_WORKER}.template.spec.tolerations.0", rename("effect", "efect")),
        (f"{JOB_WORKER}.template.spec.containers.0.resources.limits", put("nvidia.com/gpu", 0.5)),
        (
            f"{JOB_CLUSTER}.workerGroupSpecs.2.template.spec.affinity.nodeAffinity",
            rename("requiredDuringSchedulingIgnoredDuringExecution", "requiredDuringScheduling"),
        ),
    ],
)
def test_slips_in_the_rayjob_are_caught(path, change):
    assert schema_errors(changed(read(PRETRAIN_JOB), path, change))


def test_the_rayjob_goes_away_when_it_is_done_and_starts_from_nothing():
    spec = read(PRETRAIN_JOB)["spec"]
    assert spec["shutdownAfterJobFinishes"]
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
    assert spec["backoffLimit"] == 0, "a second try would be a second run; train.resume goes on with the first"
    assert spec["rayClusterSpec"]["autoscalerOptions"]["version"] == "v2"
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]


def test_the_rayjobs_pods_are_as_closed_as_the_services():
    cluster = read(PRETRAIN_JOB)["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == read(RAY_SERVICE)["spec"]["rayClusterConfig"]["authOptions"]
    assert cluster["rayVersion"] == version("ray")
    head, *workers = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert (head["serviceType"], head["enableIngress"]) == ("ClusterIP", False)
    for group in (head, *workers):
        pod = group["template"]["spec"]
        assert pod["securityContext"] == groups()[0]["template"]["spec"]["securityContext"]
        assert group["template"]["metadata"]["labels"] == groups()[0]["template"]["metadata"]["labels"]
        (container,) = pod["containers"]
        assert container["securityContext"] == containers()[0]["securityContext"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert float(group["rayStartParams"]["num-cpus"]) < float(container["resources"]["limits"]["cpu"])
        assert not [variable for variable in container["env"] if "TOKEN" in variable["name"]], "only serving has users"


def test_spot_and_on_demand_workers_are_equal_but_for_where_they_may_run():
    groups = {it["groupName"]: it for it in read(PRETRAIN_JOB)["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    spot, other = groups["train-spot"], groups["train-on-demand"]
    assert spot["priority"] > other["priority"]
    assert spot["maxReplicas"] <= other["maxReplicas"]
    assert spot["rayStartParams"] == other["rayStartParams"]
    pods = [group["template"]["spec"] for group in (spot, other)]
    assert pods[0]["containers"] == pods[1]["containers"]
    (label,) = pods[0]["nodeSelector"]
    assert [it["value"] for it in pods[0]["tolerations"] if it["key"] == label] == [pods[0]["nodeSelector"][label]]
    assert label not in {it["key"] for it in pods[1]["tolerations"]}
    (term,) = pods[1]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": label, "operator": "DoesNotExist"}]


def groups():
    cluster = read(RAY_SERVICE)["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def containers():
    return [container for group in groups() for container in group["template"]["spec"]["containers"]]


def test_the_rayservice_serves_what_production_serves():
    embedded = yaml.safe_load(read(RAY_SERVICE)["spec"]["serveConfigV2"])
    said = "copy production.yaml's part into serveConfigV2 of rayservice.yaml"
    assert embedded["applications"] == read(PRODUCTION)["applications"], said
    assert serve_errors(embedded) == []
    assert embedded["http_options"]["host"] == "0.0.0.0", "KubeRay's service and probes come from outside the process"
    ports = [{port["name"]: port["containerPort"] for port in container["ports"]} for container in containers()]
    assert {port["serve"] for port in ports} == {embedded["http_options"]["port"]}


def test_every_pod_has_the_same_ray_image_and_environment():
    assert read(RAY_SERVICE)["spec"]["rayClusterConfig"]["rayVersion"] == version("ray")
    assert {container["image"].rsplit(":", 1)[-1] for container in containers()} == {version("mets_ray")}
    for container in containers():
        assert container["env"] == containers()[0]["env"]
        environment = {variable["name"]: variable for variable in container["env"]}
        assert environment["RAY_SERVE_ENABLE_HA_PROXY"]["value"] == "1"
        assert "value" not in environment["METS_RAY_TOKEN"], "a token belongs in a Secret"


def test_pods_own_what_ray_believes_and_run_without_rights():
    for group in groups():
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert float(group["rayStartParams"]["num-cpus"]) < float(container["resources"]["limits"]["cpu"])


def test_nothing_works_on_the_head_and_nothing_of_it_is_exposed():
    head = groups()[0]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["serviceType"] == "ClusterIP"
    assert not head["enableIngress"]
    assert read(RAY_SERVICE)["spec"]["rayClusterConfig"]["authOptions"]["mode"] == "token"


def test_all_replicas_fit_on_all_workers():
    workers = {group["groupName"]: group for group in groups()[1:]}
    for group in workers.values():
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    deployments = {deployment["name"]: deployment for deployment in read(PRODUCTION)["applications"][0]["deployments"]}
    for name, group in (("ZeroShot", workers["gpu"]), ("TextEncoder", workers["cpu"])):
        wants = deployments[name]["ray_actor_options"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        per_node = int(float(group["rayStartParams"]["num-cpus"]) / wants["num_cpus"])
        if wants.get("num_gpus"):
            per_node = min(per_node, int(float(limits["nvidia.com/gpu"]) / wants["num_gpus"]))
        scale = deployments[name]["autoscaling_config"]
        assert scale["min_replicas"] <= per_node * group["minReplicas"]
        assert scale["max_replicas"] <= per_node * group["maxReplicas"]


def test_the_network_policy_closes_haproxys_statistics():
    spec = read(NETWORK_POLICY)["spec"]
    own = spec["podSelector"]["matchLabels"]
    for group in groups():
        assert own.items() <= group["template"]["metadata"]["labels"].items()
    inside, *outside = spec["ingress"]
    assert inside == {"from": [{"podSelector": {"matchLabels": own}}]}
    assert spec["policyTypes"] == ["Ingress"]
    for rule in outside:
        assert rule["from"], "no `from` lets everyone in"
        assert all("namespaceSelector" in source for source in rule["from"])
        assert {port["port"] for port in rule["ports"]} <= {8000, 8080, 8265}
    dashboard = [rule["from"] for rule in outside if 8265 in {port["port"] for port in rule["ports"]}]
    assert len(dashboard) == 1
    assert all("podSelector" in source for source in dashboard[0]), "the operator's pods only"


def test_the_guide_makes_every_secret_that_the_manifest_names():
    guide = (ROOT / "docs" / "deploy" / "kuberay.md").read_text()
    named = {read(RAY_SERVICE)["spec"]["rayClusterConfig"]["authOptions"]["secretName"]: "auth_token"}
    for variable in containers()[0]["env"]:
        if "valueFrom" in variable:
            named[variable["valueFrom"]["secretKeyRef"]["name"]] = variable["valueFrom"]["secretKeyRef"]["key"]
    for name, key in named.items():
        assert f"create secret generic {name} --from-literal={key}=" in guide


# Serve


def serve_errors(config):
    """Everything wrong with a Serve configuration of this project."""
    from ray.serve.schema import ServeDeploySchema

    from mets_ray.serve.settings import ServeConfig

    found = list(unknown_keys(ServeDeploySchema, config))
    found += invalid(ServeDeploySchema, config, "")
    http = config.get("http_options", {})
    for application in config.get("applications", []):
        found += (wrong_args := invalid(ServeConfig, application.get("args", {}), "args."))
        if not wrong_args:
            found += disagreements(application, ServeConfig.model_validate(application["args"]), http)
    return found


def unknown_keys(model, given, at=""):
    """Keys of `given` that no field of the model or of one below it takes, and values that Serve leaves unchecked."""
    from ray.runtime_env import RuntimeEnv

    fields = {name: field for key, field in model.model_fields.items() for name in {key, field.alias or key}}
    for key, value in given.items():
        if key not in fields:
            yield f"{at}{key} is no field of {model.__name__}"
        elif below := model_in(fields[key].annotation):
            for position, part in enumerate(value) if isinstance(value, list) else [(None, value)]:
                where = f"{at}{key}." if position is None else f"{at}{key}.{position}."
                if isinstance(part, dict):
                    yield from unknown_keys(below, part, where)
                    yield from invalid(below, part, where)
        elif key == "runtime_env":
            yield from (f"{at}runtime_env.{name} is no field" for name in set(value) - RuntimeEnv.known_fields)


def model_in(annotation):
    """The pydantic model in `Optional[Union[Dict, Model]]`, `List[Model]` and the like, or None."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_in, get_args(annotation))), None)


def invalid(model, given, at):
    try:
        model.model_validate(given)
    except ValidationError as error:
        return [f"{at}{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors()]
    return []


def disagreements(application, args, http):
    """What no schema knows: the file contradicts itself or the code."""
    if application["import_path"] != "mets_ray.serve:build":
        yield f"import_path {application['import_path']}"
    if args.auth == "none" and http.get("host") != "127.0.0.1":
        yield "auth: none needs http_options.host 127.0.0.1"
    if http.get("request_timeout_s", 0) <= args.deadline_s:
        yield "request_timeout_s must exceed deadline_s, or users get a bare 408 instead of an error that says why"
    said = {
        "ZeroShot": {"num_cpus": args.encoder_cpus, "num_gpus": args.encoder_gpus},
        "TextEncoder": {"num_cpus": args.text_cpus, "num_gpus": args.text_gpus},
    }
    for deployment in application.get("deployments", []):
        name = deployment["name"]
        if name not in deployment_classes():
            yield f"{name} is no deployment"
            continue
        held = {"num_cpus": 1, "num_gpus": 0} | deployment.get("ray_actor_options", {})
        if any(held[resource] != value for resource, value in said[name].items()):
            yield f"{name}.ray_actor_options is not what args say"
        for key in ("max_ongoing_requests", "max_queued_requests") if name == "ZeroShot" else ():
            if deployment.get(key, getattr(args, key)) != getattr(args, key):
                yield f"{name}.{key} is not what args say"
        if deployment.get("graceful_shutdown_timeout_s", 20) <= args.deadline_s:
            yield f"{name}.graceful_shutdown_timeout_s must exceed deadline_s, or updates cut requests"


def deployment_classes():
    """Names of the classes with `@serve.deployment`, read from the source."""
    tree = ast.parse((ROOT / "mets_ray" / "serve" / "deployments.py").read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {it.name for it in classes if "serve.deployment" in map(ast.unparse, it.decorator_list)}


@pytest.mark.parametrize("file", SERVE_CONFIGS, ids=lambda file: file.name)
def test_serve_configs_have_no_unknown_keys_and_do_not_contradict_themselves(file):
    assert serve_errors(read(file)) == []


def test_there_are_serve_configs():
    assert {file.name for file in SERVE_CONFIGS} >= {"local.yaml", "production.yaml"}


SAMPLE = yaml.safe_load("""
proxy_location: EveryNode
http_options: {host: 0.0.0.0, port: 8000, request_timeout_s: 30}
grpc_options: {port: 9000}
logging_config: {encoding: JSON, log_level: INFO}
applications:
  - name: mets_ray
    route_prefix: /
    import_path: mets_ray.serve:build
    runtime_env: {env_vars: {A: "1"}}
    args: {bundle_uri: s3://bucket/bundle, encoder_cpus: 2, encoder_gpus: 0.5, deadline_s: 10}
    logging_config: {log_level: INFO}
    deployments:
      - name: ZeroShot
        autoscaling_config: {min_replicas: 1, max_replicas: 4, target_ongoing_requests: 8}
        backpressure_config: {status_code: 429, retry_after_s: 1}
        ray_actor_options: {num_cpus: 2, num_gpus: 0.5, runtime_env: {}}
        request_router_config: {initial_backoff_s: 0.1}
        logging_config: {log_level: INFO}
        max_surge_percent: 100
      - name: TextEncoder
        num_replicas: 1
""")
APPLICATION = "applications.0"
ZERO_SHOT = f"{APPLICATION}.deployments.0"


def test_the_sample_is_right():
    assert serve_errors(SAMPLE) == []


@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        ("", rename("http_options", "http_option"), "http_option is no field"),
        ("", rename("proxy_location", "proxy_locations"), "proxy_locations is no field"),
        ("http_options", rename("request_timeout_s", "request_timeout"), "http_options.request_timeout is no field"),
        ("grpc_options", rename("port", "ports"), "grpc_options.ports is no field"),
        ("logging_config", rename("log_level", "loglevel"), "loglevel"),
        (APPLICATION, rename("route_prefix", "prefix"), "applications.0.prefix is no field"),
        (APPLICATION, put("import_path", "mets_ray.serve.build"), "import_path"),
        (APPLICATION, put("import_path", "mets_ray.serve:builder"), "import_path"),
        (f"{APPLICATION}.runtime_env", rename("env_vars", "env_var"), "runtime_env.env_var is no field"),
        (f"{APPLICATION}.logging_config", rename("log_level", "level"), "level"),
        (f"{APPLICATION}.args", rename("encoder_gpus", "encoder_gpu"), "args.encoder_gpu"),
        (f"{APPLICATION}.args", put("deadline_s", "soon"), "args.deadline_s"),
        (f"{APPLICATION}.args", put("encoder_min_replicas", 3), "encoder_max_replicas"),
        (f"{APPLICATION}.args", put("auth", "none"), "127.0.0.1"),
        (f"{APPLICATION}.args", put("deadline_s", 30), "request_timeout_s must exceed"),
        (f"{APPLICATION}.args", put("deadline_s", 20), "graceful_shutdown_timeout_s must exceed"),
        (f"{APPLICATION}.args", put("encoder_cpus", 4), "ray_actor_options is not what args say"),
        (ZERO_SHOT, rename("max_surge_percent", "max_surge_percents"), "max_surge_percents is no field"),
        (ZERO_SHOT, put("max_surge_percent", 101), "max_surge_percent"),
        (ZERO_SHOT, put("max_queued_requests", 7), "max_queued_requests is not what args say"),
        (ZERO_SHOT, put("num_replicas", 2), "num_replicas"),
        (ZERO_SHOT, put("name", "Zeroshot"), "Zeroshot is no deployment"),
        (f"{ZERO_SHOT}.autoscaling_config", rename("max_replicas", "max_replica"), "max_replica is no field"),
        (f"{ZERO_SHOT}.autoscaling_config", put("target_num_ongoing_requests", 5), "target_num_ongoing_requests"),
        (f"{ZERO_SHOT}.autoscaling_config", put("min_replicas", 5), "min_replicas (5)"),
        (f"{ZERO_SHOT}.autoscaling_config", put("policy", {"policy_fn": "a:b"}), "policy.policy_fn is no field"),
        (f"{ZERO_SHOT}.backpressure_config", rename("retry_after_s", "retry_after"), "retry_after"),
        (f"{ZERO_SHOT}.ray_actor_options", rename("num_gpus", "num_gpu"), "ray_actor_options.num_gpu is no field"),
        (f"{ZERO_SHOT}.ray_actor_options.runtime_env", put("pips", []), "runtime_env.pips is no field"),
        (f"{ZERO_SHOT}.request_router_config", rename("initial_backoff_s", "backoff_s"), "backoff_s is no field"),
    ],
)
def test_slips_in_serve_configs_are_caught(path, change, says):
    found = serve_errors(changed(SAMPLE, path, change))
    assert any(says in line for line in found), found
