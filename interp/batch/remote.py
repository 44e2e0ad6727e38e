"""`RemotePlace`: shards under a URL of any file system that `fsspec` knows (s3://, gs://, az://, hdfs://, sftp:// ...).

Tested with a local S3 server and with files; other file systems take the same code and are untested. Credentials and endpoints come from where the
file system's own package looks for them, such as AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL; nothing of them is written into a plan.
"""

from __future__ import annotations

import io
import os
import re
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Final

import fsspec

from interp.batch.failures import in_words
from interp.errors import CorruptFileError, OptionError, OutputError

WHOLE_WRITES: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})
"""Stores in which a written object appears whole or not at all; elsewhere a file is written under another name and moved."""

PASSWORD: Final = re.compile(r"[^:]+://[^/]*:[^/]*@")
"""USER:PASSWORD@ in front of the host."""


@dataclass(frozen=True, kw_only=True)
class RemotePlace:
    """A folder of a remote file system.

    Attributes:
        url: of the folder.

    Raises:
        OptionError: no file system of that kind is known, the package for it is not installed, or the URL holds a password: it would be
            written down with the job.
    """

    url: str

    def __post_init__(self) -> None:
        if PASSWORD.match(self.url):
            raise OptionError(
                "a URL of shards must hold no password or key: it is written into the job's folder; leave them to the environment or "
                "to the file system's own configuration"
            )
        try:
            _ = self._opened
        except (ImportError, ValueError) as error:
            raise OptionError(
                f"{self.url} cannot be used: {error}; install the package of that file system (s3fs for s3://), or give a folder"
            ) from error

    def names(self) -> set[str]:
        """The names of all files but hidden ones."""
        try:
            self._files.invalidate_cache()
            found = self._files.find(self._root)
        except FileNotFoundError:
            return set()
        except Exception as error:  # every file system has errors of its own
            raise self._cannot("list", error) from error
        names = {str(path).removeprefix(self._root).lstrip("/") for path in found}
        return {name for name in names if name and not name.rpartition("/")[2].startswith(".")}

    def has(self, name: str) -> bool:
        """Whether there is a finished file of this name."""
        try:
            self._files.invalidate_cache()
            return bool(self._files.isfile(self._path(name)))
        except Exception as error:  # every file system has errors of its own
            raise self._cannot("read", error) from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        path = self._path(name)
        try:
            if self.url.partition("://")[0] in WHOLE_WRITES:
                self._files.pipe_file(path, content)
                return
            folder, _, last = path.rpartition("/")
            self._files.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/.{last}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
            self._files.pipe_file(temporary, content)
            self._files.mv(temporary, path)
        except Exception as error:  # every file system has errors of its own
            raise self._cannot(f"write {name} to", error) from error

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; it is fetched whole."""
        try:
            return _Fetched(self._files.cat_file(self._path(name)), name)
        except Exception as error:  # every file system has errors of its own
            raise CorruptFileError(
                f"{name} cannot be read from {self.url} ({in_words(error)}); run the job again"
            ) from error

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        return fsspec.core.url_to_fs(self.url)

    @property
    def _files(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1].rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _cannot(self, what: str, error: Exception) -> OutputError:
        return OutputError(
            f"cannot {what} {self.url}: {in_words(error)}; look at the address, the network and the credentials. What is finished is kept"
        )


class _Fetched(io.BytesIO):
    """The content of a remote file, with the name and mode that files have."""

    mode = "rb"  # pyright: ignore[reportAssignmentType]  (typeshed has a property; of a file it is an attribute)

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name
