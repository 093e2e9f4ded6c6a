"""``python -m edgeclf_device``: the same as ``edgeclf-device``."""

from __future__ import annotations

import sys

from edgeclf_device.cli import main

sys.exit(main())
