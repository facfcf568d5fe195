"""The web server, inside the event loop of the service."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

GRACE_SECONDS = 1  # for answers that are being written when the service ends


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the service, which ends everything in order."""
        yield


class WebServer:
    """Serves an application at an address. Raises ``OSError`` where it is taken; port 0 is any free one."""

    def __init__(self, application: FastAPI, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        bound: int = self._socket.getsockname()[1]
        self.url = f"http://{f'[{host}]' if family is socket.AF_INET6 else host}:{bound}"
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self._server = _Server(config)

    async def serve(self) -> None:
        """Serve until ``stop`` is called."""
        await self._server.serve([self._socket])

    def stop(self) -> None:
        """Take no more requests, and end."""
        self._server.should_exit = True
