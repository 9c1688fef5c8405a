from __future__ import annotations

from tests.unit.contrib.aws_lambda.conftest import _no_calls, function

__all__ = ["_no_calls", "function"]
