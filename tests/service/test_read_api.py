"""The read API: nothing without the token, then pages, filters, single things and lineage."""

from collections.abc import Callable
from typing import Any

import pytest
from served import READ_TOKEN, Spoken, served
from world import RULES, TOKEN, World

from service.errors import Temporary
from service.web.server import OPEN, application

Drop = Callable[..., str]
Ask = Callable[..., Any]
BEARER = {"authorization": f"Bearer {READ_TOKEN}"}
DENIED = {"type": "about:blank", "title": "The credential is missing or wrong", "status": 401}
ROUTES = [
    "/api/v1/deliveries",
    "/api/v1/deliveries/{delivery_id}",
    "/api/v1/decisions",
    "/api/v1/decisions/{decision_id}",
    "/api/v1/events",
    "/api/v1/events/{event_id}",
    "/api/v1/lineage",
    "/api/v1/observations",
    "/api/v1/openapi.json",
    "/api/v1/promotions",
    "/api/v1/promotions/{promotion_id}",
    "/api/v1/runs",
    "/api/v1/runs/{run_key}",
    "/healthz",
    "/hooks/{source}",
    "/metrics",
    "/readyz",
]


LISTINGS = ("events", "deliveries", "decisions", "runs")
CLOSED = [path for path in ROUTES if path not in OPEN and path != "/hooks/{source}"]
CLOSED += ["/", "/x", "/docs", "/redoc", "/openapi.json", "/api", "/api/v1", "/api/v1/", "/static/x", "/hooks", "/ui"]
CLOSED += [
    "/healthz/",
    "/Healthz",
    "/healthz%00",
    "/healthz.json",
    "//healthz",
    "/metrics/x",
    "/readyz;x",
    "/hooks/x/y",
]
CLOSED += [
    path + end
    for path in ("/api/v1/events", "/api/v1/runs/x", "/x")
    for end in ("/healthz", "/readyz", "/metrics", "/%2e%2e/healthz", ";/healthz", "?/healthz", "//healthz")
]


@pytest.fixture
def client(world: World) -> Spoken:
    return Spoken(world.app)


@pytest.fixture
def ask(client: Spoken) -> Ask:
    """The answer as JSON, to one who has the token."""

    def asked(path: str, status: int = 200, **params: Any) -> Any:
        answer = client.get(f"/api/v1/{path}", headers=BEARER, params=params)
        assert answer.status_code == status, answer.text
        if status != 200:
            assert answer.headers["content-type"] == "application/problem+json"
            assert set(answer.json()) == {"type", "title", "status"}
        return answer.json()

    return asked


@pytest.fixture
def three(world: World, drop: Drop) -> list[str]:
    """Three events a minute apart, each with its run; the oldest first."""
    found = []
    for number in range(3):
        found.append(drop(f"incoming/{number}.csv", eTag=str(number), request=str(number)))
        world.answer()
        world.clock.forward(60)
    return found


def test_these_are_all_the_routes_there_are(world: World) -> None:
    """A new one has to be thought about here, before it is open or closed by chance."""
    web = application(world.app, Spoken(world.app).settings)._app  # type: ignore[attr-defined]
    paths = {web.openapi_url} | {context.path for context in _routes(web.routes)}
    assert paths == set(ROUTES)


def _routes(found: Any) -> Any:
    for route in found:
        inner = getattr(route, "effective_route_contexts", None)
        if inner is None:
            yield route
        else:
            yield from inner()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "NONSENSE"])
def test_nothing_but_the_open_paths_answers_without_the_token(client: Spoken, method: str) -> None:
    for path in CLOSED:
        for credential in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Bearer {TOKEN}"}):
            answer = client.request(method, path, headers=credential)
            assert answer.status_code == 401, path
            assert method == "HEAD" or answer.json() == DENIED
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "credential",
    ["", "Bearer", f"Bearer {READ_TOKEN} x", f"Bearer {READ_TOKEN}x", f"Bearer  {READ_TOKEN}", f"Basic {READ_TOKEN}"],
)
def test_nearly_the_token_is_not_the_token(client: Spoken, credential: str) -> None:
    assert client.get("/api/v1/events", headers={"authorization": credential}).status_code == 401
    assert client.get(f"/api/v1/events?token={READ_TOKEN}&access_token={READ_TOKEN}").status_code == 401


