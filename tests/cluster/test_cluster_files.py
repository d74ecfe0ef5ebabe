"""cluster.yaml, its GCP variant, the image and what a job uploads, checked without a cloud, Docker or a network.

Ray's own checks take a cluster file whose node type may have more nodes at least than at most, whose dashboard listens
to the world, and whose GPUs nobody can ask for. What they let through is checked here; each check has a broken file.
"""

import json
import logging
import re
import shlex
import shutil
import subprocess
import tomllib
import zipfile
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from mets_ray.config.load import load_config
from tests.cluster.test_manifests import changed, put, rename
from tests.conftest import ROOT

DEPLOY = ROOT / "docs" / "deploy"
TYPES = "available_node_types"
OPEN = {"node_config", "resources", "labels", "file_mounts", "metadata"}  # their keys are names, or the cloud's


# The cluster files


def read_aws():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def read_gcp():
    """cluster.yaml with the differences of docs/deploy/gcp.md put in, as that page says."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (DEPLOY / "gcp.md").read_text(), re.DOTALL)
    differences = yaml.safe_load(block)
    config = read_aws()
    for name, node_type in differences.pop(TYPES).items():
        assert set(node_type) == {"node_config"}
        config[TYPES][name] |= node_type
    assert set(differences) <= set(config)
    return config | differences


READ = {"aws": read_aws, "gcp": read_gcp}


def cluster_errors(config):
    """Everything wrong with a cluster file of this project."""
    return [*unknown_keys(config), *refused_by_ray(config), *node_type_errors(config), *exposure(config)]


@cache
def closed_schema():
    """Ray's schema with every object closed: Ray itself takes unknown keys of a node type's docker, of a provider, …"""
    import ray.autoscaler

    def close(schema):
        if isinstance(schema, dict):
            for name, below in schema.items():
                if name not in OPEN:
                    close(below)
            if "properties" in schema and "if" not in schema:
                schema["additionalProperties"] = False
        elif isinstance(schema, list):
            for below in schema:
                close(below)

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    for part in ("auth",):  # its conditional parts describe the same object
        schema["properties"][part].pop("allOf", None)
    close(schema)
    return schema


def unknown_keys(config):
    for error in Draft7Validator(closed_schema()).iter_errors(config):
        yield f"{error.json_path}: {error.message}"
    if config["provider"].get("type") == "aws":
        for name, node_type in config.get(TYPES, {}).items():
            yield from (f"{name}: {line}" for line in ec2_errors(node_type.get("node_config", {})))


@cache
def run_instances():
    import botocore.session

    return botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def ec2_errors(node_config):
    """What EC2's RunInstances would refuse: Ray hands a node_config on to it."""
    from botocore.validate import ParamValidator

    shape = run_instances()
    report = ParamValidator().validate({"MinCount": 1, "MaxCount": 1} | node_config, shape)
    if report.has_errors():
        yield report.generate_report()
    if node_config.get("InstanceType") not in shape.members["InstanceType"].enum:
        yield f"{node_config.get('InstanceType')} is no instance type"


