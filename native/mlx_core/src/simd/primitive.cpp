// A primitive of MLX whose values a function of Rust computes, on a CPU stream.

#include <algorithm>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <utility>
#include <vector>

#include "mlx/allocator.h"
#include "mlx/array.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"

namespace mx = mlx::core;

extern "C" {

constexpr size_t MAX_INPUTS = 3;
constexpr size_t MAX_PARAMETERS = 6;

// What the function computes from; `primitive.rs` has the same.
struct mlx_simd_call {
  const void* inputs[MAX_INPUTS];
  void* output;
  size_t length;
  size_t row;
  double parameters[MAX_PARAMETERS];
};

// What the primitive is; `primitive.rs` has the same.
struct mlx_simd_plan {
  const char* name;
  void (*function)(const mlx_simd_call*);
  double parameters[MAX_PARAMETERS];
  // Whether the order of elements matters to the function.
  bool ordered;
};

// What attention is computed from; `attention.rs` has the same. Steps are those from one batch,
// head and position to the next, in elements.
struct mlx_simd_attention {
  const void* inputs[4];
  void* output;
  int64_t batches, heads, groups, queries, keys, size, width;
  int64_t steps[3][3];
  int64_t mask_steps[2];
  double scale;
  bool causal;
};

struct mlx_simd_handle {
  void* ctx;
};

// Of mlx-c: hands a message to the handler of errors.
void _mlx_error(const char* file, const int line, const char* format, ...);
}

namespace {

// The array in row order.
mx::array ordered(const mx::array& input, mx::Stream stream) {
  auto copy = mx::contiguous(input, false, stream);
  std::vector<mx::array> outputs{copy};
  copy.primitive().eval_cpu({input}, outputs);
  mx::cpu::get_command_encoder(stream).add_temporary(copy);
  return copy;
}

class OnCpu : public mx::Primitive {
 public:
  using mx::Primitive::Primitive;

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&)
      override {
    throw std::runtime_error("there is no kernel of a GPU here");
  }
};

class Simd : public OnCpu {
 public:
  Simd(mx::Stream stream, const mlx_simd_plan& plan)
      : OnCpu(stream), plan_(plan) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    mlx_simd_call call{};
    bool donated = inputs[0].is_donatable();
    for (size_t i = 0; i < inputs.size(); ++i) {
      auto input = laid_out(inputs[i]);
      call.inputs[i] = input.data<void>();
      if (i == 0) {
        donated = donated && input.id() == inputs[0].id();
        allocate(outputs[0], input, donated);
      }
    }
    call.output = outputs[0].data<void>();
    call.length = outputs[0].data_size();
    call.row = outputs[0].ndim() == 0 ? 1 : outputs[0].shape(-1);
    std::copy_n(plan_.parameters, MAX_PARAMETERS, call.parameters);
    encoder.dispatch([function = plan_.function, call] { function(&call); });
  }

  const char* name() const override {
    return plan_.name;
  }

  bool is_equivalent(const mx::Primitive& other) const override {
    const auto* simd = dynamic_cast<const Simd*>(&other);
    return simd != nullptr && simd->plan_.function == plan_.function &&
        std::equal(
               plan_.parameters,
               plan_.parameters + MAX_PARAMETERS,
               simd->plan_.parameters);
  }

  std::vector<mx::Shape> output_shapes(
      const std::vector<mx::array>& inputs) override {
    return {inputs[0].shape()};
  }

 private:
  // The array, or a copy in row order if the function can't use it as it lies.
  mx::array laid_out(const mx::array& input) {
    const auto& flags = input.flags();
    bool fits = plan_.ordered ? flags.row_contiguous : flags.contiguous;
    return fits ? input : ordered(input, stream());
  }

  void allocate(mx::array& output, const mx::array& like, bool donated) {
    if (donated && like.itemsize() == output.itemsize()) {
      output.copy_shared_buffer(like);
      return;
    }
    auto size = like.data_size();
    output.set_data(
        mx::allocator::malloc(size * output.itemsize()),
        size,
        like.strides(),
        like.flags());
  }

  mlx_simd_plan plan_;
};

// The product of a matrix in row order and one in any order, or, if it has more than a few rows,
// in the order of columns; of others MLX's own.
class Product : public OnCpu {
 public:
  Product(mx::Stream stream, void (*function)(const mlx_simd_call*), int few)
      : OnCpu(stream), function_(function), few_(few) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    const auto &a = inputs[0], &b = inputs[1];
    bool transposed = !b.flags().row_contiguous;
    if (!a.flags().row_contiguous ||
        (transposed ? !b.flags().col_contiguous : a.shape(0) > few_)) {
      mx::matmul(a, b, stream()).primitive().eval_cpu(inputs, outputs);
      return;
    }
    outputs[0].set_data(mx::allocator::malloc(outputs[0].nbytes()));
    mlx_simd_call call{};
    call.inputs[0] = a.data<void>();
    call.inputs[1] = b.data<void>();
    call.output = outputs[0].data<void>();
    call.length = a.shape(0);
    call.row = b.shape(1);
    call.parameters[0] = a.shape(1);
    call.parameters[1] = transposed;
    mx::cpu::get_command_encoder(stream()).dispatch(
        [function = function_, call] { function(&call); });
  }

  const char* name() const override {
    return "Product";
  }

  bool is_equivalent(const mx::Primitive& other) const override {
    return dynamic_cast<const Product*>(&other) != nullptr;
  }

  std::vector<mx::Shape> output_shapes(
      const std::vector<mx::array>& inputs) override {
    return {{inputs[0].shape(0), inputs[1].shape(1)}};
  }

 private:
  void (*function_)(const mlx_simd_call*);
  int few_;
};

