"""Ids on the command line: a slip of the keyboard is told before the manager is asked."""

import argparse
import re
from collections.abc import Callable

_SHAPE = re.compile(r"([a-z])-[0-9a-hjkmnp-tv-z]{20}")


def an_id(noun: str) -> Callable[[str], str]:
    """For argparse: accepts ids of jobs (`j-…`), pilots, hosts or batches, by first letter."""

    def parse(text: str) -> str:
        match = _SHAPE.fullmatch(text)
        if match is None or match[1] != noun[0]:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no {noun}'s id: they are like {noun[0]}-01m83d2mtjecnwwa4kfa"
            )
        return text

    return parse
