"""A file that is hashed while it is written."""

import hashlib
from typing import BinaryIO


class HashedFile:
    """Hashes a file while writing it, both without the GIL, so that training continues."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None
        self.digest = hashlib.sha256()

    def write(self, part: memoryview) -> int:
        self.digest.update(part)
        try:
            self._file.write(part)
        except OSError as error:  # raised by `check`: torch.save would turn it into a RuntimeError
            self._error = self._error or error
        return part.nbytes

    def flush(self) -> None:
        pass

    def check(self) -> None:
        """Raise the first error of `write`."""
        if self._error:
            raise self._error
