// A primitive of MLX whose values a function of Rust computes, on a CPU stream.

#include <algorithm>
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

struct mlx_simd_handle {
  void* ctx;
};

// Of mlx-c: hands a message to the handler of errors.
void _mlx_error(const char* file, const int line, const char* format, ...);
}

namespace {

class Simd : public mx::Primitive {
 public:
  Simd(mx::Stream stream, const mlx_simd_plan& plan)
      : mx::Primitive(stream), plan_(plan) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    mlx_simd_call call{};
    bool donated = inputs[0].is_donatable();
    for (size_t i = 0; i < inputs.size(); ++i) {
      auto input = laid_out(inputs[i], encoder);
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

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&)
      override {
    throw std::runtime_error("there is no kernel of a GPU here");
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
  mx::array laid_out(const mx::array& input, mx::cpu::CommandEncoder& encoder) {
    const auto& flags = input.flags();
    if (plan_.ordered ? flags.row_contiguous : flags.contiguous) {
      return input;
    }
    auto copy = mx::contiguous(input, false, stream());
    std::vector<mx::array> outputs{copy};
    copy.primitive().eval_cpu({input}, outputs);
    encoder.add_temporary(copy);
    return copy;
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
class Product : public mx::Primitive {
 public:
  Product(mx::Stream stream, void (*function)(const mlx_simd_call*), int few)
      : mx::Primitive(stream), function_(function), few_(few) {}

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

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&)
      override {
    throw std::runtime_error("there is no kernel of a GPU here");
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
