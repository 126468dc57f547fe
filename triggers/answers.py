"""`answers:` of a git source: how the code host is told what came of a push. Set by whoever runs the platform.

Part of the settings of `triggers.sources.github`, `.gitlab` and `.git`; acted on by `service.codehost`. The API's
address stands here and is never taken from a payload.
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator

from triggers.secretref import SecretReference, reference
from triggers.source import STRICT

Host = Literal["github", "gitlab", "gitea"]


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be the address of the API, such as https://api.github.com or https://HOST/api/v4")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be an address alone, without a password, `?` or `#`")
    return url.rstrip("/")


class Answers(BaseModel):
    """Where to and with what right."""

    model_config = STRICT

    api: Annotated[str, AfterValidator(_address)]  #: GitHub: …/api/v3 on a server of one's own; GitLab: …/api/v4
    token: Annotated[SecretReference, BeforeValidator(reference)]  #: may write statuses and comments, no more
    kind: Host | None = None  #: whose API it is; none: as the source's type says
