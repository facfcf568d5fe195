"""Prints the OpenAPI document: ``python -m service.http > docs/openapi.json``, which `make openapi` does."""

from __future__ import annotations

import json
import sys

from schemas.asyncapi import asyncapi_document
from service.http.application import create


def document() -> str:
    """The document as it is committed, so that a change of it is seen in a review."""
    application = create(
        reasons=list, render_metrics=bytes, metrics_content_type="", events=asyncapi_document("apportion.")
    )
    return json.dumps(application.openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
