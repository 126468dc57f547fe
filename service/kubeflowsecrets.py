"""What a KFP server is shown to let us in: a bearer token, a Cookie header, each a setting or a file that is rotated.

Called by `service.kubeflowapi`, with every call. No secret leaves here but into a header: `hidden` takes them out of
texts, and what is wrong with a file is said without what stands in it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from service.errors import Temporary
from service.settings import BackendSettings

#: Where Kubeflow projects a service account's token for KFP, and the variable that says where else (the SDK's).
SERVICE_ACCOUNT = Path("/var/run/secrets/kubeflow/pipelines/token")
SERVICE_ACCOUNT_ENV = "KF_PIPELINES_SA_TOKEN_PATH"

_MENDED_WITHIN = 30.0  #: seconds after which a file that is missing or broken is worth another look


@dataclass
class _Secret:
    """A value that was given, or a file that is read again whenever it is another one."""

    what: str
    given: SecretStr | None = None
    path: Path | None = None
    _known: tuple[tuple[int, ...], str] | None = field(default=None, repr=False)

    def value(self) -> str:
        if self.path is None:
            return self._usable(self.given.get_secret_value()) if self.given else ""
        try:
            state = self.path.stat()
            mark = (state.st_mtime_ns, state.st_size, state.st_ino)
            if self._known is None or self._known[0] != mark:
                self._known = (mark, self._usable(self.path.read_text(encoding="utf-8")))
        except OSError as error:
            raise self._broken(error.strerror or "unreadable") from error
        except UnicodeDecodeError:  # its text would be in the traceback
            raise self._broken("not UTF-8 text") from None
        return self._known[1]

    def forget(self) -> bool:
        self._known = None
        return self.path is not None

    def _usable(self, text: str) -> str:
        """http.client refuses a bad header with a message that holds the whole of it."""
        text = text.strip()
        if not text or not text.isascii() or not text.isprintable():
            raise self._broken("no single line of plain text")
        return text

    def _broken(self, why: str) -> Temporary:
        where = f"{self.what} {self.path}" if self.path else self.what
        return Temporary(f"cannot use {where}: {why}", delay=_MENDED_WITHIN, nothing_happened=True)


class Secrets:
    """A backend's. Usable from many threads."""

    def __init__(self, settings: BackendSettings) -> None:
        """Reads nothing yet."""
        path = settings.token_file
        if settings.service_account:
            path = Path(os.environ.get(SERVICE_ACCOUNT_ENV) or SERVICE_ACCOUNT)
        what = "the service account token" if settings.service_account else "token_file" if path else "token"
        self._token = _Secret(what, settings.token, path)
        cookies = settings.cookies_file
        self._cookies = _Secret("cookies_file" if cookies else "cookies", settings.cookies, cookies)
        self.hook: Callable[[Any], None] | None = None
        if settings.token or path:
            self.hook = self.refresh_api_key_hook

    def refresh_api_key_hook(self, config: Any) -> None:
        """As kfp's `TokenCredentialsBase` has it; called before each call. By shape only: importing kfp takes long."""
        config.api_key["authorization"] = self._token.value()

    def cookie(self) -> str:
        """The Cookie header, "" for none. Temporary when its file cannot be used."""
        return self._cookies.value()

    def forget(self) -> bool:
        """After a 401: files are read again whatever they look like. False when there is none."""
        return bool(self._token.forget() | self._cookies.forget())

    def hidden(self, text: str) -> str:
        """The text without the secrets, should a server echo one."""
        for one in (self._token, self._cookies):
            known = one._known[1] if one._known else one.given.get_secret_value().strip() if one.given else ""
            text = text.replace(known, "…") if known else text
        return text