def refused_by_ray(config):
    """`ray up` begins with these two; they fill in defaults and read no cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)
    try:
        prepared = prepare_config(deepcopy(config))
        validate_config(prepared)
    except Exception as error:
        return [f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"]
    # A missing list would be filled with Ray's own commands, which install a nightly Ray.
    return [
        f"{key}: the image has everything"
        for key in ("setup_commands", "head_setup_commands", "worker_setup_commands")
        if prepared[key]
    ]


def node_type_errors(config):
    head_type = config.get("head_node_type")
    for name, node_type in config.get(TYPES, {}).items():
        least, most = node_type.get("min_workers", 0), node_type.get("max_workers", config.get("max_workers", 0))
        resources = node_type.get("resources", {})
        if least > most:
            yield f"{name}: min_workers {least} is above max_workers {most}"
        if name == head_type:
            if most:
                yield f"{name}: the head's type must not be started again, max_workers is {most}"
            if resources.get("CPU") != 0 or set(resources) != {"CPU"}:
                yield f"{name}: no work on the head, its resources must be {{CPU: 0}}"
            if is_spot(node_type):
                yield f"{name}: the head is lost with its spot instance"
            continue
        if least:
            yield f"{name}: min_workers {least} costs money while nobody works"
        if most > config.get("max_workers", 0):
            yield f"{name}: max_workers {most} is above the cluster's {config.get('max_workers', 0)}"
        if not resources.get("CPU"):
            yield f"{name}: without a CPU no task fits"
        if is_spot(node_type):
            yield from fallback_errors(name, config[TYPES])
    named = {key for it in config.get(TYPES, {}).values() for key in it.get("resources", {})} - {"CPU", "GPU", "memory"}
    for resource in sorted(named - asked_for()):
        yield f"resource {resource} is asked for by no setting"
    for resource in sorted(asked_for() - named):
        yield f"resource {resource} is on no node type"
    for label in {key for it in config.get(TYPES, {}).values() for key in it.get("labels", {})}:
        yield f"label {label} is asked for by no setting"  # nothing of ours uses a label selector


def is_spot(node_type):
    node = node_type["node_config"]
    scheduling = node.get("scheduling", [])
    return "InstanceMarketOptions" in node or any(part.get("preemptible") for part in scheduling)


def fallback_errors(name, node_types):
    """A spot type needs a twin at the normal price: equal in all that Ray compares before it looks at the priority."""
    spot = node_types[name]
    equal = [
        other
        for other in node_types.values()
        if not is_spot(other)
        and other.get("resources") == spot.get("resources")
        and other.get("labels") == spot.get("labels")
    ]
    if not equal:
        yield f"{name}: no on-demand type has the same resources"
    for other in equal:
        if other.get("priority", 0) >= spot.get("priority", 0):
            yield f"{name}: its priority must be above that of its on-demand twin"
        if other.get("max_workers", 0) < spot.get("max_workers", 0):
            yield f"{name}: its on-demand twin has fewer nodes"


def exposure(config):
    """What would let others in, or a secret out."""
    options = " ".join(config.get("docker", {}).get("run_options", []))
    if "-e RAY_AUTH_MODE=token" not in options:
        yield "docker.run_options: RAY_AUTH_MODE=token is missing"
    if config.get("file_mounts") != {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}:
        yield "file_mounts: the token, and nothing else"
    head = " ".join(config.get("head_start_ray_commands", []))
    if re.findall(r"--dashboard-host[= ](\S+)", head) != ["127.0.0.1"]:
        yield "head_start_ray_commands: the dashboard must listen on 127.0.0.1"
    if "--autoscaling-config=~/ray_bootstrap_config.yaml" not in head:
        yield "head_start_ray_commands: without --autoscaling-config no node is ever started"
    text = yaml.safe_dump(config)
    if "0.0.0.0" in text:
        yield "0.0.0.0 opens a port to everyone"
    if re.search(r"AKIA[0-9A-Z]{16}|RAY_AUTH_TOKEN=|METS_RAY_TOKEN=|SECRET_ACCESS_KEY|PRIVATE KEY", text):
        yield "a secret stands in the file"
    provider = config["provider"]
    if provider["type"] == "aws":
        if provider.get("cache_stopped_nodes") is not False:
            yield "provider.cache_stopped_nodes: stopped nodes keep costing"
        # Ray adds SSH from everywhere to a group that it fills; one that exists with rules it leaves alone.
        if set(provider.get("security_group", {})) != {"GroupName"}:
            yield "provider.security_group: name a group that exists"
        for name, node_type in config[TYPES].items():
            node = node_type["node_config"]
            if "IamInstanceProfile" not in node:
                yield f"{name}: IamInstanceProfile is missing; Ray's own for the head may do everything"
            if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
                yield f"{name}: MetadataOptions.HttpTokens must be required"
            if not all(disk["Ebs"].get("Encrypted") for disk in node.get("BlockDeviceMappings", [])):
                yield f"{name}: disks must be encrypted"


# The commands that our pages show, and what they ask of the nodes


@cache
def shown_commands():
    """Words after `python jobs/pretrain.py` of every command in the cluster pages and of the RayJob's entrypoint."""
    commands = []
    for page in ("aws.md", "gcp.md"):
        for block in re.findall(r"```console\n(.*?)```", (DEPLOY / page).read_text(), re.DOTALL):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if "jobs/pretrain.py" in words:
                    commands.append(words[words.index("jobs/pretrain.py") + 1 :])
    entrypoint = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())["spec"]["entrypoint"]
    python, script, *words = shlex.split(entrypoint)
    assert (python, script) == ("python", "jobs/pretrain.py")
    return [*commands, words]


