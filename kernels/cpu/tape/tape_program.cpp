#include "cpu/tape/tape_program.h"

#include <cmath>
#include <cstring>
#include <string>

#include "cpu/argument_checks.h"

namespace neuralsdf {
namespace {

// Size of the registers of a block in floats, so that they stay in the cache.
constexpr std::size_t cached = 1 << 16;

// Number of instructions between checks for Ctrl-C.
constexpr std::ptrdiff_t at_once = 4096;

// The registers that an instruction reads and writes, and the number of its parameters.
struct Signature {
    bool point_a = false, value_a = false, value_b = false, point_b = false, to_point = false;
    int numbers = 0;
};

Signature solid_of(int numbers) { return {true, false, false, false, false, frame_size + numbers}; }
Signature two_values() { return {false, true, true, false, false, 1}; }
Signature one_value(int numbers) { return {false, true, false, false, false, numbers}; }
Signature entering(int numbers) { return {true, false, false, false, true, frame_size + numbers}; }
Signature leaving(int numbers) { return {false, true, false, true, false, frame_size + numbers}; }

Signature signature(Op op) {
    switch (op) {
        case Op::sphere: return solid_of(1);
        case Op::box: return solid_of(3);
        case Op::rounded_box: return solid_of(4);
        case Op::cylinder: return solid_of(2);
        case Op::capsule: return solid_of(2);
        case Op::cone: return solid_of(3);
        case Op::torus: return solid_of(2);
        case Op::plane: return solid_of(3);
        case Op::ellipsoid: return solid_of(3);
        case Op::field: return solid_of(1);
        case Op::nearest: return {true, false, false, false, false, 0};  // in addition to those of its leaves
        case Op::unite:
        case Op::intersect:
        case Op::subtract:
        case Op::blend: return two_values();
        case Op::negate: return one_value(0);
        case Op::offset: return one_value(1);
        case Op::wall: return one_value(2);
        case Op::displace: return leaving(2);
        case Op::enter_fold: return entering(3);
        case Op::leave_fold: return leaving(3);
        case Op::enter_repeat: return entering(15);
        case Op::leave_repeat: return leaving(15);
        case Op::enter_twist: return entering(2);
        case Op::leave_twist: return leaving(2);
    }
    throw std::invalid_argument("unknown operation " + std::to_string(static_cast<int>(op)));
}

// The registers of one kind, and which of them have been written.
class Written {
  public:
    Written(const char* kind, int count) : kind_(kind), written_(count) {}

    void write(int i) { written_[checked(i)] = true; }
    void read(int i) const {
        if (!written_[checked(i)]) fail(i, "is read before it is written");
    }

  private:
    std::size_t checked(int i) const {
        if (i < 0 || static_cast<std::size_t>(i) >= written_.size()) fail(i, "does not exist");
        return static_cast<std::size_t>(i);
    }
    [[noreturn]] void fail(int i, const char* why) const {
        throw std::invalid_argument(std::string(kind_) + " register " + std::to_string(i) + " " + why);
    }

