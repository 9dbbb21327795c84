"""The frame of every page: one self-contained HTML file, without fonts, scripts or pictures from elsewhere."""

from html import escape
from pathlib import Path

_ASSETS = Path(__file__).parent / "assets"


def document(title: str, body: str, script: str = "") -> str:
    """A whole HTML page in the project's style.

    Args:
        title: plain text.
        body: HTML.
        script: JavaScript that runs at the end of the page.
    """
    css = (_ASSETS / "page.css").read_text("utf-8")
    end = f"\n<script>\n{script}</script>" if script else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,">'
        f"<style>\n{css}</style></head><body>\n{body}{end}\n</body></html>\n"
    )
