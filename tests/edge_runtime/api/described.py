"""Requests made from the server's own description, and what every answer must be like."""

from __future__ import annotations

import hypothesis
from schemathesis import checks

__all__ = ["CHECKS", "few"]

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]

few = hypothesis.settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
