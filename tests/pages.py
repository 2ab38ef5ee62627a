"""What tests of several pages ask of them."""

import re


def loads_from_network(page):
    """Return the addresses that a browser would fetch. Links that a reader may follow do not count."""
    page = re.sub(r"/\*.*?\*/", "", page, flags=re.S)
    return re.findall(r"""(?:src=|<link[^>]*href=|@import|url\()\s*["']?\s*((?:https?:)?//[^"' )>]+)""", page)
