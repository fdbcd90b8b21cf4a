"""Beside the stages: Bundle or Image -> several replicas, on a cluster or on a platform that runs images."""

from deploytk.scale.applying import Trial, applied_to, rolled_out
from deploytk.scale.platforms import PLATFORMS, Platform
from deploytk.scale.prepare import prepared
from deploytk.scale.wishes import Replicas, Wishes, kubernetes_name, node_list, share_of
from deploytk.scale.write import Scaled, write_files

__all__ = [
    "PLATFORMS",
    "Platform",
    "Replicas",
    "Scaled",
    "Trial",
    "Wishes",
    "applied_to",
    "kubernetes_name",
    "node_list",
    "prepared",
    "rolled_out",
    "share_of",
    "write_files",
]
