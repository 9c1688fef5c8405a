"""gunicorn's hook, at the path that projects import it from: see consumers/endpoint/draining.py."""

from __future__ import annotations

from .consumers.endpoint.draining import post_worker_init

__all__ = ["post_worker_init"]
