"""What a report page holds, for tests that read it."""

import base64
import gzip
import json
import re


def embedded(html: str, name: str) -> str:
    """The text of the element that keeps a part of the page."""
    return re.search(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', html, re.DOTALL).group(1)


def content(html: str) -> dict:
    """What the page shows, unpacked."""
    return json.loads(gzip.decompress(base64.b64decode(embedded(html, "data"))))