def settings_of(words):
    words = list(words)
    file = None
    if "--config" in words:
        position = words.index("--config")
        file = ROOT / words[position + 1]
        del words[position : position + 2]
    return load_config(file, words)


@cache
def asked_for():
    """Custom resources that a shown command asks for."""
    configs = [settings_of(words) for words in shown_commands()]
    return {name for config in configs for name in (*config.text.resources, *config.train.resources)}


def test_shown_commands_are_right():
    assert len(shown_commands()) >= 3
    for words in shown_commands():
        config = settings_of(words)
        assert config.dataset_uri.startswith("s3://"), "a path of the head is no path of a worker"
        assert config.run_uri.startswith("s3://")
        assert config.train.device == "gpu", "auto is CPU on a cluster that has not grown yet"
        # `ray job submit` joins the words like this and hands them to a shell.
        assert shlex.split(subprocess.list2cmdline(words)) == words


@pytest.mark.parametrize("cloud", READ)
def test_what_the_commands_ask_for_fits_the_node_types(cloud):
    node_types = READ[cloud]()[TYPES].values()
    for words in shown_commands():
        config = settings_of(words)
        text = config.text
        one = {"CPU": text.num_cpus_per_actor, "GPU": text.num_gpus_per_actor, **text.resources}
        fitting = [it for it in node_types if all(it["resources"].get(name, 0) >= value for name, value in one.items())]
        assert sum(it["max_workers"] for it in fitting) >= text.max_actors
        if text.resources:
            assert all("train_gpu" not in it["resources"] for it in fitting)
        for it in (it for it in node_types if "train_gpu" in it["resources"]):
            assert it["max_workers"] * it["resources"]["GPU"] >= config.train.num_workers
            assert it["resources"]["train_gpu"] == it["resources"]["GPU"], (
                "one for each worker, one GPU for each worker"
            )


def test_the_gcp_page_changes_only_what_is_the_clouds():
    aws, gcp = read_aws(), read_gcp()
    for name, node_type in aws[TYPES].items():
        assert node_type["node_config"] != gcp[TYPES][name]["node_config"]
        assert is_spot(node_type) == is_spot(gcp[TYPES][name])
        without = [{k: v for k, v in it.items() if k != "node_config"} for it in (node_type, gcp[TYPES][name])]
        assert without[0] == without[1]
    for node_type in gcp[TYPES].values():
        node = node_type["node_config"]
        if node_type["resources"].get("GPU"):
            assert sum(it["acceleratorCount"] for it in node["guestAccelerators"]) == node_type["resources"]["GPU"]
            assert {"onHostMaintenance": "TERMINATE"} in node["scheduling"]


@pytest.mark.parametrize("cloud", READ)
def test_cluster_files_are_right(cloud):
    assert cluster_errors(READ[cloud]()) == []


HEAD, CPU, LM = (f"{TYPES}.{name}" for name in ("head", "cpu", "lm_gpu"))
SPOT, ON_DEMAND = f"{TYPES}.train_gpu_spot", f"{TYPES}.train_gpu_on_demand"


def remove(key):
    return lambda node: node.pop(key)


