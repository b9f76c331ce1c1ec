"""Errors that a command tells its user in one line."""

from __future__ import annotations


class UserError(RuntimeError):
    """Something the user can put right, of a kind that no built-in error names."""


# What a user can put right is told in one line; anything else is a defect and keeps its traceback.
USER_ERRORS = (UserError, ValueError, OSError, ImportError, NotImplementedError)
