"""A file whose digest is known when it is written."""

import hashlib
from typing import BinaryIO


class HashedFile:
    """A file that is hashed as it is written, both without the GIL: training goes on meanwhile."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None
        self.digest = hashlib.sha256()

    def write(self, part: memoryview) -> int:
        self.digest.update(part)
        try:
            self._file.write(part)
        except OSError as error:  # kept, because torch.save would make a RuntimeError of it
            self._error = self._error or error
        return part.nbytes

    def flush(self) -> None:
        pass

    def check(self) -> None:
        """Raise what `write` could not."""
        if self._error:
            raise self._error
