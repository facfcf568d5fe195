"""The HTTP side of the service: one FastAPI application, a file for each subject."""

from __future__ import annotations

from service.http.access import build
from service.http.application import create
from service.http.server import WebServer

__all__ = ["WebServer", "build", "create"]
