"""The compiled pipelines of the contract suite, as a file would hold them. Their one step does nothing, at once."""

import json
import os
from collections.abc import Mapping
from typing import Any

import yaml

TYPES = {
    "s": "STRING",
    "i": "NUMBER_INTEGER",
    "f": "NUMBER_DOUBLE",
    "b": "BOOLEAN",
    "l": "LIST",
    "d": "STRUCT",
}


def pipeline_spec(mark: str = "") -> dict[str, Any]:
    """One step, and a parameter of each type, all optional; another `mark` makes it another pipeline."""
    image = os.environ.get("KFP_IMAGE") or "alpine:3.20"
    inputs: dict[str, Any] = {name: {"parameterType": kind, "isOptional": True} for name, kind in TYPES.items()}
    inputs["i"]["defaultValue"] = 1.0  # as the compiler writes an int
    task = {
        "cachingOptions": {"enableCache": True},
        "componentRef": {"name": "comp-step"},
        "taskInfo": {"name": "step"},
    }
    return {
        "components": {"comp-step": {"executorLabel": "exec-step"}},
        "deploymentSpec": {"executors": {"exec-step": {"container": {"image": image, "command": ["true"]}}}},
        "pipelineInfo": {"name": "contract", **({"description": mark} if mark else {})},
        "root": {"dag": {"tasks": {"step": task}}, "inputDefinitions": {"parameters": inputs}},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.0",
    }


def platform_spec() -> dict[str, Any]:
    """What kfp-kubernetes adds as a second document; numbers among it that are whole and yet written as doubles."""
    step = {"podMetadata": {"labels": {"contract": "1.0"}}, "activeDeadlineSeconds": 600.0}
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-step": step}}}}}


def package(mark: str = "") -> bytes:
    """As JSON, which is YAML."""
    return json.dumps(pipeline_spec(mark)).encode()


def package_with_platform(mark: str = "") -> bytes:
    """As `kfp` writes it: two documents of YAML."""
    return yaml.safe_dump_all([pipeline_spec(mark), platform_spec()], allow_unicode=True).encode()


def caching_of(spec: Mapping[str, Any]) -> list[bool]:
    """Of each task of a spec that a server gave back; absent is off, as protobuf has it."""
    tasks = spec.get("pipeline_spec", spec)["root"]["dag"]["tasks"].values()
    return [bool((one.get("cachingOptions") or {}).get("enableCache")) for one in tasks]
