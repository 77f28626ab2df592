#include "cpu/mlp/weight_layout.h"

#include <memory>

#include "cpu/aligned_buffer.h"
#include "doctest/doctest.h"
#include "random.h"

using namespace neuralsdf;

TEST_SUITE_BEGIN("weight_layout");

TEST_CASE("unpacking the packed layers returns the flat weights") {
    Random random(3);
    for (int trial = 0; trial < 200; ++trial) {
        std::vector<int> hidden(static_cast<std::size_t>(1 + random.below(4)));
        for (int& width : hidden) width = 1 + random.below(70);
        const int lanes = 4 << random.below(3);
        auto layout = std::make_unique<Layout>();
        make_layout(*layout, hidden.data(), static_cast<int>(hidden.size()), Activation::relu, Output::tanh, lanes,
                    trial % 2 == 0);
        const std::vector<float> flat = random.uniform<float>(layout->flat_size, -1, 1);
        const Buffer packed = make_buffer(layout->packed_size);
        pack(*layout, flat.data(), packed.get(), true);
        std::vector<float> back(flat.size(), 7.0f);
        for (int l = 0; l <= layout->depth; ++l) unpack_layer(*layout, l, packed.get(), 1.0f, back.data());
        CHECK(back == flat);
        CHECK(layout->panel % lanes == 0);
        CHECK(packed_end(*layout, layout->depth) <= layout->gradient_size);
        for (int l = 1; l <= layout->depth; ++l) CHECK(packed_end(*layout, l - 1) < packed_end(*layout, l));
    }
}

TEST_CASE("layers are padded to whole tiles where that pays") {
    const auto is_tiled = [](std::vector<int> hidden, Activation activation = Activation::relu, bool tiles = true) {
        auto layout = std::make_unique<Layout>();
        make_layout(*layout, hidden.data(), static_cast<int>(hidden.size()), activation, Output::tanh, 16, tiles);
        if (layout->tiled) CHECK(layout->panel == 32);
        return layout->tiled;
    };
    CHECK(is_tiled({32, 32}));
    CHECK(is_tiled({518, 518, 518, 259, 512, 512, 512, 512, 2}));
    CHECK(is_tiled({134, 134, 134, 67, 128, 128, 128, 128, 2}));
    CHECK_FALSE(is_tiled({48, 48, 48, 48}));
    CHECK_FALSE(is_tiled({20, 20}));
    CHECK_FALSE(is_tiled({32, 32}, Activation::softplus));
    CHECK_FALSE(is_tiled({32, 32}, Activation::relu, false));
}

TEST_SUITE_END();
