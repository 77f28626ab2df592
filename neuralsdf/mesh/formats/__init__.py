"""
formats
-------
Readers of mesh files, one module per format, from bytes to triangles.

OBJ, OFF, PLY and STL have their own readers because libraries (trimesh 5.2, libigl 2.6) fail on untrusted
files: trimesh drops lines that it does not understand, so a truncated file loads as half a shape; it resolves
OBJ's relative indices wrongly, and reads neither a PLY of triangles and quads nor an OFF with free line
breaks. libigl's PLY reader aborts the process on a valid file. Little is needed here: positions, corners, and
the line of an error.

So do glTF and 3MF. trimesh ignores features that it does not know, even required ones (instances, skins,
morph targets, sparse accessors, supports, units), looks up 3MF objects by an id that is unique only within a
part, and parses whole archives at once. These readers need only positions, indices and matrices: a few
hundred lines on top of json, zipfile and expat, with all sizes bounded.

Every reader takes an `InputFile` and raises only `FormatError` for invalid bytes; indices are checked,
coordinates are not. Sizes in a header are checked against the file's length, and allocations beyond the
file's own bytes are drawn from its budget. The work is linear in the file's length for any content
(tests/mesh/formats/test_readers.py tests every reader).
"""
