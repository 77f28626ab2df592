"""
formats
-------
Readers of mesh files, one module a format, from bytes to triangles.

The readers of OBJ, OFF, PLY and STL are our own because the libraries at hand do not hold up on the files of
strangers (trimesh 5.2, libigl 2.6): trimesh drops lines that it does not understand, so a truncated file
loads as half a shape, resolves OBJ's relative indices wrongly, and reads neither a PLY of triangles and quads
nor an OFF with free line breaks; libigl's PLY reader aborts the process on a valid file. What is needed here
is little: positions and corners, and the line where a file stops making sense.

So is the reader of 3MF. trimesh looks objects up by an id that is unique only within one part, picks the main
part by its name, drops units and whatever else it does not know (required extensions included), and
decompresses and parses whole archives at once. Ours is a few hundred lines over zipfile and expat, streams,
and resolves no entity.

Every reader takes an `InputFile` and raises `FormatError`, and nothing else, for bytes that do not hold
together; indices are checked, coordinates are not. Sizes in a header are believed only as far as the file is
long, and what a reader allocates beyond the file's own bytes it draws from the file's budget.
"""
