"""The frame of an HTML page: its head, its style for light, dark, print and a telephone, and safe text."""

from html import escape

from vqdoctor.core.picture import FAINT, INK, PAPER
from vqdoctor.render._text import printable

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""The page loads nothing, sends nothing and runs nothing, whatever a report holds."""

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --card: #f6f8fa;
  --paper: #fff; --link: #0550ae; --bad: #a40e26; --warn: #7d4e00; --good: #116329; --open: #0550ae;
  --grid: #8a9199; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b3; --line: #3d444d; --card:
  #161b22;
  --paper: #0d1117; --link: #79b8ff; --bad: #ff8a80; --warn: #f0c060; --good: #6fdd8b; --open: #79b8ff;
  --grid: #6b7480; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main, footer, nav { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.2rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .2rem 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2rem 0 .6rem; padding-bottom: .25rem; border-bottom: 2px solid
  var(--line); }
h3 { font-size: 1.05rem; margin: 1.2rem 0 .4rem; overflow-wrap: anywhere; }
h4, h5, .title { font-size: .95rem; font-weight: 700; margin: 0 0 .3rem; }
ul.labelled { list-style: none; padding-left: 0; } ul.labelled ul { padding-left: 1.3rem; list-style: none; }
p { margin: .3rem 0; } ul, ol { margin: .3rem 0; padding-left: 1.3rem; }
p, li, td, dd, figcaption { overflow-wrap: anywhere; }
a { color: var(--link); } a:focus-visible, summary:focus-visible, [tabindex]:focus-visible {
  outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; } .skip:focus { left: 1rem; top: .5rem; background:
  var(--paper); }
.bad { color: var(--bad); } .warn { color: var(--warn); } .good { color: var(--good); }
.note, .open { color: var(--open); } .faint, .soft { color: var(--soft); }
.tag { font-weight: 700; } nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap:
  .2rem 1rem; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .9em; }
code { overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem;
  overflow-x: auto; }
.block { border: 1px solid var(--line); border-left: .35rem solid var(--soft); border-radius: 6px;
  padding: .6rem .9rem; margin: .7rem 0; }
.block.error { border-left-color: var(--bad); } .block.warning { border-left-color: var(--warn); }
.block .block { margin: .5rem 0 .2rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1rem;
  margin: .7rem 0;
  align-items: start; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: .8rem; min-width: 0;
  break-inside: avoid; }
figure svg { display: block; overflow: visible; width: 100%; height: auto; color: var(--ink); }
figcaption { color: var(--soft); font-size: .88rem; margin: .4rem 0; }
.scroll { overflow: auto; max-height: 24rem; }
table { border-collapse: collapse; font-size: .88rem; } th, td { text-align: left; vertical-align: top;
  padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line); } td.n, th.n { text-align: right;
  font-variant-numeric: tabular-nums; }
details { margin: .3rem 0; } summary { cursor: pointer; color: var(--link); }
footer { margin-top: 2rem; padding-bottom: 2rem; color: var(--soft); font-size: .88rem; }
@media print { nav, .skip { display: none; } .scroll { max-height: none; overflow: visible; }
  .grid { grid-template-columns: 1fr 1fr; }
  .block .block, figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } body { font-size:
  11pt; } }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --card: #fff; --paper: #fff; --link: #000;
  --bad: #a40e26; --warn: #7d4e00; --good: #116329; --open: #0550ae; --grid: #8a9199; } }
"""


def safe(text: str) -> str:
    """Return a string of whatever origin as text of a page: no markup, nothing that steers the display."""
    return escape(printable(text))


def page(title: str, body: str) -> str:
    """Return a whole page.

    Args:
        title: its title, as plain text.
        body: its content, as HTML.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{safe(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">To the report</a>
{body}
</body>
</html>
"""


def inline(svg: str, name: str, label: str) -> str:
    """Return a picture as part of a page: named for a screen reader, its ids its own, its colours the page's.

    Args:
        svg: the picture.
        name: of its ids; no other picture of the page has it.
        label: what it shows, as plain text.
    """
    for color, own in ((INK, "currentColor"), (FAINT, "var(--grid)"), (PAPER, "none")):
        svg = svg.replace(color, own)
    for before in (' id="', 'href="#', "url(#"):
        svg = svg.replace(before, f"{before}{name}-")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{safe(label)}" ', 1)
