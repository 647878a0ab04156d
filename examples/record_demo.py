#!/usr/bin/env python3
"""Records `lattice demo` as an animated SVG.

    examples/record_demo.py target/release/lattice > examples/demo.svg

Needs Python 3 only. The demo runs on a pseudo-terminal of 80 columns; each line appears in the
picture when it appeared there. Viewers without animations show the last screen.
"""

import html
import os
import pty
import re
import subprocess
import sys
import time

COLUMNS = 84
ROWS = 24
LINE_PX = 18
CHAR_PX = 8.4
REST_S = 6.0
COLOURS = {None: "#d0d0d0", "32": "#7ec77e", "36": "#6cc5d6", "33": "#dfc56c"}
LINE = re.compile(r"^\x1b\[(\d+)m(.*)\x1b\[0m$")


def record(binary):
    """Returns (seconds, colour, text) of each line, and the length of the demo in seconds."""
    master, slave = pty.openpty()
    began = time.monotonic()
    demo = subprocess.Popen([binary, "demo"], stdout=slave, stderr=slave, stdin=slave)
    os.close(slave)
    lines, rest = [], b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # Linux reports the end of a pseudo-terminal as an error
            break
        if not part:
            break
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            text = line.decode().rstrip("\r")
            coloured = LINE.match(text)
            colour, text = coloured.groups() if coloured else (None, text)
            lines.append((time.monotonic() - began, colour, text))
    if demo.wait() != 0:
        sys.exit("the demo failed")
    return lines, time.monotonic() - began


def draw(lines, seconds):
    whole = seconds + REST_S
    percent = lambda at: f"{100 * at / whole:.2f}%"
    styles, texts, scrolls = [], [], ["0% { transform: translateY(0) }"]
    for number, (at, colour, text) in enumerate(lines):
        styles.append(
            f"@keyframes l{number} {{ 0%, {percent(at)} {{ opacity: 0 }} "
            f"{percent(at + 0.01)}, 100% {{ opacity: 1 }} }}\n"
            f"#l{number} {{ animation: l{number} {whole:.1f}s step-end infinite }}"
        )
        texts.append(
            f'<text id="l{number}" x="12" y="{(number + 1) * LINE_PX + 8}" '
            f'fill="{COLOURS.get(colour, COLOURS[None])}">{html.escape(text)}</text>'
        )
        above = number + 1 - ROWS
        if above > 0:
            scrolls.append(f"{percent(at)} {{ transform: translateY({-above * LINE_PX}px) }}")
    last = max(0, len(lines) - ROWS) * LINE_PX
    scrolls.append(f"100% {{ transform: translateY({-last}px) }}")
    width, height = COLUMNS * CHAR_PX + 24, ROWS * LINE_PX + 20
    newline = "\n"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" \
width="{width:.0f}" height="{height}">
<style>
text {{ font: 14px ui-monospace, Menlo, Consolas, monospace; white-space: pre }}
@keyframes scroll {{ {" ".join(scrolls)} }}
#all {{ transform: translateY({-last}px); animation: scroll {whole:.1f}s step-end infinite }}
{newline.join(styles)}
</style>
<rect width="100%" height="100%" rx="8" fill="#1b1f24"/>
<g id="all">
{newline.join(texts)}
</g>
</svg>
"""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.stdout.write(draw(*record(sys.argv[1])))
