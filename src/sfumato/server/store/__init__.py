"""What the server keeps: jobs and pictures in a database, and the pictures' files beside it."""

from sfumato.server.store.database import UNAVAILABLE
from sfumato.server.store.group_store import GroupStore
from sfumato.server.store.store import LEASE_SECONDS, NewJob, Store

__all__ = ["LEASE_SECONDS", "UNAVAILABLE", "GroupStore", "NewJob", "Store"]
