"""What the commands of a workflow said -> one summary: Markdown, and what GitHub wants of it."""

from deploytk.workflow.github import tell_github
from deploytk.workflow.markdown import markdown
from deploytk.workflow.read import summarize
from deploytk.workflow.value import Finding, Step, Summary

__all__ = ["Finding", "Step", "Summary", "markdown", "summarize", "tell_github"]
