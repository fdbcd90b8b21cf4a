"""Replicas as Pods of a Deployment: plain YAML with kustomize, linted, and applied with the Kubernetes API."""

from deploytk.scale.kubernetes.files import kubernetes_files, kubernetes_notes
from deploytk.scale.kubernetes.lint import lint
from deploytk.scale.kubernetes.objects import objects_of

__all__ = ["kubernetes_files", "kubernetes_notes", "lint", "objects_of"]
