"""Errors a user can act on: what was expected, what came, the next command; each with a code and an exit status."""

from __future__ import annotations

from typing import ClassVar


class BadnetsError(Exception):
    """A one-line error: `code` for machines, a sentence for people, `hint` for the next command.

    `code` looks like `E-RATE`. Subclasses fix the exit status; the base stands for a bug of ours.
    """

    exit_status: ClassVar[int] = 4

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint

    def __str__(self) -> str:
        return f"{self.code} {self.message}" + (f" {self.hint}" if self.hint else "")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.code, self.message, self.hint))


def _rebuild(cls: type[BadnetsError], code: str, message: str, hint: str) -> BadnetsError:
    return cls(code, message, hint=hint)


class UsageError(BadnetsError):
    """The request itself is wrong: an unknown name, a rate outside 0..1, a target that is no class (exit 2)."""

    exit_status = 2


class RefusedError(BadnetsError):
    """Input that is not analysable: corrupt, truncated, wrong hash, too large (exit 3)."""

    exit_status = 3


class StoreError(BadnetsError):
    """Store, disk or lock: read-only, full, no home directory, another run at work (exit 5)."""

    exit_status = 5


class PartialError(BadnetsError):
    """Part of the work was done and kept; the same command continues (exit 6)."""

    exit_status = 6