// Attention, whose result lies in memory query by query, each with all heads, as what follows
// wants it.
class Attention : public OnCpu {
 public:
  Attention(
      mx::Stream stream,
      void (*function)(const mlx_simd_attention*),
      const mlx_simd_attention& call)
      : OnCpu(stream), function_(function), call_(call) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    auto call = call_;
    for (size_t i = 0; i < inputs.size(); ++i) {
      bool fits = i < 3 ? inputs[i].strides(-1) == 1
                        : inputs[i].flags().row_contiguous;
      auto input = fits ? inputs[i] : ordered(inputs[i], stream());
      call.inputs[i] = input.data<void>();
      if (i < 3) {
        std::copy_n(input.strides().begin(), 3, call.steps[i]);
      }
    }
    auto& output = outputs[0];
    auto row = call.heads * call.width;
    bool in_order = call.heads == 1 || call.queries == 1;
    output.set_data(
        mx::allocator::malloc(output.nbytes()),
        output.size(),
        {call.queries * row, call.width, row, 1},
        {true, in_order, false});
    call.output = output.data<void>();
    mx::cpu::get_command_encoder(stream()).dispatch(
        [function = function_, call] { function(&call); });
  }

  const char* name() const override {
    return "Attention";
  }

  bool is_equivalent(const mx::Primitive& other) const override {
    const auto* attention = dynamic_cast<const Attention*>(&other);
    return attention != nullptr && attention->call_.scale == call_.scale &&
        attention->call_.causal == call_.causal;
  }

  std::vector<mx::Shape> output_shapes(
      const std::vector<mx::array>& inputs) override {
    const auto &q = inputs[0], &v = inputs[2];
    return {{q.shape(0), q.shape(1), q.shape(2), v.shape(3)}};
  }

 private:
  void (*function_)(const mlx_simd_attention*);
  // Without the addresses and steps of operands.
  mlx_simd_attention call_;
};

const mx::array& array_of(mlx_simd_handle handle) {
  return *static_cast<mx::array*>(handle.ctx);
}

template <typename Make>
int made(mlx_simd_handle* result, mlx_simd_handle stream, Make make) {
  try {
    const auto& s = *static_cast<mx::Stream*>(stream.ctx);
    if (s.device.type != mx::Device::cpu) {
      return 2;
    }
    result->ctx = new mx::array(make(s));
    return 0;
  } catch (const std::exception& error) {
    _mlx_error(__FILE__, __LINE__, "%s", error.what());
  } catch (...) {
    _mlx_error(__FILE__, __LINE__, "an unknown failure");
  }
  return 1;
}

} // namespace

// Makes an array of the first input's shape and type: 0 if that is done, 1 if it failed,
// 2 if the stream is not a CPU's.
extern "C" int mlx_simd_array(
    mlx_simd_handle* result,
    const mlx_simd_plan* plan,
    const mlx_simd_handle* inputs,
    size_t count,
    mlx_simd_handle stream) {
  return made(result, stream, [&](mx::Stream s) {
    std::vector<mx::array> arrays;
    arrays.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      arrays.push_back(array_of(inputs[i]));
    }
    auto shape = arrays[0].shape();
    auto dtype = arrays[0].dtype();
    auto primitive = std::make_shared<Simd>(s, *plan);
    return mx::array(
        std::move(shape), dtype, std::move(primitive), std::move(arrays));
  });
}

// Makes the product of two matrices of the same type, with the same answers.
extern "C" int mlx_simd_product(
    mlx_simd_handle* result,
    void (*function)(const mlx_simd_call*),
    int few,
    mlx_simd_handle a,
    mlx_simd_handle b,
    mlx_simd_handle stream) {
  return made(result, stream, [&](mx::Stream s) {
    const auto &left = array_of(a), &right = array_of(b);
    return mx::array(
        {left.shape(0), right.shape(1)},
        left.dtype(),
        std::make_shared<Product>(s, function, few),
        {left, right});
  });
}

// Makes the attention of operands that the call has the sizes of, with the same answers.
extern "C" int mlx_simd_attend(
    mlx_simd_handle* result,
    void (*function)(const mlx_simd_attention*),
    const mlx_simd_attention* call,
    const mlx_simd_handle* inputs,
    size_t count,
    mlx_simd_handle stream) {
  return made(result, stream, [&](mx::Stream s) {
    std::vector<mx::array> arrays;
    for (size_t i = 0; i < count; ++i) {
      arrays.push_back(array_of(inputs[i]));
    }
    auto attention = std::make_shared<Attention>(s, function, *call);
    auto shape = attention->output_shapes(arrays)[0];
    auto dtype = arrays[0].dtype();
    return mx::array(
        std::move(shape), dtype, std::move(attention), std::move(arrays));
  });
}
