"""Fixtures that several tests share, and how hypothesis runs."""

from hypothesis import HealthCheck, settings

from tests.served import served, shared

__all__ = ["served", "shared"]

# No test asserts a time: the machine may be busy.
settings.register_profile("edge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edge")
