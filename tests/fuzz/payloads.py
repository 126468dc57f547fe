"""What is thrown at the sources: their captured requests with anything in any place, and anything at all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

CAPTURED = Path(__file__).parents[1] / "triggers" / "sources" / "captured"
#: As `sources.yaml` has them: what the captured requests are about.
CONFIG: Mapping[str, Mapping[str, Any]] = {
    "minio": {"buckets": ["user-ids", "models"]},
    "alertmanager": {},
    "github": {"repositories": ["Codertocat/Hello-World"]},
    "gitlab": {"repositories": ["mike/diaspora"]},
    "git": {"repositories": {"acme/income-model": {"url": "ssh://git@git.example/income-model.git"}}},
    "mlflow": {"models": ["income-classifier"]},
    "manual": {},
}
Request = tuple[dict[str, str], bytes]  #: headers, body


def parsed(raw: bytes) -> Request:
    """A captured request."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:]]
    return {name.lower(): value.strip() for name, _, value in lines}, body


def captured(source: str) -> Sequence[Request]:
    """Every one of a source; of one that nobody captured, what its documentation says."""
    found = [parsed(path.read_bytes()) for path in sorted((CAPTURED / source).glob("*.http"))]
    return found or [({"content-type": "application/json"}, b'{"id": "1", "rule": "retrain", "by": "ada"}')]


TEXTS = ["\x00", "\ud800", "a\udfffb", "refs/heads/x", "0" * 40, "f" * 64, "%ZZ+", "%ff", "%00", "..", "\u202e"]
TEXTS += ["2026-11-21T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "x" * 5000, "é" * 600, "{{x}}"]
NUMBERS = [10**400, -(10**400), -1, 2**63, 2**63 - 1, 1e308, float("nan"), float("inf")]
HOSTILE = st.sampled_from([*TEXTS, *NUMBERS, True, None, [], {}, [[]] * 99])
SCALARS = st.one_of(HOSTILE, st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a document, its own first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *[place for key, one in inner for place in places(one, (*path, key))]]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of the document with this at that path."""
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


def _mutated(draw: Any, body: bytes) -> bytes:
    """One to three places hold something else."""
    try:
        value = json.loads(body)
    except ValueError:  # a form
        return body
    for _ in range(draw(st.integers(1, 3))):
        value = put(value, draw(st.sampled_from(places(value))), draw(JSON))
    return json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


def _twice(draw: Any, body: bytes) -> bytes:
    """A key stands there twice, or a part of the body."""
    colons = [place for place, byte in enumerate(body) if byte == ord(":")] or [0]
    at = draw(st.sampled_from(colons))
    start = max(0, body.rfind(b'"', 0, max(0, at - 1)))
    return body[:start] + body[start:at] + b":1," + body[start:]


def _bytes(draw: Any, body: bytes) -> bytes:
    """Some bytes are others, or more, or fewer."""
    for _ in range(draw(st.integers(1, 4))):
        at, end = sorted((draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))))
        end = draw(st.sampled_from([at, at + 1, end]))
        body = body[:at] + draw(st.binary(max_size=6) | st.just(body[at:end] * 2)) + body[end:]
    return body


def _deep(draw: Any, body: bytes) -> bytes:
    depth, place = draw(st.sampled_from([50, 500, 990, 1000, 50_000])), draw(st.integers(0, len(body)))
    opened = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}")]))
    return body[:place] + opened[0] * depth + opened[1] * draw(st.sampled_from([0, depth])) + body[place:]


@st.composite
def requests(draw: Any, source: str) -> Request:
    """A request of the source, with something wrong about it; now and then nothing."""
    headers, body = draw(st.sampled_from(captured(source)))
    how = draw(st.sampled_from([_mutated] * 6 + [_bytes, _bytes, _twice, _deep, None]))
    body = how(draw, body) if how else body
    if draw(st.integers(0, 9)) == 0:
        body = draw(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
    if draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from(sorted(headers)))
        headers = headers | {name: draw(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40))}
    return headers, body
