"""What CreateRun checks in a pipeline's inputs. Pure: a specification and parameters in, Refused out."""

import json
import re
from collections.abc import Iterator
from typing import Any

from kfpstub.refusals import INTERNAL, INVALID, Refused, refused
from kfpstub.store import Row

WORDS = {
    "NUMBER_INTEGER": "double or integer, but the parameter value is not of number value type",
    "NUMBER_DOUBLE": "double or integer, but the parameter value is not of number value type",
    "BOOLEAN": "bool, but the input parameter is not of bool value type",
    "LIST": "list, but the input parameter is not of list value type",
    "STRUCT": "struct, but the input parameter is not of struct value type",
    "STRING": "string, but the input parameter is not of string value type",
}
TYPES: dict[str, tuple[type, ...]] = {
    "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": (bool,), "LIST": (list,),
    "STRUCT": (dict,), "STRING": (str,),
}  # fmt: skip
# Argo's validator resolves what begins with these; all else in double braces it lets pass, `item` and `$` included.
RESOLVED = ("item.", "steps.", "inputs.", "outputs.", "pod.", "workflow.", "tasks.")
IN_SCOPE = re.compile(
    r"workflow\.(name|namespace|uid|serviceAccountName|mainEntrypoint|parameters|creationTimestamp(\..+)?"
    r"|(labels|annotations)(\.json)?)"
)


def check(spec: Any, parameters: Row) -> None:
    """400 for what the pipeline does not take, lacks, or takes otherwise. A whole number need not be whole."""
    declared = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    strange = [name for name in parameters if name not in declared]
    if strange:
        raise _invalid(f"parameter(s) provided are not required by pipeline: {', '.join(strange)}")
    for name, about in declared.items():
        if name in parameters:
            _typed(name, about.get("parameterType", "STRING"), parameters[name])
        elif not about.get("isOptional") and "defaultValue" not in about:
            raise _invalid(f"parameter {name} is not optional, yet has neither default value nor user provided value")


def placeholders(parameters: Row) -> None:
    """500 for what Argo tries to resolve and cannot; the rest is substituted later, in the pod, unseen by the API."""
    for text in _strings(parameters):
        for found in re.findall(r"\{\{(.*?)\}\}", text):
            name = found.strip()
            if name.startswith(RESOLVED) and not IN_SCOPE.fullmatch(name):
                why = f"templates.entrypoint.tasks.root-driver failed to resolve {{{{{found}}}}}"
                raise refused(
                    INTERNAL,
                    f"Failed to create a new run: InternalServerError: Failed to validate workflow for (): {why}",
                    "",
                )


def as_doubles(value: Any) -> Any:
    """Every number has been a double on the way: whole ones lose their point, big ones their last digits."""
    if isinstance(value, dict):
        return {name: as_doubles(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_doubles(one) for one in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    double = float(value)
    return int(double) if double.is_integer() else double


def unstorable(value: Any, charset: str) -> str | None:
    """The database's complaint when a text does not fit its character set: 4-byte characters never do."""
    text = json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False)  # JSON in JSON, as it is stored
    limit = 0xFF if charset == "latin1" else 0xFFFF
    for at, char in enumerate(text):
        if ord(char) > limit:
            shown = [chr(one) if 32 <= one < 127 else f"\\x{one:02X}" for one in text[at:].encode()[:6]]
            return f"Error 1366 (22007): Incorrect string value: '{''.join(shown)}...' for column"
    return None


def _typed(name: str, kind: str, value: Any) -> None:
    wrong = not isinstance(value, TYPES.get(kind, (object,)))
    if wrong or (isinstance(value, bool) and kind != "BOOLEAN"):
        raise _invalid(f"input parameter {name} requires type {WORDS[kind]}")


def _invalid(detail: str) -> Refused:
    before = "Failed to create a new run: Failed to generate the ExecutionSpec: invalid pipeline job inputs: "
    return refused(INVALID, f"{before}Invalid input error: {detail}", detail)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, str):
        yield value
