"""Which commit of a repository on the Hugging Face Hub a name stands for.

Everything of one load is then asked for by that commit. Left alone, the libraries go on with whatever revision or
config they have in the cache when the Hub does not answer, and try again for minutes (tests/test_hub.py).
"""

from typing import NamedTuple

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

TIMEOUT = 10  # seconds for the one request that tells whether the Hub answers


class HubError(Exception):
    """The Hub has no such repository, or does not answer and the cache cannot stand in; the message says which."""


class Commit(NamedTuple):
    """A commit's hash; `offline` says why the Hub gave no answer and the hash is the cached one, or is empty."""

    hash: str
    offline: str


def find_commit(repo: str, revision: str | None, *, kind: str) -> Commit:
    """The commit that `revision` (None: the default branch) of a repository of this `kind` ("model", "dataset") is.

    Asks the Hub once, without retries; when it does not answer, takes the commit the revision was when it was last
    loaded here. Raises HubError.
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
