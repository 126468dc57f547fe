"""Rows as the API shows them: v2beta1 and, for the reason of a failure, v1beta1."""

import json
from typing import Any

import yaml
from kfpstub import life, tasks
from kfpstub.stamps import stamp
from kfpstub.store import Row


def experiment(row: Row) -> Row:
    """An experiment."""
    return {
        "experiment_id": row["experiment_id"],
        "display_name": row["display_name"],
        **{name: row[name] for name in ("description", "namespace") if row[name]},
        "created_at": stamp(row["created"]),
        "storage_state": row["storage_state"],
        "last_run_created_at": stamp(row["last_run"]),
    }


def pipeline(row: Row) -> Row:
    """A pipeline."""
    return {
        "pipeline_id": row["pipeline_id"],
        "display_name": row["display_name"],
        "name": row["name"],
        **{name: row[name] for name in ("description", "namespace") if row[name]},
        "created_at": stamp(row["created"]),
    }


def version(row: Row) -> Row:
    """A version, with its specification in full. With platform settings there are two documents under one name."""
    spec = row["spec"]
    if row["platform"] is not None:
        spec = {"pipeline_spec": spec, "platform_spec": row["platform"]}
    return {
        "pipeline_id": row["pipeline_id"],
        "pipeline_version_id": row["pipeline_version_id"],
        "display_name": row["display_name"],
        "name": row["name"],
        **({"description": row["description"]} if row["description"] else {}),
        "created_at": stamp(row["created"]),
        "pipeline_spec": spec,
    }


def run(row: Row, now: float) -> Row:
    """A run. What stands by reference is not repeated, and neither are defaults."""
    state = life.current(row["timeline"], now)
    details = tasks.details(row, now)
    by = "pipeline_spec" if row["reference"] is None else "pipeline_version_reference"
    return {
        "experiment_id": row["experiment_id"],
        "run_id": row["run_id"],
        "display_name": row["display_name"],
        "storage_state": row["storage_state"],
        **({"description": row["description"]} if row["description"] else {}),
        by: row["spec"] if row["reference"] is None else row["reference"],
        **({} if row["runtime_config"] is None else {"runtime_config": row["runtime_config"]}),
        "service_account": row["service_account"],
        "created_at": stamp(row["created"]),
        "scheduled_at": stamp(row["created"]),
        "finished_at": stamp(life.finished(row["timeline"], now)),
        **({} if state is None else {"state": state}),
        **({"run_details": {"task_details": details}} if details else {}),
        "state_history": [
            {"update_time": stamp(at)} | ({} if name is None else {"state": name})
            for at, name in life.history(row["timeline"], now)
        ],
    }


def run_v1(row: Row, version_name: str, spec: Any, now: float) -> Row:
    """`run` and, beside it, `pipeline_runtime` with the manifests as strings."""
    state = life.current(row["timeline"], now)
    owner = {"key": {"type": "EXPERIMENT", "id": row["experiment_id"]}, "relationship": "OWNER"}
    references, described = [owner], {}
    if row["reference"] is not None:
        key = {"type": "PIPELINE_VERSION", "id": row["reference"]["pipeline_version_id"]}
        references.append({"key": key, "relationship": "CREATOR"})
        described = {"pipeline_id": row["reference"]["pipeline_id"], "pipeline_name": version_name}
    shown = {
        "id": row["run_id"],
        "name": row["display_name"],
        **({"description": row["description"]} if row["description"] else {}),
        "pipeline_spec": {
            **described,
            "pipeline_manifest": yaml.safe_dump(spec),
            "runtime_config": row["runtime_config"] or {},
        },
        "resource_references": references,
        "service_account": row["service_account"],
        "created_at": stamp(row["created"]),
        "scheduled_at": stamp(row["created"]),
        "finished_at": stamp(life.finished(row["timeline"], now)),
        "status": "" if state is None else state.capitalize(),
    }
    return {"run": shown, "pipeline_runtime": _manifests(row, now)}


def _manifests(row: Row, now: float) -> dict[str, str]:
    metadata = {
        "name": row["workflow"],
        "labels": {"pipeline/runid": row["run_id"]},
        "annotations": {"pipelines.kubeflow.org/run_name": row["display_name"]},
    }
    empty = {"metadata": metadata, "spec": {}, "status": {"startedAt": None, "finishedAt": None}}
    found = {"pipeline_manifest": json.dumps(empty)}
    nodes = tasks.manifest_nodes(row, now)
    if nodes:
        ended = life.finished(row["timeline"], now)
        status = {
            "phase": nodes[row["workflow"]]["phase"],
            "startedAt": stamp(row["created"]),
            "finishedAt": stamp(ended) if ended else None,
            "nodes": nodes,
            "artifactGCStatus": {"notSpecified": True},
        }
        found["workflow_manifest"] = json.dumps(empty | {"status": status})
    return found
