"""A container registry: the bundle's image, or an artifact of the model alone, without Docker in between."""

from deploytk.publish.targets.oci.options import OciOptions
from deploytk.publish.targets.oci.target import Oci

__all__ = ["Oci", "OciOptions"]
