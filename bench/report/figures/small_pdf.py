"""Smaller PDF files of the same figure: no coordinate of a curve is finer than a tenth of a point, none stands twice.

Matplotlib writes coordinates with six decimals, so a certified accuracy curve with its band fills most of a file. A
tenth of a point is a third of what a printer of 300 dots per inch resolves. Text, axes and markers stay as they are.
"""

import re
import zlib

# What is made coarser: at least this many lines drawn one after the other.
LONG = 40
# A packed stream may itself end with a carriage return, so that only matplotlib's own line feed is taken off.
STREAM = re.compile(rb"(.*?stream\r?\n)(.*?)(\nendstream.*)", re.DOTALL)
RUN = re.compile(rb"(?:^-?[\d.]+ -?[\d.]+ l\n){%d,}" % LONG, re.MULTILINE)
LENGTH = re.compile(rb"/Length (\d+) 0 R")


def small_pdf(pdf: bytes) -> bytes:
    """Return the file that matplotlib wrote with long curves made coarser; as it is if it is written otherwise."""
    table = re.search(rb"startxref\s+(\d+)\s+%%EOF\s*$", pdf)
    if table is None or not pdf[int(table[1]) :].startswith(b"xref\n0 "):
        return pdf
    xref = int(table[1])
    entries = re.findall(rb"(\d{10}) \d{5} ([nf])", pdf[xref : table.start()])
    places = {number: int(offset) for number, (offset, kind) in enumerate(entries) if kind == b"n"}
    ends = dict(zip(sorted(places.values()), [*sorted(places.values())[1:], xref], strict=True))
    parts = {number: pdf[place : ends[place]] for number, place in places.items()}
    for number, part in list(parts.items()):
        length, stream = LENGTH.search(part), STREAM.fullmatch(part)
        if length is None or stream is None or b"/FlateDecode" not in stream[1] or b"/Type" in stream[1]:
            continue  # fonts, pictures and markers
        content = RUN.sub(lambda run: _coarser(run[0]), zlib.decompress(stream[2]))
        packed = zlib.compress(content, 9)
        parts[number] = stream[1] + packed + stream[3]
        held = int(length[1])
        parts[held] = b"%d 0 obj\n%d\nendobj\n" % (held, len(packed))
    body, found = bytearray(pdf[: min(places.values())]), {}
    for number, part in parts.items():
        found[number] = len(body)
        body += part
    lines = [
        b"%010d 00000 n \n" % found[k] if k in found else b"0000000000 65535 f \n"
        for k in range(len(entries))
    ]
    trailer = pdf[xref : table.start()].partition(b"trailer")[2]
    head = b"xref\n0 %d\n" % len(entries)
    return (
        bytes(body) + head + b"".join(lines) + b"trailer" + trailer + b"startxref\n%d\n%%%%EOF\n" % len(body)
    )


def _coarser(run: bytes) -> bytes:
    """Round the points of consecutive lines; leave out those in the middle of a level or upright stretch."""
    points = [tuple(round(float(value), 1) for value in line.split()[:2]) for line in run.splitlines()]
    kept = points[:1]
    for point, following in zip(points[1:], [*points[2:], None], strict=True):
        before = kept[-1]
        straight = following is not None and any(
            before[axis] == point[axis] == following[axis]
            and sorted((before, point, following))[1] == point  # on the way, not a turn
            for axis in (0, 1)
        )
        if point != before and not straight:
            kept.append(point)
    return b"".join(b"%s %s l\n" % tuple(f"{value:g}".encode() for value in point) for point in kept)
