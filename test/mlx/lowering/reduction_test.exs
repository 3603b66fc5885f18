defmodule Mlx.Lowering.ReductionTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.Reduction, async: true

  @options [
    [],
    [axes: [0]],
    [axes: [1]],
    [axes: [-1]],
    [axes: [0, 2]],
    [axes: [2, 0, 1]],
    [axes: [1], keep_axes: true],
    [axes: [0, 1], keep_axes: true],
    [keep_axes: true]
  ]

  @not_finite [
    [1.0, :infinity, 2.0, :infinity],
    [:neg_infinity, 1.0, :neg_infinity, 0.5],
    [1.0, :nan, 2.0, 3.0],
    [:infinity, 1.0, :neg_infinity, 2.0],
    [:nan, :infinity, :nan, 0.0]
  ]

  for op <- [:sum, :product], type <- types() do
    check(op, "of #{type}", [small(type)], scale: 1.0)
    check(op, "of #{type} along an axis", [small(type), [axes: [0]]], scale: 1.0)
  end

  for op <- [:sum, :product], type <- integers() do
    check(op, "wraps in the result's type of #{type}", [sample(type), [axes: [1]]])
  end

  for op <- [:sum, :product, :reduce_max, :reduce_min, :all, :any], options <- @options do
    args = [sample(:f32, {2, 3, 4}), options]
    check(op, "with #{inspect(options)}", args, scale: 16.0, signed_zero: false)
  end

  for op <- [:reduce_max, :reduce_min], type <- reals() do
    check(op, "of #{type}", [sample(type)])
    check(op, "of #{type} along an axis", [sample(type), [axes: [1]]], signed_zero: false)
  end

  for op <- [:reduce_max, :reduce_min, :sum, :product], type <- floats() do
    check(op, "of #{type} that are not finite", [tensor(@not_finite, type), [axes: [1]]])
  end

  for op <- [:all, :any], type <- reals() do
    zeros = [[0, 1, 2], [0, 0, 0], [3, 1, 1]]
    check(op, "of #{type}", [tensor(zeros, type), [axes: [1]]])
    check(op, "of all of #{type}", [tensor(zeros, type)])
  end

  check(:any, "of imaginary numbers", [tensor([Complex.new(0.0, 1.0), Complex.new(0.0)], :c64)])
  check(:all, "of imaginary numbers", [tensor([Complex.new(0.0, 1.0), Complex.new(1.0)], :c64)])
  # Nx.BinaryBackend takes a complex zero for true.
  test "all and any of complex zeros" do
    zeros = tensor([Complex.new(0.0), Complex.new(0.0, 1.0)], :c64)
    assert_gives(&Nx.all/1, [zeros], tensor(0, :u8))
    assert_gives(&Nx.any/1, [Nx.multiply(zeros, 0)], tensor(0, :u8))
  end

  check(:all, "takes NaN for true", [tensor([:nan, :infinity, 1.0], :f32)])

  for op <- [:argmax, :argmin], tie_break <- [:low, :high] do
    for type <- reals() do
      x = tensor([[3, 1, 3, 1], [2, 2, 0, 0], [1, 5, 5, 1]], type)
      check(op, "of #{type} with the #{tie_break} of equals", [x, [tie_break: tie_break]])
      check(op, "of #{type} along an axis, #{tie_break}", [x, [axis: 1, tie_break: tie_break]])
    end

    for options <- [[axis: 0], [axis: -1], [axis: 1, keep_axis: true], [keep_axis: true]] do
      args = [sample(:s32, {2, 3, 4}), [tie_break: tie_break] ++ options]
      check(op, "with #{inspect(options)}, #{tie_break}", args)
    end

    for type <- floats() do
      args = [tensor(@not_finite, type), [axis: 1, tie_break: tie_break]]
      check(op, "of #{type} that are not finite, #{tie_break}", args)
      check(op, "of all of #{type}, not finite, #{tie_break}", [hd(args), tl(hd(tl(args)))])
    end
  end

  check(:argmax, "in another type", [sample(:f32), [type: :s64]])
  check(:sum, "of a scalar", [tensor(3, :u8)])
  check(:reduce_max, "of a scalar", [tensor(-3.5, :f32)])
  check(:argmin, "of a scalar", [tensor(3, :s8)])
  check(:sum, "by name", [sample(:f32, {2, 3}, names: [:x, :y]), [axes: [:x]]])

  check(:reduce_min, "by name", [
    sample(:f32, {2, 3}, names: [:x, :y]),
    [axes: [:y], keep_axes: true]
  ])

  check(:argmax, "by name", [sample(:f32, {2, 3}, names: [:x, :y]), [axis: :y]])

  for op <- [:sum, :reduce_max, :argmin], axis <- [0, 1], type <- [:s8, :f32] do
    axes = if op == :argmin, do: [axis: axis], else: [axes: [axis]]
    check(op, "of a larger matrix of #{type} along #{axis}", [sample(type, {70, 33}), axes])
  end

  # Long enough for a sum in the operand's type, one by one, to lose most of it.
  for type <- [:f16, :bf16] do
    halves = Nx.broadcast(tensor(0.5, type), {4096})
    check(:sum, "of many #{type}", [halves])
    check(:sum, "of many #{type} along an axis", [Nx.reshape(halves, {2048, 2}), [axes: [0]]])
  end

  check(:sum, "of many f32", [Nx.broadcast(tensor(0.1, :f32), {200_000})], ulps: 128)

  # Long axes are folded in parts.
  for op <- [:sum, :product, :reduce_max, :reduce_min],
      {shape, options} <- [
        {{1000}, []},
        {{5000}, []},
        {{3, 700}, []},
        {{700, 3}, []},
        {{2, 1500, 3}, [axes: [1]]},
        {{2, 3, 1500}, [axes: [2]]},
        {{3, 1025, 2}, [axes: [0, 1]]},
        {{2, 2, 800}, [axes: [0, 2], keep_axes: true]}
      ] do
    check(op, "of s32#{inspect(shape)} with #{inspect(options)}", [sample(:s32, shape), options])
    x = Nx.add(Nx.multiply(sample(:f32, shape), 2 ** -8), 1)
    args = [x, options]
    check(op, "of f32#{inspect(shape)} with #{inspect(options)}", args, ulps: 512, scale: 16.0)
  end

  for op <- [:reduce_max, :reduce_min, :argmax, :argmin],
      at <- [0, 700, 999],
      special <- [:nan, :infinity] do
    x = List.duplicate(1.0, 1000) |> List.replace_at(at, special) |> tensor(:f32)
    check(op, "finds #{special} at #{at}", [x])
  end

  # Blocks of a long axis are compared first, and the last of them overlaps.
  for op <- [:argmax, :argmin],
      type <- [:u8, :s64, :bf16, :f32],
      tie_break <- [:low, :high],
      size <- [1023, 1024, 1536, 2001] do
    options = [tie_break: tie_break]
    name = "of #{size} #{type}, #{tie_break}"
    check(op, name, [sample(type, {size}), options])
    check(op, name <> ", along the first axis", [sample(type, {size, 3}), [axis: 0] ++ options])
    check(op, name <> ", along the last axis", [sample(type, {3, size}), [axis: 1] ++ options])
  end

  @cumulative [:cumulative_sum, :cumulative_product, :cumulative_max, :cumulative_min]

  test "cumulative_* are in the type of the operand" do
    for op <- @cumulative, type <- integers() do
      assert_same(&apply(Nx, op, [&1]), [sample(type, {20})])
      assert_same(&apply(Nx, op, [&1, [axis: 1]]), [sample(type, {3, 5})])
    end
  end

  test "cumulative_* pass NaN on" do
    for op <- @cumulative, type <- floats(), reverse <- [false, true] do
      assert_same(&apply(Nx, op, [&1, [reverse: reverse]]), [specials(type)])
      assert_same(&apply(Nx, op, [&1, [axis: 1, reverse: reverse]]), [tensor(@not_finite, type)])
    end
  end

  test "cumulative_* of vectorized and named tensors" do
    for op <- @cumulative do
      assert_same(&apply(Nx, op, [&1]), [Nx.vectorize(sample(:s32, {2, 5}), :v)])
      assert_same(&apply(Nx, op, [&1, [axis: :y]]), [sample(:s32, {2, 5}, names: [:x, :y])])
    end
  end

  test "cumulative_max and cumulative_min of complex numbers raise" do
    x = mlx(sample(:c64, {3}))
    assert_raise ArgumentError, ~r/complex/, fn -> Nx.cumulative_max(x) end
    assert_raise ArgumentError, ~r/complex/, fn -> Nx.cumulative_min(x) end
  end

  # Exact for as many as f32 holds, where a sum of halves stops growing.
  test "cumulative_sum of many halves" do
    for {type, most} <- [f16: 2048, bf16: 256] do
      sums =
        Nx.cumulative_sum(mlx(Nx.broadcast(tensor(1, type), {8192})))

      assert Nx.to_number(sums[most - 1]) == most
      assert Nx.to_number(sums[8191]) == 8192
    end
  end

  # Neither associative nor commutative.
  @doc false
  def weighted(x, acc), do: Nx.subtract(Nx.multiply(acc, 2), x)

  for options <- Enum.uniq(@options ++ [[axes: []], [axes: [2, 1]]]) do
    args = [sample(:s32, {2, 3, 4}), 1, options, &__MODULE__.weighted/2]
    if options != [axes: []], do: check(:reduce, "in order, #{inspect(options)}", args)
  end

  for type <- types() do
    check(:reduce, "of #{type}", [small(type), tensor(1, type), &Nx.add/2], scale: 4.0)
  end

  check(:reduce, "of more elements than are built at once", [sample(:s32, {300}), 0, &Nx.add/2])
  check(:reduce, "of a scalar", [tensor(3, :s32), 4, &Nx.multiply/2])
  check(:reduce, "with a wider accumulator", [sample(:s32, {4}), 0.5, &Nx.add/2])
  check(:reduce, "by name", [sample(:s32, {2, 3}, names: [:x, :y]), 0, [axes: [:x]], &Nx.max/2])
  check(:reduce, "of vectorized", [Nx.vectorize(sample(:s32, {2, 3}), :v), 0, &Nx.max/2])

  test "reductions along an axis of a tensor without elements" do
    for fun <- [
          &Nx.sum(&1, axes: [1]),
          &Nx.product(&1, axes: [1]),
          &Nx.reduce_max(&1, axes: [1]),
          &Nx.all(&1, axes: [1]),
          &Nx.argmax(&1, axis: 1),
          &Nx.argmin(&1, axis: 1, keep_axis: true),
          &Nx.reduce(&1, 0.0, [axes: [1]], fn x, acc -> Nx.add(x, acc) end)
        ] do
      assert_same(fun, [Mlx.Generators.empty(:f32, {0, 2})])
    end
  end

  test "reduce with a function of many operations" do
    limit = tensor(3, :s32)

    for fun <- [
          fn x, acc -> Nx.select(Nx.greater(x, acc), Nx.add(acc, 1), Nx.bitwise_xor(acc, x)) end,
          fn x, acc -> Nx.remainder(Nx.add(Nx.abs(x), acc), 7) end,
          fn x, acc -> x |> Nx.clip(0, 5) |> Nx.add(acc) |> Nx.as_type(:s32) end,
          fn x, acc -> Nx.add(acc, Nx.logical_and(x, acc)) end,
          fn x, _acc -> x end,
          fn _x, acc -> acc end,
          fn _x, _acc -> Nx.tensor(3) end,
          fn _x, _acc -> 3 end
        ],
        options <- [[], [axes: [1]]] do
      assert_same(&Nx.reduce(&1, 0, options, fun), [sample(:s16, {3, 4}) |> Nx.as_type(:s32)])
    end

    fun = fn x, limit -> Nx.reduce(x, 0, [axes: [0]], &Nx.min(Nx.add(&1, &2), limit)) end
    # In a definition a function can't take a tensor from outside.
    assert_same(fun, [sample(:s32, {3, 4}), limit], ways: [:eager])

    # Nx.BinaryBackend can't negate elements of tensors that have axes.
    negated = &Nx.reduce(&1, 0, fn x, acc -> Nx.add(acc, Nx.logical_not(x)) end)
    assert_gives(negated, [sample(:s32, {5})], tensor(1, :s32))

    constant = &Nx.reduce(&1, 0, fn x, acc -> Nx.min(Nx.add(x, acc), Nx.Constants.infinity()) end)
    assert_same(constant, [sample(:f32, {3, 4})])
  end

  test "reduce with any element-wise operation" do
    unary = Keyword.keys(Nx.Shared.unary_math_funs()) ++ [:abs, :negate, :sign, :ceil, :floor]
    unary = unary ++ [:round, :is_nan, :is_infinity, :real]
    # Its domain has none of the numbers below.
    unary = unary -- [:acosh]

    for op <- unary do
      fun = fn x, acc -> Nx.add(acc, Nx.as_type(apply(Nx, op, [x]), :f32)) end
      args = [tensor([[0.25, 0.5, 0.125], [0.75, 0.875, 0.0625]], :f32)]
      assert_same(&Nx.reduce(&1, 0.0, [axes: [1]], fun), args, ulps: 64, scale: 1.0)
    end

    binary =
      [:add, :subtract, :multiply, :quotient, :remainder, :min, :max, :pow] ++
        [:bitwise_and, :bitwise_or, :bitwise_xor, :left_shift, :right_shift, :logical_and] ++
        [
          :logical_or,
          :logical_xor,
          :equal,
          :not_equal,
          :less,
          :less_equal,
          :greater,
          :greater_equal
        ]

    for op <- binary do
      fun = fn x, acc ->
        Nx.as_type(Nx.add(apply(Nx, op, [x, Nx.add(Nx.remainder(acc, 3), 3)]), acc), :s32)
      end

      assert_same(&Nx.reduce(&1, 2, [axes: [0]], fun), [tensor([[1, 5, 3], [7, 2, 4]], :s32)])
    end

    for op <- [:bitwise_not, :count_leading_zeros, :population_count] do
      fun = fn x, acc -> Nx.add(acc, apply(Nx, op, [x])) end
      assert_same(&Nx.reduce(&1, 2, [axes: [0]], fun), [sample(:s32, {3, 4})])
    end
  end

  test "reduce inside a definition" do
    for {type, initial} <- [u8: 0, s32: 3, f32: 0] do
      fun = &Nx.reduce(&1, initial, [axes: [1]], fn x, acc -> weighted(x, acc) end)
      oracle = Nx.Defn.jit(fun, compiler: Nx.Defn.Evaluator)
      options = [oracle: oracle, ways: [compiled: Nx.Defn.Evaluator]]
      assert_same(fun, [small(type)], options)
    end
  end

  test "reduce refuses what is not element-wise" do
    x = mlx(sample(:f32, {3}))

    for fun <- [
          fn x, acc -> Nx.add(acc, Nx.to_number(x)) end,
          fn x, acc -> Nx.sum(Nx.stack([x, acc])) end,
          fn element, acc -> Nx.add(Nx.add(element, acc), x) end,
          fn element, acc ->
            if Nx.greater(element, 0) |> Nx.to_number() == 1, do: element, else: acc
          end
        ] do
      error = assert_raise Mlx.Error, fn -> Nx.reduce(x, 0, fun) end
      assert error.kind == :unsupported
      assert error.message =~ "Nx.reduce/4"
    end

    assert_raise ArgumentError, ~r/another type/, fn ->
      Nx.reduce(x, 0, fn _, acc ->
        Nx.as_type(acc, if(acc.type == {:s, 32}, do: :f32, else: :s32))
      end)
    end
  end

  defp mlx(tensor), do: Nx.backend_copy(tensor, Mlx.Backend)
end
