"""
formats
-------
Readers of mesh files, one module a format, from bytes to triangles.

The readers of OBJ, OFF, PLY and STL are our own because the libraries at hand do not hold up on the files of
strangers (trimesh 5.2, libigl 2.6): trimesh drops lines that it does not understand, so a truncated file
loads as half a shape, resolves OBJ's relative indices wrongly, and reads neither a PLY of triangles and quads
nor an OFF with free line breaks; libigl's PLY reader aborts the process on a valid file. What is needed here
is little: positions and corners, and the line where a file stops making sense.

So are those of glTF and 3MF. trimesh drops what it does not know, even what a file requires (instances,
skins, morph targets, sparse accessors, supports, units), looks a 3MF's objects up by an id that is unique
only within one part, and parses whole archives at once. What remains to be read is positions, indices and
matrices, a few hundred lines over json, zipfile and expat, in which every sum is bounded.

Every reader takes an `InputFile` and raises `FormatError`, and nothing else, for bytes that do not hold
together; indices are checked, coordinates are not. Sizes in a header are believed only as far as the file is
long, and what a reader allocates beyond the file's own bytes it draws from the file's budget. Its work is
proportional to the file's length, whatever is in it (tests/mesh/formats/test_readers.py tests every reader).
"""
