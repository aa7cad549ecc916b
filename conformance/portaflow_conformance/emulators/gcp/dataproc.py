"""The local Dataproc: what its services share, and how it ends."""

from __future__ import annotations

from ..place import Place
from .batches import Batches
from .clusters import Clusters
from .driver import Shop
from .jobs import Jobs
from .policies import Policies
from .world import Operations, World


class Dataproc:
    def __init__(self, place: Place, shop: Shop) -> None:
        self._world = World(place)
        self.operations = Operations(self._world)
        self.policies = Policies(self._world)
        self.clusters = Clusters(self._world, self.operations, self.policies, shop)
        self.jobs = Jobs(self._world, self.operations, self.clusters, shop)
        self.batches = Batches(self._world, self.operations, shop)

    def stop(self) -> None:
        self._world.stop()
        self.clusters.stop()
        self.jobs.stop()
        self.batches.stop()
