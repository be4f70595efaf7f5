"""Repositories on the Hugging Face Hub: the commit that a name stands for, and the data set in it.

All requests of one load name the commit. Otherwise, when the Hub does not answer, the libraries retry for minutes and
then use whatever revision or config is in the cache (tests/readers/test_hub.py).
"""

import logging
from pathlib import Path
from typing import NamedTuple

from datasets import DatasetDict, load_dataset_builder
from datasets.builder import DatasetBuilder
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from bert_helpers import files
from bert_helpers.errors import DataError

LOGGER = logging.getLogger(__name__)
TIMEOUT = 10  # seconds for the request that shows whether the Hub answers


class HubError(Exception):
    """The Hub has no such repository, or neither the Hub nor the cache can provide it; the message says which."""


class Commit(NamedTuple):
    """A commit's hash; `offline` says why the Hub did not answer, if the hash is from the cache, else it is empty."""

    hash: str
    offline: str


def is_below_a_folder_here(name: str) -> bool:
    """Whether a name such as "results/tickets" begins with a local folder, and thus is not a repository's."""
    owner, slash, _ = name.partition("/")
    return bool(slash) and (files.base_folder() / owner).is_dir()


def find_commit(repo: str, revision: str | None, *, kind: str) -> Commit:
    """Find the commit of a `revision` (None: the default branch) of a repository; `kind` is "model" or "dataset".

    Asks the Hub once, without retries. When it does not answer, returns the commit that the revision had when it was
    last loaded here. Raises HubError.
    """
    api = HfApi()
    try:
        api.repo_info(repo, repo_type=kind, revision=revision, timeout=TIMEOUT)
        # A second request, which stores the answer in the cache; this call takes no timeout.
        return Commit(api.resolve_revision(repo, repo_type=kind, revision=revision).resolved, "")
    except HFValidationError as error:
        raise HubError(f"no such file or folder here, and not a valid repository name on the Hub ({error})") from error
    except RevisionNotFoundError as error:
        raise HubError(f"the {kind} is on the Hub, but has no revision {revision!r}") from error
    except GatedRepoError as error:
        raise HubError(f"the {kind} is gated: ask for access on its page, then log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"no such file or folder here, and no such {kind} on the Hub (a private one? `hf auth login` logs in)"
        ) from error
    except OfflineModeIsEnabled:
        offline = "HF_HUB_OFFLINE is set"
    except HfHubHTTPError as error:
        offline = f"it answers {error.response.status_code}"
    except Exception as error:  # no connection, a timeout, a truncated answer, a login page instead of the answer
        offline = " ".join(str(error).split())[:200] or type(error).__name__
    try:
        return Commit(
            api.resolve_revision(repo, repo_type=kind, revision=revision, local_files_only=True).resolved, offline
        )
    except RevisionResolutionError as error:
        raise HubError(f"{unreachable(offline)}, and the cache does not hold it; give a local folder") from error


def unreachable(offline: str) -> str:
    """Return the words for a Hub that did not answer."""
    return f"the Hub cannot be reached ({offline})"


def read_hub(repo: str, config: str | None, revision: str | None) -> DatasetDict:
    """Read all splits of a data set on the Hub or in its cache. Raises DataError."""
    try:
        commit = find_commit(repo, revision, kind="dataset")
        if commit.offline:
            builder = _cached_builder(repo, config, commit)
        else:
            builder = load_dataset_builder(f"hf://datasets/{repo}", config, revision=commit.hash)
        if builder.hash != commit.hash:  # the Hub stopped answering: this is the cache's latest, not the one wanted
            raise HubError(unreachable("it stopped answering"))
        if not Path(builder.cache_dir).is_dir():
            LOGGER.warning("downloading the data set %s from the Hugging Face Hub, commit %s", repo, commit.hash)
        builder.download_and_prepare()
        return builder.as_dataset()
    except HubError as error:
        raise DataError(str(error), source=repo) from error
    except (DataFilesNotFoundError, EmptyDatasetError) as error:
        raise DataError("the repository has no data files of a known kind", source=repo) from error
    except Exception as error:  # a dozen types, and more when a connection is cut during a download
        raise DataError(innermost_reason(error), source=repo) from error


def _cached_builder(repo: str, config: str | None, commit: Commit) -> DatasetBuilder:
    """Return the builder of an earlier load of the same commit and config ("default" for a repository without any)."""
    name = config or "default"
    builder = Cache(repo_id=repo, dataset_name=repo.split("/")[1], config_name=name, version="0.0.0", hash=commit.hash)
    if not Path(builder.cache_dir).is_dir():
        raise HubError(
            f"{unreachable(commit.offline)}, and the cache does not hold the config {name!r} of this revision; "
            "name the config (owner/name/config) or give a local file or folder"
        )
    return builder


def innermost_reason(error: Exception) -> str:
    """Return the message of the innermost cause in one line: libraries wrap it in 'An error occurred…'."""
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    return " ".join(str(error).split())[:300] or type(error).__name__