@pytest.mark.parametrize("cloud", READ)
@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        # misspelt keys
        ("", rename("max_workers", "max_worker"), "'max_worker' was unexpected"),
        ("", rename("idle_timeout_minutes", "idle_timeout"), "'idle_timeout' was unexpected"),
        ("", rename("head_node_type", "head_type"), "'head_type' was unexpected"),
        ("", rename("file_mounts", "file_mount"), "'file_mount' was unexpected"),
        ("docker", rename("run_options", "run_option"), "'run_option' was unexpected"),
        ("docker", rename("container_name", "name"), "'name' was unexpected"),
        ("provider", rename("availability_zone", "availability_zones"), "'availability_zones' was unexpected"),
        ("auth", rename("ssh_user", "user"), "'user' was unexpected"),
        (CPU, rename("max_workers", "maxWorkers"), "'maxWorkers' was unexpected"),
        (CPU, rename("resources", "resource"), "'resources' is a required property"),
        (CPU, put("docker", {"image": "mets-ray:0.1.0"}), "'image' was unexpected"),
        (SPOT, rename("priority", "prioritys"), "'prioritys' was unexpected"),
        # numbers
        (f"{LM}.resources", put("GPU", 0.5), "0.5 is not of type 'integer'"),
        (f"{CPU}.resources", put("CPU", "16"), "'16' is not of type 'integer'"),
        (f"{CPU}.resources", put("CPU", 0), "without a CPU no task fits"),
        (CPU, put("min_workers", 9), "min_workers 9 is above max_workers 8"),
        (CPU, put("min_workers", 1), "costs money while nobody works"),
        (CPU, put("max_workers", 15), "max_workers 15 is above the cluster's 14"),
        ("", put("max_workers", 3), "max_workers 8 is above the cluster's 3"),
        # the head
        ("", put("head_node_type", "heads"), "`head_node_type` must be one of"),
        (f"{HEAD}.resources", put("CPU", 4), "no work on the head"),
        (f"{HEAD}.resources", remove("CPU"), "no work on the head"),
        (HEAD, put("max_workers", 1), "must not be started again"),
        # resources that nobody asks for, or nobody has
        (f"{LM}.resources", rename("lm_gpu", "lm_gpus"), "resource lm_gpus is asked for by no setting"),
        (f"{LM}.resources", remove("lm_gpu"), "resource lm_gpu is on no node type"),
        (f"{CPU}.resources", put("disk", 1), "resource disk is asked for by no setting"),
        (CPU, put("labels", {"role": "data"}), "label role is asked for by no setting"),
        (CPU, put("labels", {"role": 1}), "1 is not of type 'string'"),
        # spot and its fallback
        (f"{ON_DEMAND}.resources", put("CPU", 4), "no on-demand type has the same resources"),
        (TYPES, remove("train_gpu_on_demand"), "no on-demand type has the same resources"),
        (ON_DEMAND, put("priority", 10), "its priority must be above"),
        (SPOT, remove("priority"), "its priority must be above"),
        (ON_DEMAND, put("max_workers", 1), "its on-demand twin has fewer nodes"),
        # others in, secrets out
        ("head_start_ray_commands", lambda it: it.append("ray start --dashboard-host=0.0.0.0"), "listen on 127.0.0.1"),
        ("", remove("head_start_ray_commands"), "listen on 127.0.0.1"),
        ("", put("head_start_ray_commands", ["ray start --head --dashboard-host=127.0.0.1"]), "--autoscaling-config"),
        ("docker", put("run_options", ["-e RAY_AUTH_MODE=disabled"]), "RAY_AUTH_MODE=token is missing"),
        ("docker.run_options", lambda it: it.append("-e RAY_AUTH_TOKEN=abc"), "a secret stands in the file"),
        ("file_mounts", put("/home/ray/.aws", "~/.aws"), "the token, and nothing else"),
        ("", put("file_mounts", {}), "the token, and nothing else"),
        ("docker", remove("image"), "Must provide a container & image name"),
        ("", put("setup_commands", ["pip install -U ray"]), "the image has everything"),
        ("", remove("setup_commands"), "the image has everything"),
    ],
)
def test_slips_in_the_cluster_file_are_caught(cloud, path, change, says):
    found = cluster_errors(changed(READ[cloud](), path, change))
    assert any(says in line for line in found), found


