#include "kernel_entry.h"
#include "sparse_grid.h"

NEURALSDF_ENTRY(ball_points, ball_points, neuralsdf::gpu::BallPoints, 256, 4)
NEURALSDF_ENTRY(solid_values, solid_values, neuralsdf::gpu::BallValues, 256, 4)
NEURALSDF_ENTRY(mark_holding, mark_holding, neuralsdf::gpu::BallValues, 256, 4)
NEURALSDF_ENTRY(scan_sums, scan_sums, neuralsdf::gpu::Scan, 256, 4)
NEURALSDF_ENTRY(scan_tiles, scan_tiles, neuralsdf::gpu::Scan, 256, 4)
NEURALSDF_ENTRY(scan_counts, scan_counts, neuralsdf::gpu::Scan, 256, 4)
NEURALSDF_ENTRY(select_keys, select_keys, neuralsdf::gpu::Selection, 256, 4)
NEURALSDF_ENTRY(mark_fresh, mark_fresh, neuralsdf::gpu::Union, 256, 4)
NEURALSDF_ENTRY(unite, unite, neuralsdf::gpu::Union, 256, 4)
NEURALSDF_ENTRY(mark_crossed, mark_crossed, neuralsdf::gpu::Crossed, 256, 4)
NEURALSDF_ENTRY(count_missed, count_missed, neuralsdf::gpu::Missed, 256, 4)
NEURALSDF_ENTRY(list_missed, list_missed, neuralsdf::gpu::Missed, 256, 4)
NEURALSDF_ENTRY(mark_vertices, mark_vertices, neuralsdf::gpu::MarchingCubes, 256, 4)
NEURALSDF_ENTRY(place_vertices, place_vertices, neuralsdf::gpu::MarchingCubes, 256, 4)
NEURALSDF_ENTRY(write_faces, write_faces, neuralsdf::gpu::MarchingCubes, 256, 4)
