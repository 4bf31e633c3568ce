"""The report of a run: the text at its end, and the page."""

from bigbigan.report.page import read_lead, read_probe, write_page
from bigbigan.report.texts import closing_block

__all__ = ["closing_block", "read_lead", "read_probe", "write_page"]
