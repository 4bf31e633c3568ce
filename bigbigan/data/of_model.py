"""Choose the images that a command works on: those that it is given, or those that the model was trained on."""

import logging

from bigbigan.config import EARLIER, Data, ImagesGiven
from bigbigan.files import printable

log = logging.getLogger(__name__)

NAMED = ("subset", "split", "test_split", "image_column", "label_column", "group_column", "follow_links")


def data_of_model(given: ImagesGiven, card: dict | None, others: bool = False) -> Data:
    """Return the settings of the data, with those of the model's training where the command line gives none.

    given: the `data` section of a command's options, which may have `split` and `test_split` too.
    card: the model's card, whose "data" says what the model was trained on; None or without it, nothing is filled in.
    If `given.path` is other data, only the range of values and the rule that holds images out are the model's: an
    image that was held out of training is then held out again, also where the folder has moved. A column of groups must
    be given again, as a warning says. The path is empty where neither names one.
    others: whether no image is held out, or the images are of another data set for certain, so that nothing is said.
    """
    own = (card or {}).get("data", {})
    path = given.path or own.get("path", "")
    same = bool(own) and path == own.get("path")
    named = {name: getattr(given, name, "") or (own.get(name, "") if same else "") for name in NAMED}
    if (groups := own.get("group_column")) and not (same or given.group_column or others):
        log.warning(
            "%s: the model's images were held out by groups of column %r; if these are the same images, give "
            "--data.group_column %s, so that the same ones are held out again",
            printable(path), groups, printable(groups),
        )  # fmt: skip
    return Data(
        path=path,
        **{name: value for name, value in named.items() if value},
        test_share=own.get("test_share", Data.test_share),
        split_rule=own.get("split_rule", EARLIER["data.split_rule"]) if own else Data.split_rule,
        value_range=tuple(given.value_range or own.get("value_range") or ()),
    )
