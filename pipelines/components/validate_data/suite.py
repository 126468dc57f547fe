"""A suite of expectations, as Great Expectations 1.x writes it in JSON, read from the bucket. Called by validate.py.

A suite is data that others write: what is in it may ask about the rows, but not run code. So expectations that carry
a `row_condition`, which pandas evaluates as an expression, are refused.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import great_expectations as gx
from great_expectations.exceptions.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from pydantic.v1 import ValidationError as WrongArgument

from pipelines.errors import PipelineError
from pipelines.storage import ObjectRef, Stored, download, parse_s3

HOW = "write it with Great Expectations 1.x: json.dumps(suite.to_json_dict())"
KNOWN = ("type", "kwargs", "meta", "severity", "description", "notes")  # `id` is left out: it belongs to a GE store


def read_suite(uri: str) -> tuple[gx.ExpectationSuite, ObjectRef, Stored]:
    """The suite, and which object it was exactly."""
    ref = parse_s3(uri)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "suite.json")
        stored = download(ref, path)
        return suite_of(path.read_bytes(), uri), ref, stored


def suite_of(content: bytes, uri: str) -> gx.ExpectationSuite:
    """The suite that the text is, or an error that says which expectation is none."""
    try:
        document = json.loads(content)
    except ValueError as error:
        raise PipelineError(f"the suite {uri} is no JSON: {HOW}") from error
    if not isinstance(document, dict) or not isinstance(document.get("expectations"), list):
        raise PipelineError(f"the suite {uri} has no list `expectations`: {HOW}")
    if not document["expectations"]:
        raise PipelineError(f"the suite {uri} has no expectation in it, so nothing would be checked")
    made = [_expectation(item, f"{uri}, expectation {place}") for place, item in enumerate(document["expectations"], 1)]
    return gx.ExpectationSuite(name=str(document.get("name") or "suite"), expectations=made)


def _expectation(item: Any, where: str) -> Any:
    """One of them, by GE's own constructor, which knows its type and the types of its arguments.

    Asked one by one: a suite given an expectation of an unknown type logs that and goes on without it.
    """
    if isinstance(item, dict) and "expectation_type" in item:
        raise PipelineError(f"the suite {where} was written by Great Expectations 0.x: {HOW}")
    if not isinstance(item, dict) or not isinstance(item.get("type"), str) or not isinstance(item.get("kwargs"), dict):
        raise PipelineError(f"the suite {where} needs a `type` and `kwargs`: {HOW}")
    name = item["type"]
    if "row_condition" in item["kwargs"]:
        raise PipelineError(f"the suite {where} ({name}) has a row_condition, which would run as code: leave it out")
    if '"$PARAMETER":' in json.dumps(item["kwargs"]):
        raise PipelineError(f"the suite {where} ({name}) has a suite parameter; write the value")
    kept = {key: item[key] for key in KNOWN if item.get(key)} | {"type": name, "kwargs": item["kwargs"]}
    try:
        return ExpectationConfiguration(**kept).to_domain_obj()
    except GreatExpectationsError as error:
        raise PipelineError(f"the suite {where}: Great Expectations {gx.__version__} has no {name[:100]}") from error
    except WrongArgument as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise PipelineError(f"the suite {where} ({name}) has wrong kwargs: {wrong[:300]}") from error
