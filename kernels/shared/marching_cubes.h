// Marching cubes (Lorensen and Cline 1987) for one cell: its corners and edges, and the triangles of each of the 256
// combinations of corners inside and outside. It uses no standard library, so that CUDA kernels can include it.
//
// On a face with alternating corners, all cases separate the corners that are inside. So adjacent cells agree on their
// common face, and the surface of a whole lattice is closed.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define NEURALSDF_HOST_DEVICE __host__ __device__
#else
#define NEURALSDF_HOST_DEVICE
#endif

namespace neuralsdf {

// The corners of a cell are numbered around its lower face, then around its upper face.
NEURALSDF_HOST_DEVICE inline int corner_x(int corner) { return (corner ^ corner >> 1) & 1; }
NEURALSDF_HOST_DEVICE inline int corner_y(int corner) { return corner >> 1 & 1; }
NEURALSDF_HOST_DEVICE inline int corner_z(int corner) { return corner >> 2; }

// An edge runs from its lower corner along an axis. Edges 0 to 3 belong to the lower face, 4 to 7 to the upper face,
// both in the order of the corners; edges 8 to 11 rise from corners 0 to 3.
NEURALSDF_HOST_DEVICE inline int edge_corner(int edge) {
    const int around = edge & 3;
    if (edge >= 8) return around;
    return (around == 2 ? 3 : around == 3 ? 0 : around) + (edge & 4);
}
NEURALSDF_HOST_DEVICE inline int edge_axis(int edge) { return edge >= 8 ? 2 : edge & 1; }

// The triangles of a case, whose code has a bit for each corner that is inside: one hexadecimal digit per vertex, the
// number of its edge, counter-clockwise seen from outside, zero-terminated. At most five triangles.
NEURALSDF_HOST_DEVICE inline const char* case_triangles(std::uint8_t code) {
    // clang-format off
    static constexpr char triangles[256][16] = {
        "", "038", "091", "138918", "1A2", "23828A0181A8", "9A2092", "23828AA89", "32B", "02B80B", "30939B1292B9",
        "12B1B99B8", "31AB3A", "01A0A88AB", "30939BB9A", "9A8AB8", "487", "403743", "491417081871", "491417713",
        "1A2874", "37A3A274A1A040A", "9A7974A27870207", "29A279237749", "B74B42834324", "B74B42240", "9749B791B2B1083",
        "4B79B492B912", "3143481A474BAB4", "1AB1B414074B", "0834979B79AB", "4B749B9AB", "945", "845853905035", "045105",
        "845853351", "5A2524192942", "3A235A385458019", "5A2524420", "25A352345384", "9452B3", "0250592B5458B85",
        "04B0B345B2B151B", "2512852B8458", "AB4A45B34941314", "01984A8ABA45", "5045B05ABB30", "5845A8AB8", "987597",
        "903935537", "087071175", "135375", "982921872A25752", "9015A35373A2", "820852875A25", "25A235375",
        "75272B592328982", "9759279022B7", "08312717572B", "B12B71751", "A75AB7981831", "5B75AB190", "B5AB75830",
        "B5A75B", "A56", "03856A", "A10A06950560", "13616A386569896", "156216", "158180568382628", "956960062",
        "589528562382", "6B36352A3A53", "B85B56805A52025", "0B306B09656912A", "12A95B9B8B56", "6B3635531",
        "0B805B01556B", "36B063056095", "6956B9B89", "76A7A854A48A", "40A4A503A6A737A", "16A176107870954",
        "954A16176137", "628687218485158", "362376150540", "954086062687", "723762549", "348354325A52B76",
        "76B54A42A402", "6B712A083495", "954A1276B", "B76834354315", "50154076B", "083495B76", "49576B", "A946A4",
        "4634386A3039A93", "A10A06604", "8138618466A1", "194142246", "190234246438", "042462", "823842462",
        "A93A32943B36463", "4B846B0292A9", "12A30B06B046", "6846B82A1", "946963931B36", "86B846901", "36B306046",
        "684B86", "76A7A88A9", "03707A0A96A7", "A7617A187108", "A76A17137", "162186198876", "276237019", "708760620",
        "723627", "6B72A3A83A98", "2902A96B7", "12A3086B7", "A126B7", "819831B76", "019B76", "308B76", "76B", "7B6",
        "7807063B0B60", "091B67", "896867916B63136", "B21B17A61671", "1801781A767A23B", "20727B09767A9A7",
        "23BA68A89867", "732672", "780706602", "269291679093739", "126168189867", "A67A71173", "A671A7178180",
        "0730A709A67A", "7A678A89A", "648B68", "3B6360064", "8B1810B61914641", "964936913B63", "64161A48121B8B1",
        "3B201606461A", "08228B49A4A6", "A49A64B23", "832824426", "024426", "308129249264", "149124264", "83181686461A",
        "A01A60640", "4A649A083", "A4964A", "65969B4797B9", "059065036B63847", "51B5B610B7B404B", "8473B53515B6",
        "9219B294B7B45A6", "01947823B5A6", "5A647242027B", "3B2784A65", "739794329596269", "847905065026",
        "125526304347", "612651478", "A65197173794", "1905A6847", "43047365A", "5A6478", "65969BB98", "3B6036065059",
        "08B0B50515B6", "63B653513", "5A61929B298B", "01923B5A6", "B08B20A65", "23BA65", "598582526328", "965906026",
        "165126308", "165261", "1831985A6", "9015A6", "0835A6", "A65", "BA57B5", "BA0B03A50807570", "5705097B010ABA0",
        "958857A13A3B", "B21B17715", "23B018178157", "95797292027B", "7957893B2", "2A5253357", "802825857A52",
        "A12950530573", "978957A12", "153357", "078017157", "930953573", "978579", "54858AA8B", "54050B5BAB03",
        "4950818A18BA", "A3BA13954", "21525828B485", "05401523B", "0B208B495", "95423B", "2A5325354348", "52A542402",
        "30812A495", "12A954", "854835315", "054150", "954083", "954", "47B4B99BA", "47890B9BAB03", "1BA14B1047B4",
        "3A13BA784", "47B94B9B2921", "90184723B", "B47B24204", "8473B2", "2A9297273794", "92A902847", "34730412A",
        "12A847", "419471731", "019847", "430734", "478", "98AA8B", "3903B9BA9", "0A108A8BA", "3A1BA3", "1B219B98B",
        "19023B", "0B28B0", "3B2", "2832A8A98", "92A029", "08312A", "12A", "183981", "019", "083", ""
    };
    // clang-format on
    return triangles[code];
}

NEURALSDF_HOST_DEVICE inline int edge_of_digit(char digit) { return digit <= '9' ? digit - '0' : digit - 'A' + 10; }

// The position along an edge, 0 to 1, of the zero of a field that is linear there, from the values at its lower and
// upper end, of which one is negative. It is at least `margin` from both ends.
NEURALSDF_HOST_DEVICE inline double crossing(float low, float high, double margin) {
    const double fraction = low / (static_cast<double>(low) - high);
    return fraction < margin ? margin : fraction > 1 - margin ? 1 - margin : fraction;
}

}  // namespace neuralsdf
