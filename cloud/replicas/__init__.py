"""Replicas of a trunk on a Ray cluster, behind gateways.

Ray is the engine: Ray Serve starts replicas, checks their health, replaces the dead ones, scales
their number and drains those that go; its router places sessions. What is written here is what Ray
cannot know: how full a replica's memory for keys and values is (:mod:`~cloud.replicas.load`), which
replica is best for a session (:mod:`~cloud.replicas.placing`), how many there should be
(:mod:`~cloud.replicas.scaling`), and how a device's WebSocket gets there
(:mod:`~cloud.replicas.gateway`). A replica is the ordinary server in a process of Ray's
(:mod:`~cloud.replicas.replica`).

Sessions have no state that would have to be moved: their devices replay.
"""
