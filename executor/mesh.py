"""The meshes of a plan: which ranks form the groups of each axis, three views of the same ranks.

Rank order as in planner.cost.groups. The sparse view folds the ranks of tp, cp and dp anew into etp, ep and edp
(Megatron-Core's parallel folding), so experts take no ranks of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from planner.strategy import ORDERS, Degrees


@dataclass(frozen=True)
class Meshes:
    """`dense` (pp, dp, cp, tp) cuts work; `data` (pp, replicate, shard, tp) holds dense states, shard · replicate =
    dp · cp; `sparse` (pp, replicate, shard, ep, etp) holds expert states. All are views of one root mesh.
    """

    degrees: Degrees
    dense: DeviceMesh
    data: DeviceMesh
    sparse: DeviceMesh

    def size(self, axis: str) -> int:
        """Ranks along `axis` (pp, dp, cp, tp, ep, etp)."""
        return self._view(axis).size()

    def rank(self, axis: str) -> int:
        """Where this rank stands along `axis`."""
        return self._view(axis).get_local_rank()

    def group(self, axis: str) -> dist.ProcessGroup:
        """The process group of this rank along `axis`."""
        return self._view(axis).get_group()

    def _view(self, axis: str) -> DeviceMesh:
        return (self.sparse if axis in {"ep", "etp"} else self.dense)[axis]


def build_meshes(degrees: Degrees, device: str = "cpu", order: str = ORDERS[0]) -> Meshes:
    """Meshes over all ranks of the default group; `device` is torch's device type.

    Raises ValueError when the group does not have `degrees.world` ranks. Every rank must call it.
    """
    d = degrees
    pp, dp, cp, tp, ep, etp = (int(getattr(d, axis)) for axis in ("pp", "dp", "cp", "tp", "ep", "etp"))
    replicas, edp = int(d.replicas), int(d.edp)
    if dist.get_world_size() != d.world:
        raise ValueError(f"the plan has {d.world} ranks, the process group {dist.get_world_size()}")
    ranks = torch.arange(int(d.world))
    if order != ORDERS[0]:  # pp inside dp: the root lists the ranks stage by stage
        ranks = ranks.view(dp, pp, cp * tp).transpose(0, 1).reshape(-1)
    # several views of one root have no public name yet; fully_shard wants its meshes to share the root
    root = DeviceMesh(device, ranks, mesh_dim_names=("world",))
    shards = max(edp // replicas, 1)
    view = root._unflatten  # noqa: SLF001
    return Meshes(
        degrees=d,
        dense=view(0, (pp, dp, cp, tp), ("pp", "dp", "cp", "tp")),
        data=view(0, (pp, replicas, dp * cp // replicas, tp), ("pp", "replicate", "shard", "tp")),
        sparse=view(0, (pp, edp // shards, shards, ep, etp), ("pp", "replicate", "shard", "ep", "etp")),
    )
