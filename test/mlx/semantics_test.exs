defmodule Mlx.SemanticsTest do
  @moduledoc """
  Where MLX and Nx disagree, Nx is right. Where `Nx.BinaryBackend` raises on single
  elements, which a device can't, these are the values that Mlx gives.
  """

  use ExUnit.Case, async: true
  import Mlx.Oracle
  import Mlx.Samples

  @signed [:s8, :s16, :s32, :s64]

  test "quotient truncates toward zero" do
    for type <- @signed do
      [a, b] = crossed(tensor([7, -7, 8, -8, 0], type), tensor([2, -2, 3, -3, 1, -1], type))
      assert_same(&Nx.quotient/2, [a, b])
    end
  end

  test "remainder has the sign of the dividend" do
    for type <- @signed ++ floats() do
      [a, b] = crossed(tensor([7, -7, 8, -8, 1], type), tensor([2, -2, 3, -3, 5], type))
      assert_same(&Nx.remainder/2, [a, b])
    end

    fractions = [tensor([5.5, -5.5, 0.25], :f32), tensor([2.0, 2.0, -0.125], :f32)]
    assert_same(&Nx.remainder/2, fractions)
  end

  test "remainder of a negative zero is a negative zero" do
    assert_same(&Nx.remainder/2, [tensor([-0.0], :f32), tensor([1.5], :f32)])
  end

  test "remainder of floats by zero is NaN, by infinity the dividend" do
    x = tensor([1.5, -1.5], :f32)
    assert_gives(&Nx.remainder/2, [x, 0.0], tensor([:nan, :nan], :f32))
    assert_gives(&Nx.remainder/2, [x, tensor(:infinity, :f32)], x)
  end

  test "integer quotient by zero has all bits set" do
    for type <- integers() do
      all_bits = Nx.bitwise_not(tensor([0, 0, 0], type))
      assert_gives(&Nx.quotient/2, [tensor([0, 1, 100], type), tensor(0, type)], all_bits)
    end
  end

  test "integer remainder by zero is the dividend" do
    for type <- integers() do
      x = sample(type)
      assert_gives(&Nx.remainder/2, [x, tensor(0, type)], x)
    end
  end

  test "the least integer divided by -1 wraps" do
    for type <- @signed do
      {low, _} = bounds(type)
      assert_same(&Nx.quotient/2, [tensor([low, low + 1], type), tensor(-1, type)])
      assert_same(&Nx.remainder/2, [tensor([low, low + 1], type), tensor(-1, type)])
      assert_same(&Nx.negate/1, [tensor(low, type)])
      assert_same(&Nx.abs/1, [tensor(low, type)])
    end
  end

  test "round goes half away from zero" do
    halves = for i <- -5..5, do: i + 0.5
    for type <- floats(), do: assert_same(&Nx.round/1, [tensor(halves, type)])
    # The sum of the first and one half is not less than one.
    numbers = [0.49999997, -0.49999997, 8_388_609.0, 4_503_599.5, -0.3, 1.0e20]
    assert_same(&Nx.round/1, [tensor(numbers, :f32)])
  end

  test "as_type of NaN is 0, infinities saturate" do
    for from <- floats(), to <- integers() do
      assert_same(&Nx.as_type/2, [tensor([:nan, :infinity, :neg_infinity], from), to])
    end
  end

  test "as_type of floats truncates" do
    numbers = [1.9, -1.9, 0.99, -0.99, 100.5]

    for from <- floats(),
        to <- @signed,
        do: assert_same(&Nx.as_type/2, [tensor(numbers, from), to])
  end

  test "cbrt of negatives is negative" do
    for type <- floats() do
      assert_same(&Nx.cbrt/1, [tensor([-8.0, -1.0, -0.125, 0.0, 27.0, -1000.0], type)])
    end
  end

  test "pow of integers wraps" do
    for type <- integers() do
      args = crossed(tensor([0, 1, 2, 3, 7], type), tensor([0, 1, 2, 5, 31, 63, 64], type))
      assert_same(&Nx.pow/2, args)
    end
  end

  test "pow of integers with a negative exponent is cut to an integer" do
    for type <- @signed do
      args = [tensor([2, 7, -3, 1, -1, -1], type), tensor([-1, -2, -1, -5, -3, -4], type)]
      assert_gives(&Nx.pow/2, args, tensor([0, 0, 0, 1, -1, 1], type))
    end
  end

  test "population_count and count_leading_zeros are of every integer type" do
    for type <- integers(), fun <- [&Nx.population_count/1, &Nx.count_leading_zeros/1] do
      assert_same(fun, [sample(type)])
    end
  end

  test "shifts by the width or more leave nothing but the sign" do
    for type <- integers() do
      {_, width} = Nx.Type.normalize!(type)
      counts = tensor([[width - 1, width, width + 1, 100, 127]], type)
      assert_same(&Nx.left_shift/2, [sample(type, {5, 1}), counts])
      assert_same(&Nx.right_shift/2, [sample(type, {5, 1}), counts])
    end
  end

  test "shifts by counts that no other type holds leave nothing but the sign" do
    for count <- [2 ** 40, 2 ** 63, 2 ** 64 - 1] do
      args = [tensor([-1, 5, -100], :s64), tensor(count, :u64)]
      assert_gives(&Nx.left_shift/2, args, tensor([0, 0, 0], :s64))
      assert_gives(&Nx.right_shift/2, args, tensor([-1, 0, -1], :s64))
    end
  end

  test "sum and product are in Nx's type and don't wrap inside" do
    for {type, wide} <- [s8: {:s, 32}, s16: {:s, 32}, u8: {:u, 32}, u16: {:u, 32}] do
      {_, high} = bounds(type)
      x = Nx.broadcast(tensor(high, type), {100})
      assert_same(&Nx.sum/1, [x])
      assert_same(&Nx.product/1, [Nx.slice(x, [0], [2])])
      assert Nx.sum(mlx(x)).type == wide
    end
  end

  test "cumulative sums and products are in Nx's type and don't wrap inside" do
    for type <- [:s8, :s16, :u8, :u16] do
      {_, high} = bounds(type)
      assert_same(&Nx.cumulative_sum/1, [Nx.broadcast(tensor(high, type), {100})])
      assert_same(&Nx.cumulative_product/1, [Nx.broadcast(tensor(high, type), {2})])
    end
  end

  test "reduce_max and reduce_min pass NaN on" do
    for type <- floats(),
        numbers <- [[1, :nan, 3], [:nan, :infinity, 1], [:neg_infinity, 2, :nan]] do
      x = tensor(numbers, type)
      for fun <- [&Nx.reduce_max/1, &Nx.reduce_min/1], do: assert_same(fun, [x])
    end
  end

  test "argmax and argmin find NaN" do
    for numbers <- [[1, :nan, 3], [:nan, :infinity, 1], [:neg_infinity, 2, :nan]] do
      x = tensor(numbers, :f32)
      for fun <- [&Nx.argmax/1, &Nx.argmin/1], do: assert_same(fun, [x])
    end
  end

  test "argmax and argmin without an axis are of the flattened tensor" do
    x = tensor([[1, 5, 3], [5, 0, 0]], :s32)

    for fun <- [&Nx.argmax/2, &Nx.argmin/2], tie_break <- [:low, :high] do
      assert_same(fun, [x, [tie_break: tie_break]])
    end
  end

  test "argmax and argmin find the first or the last of equals, and keep the axis" do
    x = tensor([[1, 5, 5, 0], [0, 3, 0, 3]], :s32)

    for fun <- [&Nx.argmax/2, &Nx.argmin/2], tie_break <- [:low, :high], axis <- [0, 1] do
      assert_same(fun, [x, [tie_break: tie_break, axis: axis, keep_axis: true]])
    end
  end

  test "argmax and argmin find the last of several NaN" do
    for numbers <- [[:nan, 1, :nan, 3], [2, :nan, :nan], [:nan, :infinity, :nan, :neg_infinity]],
        type <- floats(),
        tie_break <- [:low, :high] do
      x = tensor(numbers, type)
      assert_same(&Nx.argmax(&1, tie_break: tie_break), [x])
      assert_same(&Nx.argmin(&1, tie_break: tie_break), [x])
    end
  end

  test "cumulative_* go along any axis, reversed, inside a definition too" do
    for op <- [:cumulative_sum, :cumulative_product, :cumulative_max, :cumulative_min],
        axis <- [0, 1, 2],
        reverse <- [false, true] do
      fun = &apply(Nx, op, [Nx.add(&1, 1), [axis: axis, reverse: reverse]])
      assert_same(fun, [sample(:s32, {2, 3, 4})])
      assert_same(fun, [sample(:s32, {2, 3, 4})], ways: [compiled: Nx.Defn.Evaluator])
    end
  end

  test "window_* with strides, padding and dilations, of every type" do
    options = [strides: [2, 1], padding: [{1, 2}, {0, 1}], window_dilations: [1, 2]]

    for op <- [:window_sum, :window_product, :window_max, :window_min], type <- reals() do
      assert_same(&apply(Nx, op, [&1, {2, 3}, options]), [sample(type, {4, 6})], scale: 64.0)
    end
  end

  test "pad with interior and negative padding" do
    for type <- types(), config <- [{-1, 2, 3}, {2, -3, 1}, {-2, -1, 0}] do
      assert_same(&Nx.pad(&1, &2, [config]), [sample(type, {4}), tensor(1, type)])
    end
  end

  test "conv with groups, dilations, permutations, asymmetric padding, of every type" do
    for type <- types(), groups <- [[feature_group_size: 2], [batch_group_size: 2]] do
      options =
        [strides: [2, 1], input_dilation: [1, 2], kernel_dilation: [2, 1]] ++
          [padding: [{1, 2}, {-1, 3}], input_permutation: [3, 0, 1, 2]] ++
          [output_permutation: [1, 2, 3, 0]] ++ groups

      channels = if groups[:feature_group_size], do: 2, else: 4
      args = [sample(type, {4, 5, 4, 2}), sample(type, {2, channels, 2, 3})]
      assert_same(&Nx.conv(&1, &2, options), Enum.map(args, &tame/1), scale: 1.0e4)
    end
  end

  test "reduce and window_reduce with a function fold in order" do
    fun = fn x, acc -> Nx.subtract(Nx.multiply(acc, 2), x) end
    assert_same(&Nx.reduce(&1, 3, [axes: [1]], fun), [sample(:s32, {3, 5})])
    assert_same(&Nx.window_reduce(&1, 3, {2, 2}, fun), [sample(:s32, {3, 5})])
  end

  test "slice and put_slice are moved inside" do
    x = sample(:s32, {4, 5})
    part = sample(:s32, {2, 3}, from: 5)

    for starts <- [[10, 0], [0, 10], [-1, -10], [3, 4], [2 ** 40, 2 ** 62], [-(2 ** 40), 1]] do
      assert_same(&Nx.slice/3, [x, starts, [2, 3]])
      # In a definition, Nx makes tensors of s32 of these numbers.
      assert_same(&Nx.put_slice/3, [x, starts, part], ways: [:eager])
      computed = Enum.map(starts, &tensor(&1, :s64))
      assert_same(&Nx.slice/3, [x, computed, [2, 3]])
      assert_same(&Nx.put_slice/3, [x, computed, part])
      assert_same(&Nx.slice/4, [x, computed, [2, 3], [strides: [1, 2]]])
    end

    top = tensor(2 ** 64 - 1, :u64)
    assert_same(&Nx.slice/3, [x, [top, top], [2, 3]])
    assert_same(&Nx.put_slice/3, [x, [top, top], part])
  end

  test "gather out of bounds takes the element at the edge" do
    x = sample(:s32, {3, 4})
    inside = Nx.gather(x, tensor([[0, 0], [2, 3], [0, 3], [2, 0]], :s64))

    for far <- [100, 2 ** 31, 2 ** 40, 2 ** 62] do
      at = tensor([[-far, -1], [far, far], [-1, far], [far, -far]], :s64)
      assert_gives(&Nx.gather/2, [x, at], inside)
    end

    top = tensor([[2 ** 64 - 1, 2 ** 63]], :u64)
    assert_gives(&Nx.gather/2, [x, top], Nx.slice(Nx.flatten(x), [11], [1]))
    assert_gives(&Nx.take/2, [x, tensor([-5, 7], :s32)], Nx.take(x, tensor([0, 2], :s32)))
  end

  test "indexed_add out of bounds adds at the edge" do
    x = sample(:s32, {3, 4})
    updates = tensor([10, 20, 30], :s32)
    inside = Nx.indexed_add(x, tensor([[0, 0], [2, 3], [2, 0]], :s64), updates)

    for far <- [100, 2 ** 31, 2 ** 62] do
      at = tensor([[-far, -1], [far, far], [far, -far]], :s64)
      assert_gives(&Nx.indexed_add/3, [x, at, updates], inside)
    end
  end

  test "indexed_add accumulates duplicates" do
    at = tensor([[1, 1], [0, 2], [1, 1], [1, 1]], :s64)
    assert_same(&Nx.indexed_add/3, [sample(:f32), at, tensor([1, 2, 3, 4], :f32)])
  end

  test "indexed_put with duplicate indices keeps the last" do
    for type <- types() do
      at = tensor([[1, 1], [0, 2], [1, 1], [2, 0], [1, 1]], :s64)
      assert_same(&Nx.indexed_put/3, [sample(type), at, small(type, {6})[0..4]])
    end
  end

  test "indexed_put, take and take_along_axis out of bounds are at the edge" do
    x = sample(:s32, {3, 4})
    updates = tensor([10, 20, 30], :s32)

    for far <- [100, 2 ** 31, 2 ** 62] do
      at = tensor([[-far, -1], [far, far], [far, -far]], :s64)
      inside = Nx.indexed_put(x, tensor([[0, 0], [2, 3], [2, 0]], :s64), updates)
      assert_gives(&Nx.indexed_put/3, [x, at, updates], inside)
      inside = Nx.take(x, tensor([3, 0], :s64), axis: 1)
      assert_gives(&Nx.take(&1, &2, axis: 1), [x, tensor([far, -far], :s64)], inside)
      inside = Nx.take_along_axis(x, tensor([[2, 0, 1, 0]], :s64))
      assert_gives(&Nx.take_along_axis/2, [x, tensor([[far, -far, 1, -1]], :s64)], inside)
    end
  end

  test "sort and argsort put NaN last, in either direction, and are stable" do
    for type <- floats(), direction <- [:asc, :desc], stable <- [true, false] do
      x = tensor([1, :nan, 0.0, :infinity, -0.0, 1, :neg_infinity, :nan, 0.0], type)
      options = [direction: direction, stable: stable]
      assert_same(&{Nx.sort(&1, options), Nx.argsort(&1, options)}, [x])
    end
  end

  test "top_k finds NaN and the first of equals" do
    x = tensor([1, :nan, 3, :infinity, 3, :nan, 3], :f32)
    for k <- 1..7, do: assert_same(&Nx.top_k(&1, k: k), [x])
    assert_same(&Nx.top_k(&1, k: 3), [Nx.tile(x, [20])])
  end

  test "fft and ifft take an axis, a length and eps" do
    x = sample(:c64, {4, 5})

    for fun <- [&Nx.fft/2, &Nx.ifft/2], axis <- [0, 1], length <- [3, 5, 8], eps <- [0.0, 1.3] do
      options = [axis: axis, length: length, eps: eps]
      assert_same(&fun.(&1, options), [x], scale: 16.0, signed_zero: false)
    end
  end

  # Nx leaves it to the backend what to do with eps.
  test "fft keeps signals fainter than the default eps, but no negative zeros" do
    faint = Nx.multiply(sample(:f32, {8}), 2.0 ** -40)
    scaled = Nx.multiply(Nx.fft(sample(:f32, {8})), 2.0 ** -40)
    assert_gives(&Nx.fft/1, [faint], scaled, scale: 2.0 ** -36, signed_zero: false)
    assert_same(&Nx.fft/1, [tensor([-0.0, 0.0, -0.0, -0.0], :f32)])
  end

  test "dot of integers keeps every bit" do
    for type <- integers() do
      assert_same(&Nx.dot/2, [sample(type, {4, 5}), sample(type, {5, 3}, from: 2)])
    end

    large = tensor([[2 ** 53 + 1, 3], [-(2 ** 60), 7]], :s64)
    assert_same(&Nx.dot/2, [large, tensor([[1, 0], [2, 1]], :s64)])
  end

  test "predicates are u8" do
    x = mlx(sample(:f32))

    for predicate <- [Nx.equal(x, 1), Nx.logical_not(x), Nx.is_nan(x), Nx.any(x), Nx.less(x, x)] do
      assert predicate.type == {:u, 8}
      assert Mlx.dtype(predicate) == :u8
    end
  end

  test "a deallocated tensor raises" do
    x = mlx(sample(:f32))
    assert Nx.backend_deallocate(x) == :ok
    assert_raise Mlx.Error, "the tensor was deallocated", fn -> Nx.add(x, 1) end
  end

  test "inspect and to_binary with a limit read only what they show" do
    x = mlx(Nx.iota({1000, 100}, type: :f32, backend: Nx.BinaryBackend))
    sizes = sizes_read(fn -> {inspect(x, limit: 3), Nx.to_binary(x, limit: 10)} end)
    assert sizes == [16, 40]
  end

  defp sizes_read(fun) do
    :telemetry.attach(self(), [:mlx, :to_binary, :stop], &__MODULE__.forward/4, self())
    fun.()
    :telemetry.detach(self())
    {:messages, messages} = Process.info(self(), :messages)
    for {:size, size} <- messages, do: size
  end

  # Handlers run in the process of the event, and other tests read, too.
  def forward(_event, _measurements, %{byte_size: size}, test) do
    if self() == test, do: send(test, {:size, size})
  end

  defp mlx(tensor), do: Nx.backend_copy(tensor, Mlx.Backend)

  # Sums of numbers of very different sizes depend on the order of the additions.
  defp tame(%{type: {:c, _}} = tensor), do: tensor
  defp tame(%{type: {:u, _}} = tensor), do: Nx.min(tensor, Nx.tensor(9, type: tensor.type))

  defp tame(%{type: type} = tensor) do
    Nx.clip(tensor, Nx.tensor(-9, type: type), Nx.tensor(9, type: type))
  end
end
