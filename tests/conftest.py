"""Fixtures that several tests share."""

from tests.served import served, shared

__all__ = ["served", "shared"]
