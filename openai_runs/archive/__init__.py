"""Threads taken from one server to another, whole: exported to files, and imported with their ids.

Written on public names of `openai_runs` only. `folders` says how an archive lies on the disk,
`exporting` writes one from any server of this API, `loading` sends one to a server of ours,
`left_out` finds what no server of this API can hand out, and `responses` writes the conversations
in the form of the API's successor.
"""

from __future__ import annotations

from openai_runs.archive.exporting import ExportProgress, ExportReport, export
from openai_runs.archive.left_out import LeftOut
from openai_runs.archive.loading import LoadProgress, LoadReport, load
from openai_runs.archive.responses import ResponsesReport, write_responses

__all__ = [
    "ExportProgress",
    "ExportReport",
    "LeftOut",
    "LoadProgress",
    "LoadReport",
    "ResponsesReport",
    "export",
    "load",
    "write_responses",
]
