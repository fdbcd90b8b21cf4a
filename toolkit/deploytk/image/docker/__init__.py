"""Owner of the Docker SDK: the daemon, its builder, its images and containers."""

from deploytk.image.docker.connection import connected, daemon_version
from deploytk.image.docker.daemon import Build, Daemon, RunOptions, StoredImage

__all__ = ["Build", "Daemon", "RunOptions", "StoredImage", "connected", "daemon_version"]
