"""What several commands make of their parsed arguments."""

from __future__ import annotations

import argparse


def options_given(options: argparse.Namespace) -> dict[str, str]:
    """The options of an engine that were given."""
    given = {"delegate": options.delegate, "provider": options.provider}
    return {name: value for name, value in given.items() if value is not None}