@pytest.mark.parametrize("token", ["", None])
def test_without_a_token_in_the_settings_nobody_is_let_in(world: World, token: str | None) -> None:
    client = Spoken(world.app, token=token)
    for credential in ("", "Bearer", "Bearer ", "Bearer None"):
        assert client.get("/api/v1/events", headers={"authorization": credential}).status_code == 401
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", sorted(OPEN))
def test_the_open_paths_are_open_to_a_look_only(client: Spoken, path: str) -> None:
    assert client.get(path).status_code == 200
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, path).status_code == 405


def test_with_the_token_an_unknown_path_is_404_and_nothing_redirects(client: Spoken) -> None:
    for path in ("/", "/x", "/docs", "/api/v1", "/api/v1/events/", "/healthz/"):
        assert client.get(path, headers=BEARER).status_code == 404
    assert client.post("/api/v1/events", headers=BEARER).status_code == 405


def test_the_description_of_the_api_needs_the_token_too(ask: Ask) -> None:
    assert "/api/v1/runs" in ask("openapi.json")["paths"]


def test_a_listing_is_read_page_by_page(ask: Ask, three: list[str]) -> None:
    for what in LISTINGS:
        whole = ask(what)
        assert "next" not in whole
        assert len(whole["items"]) == 3
        first = ask(what, limit=2)
        second = ask(what, limit=2, cursor=first["next"])
        assert first["items"] + second["items"] == whole["items"]
        assert "next" not in second
        assert "next" not in ask(what, limit=3)  # the last page says so, however full it is


def test_the_newest_is_first(ask: Ask, three: list[str]) -> None:
    assert [item["id"] for item in ask("events")["items"]] == three[::-1]


def test_a_listing_is_cut_by_time_since_included_until_not(ask: Ask, three: list[str]) -> None:
    for what in LISTINGS:
        assert len(ask(what, since="2026-11-21T07:01:00Z")["items"]) == 2
        assert len(ask(what, until="2026-11-21T07:01:00Z")["items"]) == 1
        assert len(ask(what, since="2026-11-21T08:01:00+01:00", until="2026-11-21T07:02:00Z")["items"]) == 1


@pytest.mark.parametrize(
    ("what", "params", "count"),
    [
        ("events", {"source": "uploads"}, 3),
        ("events", {"source": "drift"}, 0),
        ("events", {"state": "decided"}, 3),
        ("events", {"state": "quarantined"}, 0),
        ("deliveries", {"source": "uploads"}, 3),
        ("deliveries", {"source": "drift"}, 0),
        ("decisions", {"rule": "score"}, 3),
        ("decisions", {"rule": "other"}, 0),
        ("decisions", {"state": "run"}, 3),
        ("decisions", {"state": "skip"}, 0),
        ("runs", {"rule": "score", "state": "submitted"}, 3),
        ("runs", {"rule": "other"}, 0),
        ("runs", {"state": "failed"}, 0),
        ("events", {"source": "' or 1=1 --"}, 0),
        ("runs", {"cursor": "0"}, 0),
    ],
)
def test_a_listing_is_filtered(ask: Ask, three: list[str], what: str, params: dict[str, str], count: int) -> None:
    assert len(ask(what, **params)["items"]) == count


