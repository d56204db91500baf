"""Which JPEGs bring all tables that they are decoded with.

ffcv decodes all images of a thread with one decompressor of libjpeg, in which tables stay: an image without its own
(a frame of MJPEG has no Huffman tables; a marker may be damaged) is decoded with those of the image before, often
without an error.
"""

import numba

_START_OF_FRAME = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_HUFFMAN, _QUANTIZATION, _SCAN, _END = 0xC4, 0xDB, 0xDA, 0xD9
_ARITHMETIC = 0xC9
"""The first of the frames that have no Huffman tables."""
_PROGRESSIVE = (0xC2, 0xC6)
_AC = 16
"""Tables of AC coefficients are counted from here, those of DC coefficients from 0."""


@numba.njit(nogil=True)
def complete_size(jpeg):  # type: ignore[no-untyped-def]
    """(height, width) of a JPEG with all its tables (ITU-T T.81, B.2); (0, 0) of any other bytes (N,) uint8."""
    frame, height, width, components = 0, 0, 0, 0
    defined, needed, huffman = 0, 0, 0  # sets of tables: bit k stands for table k
    at = 2  # after the start-of-image marker
    while at + 10 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, end = int(jpeg[at + 1]), at + 2 + 256 * int(jpeg[at + 2]) + int(jpeg[at + 3])
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if end > len(jpeg):
            break
        if marker == _QUANTIZATION:
            table = at + 4
            while table < end:
                defined |= 1 << (int(jpeg[table]) & 15)
                table += 65 + 64 * (int(jpeg[table]) >> 4)
        elif marker == _HUFFMAN:
            table = at + 4
            while table + 17 <= end:
                huffman |= 1 << (_AC * (int(jpeg[table]) >> 4) + (int(jpeg[table]) & 15))
                table += 17 + int(jpeg[table + 1 : table + 17].sum())
        elif marker in _START_OF_FRAME:
            frame, components = marker, int(jpeg[at + 9])
            height, width = 256 * int(jpeg[at + 5]) + int(jpeg[at + 6]), 256 * int(jpeg[at + 7]) + int(jpeg[at + 8])
            if at + 10 + 3 * components > end:
                break
            for k in range(components):
                needed |= 1 << (int(jpeg[at + 12 + 3 * k]) & 15)
        elif marker == _SCAN:
            parts = int(jpeg[at + 4])
            if not frame or needed & ~defined or at + 8 + 2 * parts > end:
                break
            if frame < _ARITHMETIC and _scan_tables(jpeg, at, frame in _PROGRESSIVE) & ~huffman:
                break
            if parts == components and frame not in _PROGRESSIVE:
                return height, width  # its only scan
            while end + 1 < len(jpeg) and (jpeg[end] != 0xFF or jpeg[end + 1] == 0 or 0xD0 <= jpeg[end + 1] < 0xD8):
                end += 1
            if end + 1 >= len(jpeg) or jpeg[end + 1] == _END:
                return height, width
        at = end
    return 0, 0


@numba.njit(nogil=True)
def _scan_tables(jpeg, at, progressive):  # type: ignore[no-untyped-def]
    """The set of Huffman tables of the scan whose header begins at `at`."""
    parts, tables = int(jpeg[at + 4]), 0
    begins_with_dc = jpeg[at + 5 + 2 * parts] == 0
    refines = jpeg[at + 7 + 2 * parts] >> 4 != 0  # a bit of a coefficient, which DC has without a table
    for k in range(parts):
        both = int(jpeg[at + 6 + 2 * k])
        if begins_with_dc and not (progressive and refines):
            tables |= 1 << (both >> 4)
        if not (progressive and begins_with_dc):
            tables |= 1 << (_AC + (both & 15))
    return tables