@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        ("provider", remove("cache_stopped_nodes"), "stopped nodes keep costing"),
        ("provider", remove("security_group"), "name a group that exists"),
        ("provider.security_group", put("IpPermissions", [{"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]), "0.0.0.0 opens"),
        (f"{HEAD}.node_config", put("InstanceMarketOptions", {"MarketType": "spot"}), "lost with its spot instance"),
        (f"{HEAD}.node_config", remove("IamInstanceProfile"), "IamInstanceProfile is missing"),
        (f"{CPU}.node_config", remove("MetadataOptions"), "HttpTokens must be required"),
        (f"{CPU}.node_config", put("InstanceType", "m6i.4xlarg"), "m6i.4xlarg is no instance type"),
        (f"{CPU}.node_config", rename("ImageId", "ImageID"), 'Unknown parameter in input: "ImageID"'),
        (f"{CPU}.node_config.BlockDeviceMappings.0.Ebs", rename("VolumeSize", "Size"), 'Unknown parameter in'),
        (f"{CPU}.node_config.BlockDeviceMappings.0.Ebs", put("Encrypted", False), "disks must be encrypted"),
        (f"{SPOT}.node_config.InstanceMarketOptions", rename("MarketType", "Type"), 'Unknown parameter in'),
    ],
)  # fmt: skip
def test_slips_in_what_is_awss_own_are_caught(path, change, says):
    found = cluster_errors(changed(read_aws(), path, change))
    assert any(says in line for line in found), found


# The image


@cache
def dockerfile():
    """(instruction, words) of each line of the Dockerfile; a continued line is one."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    return [(instruction, rest.strip()) for instruction, _, rest in (line.partition(" ") for line in lines)]


def of(name):
    return [rest for instruction, rest in dockerfile() if instruction == name]


def test_the_dockerfile_is_built_of_known_instructions():
    known = {"FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER", "CMD"}  # ADD, EXPOSE, VOLUME … are not wanted
    assert {instruction for instruction, _ in dockerfile()} <= known
    assert dockerfile()[0][0] == "FROM"
    assert [rest.rpartition(" AS ")[2] for rest in of("FROM")] == ["serve", "cluster"], "without --target, the last"
    assert of("FROM")[1] == "serve AS cluster"
    for rest in of("RUN"):
        subprocess.run(["bash", "-n", "-c", rest], check=True)  # its shell syntax


def test_the_image_is_of_a_python_and_of_versions_that_the_project_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (minor,) = re.fullmatch(r"python:(3\.\d+)-slim-\w+@sha256:[0-9a-f]{64} AS serve", of("FROM")[0]).groups()
    assert f"Programming Language :: Python :: {minor}" in project["classifiers"]
    assert f"--python-version {minor}" in (ROOT / "Makefile").read_text(), "the locks are for the images' Python"
    *hashed, own = [rest for rest in sorted(of("RUN"), key=lambda rest: "--no-build-isolation" in rest)
                    if "pip install" in rest]  # fmt: skip
    assert len(hashed) == 2
    assert all({"--require-hashes", "--no-deps"} <= set(rest.split()) for rest in hashed)
    assert {"--no-build-isolation", "--no-deps", "."} <= set(own.split()), "nothing else is fetched"
    assert "torch.version.cuda" in " ".join(hashed)
    arguments = dict(argument.partition("=")[::2] for argument in of("ARG"))
    assert {*arguments["EXTRAS"].split(","), arguments["LAUNCHER"]} <= set(project["optional-dependencies"])


def test_extras_of_the_image_become_lock_files():
    (line,) = [rest for rest in of("RUN") if "EXTRAS" in rest]
    (shell,) = re.findall(r"\$\((echo .*?)\) +&&", line)
    for extras in ("quickstart,s3", "gcs", "quickstart,azure,wandb"):
        done = subprocess.run(["sh", "-c", shell], env={"EXTRAS": extras}, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [
            word for extra in extras.split(",") for word in ("--requirement", f"locks/{extra}.txt")
        ]


def test_all_files_name_the_image_that_the_dockerfile_says_it_builds():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    built = set(re.findall(r"--tag (\S+)", (ROOT / "Dockerfile").read_text()))
    assert built == {f"mets-ray:{version}", f"mets-ray-serve:{version}"}
    named = {read_aws()["docker"]["image"], read_gcp()["docker"]["image"]}
    named |= set(images(yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())))
    assert named == {f"mets-ray:{version}"}
    serving = yaml.safe_load((ROOT / "serve_configs" / "rayservice.yaml").read_text())
    assert set(images(serving)) == {f"mets-ray-serve:{version}"}
    ray = [line for line in (ROOT / "constraints.txt").read_text().split() if line.startswith("ray==")]
    job = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    assert ray == [f"ray=={job['rayVersion']}"]


def images(node):
    if isinstance(node, dict):
        yield from ([node["image"]] if isinstance(node.get("image"), str) else [])
        node = list(node.values())
    if isinstance(node, list):
        for below in node:
            yield from images(below)


def test_what_is_copied_into_the_image_is_there_and_is_let_in():
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    copied = {source for rest in of("COPY") for source in rest.split()[:-1]}
    assert copied == let_in
    assert "*" in (ROOT / ".dockerignore").read_text().split(), "what is not named stays out"
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_has_what_launcher_and_kuberay_call_and_no_rights():
    serve, cluster = [rest for rest in of("RUN") if "apt-get install" in rest]
    assert {"bash", "wget"} <= set(serve.split())
    assert not re.search(r"gcc|g\+\+|clang|build-essential|-dev\b|ssh|rsync", serve), "what serves compiles nothing"
    assert {"rsync", "openssh-client", "gcc"} <= set(cluster.split())
    assert "--uid 1000" in serve
    users = [rest for instruction, rest in dockerfile() if instruction in ("USER", "FROM")]
    assert users[1:] == ["1000:1000", "serve AS cluster", "0:0", "1000:1000"]
    assert of("USER")[-1] == "1000:1000", "a number: Kubernetes' runAsNonRoot cannot read names"
    everything = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"TOKEN|SECRET|PASSWORD|AWS_ACCESS", everything)
    assert not any("PATH=" in rest for rest in of("ENV")), "a login shell drops it"


# What a job uploads


def test_a_job_uploads_little_and_all_that_it_needs(tmp_path):
    from ray._private.runtime_env.packaging import create_package

    target = tmp_path / "package.zip"
    create_package(str(ROOT), target, include_gitignore=True, logger=logging.getLogger("quiet"))
    with zipfile.ZipFile(target) as package:
        names = set(package.namelist())
    needed = {str(file.relative_to(ROOT)) for folder in ("jobs", "mets_ray") for file in (ROOT / folder).rglob("*.py")}
    needed |= {str(file.relative_to(ROOT)) for file in (ROOT / "jobs" / "configs").glob("*.yaml")}
    needed |= {str(file.relative_to(ROOT)) for file in (ROOT / "mets_ray" / "tasks" / "prompts").glob("*.yaml")}
    assert needed <= names
    tops = {name.split("/")[0] for name in names}
    assert not tops & {".git", ".venv", ".runs", ".ci", "tests", "docs", "benchmarks", "mets_ray.egg-info"}
    assert not [name for name in names if "__pycache__" in name]
    assert target.stat().st_size < 10e6, "MB; docs/deploy/aws.md says so"


def test_local_leftovers_stay_out_of_the_upload(tmp_path):
    from ray._private.runtime_env.packaging import create_package

    folder = tmp_path / "checkout"
    for name in (".venv/big", ".runs/x/bundle/model", "tests/data/ecg", ".git/objects/1", "jobs/pretrain.py"):
        file = folder / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"0" * 1000)
    (folder / "mets_ray" / "docs").mkdir(parents=True)
    (folder / "mets_ray" / "docs" / "kept.py").write_text("")
    shutil.copy(ROOT / ".rayignore", folder)
    target = tmp_path / "package.zip"
    create_package(str(folder), target, include_gitignore=True, logger=logging.getLogger("quiet"))
    with zipfile.ZipFile(target) as package:
        files = {name for name in package.namelist() if not name.endswith("/")}
    assert files == {".rayignore", "jobs/pretrain.py", "mets_ray/docs/kept.py"}