    const char* kind_;
    std::vector<bool> written_;
};

void check_registers(const std::vector<Instruction>& code, int points, int values) {
    // There cannot be more registers than instructions that write them.
    const auto most = static_cast<std::int64_t>(code.size());
    if (points < 1 || points > most + 1 || values < 1 || values > most)
        throw std::invalid_argument("a tape must have registers, and at most as many as instructions");
    Written point("point", points), value("value", values);
    point.write(0);
    for (const Instruction& i : code) {
        const Signature s = signature(i.op);
        if (s.point_a) point.read(i.a);
        if (s.value_a) value.read(i.a);
        if (s.value_b) value.read(i.b);
        if (s.point_b) point.read(i.b);
        (s.to_point ? point : value).write(i.out);
    }
    value.read(0);
}

std::vector<Instruction> checked_code(const std::vector<std::int32_t>& code, const std::vector<double>& parameters,
                                      std::size_t leaves, int points, int values) {
    require(code.size() % 5 == 0, "code must have the shape (m, 5)");
    const std::int32_t* rows = code.data();
    std::vector<Instruction> instructions(code.size() / 5);
    for (std::size_t at = 0; at < instructions.size(); ++at, rows += 5) {
        Instruction& i = instructions[at];
        i = {static_cast<Op>(rows[0]), rows[1], rows[2], rows[3], rows[4]};
        const std::int64_t asked = i.op == Op::field ? 1 : i.op == Op::nearest ? i.b : 0;
        const std::int64_t needed = i.op == Op::nearest ? asked * (frame_size + 1) : signature(i.op).numbers;
        if (i.parameters < 0 || asked < 0 || i.parameters > static_cast<std::int64_t>(parameters.size()) - needed)
            throw std::invalid_argument("instruction " + std::to_string(at) + ": parameter index out of range");
        for (std::int64_t leaf = 0; leaf < asked; ++leaf) {
            const double number = parameters[i.parameters + leaf * (frame_size + 1) + frame_size];
            if (!(number >= 0 && number < static_cast<double>(leaves)) || number != std::floor(number))
                throw std::invalid_argument("instruction " + std::to_string(at) + ": leaf index out of range");
            if (i.op == Op::field) i.b = static_cast<std::int32_t>(number);
        }
    }
    check_registers(instructions, points, values);
    return instructions;
}

bool is_similarity(const Place& place) {
    if (!(place.scale > 0 && std::isfinite(place.scale))) return false;
    const float* m = place.matrix;
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) {
            double product = i == j ? -1 : 0;
            for (int k = 0; k < 3; ++k) product += double(m[3 * i + k]) * m[3 * j + k] * place.scale * place.scale;
            if (!(std::abs(product) < 1e-4)) return false;
        }
    return std::isfinite(place.shift[0] + place.shift[1] + place.shift[2]);
}

// The places of the leaves of a `nearest` instruction, whose parameters start at `numbers`.
std::vector<Place> places_of(const double* numbers, int count,
                             const std::vector<std::shared_ptr<const NetworkProgram>>& leaves) {
    if (count < 1) throw std::invalid_argument("`nearest` needs at least one network");
    std::vector<int> network(leaves.size(), -1);
    int networks = 0;
    std::vector<Place> places(count);
    for (Place& place : places) {
        const auto leaf = static_cast<std::size_t>(numbers[frame_size]);
        if (!leaves[leaf]) throw std::invalid_argument("`nearest` supports networks only");
        if (network[leaf] < 0) network[leaf] = networks++;
        place.layout = &leaves[leaf]->layout();
        place.packed = leaves[leaf]->packed();
        place.evaluate = leaves[leaf]->evaluation();
        place.network = network[leaf];
        std::copy_n(numbers, 9, place.matrix);
        std::copy_n(numbers + 9, 3, place.shift);
        place.scale = static_cast<float>(numbers[frame_size - 1]);
        if (!is_similarity(place)) throw std::invalid_argument("a network's frame must be a similarity transform");
        numbers += frame_size + 1;
    }
    return places;
}

bool enters(Op op) { return op == Op::enter_fold || op == Op::enter_repeat || op == Op::enter_twist; }

bool is_callers_field(const Instruction& i, const std::vector<std::shared_ptr<const NetworkProgram>>& leaves) {
    return i.op == Op::field && !leaves[i.b];
}

std::vector<Instruction> leading_to_callers_fields(const std::vector<Instruction>& code,
                                                   const std::vector<std::shared_ptr<const NetworkProgram>>& leaves) {
    std::vector<Instruction> places;
    std::copy_if(code.begin(), code.end(), std::back_inserter(places),
                 [&](const Instruction& i) { return enters(i.op) || is_callers_field(i, leaves); });
    return places;
}

}  // namespace

