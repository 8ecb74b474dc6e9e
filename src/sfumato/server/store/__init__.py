"""What the server keeps: jobs and pictures in a database, and the pictures' files beside it."""

from sfumato.server.store.store import Store

__all__ = ["Store"]
