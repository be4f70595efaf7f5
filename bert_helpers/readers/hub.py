"""Repositories on the Hugging Face Hub: which commit a name stands for, and the data set it holds.

Everything of one load is asked for by its commit. Left alone, the libraries go on with whatever revision or config they
have in the cache when the Hub does not answer, and try again for minutes (tests/readers/test_hub.py).
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
TIMEOUT = 10  # seconds for the one request that tells whether the Hub answers


class HubError(Exception):
    """The Hub has no such repository, or does not answer and the cache cannot stand in; the message says which."""


class Commit(NamedTuple):
    """A commit's hash; `offline` says why the Hub gave no answer and the hash is the cached one, or is empty."""

    hash: str
    offline: str


def is_below_a_folder_here(name: str) -> bool:
    """Whether "results/tickets" begins with a folder that is here: then a repository of that name is not meant."""
    owner, slash, _ = name.partition("/")
    return bool(slash) and (files.base_folder() / owner).is_dir()


def find_commit(repo: str, revision: str | None, *, kind: str) -> Commit:
    """Find the commit that `revision` (None: the default branch) of a repository of this `kind` stands for.

    `kind` is "model" or "dataset". Asks the Hub once, without retries; when it does not answer, takes the commit that
    the revision was when it was last loaded here. Raises HubError.
    """
    api = HfApi()
    try:
        api.repo_info(repo, repo_type=kind, revision=revision, timeout=TIMEOUT)
        # Once more, for the side effect of noting the answer in the cache; it knows no timeout.
        return Commit(api.resolve_revision(repo, repo_type=kind, revision=revision).resolved, "")
    except HFValidationError as error:
        raise HubError(f"no such file or folder here, and no name for a repository on the Hub ({error})") from error
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
    except Exception as error:  # no connection, a time-out, an answer cut off, a login page in place of the answer
        offline = " ".join(str(error).split())[:200] or type(error).__name__
    try:
        return Commit(
            api.resolve_revision(repo, repo_type=kind, revision=revision, local_files_only=True).resolved, offline
        )
    except RevisionResolutionError as error:
        raise HubError(f"{unreachable(offline)}, and the cache does not hold it; give a local folder") from error


def unreachable(offline: str) -> str:
    """The words for a Hub that did not answer."""
    return f"the Hub cannot be reached ({offline})"


def read_hub(repo: str, config: str | None, revision: str | None) -> DatasetDict:
    """Read all splits of a data set on the Hub, or of its copy in the cache. Raises DataError."""
    try:
        commit = find_commit(repo, revision, kind="dataset")
        if commit.offline:
            builder = _cached_builder(repo, config, commit)
        else:
            builder = load_dataset_builder(f"hf://datasets/{repo}", config, revision=commit.hash)
        if builder.hash != commit.hash:  # the Hub went away meanwhile: this is the cache's latest, not what was asked
            raise HubError(unreachable("it stopped answering"))
        if not Path(builder.cache_dir).is_dir():
            LOGGER.warning("downloading the data set %s from the Hugging Face Hub, commit %s", repo, commit.hash)
        builder.download_and_prepare()
        return builder.as_dataset()
    except HubError as error:
        raise DataError(str(error), source=repo) from error
    except (DataFilesNotFoundError, EmptyDatasetError) as error:
        raise DataError("the repository has no data files of a kind that is known", source=repo) from error
    except Exception as error:  # a dozen types; a connection cut in mid-download has some of its own, too
        raise DataError(innermost_reason(error), source=repo) from error


def _cached_builder(repo: str, config: str | None, commit: Commit) -> DatasetBuilder:
    """The builder of an earlier load of the same commit and config; "default" is the one of a repository without."""
    name = config or "default"
    builder = Cache(repo_id=repo, dataset_name=repo.split("/")[1], config_name=name, version="0.0.0", hash=commit.hash)
    if not Path(builder.cache_dir).is_dir():
        raise HubError(
            f"{unreachable(commit.offline)}, and the cache does not hold the config {name!r} of this revision; "
            "name the config (owner/name/config) or give a local file or folder"
        )
    return builder


def innermost_reason(error: Exception) -> str:
    """The innermost cause's own words, on one line: libraries wrap it in 'An error occurred…'."""
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    return " ".join(str(error).split())[:300] or type(error).__name__