TapeProgram::TapeProgram(const Kernel& kernel, const std::vector<std::int32_t>& code,
                         const std::vector<double>& parameters,
                         std::vector<std::shared_ptr<const NetworkProgram>> leaves, int points, int values,
                         float lipschitz)
    : Program(kernel),
      leaves_(std::move(leaves)),
      code_(checked_code(code, parameters, leaves_.size(), points, values)),
      parameters_(parameters.begin(), parameters.end()),
      places_(leading_to_callers_fields(code_, leaves_)),
      fields_(std::count_if(places_.begin(), places_.end(), [](const auto& i) { return i.op == Op::field; })),
      points_(points),
      values_(values),
      lipschitz_(lipschitz) {
    // Soft shadows use its inverse.
    require(lipschitz > 0 && std::isfinite(lipschitz) && std::isfinite(1 / lipschitz), "lipschitz must be positive");
    for (const auto& leaf : leaves_)
        require(!leaf || &leaf->kernel() == &kernel, "leaves must be compiled for the tape's instruction set");
    for (Instruction& i : code_) {
        if (i.op != Op::nearest) continue;
        nearest_.emplace_back(kernel, places_of(parameters.data() + i.parameters, i.b, leaves_));
        i.b = static_cast<std::int32_t>(nearest_.size()) - 1;
    }
}

int TapeProgram::room(bool slopes) const {
    const std::size_t numbers = 3 * std::size_t(points_) + (slopes ? 4 : 1) * std::size_t(values_);
    const int points = static_cast<int>(std::min<std::size_t>(batch(), cached / numbers));
    return std::max(kernel_.lanes, points / kernel_.lanes * kernel_.lanes);
}

std::size_t TapeProgram::registers_size(bool slopes) const {
    return whole_lines((3 * std::size_t(points_) + (slopes ? 4 : 1) * std::size_t(values_)) * room(slopes));
}

std::size_t TapeProgram::size(bool slopes) const {
    std::size_t network = 0;
    for (const auto& leaf : leaves_)
        if (leaf) network = std::max(network, slopes ? leaf->gradient_size() : leaf->evaluate_size());
    // Besides the registers: the scratch memory for leaves, and the workspace of a network.
    return registers_size(slopes) + whole_lines(7 * std::size_t(room(slopes))) + network;
}

std::size_t TapeProgram::evaluate_size() const {
    if (fields_) throw std::invalid_argument("a tape with fields must be evaluated with their values");
    return size(false);
}

std::size_t TapeProgram::gradient_size() const {
    evaluate_size();
    return size(true);
}

void TapeProgram::evaluate_block(const float* points, int count, float* values, float* workspace,
                                 const Stopped& stopped) const {
    run(points, count, values, nullptr, workspace, stopped, {});
}

void TapeProgram::gradient_block(const float* points, int count, float* values, float* gradients, float* workspace,
                                 const Stopped& stopped) const {
    run(points, count, values, gradients, workspace, stopped, {});
}

template <class Part>
void TapeProgram::in_parts(const float* points, int count, bool slopes, float* workspace, const Stopped& stopped,
                           const Part& part) const {
    const int most = room(slopes);
    for (int first = 0; first < count && !stopped(); first += most) {
        const int here = std::min(most, count - first);
        const int width = (here + kernel_.lanes - 1) / kernel_.lanes * kernel_.lanes;
        const TapeBlock block{here, width, slopes, workspace, workspace + 3 * std::size_t(points_) * width};
        kernel_.tape.load(block, points + 3 * first);
        part(block, first, workspace + registers_size(slopes));
    }
}

void TapeProgram::run(const float* points, int count, float* values, float* gradients, float* workspace,
                      const Stopped& stopped, const Answers& answers) const {
    in_parts(points, count, gradients, workspace, stopped, [&](const TapeBlock& block, int first, float* scratch) {
        Answers here = answers;
        here.first += first;
        run_part(block, here, scratch, stopped);
        kernel_.tape.store(block, values + first, gradients ? gradients + 3 * first : nullptr);
    });
}

