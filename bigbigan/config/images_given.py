"""Define the settings by which the commands on a model are told which images to work on: their `data` section.

`data.data_of_model` reads it.
"""

from dataclasses import dataclass


@dataclass
class ImagesGiven:
    """Name the images; what is left empty is what the model was trained on."""

    path: str = ""
    """As --data.path in training; if empty, the images that the model was trained on."""
    subset: str = ""
    """Configuration of a hub data set that has several."""
    image_column: str = ""
    """Column of the images in a table; found by itself when empty."""
    label_column: str = ""
    """Column of the labels in a table, or in a .csv file beside images; found by itself in a table when empty."""
    group_column: str = ""
    """As --data.group_column in training; empty for that of the model's training images."""
    value_range: tuple[float, ...] = ()
    """As --data.value_range in training; empty for that of the model's training images."""
    follow_links: bool = False
    """Take images that lie outside `path` behind symbolic links too."""
