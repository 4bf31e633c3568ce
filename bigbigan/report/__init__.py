"""Report a run: the texts at its start and its end, and the page."""

from bigbigan.report.page import write_page
from bigbigan.report.texts import block, closing_block, shapes_block, start_block

__all__ = ["block", "closing_block", "shapes_block", "start_block", "write_page"]
