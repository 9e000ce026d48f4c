"""Smaller PDF files of the same figure: coordinates to a tenth of a point, and nothing that stands in it twice.

Matplotlib writes coordinates with six decimals, the same marker anew for every curve and panel, and fonts with what
only a screen of few dots needs. A tenth of a point is a third of what a printer of 300 dots per inch resolves. Axes and
markers stay as they are, and so does text, which can be edited.
"""

import io
import re
import zlib
from dataclasses import dataclass, replace

from fontTools.ttLib import TTFont

# What is made coarser: at least this many lines drawn one after the other.
LONG = 40
RUN = re.compile(rb"(?:^-?[\d.]+ -?[\d.]+ l\n){%d,}" % LONG, re.MULTILINE)
# A packed stream may itself end with a carriage return, so that only matplotlib's own line feed is taken off.
STREAM = re.compile(rb"\d+ 0 obj\r?\n(.*?)stream\r?\n(.*)\nendstream\s*endobj\s*", re.DOTALL)
PLAIN = re.compile(rb"\d+ 0 obj\r?\n(.*?)\s*endobj\s*", re.DOTALL)
LENGTH = re.compile(rb"/Length (\d+)( 0 R)?")
REFERENCE = re.compile(rb"\b(\d+) 0 R")
# Tables of a font: for screens of few dots, and for what a typesetter does to letters that have no place yet.
NOT_PRINTED = ("fpgm", "prep", "cvt ", "gasp", "GPOS", "GSUB", "GDEF", "kern", "MATH")


@dataclass(frozen=True)
class PdfObject:
    """An object of a PDF file: what stands before its stream, and the stream, None where it has none."""

    head: bytes
    stream: bytes | None

    def written(self, number: int) -> bytes:
        """Return the object as it stands in a file, under this number."""
        body = b"" if self.stream is None else b"stream\n%s\nendstream\n" % self.stream
        return b"%d 0 obj\n%s\n%sendobj\n" % (number, self.head.rstrip(), body)


def small_pdf(pdf: bytes) -> bytes:
    """Return the file that matplotlib wrote, smaller; as it is if it is written otherwise."""
    table = re.search(rb"startxref\s+(\d+)\s+%%EOF\s*$", pdf)
    if table is None or not pdf[int(table[1]) :].startswith(b"xref\n0 "):
        return pdf
    xref = int(table[1])
    entries = re.findall(rb"(\d{10}) \d{5} ([nf])", pdf[xref : table.start()])
    places = {number: int(offset) for number, (offset, kind) in enumerate(entries) if kind == b"n"}
    ends = dict(zip(sorted(places.values()), [*sorted(places.values())[1:], xref], strict=True))
    objects = {number: _parsed(pdf[place : ends[place]]) for number, place in places.items()}
    apart = [LENGTH.search(part.head) for part in objects.values() if part.stream is not None]
    lengths = {int(length[1]) for length in apart if length is not None and length[2]}
    objects = {number: _packed(part) for number, part in objects.items() if number not in lengths}
    objects, trailer = _once(objects, pdf[xref : table.start()].partition(b"trailer")[2])
    body, starts = bytearray(pdf[: min(places.values())]), list[int]()
    for number, part in objects.items():
        starts.append(len(body))
        body += part.written(number)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(starts) + 1)
    lines = b"".join(b"%010d 00000 n \n" % place for place in starts)
    trailer = re.sub(rb"/Size \d+", b"/Size %d" % (len(starts) + 1), trailer)
    return bytes(body) + head + lines + b"trailer" + trailer + b"startxref\n%d\n%%%%EOF\n" % len(body)


def _parsed(part: bytes) -> PdfObject:
    stream, plain = STREAM.fullmatch(part), PLAIN.fullmatch(part)
    if stream is not None:
        return PdfObject(stream[1], stream[2])
    assert plain is not None, "an object of a PDF file that matplotlib does not write"
    return PdfObject(plain[1], None)


def _packed(part: PdfObject) -> PdfObject:
    """Return an object with its stream made smaller and its length in its own head."""
    head, stream = part.head, part.stream
    if stream is None:
        return part
    if b"/Length1" in head:
        font = _printed_font(zlib.decompress(stream))
        head, stream = re.sub(rb"/Length1 \d+", b"/Length1 %d" % len(font), head), zlib.compress(font, 9)
    elif b"/FlateDecode" in head and b"/Type" not in head:
        stream = zlib.compress(RUN.sub(lambda run: _coarser(run[0]), zlib.decompress(stream)), 9)
    return PdfObject(LENGTH.sub(b"/Length %d" % len(stream), head), stream)


def _printed_font(data: bytes) -> bytes:
    """Return a TrueType font without what printing does not need: its letters and their widths stay."""
    font = TTFont(io.BytesIO(data), recalcBBoxes=False, recalcTimestamp=False)
    for table in NOT_PRINTED:
        if table in font:
            del font[table]
    for name in font.getGlyphOrder():
        font["glyf"][name].removeHinting()
    sink = io.BytesIO()
    font.save(sink)
    return sink.getvalue()


def _once(objects: dict[int, PdfObject], trailer: bytes) -> tuple[dict[int, PdfObject], bytes]:
    """Return the objects numbered anew, equal ones once, and the trailer with their new numbers."""
    firsts: dict[PdfObject, int] = {}
    same = {number: firsts.setdefault(part, number) for number, part in objects.items()}
    new = {number: place for place, number in enumerate(dict.fromkeys(same.values()), start=1)}

    def renumbered(text: bytes) -> bytes:
        return REFERENCE.sub(lambda found: b"%d 0 R" % new[same[int(found[1])]], text)

    kept = {new[number]: replace(objects[number], head=renumbered(objects[number].head)) for number in new}
    return kept, renumbered(trailer)


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
