"""The dispatcher chooses the replica of each job; Ray Serve's router only finds it.

Ray Serve copies the contents of this module into its controller: what processes share is not kept in it.
"""

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class NamedReplicaRouter(RequestRouter):
    """Sends each request to the replica that its first argument names, and tells the server of replicas."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The named replica alone. A request whose replica has left fails."""
        from sfumato.server.cluster.replicas import ReplicaLeftError

        if pending_request is None:
            return []
        wanted = pending_request.args[0]
        found = [each for each in candidate_replicas if each.replica_id.unique_id == wanted]
        if not found and not pending_request.future.done():
            pending_request.future.set_exception(ReplicaLeftError(f"there is no replica {wanted} any more"))
        return [found]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Ray Serve's own list has changed."""
        from sfumato.server.cluster.replicas import Replica, told

        super().update_replicas(replicas)
        told(
            self.app_name,
            [
                Replica(each.replica_id.unique_id, each.replica_id.to_full_id_str(), each.node_id)
                for each in replicas
            ],
        )