void TapeProgram::run_part(const TapeBlock& block, const Answers& answers, float* scratch,
                           const Stopped& stopped) const {
    std::int64_t field = 0;
    const Instruction* const end = code_.data() + code_.size();
    for (const Instruction* i = code_.data(); i < end && !stopped();) {
        i = kernel_.tape.run(block, parameters_.data(), i, i + std::min(at_once, end - i));
        if (i == end || !asks(i->op)) continue;
        ask(*i, block, answers, field, scratch, stopped);
        field += is_callers_field(*i, leaves_);
        ++i;
    }
}

void TapeProgram::ask(const Instruction& i, const TapeBlock& block, const Answers& answers, std::int64_t field,
                      float* scratch, const Stopped& stopped) const {
    const int most = room(block.slopes);
    float* const values = scratch;
    float* const gradients = values + most;
    float* const points = gradients + 3 * most;
    float* const workspace = scratch + whole_lines(7 * std::size_t(most));
    if (i.op == Op::nearest) return ask_nearest(i, block, workspace);
    const NetworkProgram* const network = leaves_[i.b].get();
    if (network) {
        kernel_.tape.enter_field(block, parameters_.data(), i, true, points);
        for_blocks(0, block.count, stopped, [&](std::int64_t at, int count) {
            if (block.slopes)
                network->gradient_block(points + 3 * at, count, values + at, gradients + 3 * at, workspace, stopped);
            else
                network->evaluate_block(points + 3 * at, count, values + at, workspace, stopped);
        });
    } else {
        const std::int64_t at = field * answers.points + answers.first;
        std::memcpy(values, answers.values + at, sizeof(float) * block.count);
        if (block.slopes) std::memcpy(gradients, answers.gradients + 3 * at, sizeof(float) * 3 * block.count);
    }
    kernel_.tape.leave_field(block, parameters_.data(), i, network, values, gradients);
}

void TapeProgram::ask_nearest(const Instruction& i, const TapeBlock& block, float* workspace) const {
    const int rows = block.slopes ? 4 : 1;  // rows per value
    float* const values = block.values + std::size_t(i.out) * rows * block.width;
    nearest_[i.b].evaluate({block.points + std::size_t(i.a) * 3 * block.width, block.count, block.width, values,
                            block.slopes ? values + block.width : nullptr},
                           workspace);
    for (int row = 0; row < rows; ++row)  // the padding of the last vector is also evaluated
        std::fill(values + row * block.width + block.count, values + (row + 1) * block.width, 0.0f);
}

void TapeProgram::field_points(const float* points, std::int64_t n, float* places, const Workers& workers) const {
    run_blocks(n, batch(), workers, size(false),
               [&](std::int64_t at, int count, float* workspace, const Stopped& stopped) {
        in_parts(points + 3 * at, count, false, workspace, stopped, [&](const TapeBlock& block, int first, float*) {
            float* to = places + 3 * (at + first);
            const Instruction* const end = places_.data() + places_.size();
            for (const Instruction* i = places_.data(); i < end && !stopped();) {
                i = kernel_.tape.run(block, parameters_.data(), i, i + std::min(at_once, end - i));
                if (i == end || !asks(i->op)) continue;
                kernel_.tape.enter_field(block, parameters_.data(), *i++, false, to);
                to += 3 * n;
            }
        });
    });
}

void TapeProgram::evaluate_fields(const float* points, std::int64_t n, const float* field_values, float* values,
                                  const Workers& workers) const {
    run_blocks(n, batch(), workers, size(false),
               [&](std::int64_t at, int count, float* workspace, const Stopped& stopped) {
        run(points + 3 * at, count, values + at, nullptr, workspace, stopped, {field_values, nullptr, n, at});
    });
}

void TapeProgram::evaluate_fields_with_gradient(const float* points, std::int64_t n, const float* field_values,
                                                const float* field_gradients, float* values, float* gradients,
                                                const Workers& workers) const {
    run_blocks(n, batch(), workers, size(true),
               [&](std::int64_t at, int count, float* workspace, const Stopped& stopped) {
        run(points + 3 * at, count, values + at, gradients + 3 * at, workspace, stopped,
            {field_values, field_gradients, n, at});
    });
}

}  // namespace neuralsdf
