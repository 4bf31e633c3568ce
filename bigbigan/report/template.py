"""Fill in the templates of the page with jinja2, which escapes every text on its way in."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,  # a place that nothing is given for is an error
    trim_blocks=True,
    lstrip_blocks=True,
)
# `tojson` escapes what could end a script element; NaN, which no browser reads, is refused.
ENVIRONMENT.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}


def render(template: str, values: dict[str, object]) -> str:
    """Return a template of this folder with these values in its places."""
    return ENVIRONMENT.get_template(template).render(values)
