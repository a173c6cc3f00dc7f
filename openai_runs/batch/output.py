"""The files a batch writes: results and errors as lines, each whole or not at all.

The checkpoint has each line before its file has. So a file that a crash cut short is completed
from there, and one that cannot be written (a full disk) loses nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from openai_runs.batch.errors import BatchError

__all__ = ["LineFile"]


class LineFile:
    """One file of lines, which are those of the checkpoint, in the same order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def is_free(self) -> bool:
        """Return whether there is no such file, or an empty one.

        Raises:
            BatchError: It cannot be made, since its folder is not there.
        """
        try:
            self.path.parent.stat()
            return not self.path.exists() or self.path.stat().st_size == 0
        except OSError as error:
            raise self._unusable(error) from error

    def repair(self, lines: Iterable[bytes]) -> None:
        """Make the file hold exactly these lines: a torn last one is cut off, missing are added.

        Raises:
            BatchError: It holds something else, or cannot be written.
        """
        try:
            with self.path.open("r+b" if self.path.exists() else "w+b") as file:
                for line in lines:
                    place, found = file.tell(), file.read(len(line))
                    if found == line:
                        continue
                    if not line.startswith(found):
                        raise self._foreign()
                    file.seek(place)
                    file.write(line)
                if file.read(1):
                    raise self._foreign()
        except OSError as error:
            raise self._unusable(error) from error

    def replace(self, lines: Iterable[bytes]) -> None:
        """Write the file anew.

        Raises:
            BatchError: It cannot be written; then it is as it was.
        """
        new = self.path.with_name(f"{self.path.name}.new")
        try:
            with new.open("wb") as file:
                file.writelines(lines)
            new.replace(self.path)
            self.close()  # what is added goes to the new one
        except OSError as error:
            raise self._unusable(error) from error

    def append(self, lines: Iterable[bytes]) -> None:
        """Add these lines; the file is made if it is not there.

        Raises:
            BatchError: It cannot be written.
        """
        rest = memoryview(b"".join(lines))
        try:
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._fd = os.open(self.path, flags, 0o666)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _unusable(self, error: OSError) -> BatchError:
        return BatchError(
            f"{self.path}: cannot be written: {error.strerror}; nothing is lost: "
            "once it can be, the same command goes on"
        )

    def _foreign(self) -> BatchError:
        return BatchError(
            f"{self.path} does not hold what this checkpoint has written: move it away, and it "
            "is written anew"
        )
