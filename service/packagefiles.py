"""Compiled pipelines from outside a backend: a file below the home, or one in a commit of a model repository.

Fits `service.ports.PackageFiles`. Whether a repository may bring a pipeline along is the word of its source in
`sources.yaml`: `packages: {branches: […], service_account: …}`.
"""

from pathlib import Path

from service.commits import Commits
from service.errors import Permanent, Temporary
from service.packages import AT_MOST
from service.ports import FromCommit
from triggers.gitref import configured
from triggers.sourcefile import Source


def of_home(home: Path, path: str) -> bytes:
    """The bytes of a file below the home; a link may not lead out of it."""
    file = (home / path).resolve()
    if not file.is_relative_to(home.resolve()):
        raise Permanent(f"{path} leads out of the home")
    try:
        if file.stat().st_size > AT_MOST:
            raise Permanent(f"{path} has more than {AT_MOST} bytes: no compiled pipeline has")
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Permanent(f"there is no {path} below {home}") from error
    except OSError as error:
        raise Temporary(f"cannot read {file}: {error.strerror}") from error


class Files:
    """Those of one home, with a cache of repositories in its data folder."""

    def __init__(self, home: Path, commits: Commits) -> None:
        self._home, self._commits = home, commits

    def file(self, path: str) -> bytes:
        """A file below the home."""
        return of_home(self._home, path)

    def of_commit(self, source: Source, repository: str, sha: str, path: str) -> FromCommit:
        """A file of a commit that is on one of the branches that the source lists."""
        repositories = getattr(source.config, "repositories", {})
        allowed = repositories[repository].packages if repository in repositories else None
        if allowed is None:
            raise Permanent(
                f"source {source.name} does not allow packages from {repository}: "
                "give the repository `packages: {branches: [main], service_account: NAME}` in sources.yaml"
            )
        _, url = configured(repositories, repository, getattr(source.config, "base_url", "")) or ("", "")
        if not url:
            raise Permanent(f"source {source.name} has no `url` for {repository}: packages are fetched from there")
        content = self._commits.file(url, sha, path, allowed)
        return FromCommit(content=content, service_account=allowed.service_account)
