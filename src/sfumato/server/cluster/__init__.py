"""Workers on the nodes of a Ray cluster, as replicas of one deployment of Ray Serve."""
