"""Who is asking, in multi-user mode. Without it everybody may do everything, as on a single-user server."""

from kfpstub.machine import Machine, Request
from kfpstub.refusals import DENIED, INVALID, UNAUTHENTICATED, Refused, refused

NOBODY = "Failed to check authorization. User identity is empty in the request header"
HEADER = "Request header error: there is no user identity header."


def allowed(machine: Machine, request: Request, namespace: str, prefix: str) -> None:
    """Refused for no namespace (400), no or a bad token (401), a user who has no part in the namespace (403).

    The prefix is the endpoint's, such as `Failed to list runs: Failed to list runs due to authorization error.`
    """
    if not machine.settings.multi_user:
        return
    before = f"{prefix} Check if you have permission to access namespace {namespace}: "
    if not namespace:
        detail = "A run cannot have an empty namespace in multi-user mode"
        raise refused(INVALID, f"{before}Invalid input error: {detail}", detail)
    before += f"Failed to access run . Check if you have access to namespace {namespace}: "
    user = _user(machine, request, before)
    if namespace not in machine.settings.namespaces.get(user, []):
        asked = (
            f"&ResourceAttributes{{Namespace:{namespace},Verb:list,Group:pipelines.kubeflow.org,Version:v1beta1,"
            "Resource:runs,Subresource:,Name:,FieldSelector:nil,LabelSelector:nil,}"
        )
        detail = f"User '{user}' is not authorized with reason:  (request: {asked})"
        raise refused(DENIED, f"{before}PermissionDenied: {detail}: Unauthorized access", detail)


def _user(machine: Machine, request: Request, before: str) -> str:
    if "kubeflow-userid" in request.headers:
        return request.headers["kubeflow-userid"]
    given = request.headers.get("authorization", "")
    user = machine.settings.tokens.get(given.removeprefix("Bearer ")) if given.startswith("Bearer ") else None
    if user is None:
        raise _unauthenticated(before, "bearer" if given.startswith("Bearer ") else "")
    return user


def _unauthenticated(before: str, kind: str) -> Refused:
    why = f"Unauthenticated: {HEADER}: {HEADER}"
    if kind:
        token = "Review.Status.Authenticated is false. Error invalid bearer token: Failed to authenticate token review"
        why = f"[{why}, Authentication failure: Unauthenticated: {token}]"
    return refused(UNAUTHENTICATED, f"{before}Unauthenticated: {NOBODY}: {why}", NOBODY)
