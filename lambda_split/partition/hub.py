"""A model on the Hugging Face Hub, fetched file by file and only as far as it is needed."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import time
from dataclasses import dataclass

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (  # type: ignore[attr-defined] # HTTPError is re-exported
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # the HTTP client's own base class; which client it is differs by version
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lambda_split.errors import CheckpointInvalid, CheckpointNotFound

__all__ = ["HubRepository"]


_IN_TROUBLE = frozenset({429, 500, 502, 503, 504})  # statuses that may pass
_PAUSE_S = 1.0
_FOLDER_TIMEOUT_S = 5  # for names without an owner, most of which are folders' mistyped


class _Unreachable(CheckpointNotFound):
    """The file is not in the cache, and the Hub was not asked or did not answer."""


def _unreachable(repository: str, name: str) -> _Unreachable:
    reason = (
        f"there is no such folder, {name} is not in the cache, and the Hub was not asked or "
        "did not answer (check the connection, HF_ENDPOINT and HF_HUB_OFFLINE)"
    )
    return _Unreachable(repository, reason)


def _check_reachable(repository: str, name: str, revision: str | None) -> None:
    """Ask for a file, where it is not in the cache; once more where the Hub is in trouble.

    A download tries eight times, which is right for the tenth shard. But a folder's name that was
    mistyped should not take half a minute to be told, where there is no network, or a proxy that
    answers in the Hub's place.

    Raises:
        CheckpointNotFound: there is no way to the Hub, or it answers with a failure.
    """
    known = try_to_load_from_cache(repository, name, revision=revision)
    if constants.HF_HUB_OFFLINE or known is not None:
        return
    try:
        failure = _failure_of(repository, name, revision)
        if failure in _IN_TROUBLE:
            time.sleep(_PAUSE_S)
            failure = _failure_of(repository, name, revision)
    except (HTTPError, OSError) as error:
        raise _unreachable(repository, name) from error
    if failure is not None:
        reason = (
            f"there is no such folder, {name} is not in the cache, and the Hub answered with "
            f"status {failure}"
        )
        raise CheckpointNotFound(repository, reason)


def _failure_of(repository: str, name: str, revision: str | None) -> int | None:
    """The status of an answer that says nothing of the file; None for one that does."""
    usual_s = constants.HF_HUB_ETAG_TIMEOUT
    timeout_s = usual_s if "/" in repository else min(usual_s, _FOLDER_TIMEOUT_S)
    try:
        url = hf_hub_url(repository, name, revision=revision)
        get_hf_file_metadata(url, timeout=timeout_s)
    except HfHubHTTPError as error:
        # Its subclasses are the Hub's own words: the download will tell which.
        return error.response.status_code if type(error) is HfHubHTTPError else None
    return None


def _log_once() -> None:
    """Where the program has a log, leave lines to it: the library would print each once more."""
    if logging.getLogger().handlers:
        library = logging.getLogger("huggingface_hub")
        for handler in list(library.handlers):
            library.removeHandler(handler)


def _download(repository: str, name: str, revision: str | None) -> pathlib.Path | None:
    try:
        return pathlib.Path(hf_hub_download(repository, name, revision=revision))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise _unreachable(repository, name) from error
    except EntryNotFoundError:
        return None
    except GatedRepoError as error:
        reason = "it is gated: accept its terms on the Hub, then set HF_TOKEN"
        raise CheckpointNotFound(repository, reason) from error
    except RevisionNotFoundError as error:
        raise CheckpointNotFound(repository, f"it has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        reason = (
            "no such folder here, and no such model on the Hub (or it is private: set HF_TOKEN)"
        )
        raise CheckpointNotFound(repository, reason) from error
    except HFValidationError as error:
        reason = "no such folder here, and it cannot be the id of a model on the Hub"
        raise CheckpointNotFound(repository, reason) from error
    except (HTTPError, OSError) as error:
        raise CheckpointNotFound(repository, f"fetching {name} failed: {error}") from error


@dataclass(frozen=True)
class HubRepository:
    """A repository pinned to one commit, so that all its files belong together.

    ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` mean what they mean to
    huggingface_hub, which does the fetching and the caching.
    """

    id: str
    revision: str

    @staticmethod
    def open(repository: str, revision: str | None, probe: str) -> HubRepository:
        """Resolve a branch or tag to its commit by fetching one file.

        Args:
            repository: ``owner/name``.
            revision: Branch, tag or commit; the main branch by default.
            probe: A file that the repository must have.

        Raises:
            CheckpointNotFound: there is no such repository, revision or file, or no way to it.
        """
        _log_once()
        with contextlib.suppress(HFValidationError):  # which the download tells, in our own words
            _check_reachable(repository, probe, revision)
        path = _download(repository, probe, revision)
        if path is None:
            raise CheckpointNotFound(repository, f"the repository has no {probe}")
        # The cache lays files out as snapshots/<commit>/<name>; this works offline, too.
        return HubRepository(repository, path.parent.name)

    def find(self, name: str) -> pathlib.Path | None:
        """See :meth:`ModelFiles.find`. Offline, what the cache lacks counts as not there."""
        cached = try_to_load_from_cache(self.id, name, revision=self.revision)
        if cached is not None and not isinstance(cached, str):
            return None  # a marker: the Hub said earlier that this commit has no such file
        try:
            return _download(self.id, name, self.revision)
        except _Unreachable:
            if constants.HF_HUB_OFFLINE:
                return None
            raise

    def get(self, name: str) -> pathlib.Path:
        """See :meth:`ModelFiles.get`."""
        path = _download(self.id, name, self.revision)
        if path is None:
            raise CheckpointInvalid(name, f"the repository {self.id} has no such file")
        return path

    def has(self, name: str) -> bool:
        """See :meth:`ModelFiles.has`."""
        try:
            return HfApi().file_exists(self.id, name, revision=self.revision)
        except (HTTPError, OSError):
            return False  # asked only to word an error: what cannot be seen is not claimed
