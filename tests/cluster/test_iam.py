"""The IAM policies of docs/deploy/iam: small enough to read, and what they allow is named one by one."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "deploy" / "iam"
POLICIES = {file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))}
# Of S3's actions these have other names than the operations of its API.
OF_S3 = {"ListBucket", "ListBucketVersions", "ListMultipartUploadParts"}
LOOKS_AT_ALL = "ec2:Describe"  # EC2 cannot limit these to resources


def statements(name):
    return POLICIES[name]["Statement"]


def listed(value):
    return [value] if isinstance(value, str) else value


def actions(name):
    return {action for statement in statements(name) for action in listed(statement["Action"])}


@cache
def operations(service):
    import botocore.session

    return set(botocore.session.get_session().get_service_model(service).operation_names)


def test_every_role_has_a_policy():
    assert set(POLICIES) == {"serve", "serve-register", "jobs", "cluster-launcher", "cluster-head", "cluster-worker"}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_names_each_action_that_it_allows(name):
    policy = POLICIES[name]
    assert policy["Version"] == "2012-10-17"
    assert set(policy) == {"Version", "Statement"}
    sids = [statement["Sid"] for statement in policy["Statement"]]
    assert len(sids) == len(set(sids))
    assert all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in sids)
    for statement in policy["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}, "no NotAction, no NotResource"
        assert statement["Effect"] == "Allow"
        for action in listed(statement["Action"]):
            service, _, operation = action.partition(":")
            assert "*" not in action
            assert "?" not in action
            known = operations(service) if service in ("ec2", "iam") else operations("s3") | OF_S3
            assert operation in known | {"PassRole"}, f"{action} is no action"


@pytest.mark.parametrize("name", POLICIES)
def test_only_looking_is_allowed_everywhere(name):
    for statement in statements(name):
        for resource in listed(statement["Resource"]):
            if resource == "*":
                assert all(action.startswith(LOOKS_AT_ALL) for action in listed(statement["Action"]))
            else:
                assert re.fullmatch(r"arn:aws:(s3|ec2|iam):[a-z0-9-]*:\d*:[\w./*-]+", resource), resource
                assert not resource.startswith("arn:aws:s3:::*")
        if "ec2:TerminateInstances" in listed(statement["Action"]):
            assert statement["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": "mets-ray"}}
        if "iam:PassRole" in listed(statement["Action"]):
            assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
            assert "*" not in statement["Resource"]
        if "s3:ListBucket" in listed(statement["Action"]):
            # IfExists: HeadBucket sends no prefix, and without the right to list S3 answers 403 for a missing object.
            assert statement["Condition"]["StringLikeIfExists"]["s3:prefix"]


def test_serving_reads_and_nothing_destroys_old_versions():
    assert actions("serve") == {"s3:ListBucket", "s3:GetObject"}
    assert actions("serve-register") == {"s3:PutObject", "s3:DeleteObject"}
    assert all("serve-state/" in resource for it in statements("serve-register") for resource in listed(it["Resource"]))
    for name in POLICIES:
        assert not {"s3:DeleteObjectVersion", "s3:PutBucketVersioning", "s3:PutBucketPolicy"} & actions(name)
    (writing,) = [it for it in statements("jobs") if "s3:PutObject" in listed(it["Action"])]
    assert not any("/source/" in resource for resource in writing["Resource"]), "jobs never change what they read from"
    assert statements("cluster-worker") == statements("jobs"), "the bucket and nothing else"


def test_the_head_may_do_what_ray_calls_on_it_and_no_more():
    import ray

    provider = Path(ray.__file__).parent / "autoscaler" / "_private" / "aws" / "node_provider.py"
    called = {getattr(node.func, "attr", "") for node in ast.walk(ast.parse(provider.read_text()))
              if isinstance(node, ast.Call)}  # fmt: skip
    needed = {
        "create_instances": "ec2:RunInstances",
        "terminate": "ec2:TerminateInstances",
        "create_tags": "ec2:CreateTags",
        "describe_images": "ec2:DescribeImages",
        "describe_instance_types": "ec2:DescribeInstanceTypes",
        "filter": "ec2:DescribeInstances",
    }
    assert set(needed) <= called
    # Ray stops and starts nodes only with cache_stopped_nodes, which cluster.yaml turns off.
    assert not yaml.safe_load((ROOT / "cluster.yaml").read_text())["provider"]["cache_stopped_nodes"]
    clients = {name for name in called if re.match(r"(describe|create|start|stop|terminate)_(?!node)", name)}
    assert clients - set(needed) <= {"start_instances", "terminate_instances", "create_node"}, "a call that is new"
    of_ec2 = {action for action in actions("cluster-head") if action.startswith("ec2:")}
    assert of_ec2 == set(needed.values())


def test_the_policies_fit_the_cluster_file():
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    region, name = cluster["provider"]["region"], cluster["cluster_name"]
    types = cluster["available_node_types"]
    head_type = cluster["head_node_type"]
    workers = {it["node_config"]["InstanceType"] for key, it in types.items() if key != head_type}
    starts = {"cluster-head": workers, "cluster-launcher": {types[head_type]["node_config"]["InstanceType"]}}
    for policy, instance_types in starts.items():
        (start,) = [
            it["Condition"]["StringEquals"]
            for it in statements(policy)
            if it["Action"] == "ec2:RunInstances" and "Condition" in it
        ]
        assert set(listed(start["ec2:InstanceType"])) == instance_types
        assert start["aws:RequestTag/ray-cluster-name"] == name
        for statement in statements(policy):
            for resource in listed(statement["Resource"]):
                assert not resource.startswith("arn:aws:ec2:") or resource.split(":")[3] == region
    roles = {it["node_config"]["IamInstanceProfile"]["Name"] for it in types.values()}
    passed = {it["Resource"].rsplit("/", 1)[1] for policy in starts for it in statements(policy)
              if it["Action"] == "iam:PassRole"}  # fmt: skip
    assert passed == roles