@pytest.mark.parametrize(
    "params",
    [
        {"since": "2026-11-21T07:00:00"},
        {"until": "2026-11-21"},
        {"since": "yesterday"},
        {"since": ""},
        {"since": "99999-01-01T00:00:00Z"},
        {"limit": 0},
        {"limit": -1},
        {"limit": 501},
        {"limit": "many"},
        {"limit": "9" * 5000},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_400(ask: Ask, params: dict[str, Any]) -> None:
    for what in LISTINGS:
        ask(what, status=400, **params)


def test_an_event_comes_with_its_decisions(ask: Ask, three: list[str]) -> None:
    found = ask(f"events/{three[0]}")
    assert (found["type"], found["subject"]) == ("object.created", "s3://user-ids/incoming/0.csv")
    assert found["time"] == "2026-11-21T07:00:00.000000Z"
    assert [(one["rule"], one["outcome"], one["reason"]) for one in found["decisions"]] == [("score", "run", "matched")]


def test_a_run_comes_with_its_history(ask: Ask, three: list[str]) -> None:
    key = ask("runs")["items"][0]["run_key"]
    found = ask(f"runs/{key}")
    assert found["params"]["uri"] == "s3://user-ids/incoming/2.csv"
    assert [move["after"] for move in found["transitions"]] == ["ready", "submitting", "submitted"]


def test_the_four_lead_to_each_other(ask: Ask, three: list[str]) -> None:
    run = ask("runs")["items"][0]
    decision = ask(f"decisions/{run['decision_id']}")
    event = ask(f"events/{decision['event_id']}")
    delivery = ask(f"deliveries/{event['delivery_id']}")
    assert event["id"] in delivery["event_ids"]
    assert delivery["size"] > 0
    assert "body" not in delivery


@pytest.mark.parametrize("key", ["01M7YMBFSZKK7VS9ZWYH3XSNH4", "x", "%27", "%00", "..%2F..", "é"])
def test_what_is_not_there_is_404(ask: Ask, key: str) -> None:
    for what in LISTINGS:
        ask(f"{what}/{key}", status=404)


def test_lineage_is_asked_by_uri_in_both_directions(ask: Ask, three: list[str]) -> None:
    key = ask("runs")["items"][0]["run_key"]
    found = ask("lineage", uri=f"run:{key}")
    assert found["known"]
    assert {edge["source"] for edge in found["upstream"]} >= {f"event:{three[2]}"}
    nothing = ask("lineage", uri="s3://nobody/knows")
    assert nothing == {
        "uri": "s3://nobody/knows", "known": False, "upstream": [], "downstream": [], "truncated": False
    }  # fmt: skip
    ask("lineage", status=400)


def test_every_time_is_rfc_3339_in_utc(ask: Ask, three: list[str]) -> None:
    for what in LISTINGS:
        for item in ask(what)["items"]:
            times = {name: text for name, text in item.items() if name.endswith("_at") or name == "time"}
            assert times
            assert all(text is None or text.endswith("Z") for text in times.values()), times


def test_text_from_outside_is_told_as_json_and_nothing_else(world: World, ask: Ask, drop: Drop, client: Spoken) -> None:
    event_id = drop('incoming/<script>alert("x")</script>\u202e.csv')
    answer = client.get(f"/api/v1/events/{event_id}", headers=BEARER)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["data"]["key"] == 'incoming/<script>alert("x")</script>\u202e.csv'


def test_a_rule_that_was_removed_leaves_its_runs_to_be_read(world: World, ask: Ask, three: list[str]) -> None:
    world.rules("apiVersion: kfp-triggers/v1\nrules: {}\n")
    assert len(ask("runs", rule="score")["items"]) == 3
    world.rules(RULES)


def test_a_path_on_the_wire_is_not_made_shorter_before_it_is_denied(world: World) -> None:
    from http.client import HTTPConnection

    with served(world.app) as port:
        for path in ("/api/v1/events/../../../healthz", "/x/..;/healthz", "http://x/api/v1/events", "//healthz", "*"):
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            connection.putrequest("GET", path, skip_host=True)
            connection.putheader("Host", "x")
            connection.endheaders()
            assert connection.getresponse().status in {400, 401}, path
            connection.close()


def test_a_store_that_is_away_is_503_with_its_words_kept_inside(
    world: World, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise Temporary("the server at 10.0.0.7 does not answer")

    monkeypatch.setattr(world.store.events, "list", away)
    assert "10.0.0.7" not in str(ask("events", 503))
