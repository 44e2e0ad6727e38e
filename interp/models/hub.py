"""Finding a model on the Hugging Face hub, or in the hub's cache on this machine, before anything is read.

transformers asks the hub for a file and, where there is no network, tries again for half a minute and then reports that a
file is missing. Here one request with a time limit settles first whether the hub can be reached, whether it has the model and
which commit is meant; everything afterwards names that commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CacheNotFound, HfApi, constants, hf_hub_download, scan_cache_dir, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  (the one name that httpx has in hub 1.x and 2.x)
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from interp.errors import ModelNotFoundError, OfflineError

TIMEOUT = 10.0
"""Seconds to wait for the hub's answer."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where transformers reads a model from.

    Attributes:
        where: hub id or folder, as `from_pretrained` takes it.
        revision: commit, where one is known.
        files: names of the files there (all of the repository's, or those that the cache or folder holds).
        local: whether nothing may come from the network.
    """

    where: str
    revision: str | None
    files: frozenset[str]
    local: bool


def find_on_hub(name: str, *, revision: str | None, offline: bool) -> Place:
    """Find a model by its hub id, on the hub or, where that cannot be reached, in the hub's cache.

    Args:
        name: hub id, "owner/name" or "name".
        revision: branch, tag or commit; None means "main".
        offline: do not ask the hub.

    Raises:
        ModelNotFoundError: the hub has no such model or revision, or shows it to nobody without a token.
        OfflineError: the hub cannot be asked and the cache does not hold the model.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ModelNotFoundError(
            f"{name!r} is neither an existing file or folder nor the id of a model on the hub ({error})."
        ) from error
    if offline:
        return _find_in_cache(name, revision, "offline=True was asked for")
    try:
        info = HfApi().model_info(name, revision=revision, timeout=TIMEOUT)
    except GatedRepoError as error:
        raise ModelNotFoundError(
            f"the hub shows {name} only to people who accepted its terms. Accept them on its page on the hub, "
            "then run `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"the hub has no model {name!r} (or it is private: then run `hf auth login` first). Check the spelling; "
            "`interp models` lists what is on this machine."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFoundError(
            f"the model {name} on the hub has no revision {revision!r}. See its page's history."
        ) from error
    except OfflineModeIsEnabled:
        return _find_in_cache(name, revision, "HF_HUB_OFFLINE is set")
    except (HTTPError, OSError) as error:
        return _find_in_cache(name, revision, f"the hub does not answer ({type(error).__name__}: {error})")
    files = frozenset(file.rfilename for file in info.siblings or [])
    if "config.json" in files:
        # asked for by branch, so that the cache notes which commit the branch was at, for the next time without network
        try:
            hf_hub_download(name, "config.json", revision=revision)
        except (HTTPError, OSError) as error:
            raise OfflineError(f"fetching {name} from the hub failed: {error} Run it again.") from error
    return Place(where=name, revision=info.sha, files=files, local=False)


def _find_in_cache(name: str, revision: str | None, why: str) -> Place:
    """Return the snapshot that the hub's cache holds, or say why there is no model."""
    config = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        asked = f" at revision {revision}" if revision else ""
        raise OfflineError(
            f"the model {name!r}{asked} is not on this machine and cannot be fetched: {why}. Connect to the network and run "
            "this once, or give a local folder or .gguf file; `interp models` lists what is on this machine."
        )
    snapshot = Path(config).parent
    files = frozenset(str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file())
    return Place(where=str(snapshot), revision=snapshot.name, files=files, local=True)


def cached_models() -> list[tuple[str, int]]:
    """Return the id and size in bytes of every model in the hub's cache on this machine, by id."""
    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    return sorted((repo.repo_id, repo.size_on_disk) for repo in repos if repo.repo_type == "model")
