defmodule Mlx.Lowering.ElementwiseTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.Elementwise, async: true

  @anywhere [:exp, :expm1, :sigmoid, :cos, :sin, :tan, :cosh, :sinh, :tanh, :asinh, :atan, :cbrt]
  @shapes [{{}, {}}, {{}, {3}}, {{2, 3}, {}}, {{2, 1}, {1, 3}}, {{4, 1, 3}, {2, 1}}, {{1}, {5}}]

  describe "unary functions" do
    for op <- @anywhere, type <- types() do
      check(op, "of #{type}", [small(type)], scale: 1.0)
    end

    for op <- [:log, :log1p, :sqrt, :rsqrt], type <- types() do
      check(op, "of #{type}", [positive(type)], scale: 1.0)
    end

    for type <- types(), do: check(:acosh, "of #{type}", [positive(type, 1)], scale: 1.0)

    for op <- [:acos, :asin, :atanh], type <- types() do
      check(op, "of #{type}", [inside_one(type)], scale: 1.0)
    end

    for op <- [:erf, :erfc], type <- reals() do
      check(op, "of #{type}", [small(type)], scale: 1.0, signed_zero: false)
    end

    for type <- reals(), do: check(:erf_inv, "of #{type}", [inside_one(type)], scale: 1.0)

    # Vectors of the processor and what is left over take different paths.
    for op <- @anywhere ++ [:erf, :erfc] do
      check(op, "of 101 numbers", [spread(-3, 3)], scale: 1.0, signed_zero: false)
    end

    for op <- [:log, :log1p, :sqrt, :rsqrt] do
      check(op, "of 101 numbers", [spread(0.5, 9)], scale: 1.0)
    end

    for op <- [:acos, :asin, :atanh, :erf_inv] do
      check(op, "of 101 numbers", [spread(-0.9, 0.9)], scale: 1.0)
    end

    check(:erf, "near zero", [tensor([-0.0, 1.0e-8, 0.001, -0.01, 0.03], :f32)], ulps: 1)

    for type <- floats() do
      check(:erfc, "far from zero of #{type}", [tensor([1.5, 2.0, 2.5, 3.0], type)])
    end

    # Of an f64 it is a c128, which MLX lacks.
    for type <- types() -- [:f64] do
      check(:conjugate, "of #{type}", [small(type)])
    end

    for op <- [:negate, :is_nan, :is_infinity], type <- types() do
      check(op, "of #{type}", [sample(type)])
    end

    for type <- [:s8, :s16, :s32, :s64, :f16, :bf16, :f32, :f64, :c64] do
      check(:abs, "of #{type}", [sample(type)])
    end

    for type <- reals(), do: check(:sign, "of #{type}", [sample(type)], signed_zero: false)

    for op <- [:ceil, :floor, :round], type <- floats() do
      check(op, "of #{type}", [sample(type)])
    end

    for op <- [:bitwise_not, :count_leading_zeros, :population_count], type <- integers() do
      check(op, "of #{type}", [sample(type)])
    end

    check(:real, "of c64", [sample(:c64)])
    check(:imag, "of c64", [sample(:c64)])

    for op <- [:is_nan, :is_infinity, :abs, :negate], type <- floats() do
      check(op, "of #{type} that is not finite", [specials(type)])
    end

    check(:negate, "keeps names", [sample(:f32, {3, 2}, names: [:x, :y])])
    check(:exp, "of a scalar", [tensor(0.5, :f32)])
  end

  describe "arithmetic" do
    for op <- [:add, :subtract, :multiply], {a, b} <- pairs() do
      check(op, "of #{a} and #{b}", [sample(a), sample(b, {3, 5}, from: 3)], scale: 1.0)
    end

    for {a, b} <- pairs() do
      check(:divide, "of #{a} and #{b}", [sample(a), nonzero(b)])
    end

    for {a, b} <- real_pairs() do
      check(:atan2, "of #{a} and #{b}", [sample(a), sample(b, {3, 5}, from: 3)])
      check(:remainder, "of #{a} and #{b}", [small(a, {2, 3}), positive(b)], signed_zero: false)
    end

    for {a, b} <- integer_pairs() do
      check(:quotient, "of #{a} and #{b}", [sample(a), nonzero(b)])
      check(:remainder, "of #{a} and #{b} up to their bounds", [sample(a), nonzero(b)])
      check(:pow, "of #{a} and #{b}", [sample(a), tensor([[0], [1], [3]], b)])
    end

    # No type holds both.
    for {a, b} <- [{:u64, :s8}, {:s64, :u64}, {:u64, :s64}, {:s8, :u64}],
        op <- [:quotient, :remainder] do
      check(op, "of #{a} and #{b} up to their bounds", crossed(sample(a), nonzero(b)))
    end

    for {a, b} <- real_pairs() -- integer_pairs() do
      check(:pow, "of #{a} and #{b}", [positive(a), small(b, {2, 3})], scale: 1.0)
    end

    check(:pow, "of negatives", [sample(:f32), tensor([[0], [1], [3]], :f32)])
    check(:pow, "of c64", [positive(:c64), small(:c64, {2, 3})], ulps: 16)

    for op <- [:min, :max], {a, b} <- real_pairs() do
      args = [sample(a), sample(b, {3, 5}, from: 3)]
      check(op, "of #{a} and #{b}", args, signed_zero: false)
    end

    for op <- [:min, :max], type <- floats() do
      check(op, "of #{type} that are not finite", crossed(specials(type)))
    end

    for op <- [:add, :subtract, :multiply, :max], {a, b} <- @shapes do
      check(op, "of #{inspect(a)} and #{inspect(b)}", [sample(:s32, a), sample(:f32, b)])
    end

    check(:add, "merges names", [
      sample(:f32, {2, 1}, names: [:x, nil]),
      sample(:f32, {1, 3}, names: [nil, :y])
    ])

    check(:add, "of an integer", [sample(:u8), 30])
    check(:subtract, "from a float", [1.5, sample(:s64)])
  end

  describe "bits" do
    for op <- [:bitwise_and, :bitwise_or, :bitwise_xor], {a, b} <- integer_pairs() do
      check(op, "of #{a} and #{b}", [sample(a), sample(b, {3, 5}, from: 3)])
    end

    for op <- [:left_shift, :right_shift], {a, b} <- integer_pairs() do
      counts = tensor([[0, 1, 3, 7, 8, 15, 16, 31, 32, 63, 64, 100]], b)
      check(op, "of #{a} by #{b}", [sample(a, {13, 1}), counts])
    end
  end

  check(:right_shift, "of u64 by a signed number", [
    tensor([2 ** 64 - 1, 2 ** 63, 5], :u64),
    tensor([[1], [3], [63], [64], [100]], :s8)
  ])

  describe "comparisons" do
    for op <- [:equal, :not_equal], {a, b} <- pairs() do
      check(op, "of #{a} and #{b}", crossed(sample(a), sample(b)))
    end

    for op <- [:greater, :less, :greater_equal, :less_equal], {a, b} <- real_pairs() do
      check(op, "of #{a} and #{b}", crossed(sample(a), sample(b)))
    end

    for op <- [:equal, :not_equal, :greater, :less, :greater_equal, :less_equal] do
      for type <- floats() do
        check(op, "of #{type} that are not finite", crossed(specials(type)))
      end

      large = tensor([2 ** 64 - 1, 2 ** 63], :u64)
      check(op, "of s64 and larger u64", crossed(large, tensor([-1, 3, -(2 ** 63)], :s64)))
    end
  end

  describe "logic" do
    for op <- [:logical_and, :logical_or, :logical_xor] do
      for {a, b} <- pairs() do
        check(op, "of #{a} and #{b}", crossed(sample(a), sample(b)))
      end

      check(op, "takes NaN and infinities for true", crossed(specials(:f32)))
    end

    for type <- types() do
      args = [sample(type), sample(:f32), sample(:f32, {3, 5}, from: 3)]
      check(:select, "with a condition of #{type}", args)
    end

    for {a, b} <- pairs() do
      args = [sample(:u8), sample(a), sample(b, {3, 5}, from: 3)]
      check(:select, "of #{a} and #{b}", args)
    end

    for condition <- [0, 1] do
      args = [tensor(condition, :u8), sample(:s32, {2, 1}), sample(:f32, {1, 3})]
      check(:select, "by the scalar #{condition}", args)
    end

    check(:select, "of scalars", [sample(:u8, {2, 3}), tensor(1, :s8), tensor(2.5, :f32)])
    check(:select, "takes names", [sample(:u8, {2, 2}, names: [:x, :y]), 1, 2])

    for type <- reals() do
      check(:clip, "of #{type}", [sample(type), tensor(1, type), tensor(5, type)])
    end

    check(:clip, "to bounds of other types", [sample(:s8), tensor(-2, :s32), tensor(3, :s64)])
    check(:clip, "of infinities", [tensor([:infinity, :neg_infinity], :f32), -1.0, 1.0])
  end

  describe "at the edge of the domain" do
    edges = [
      exp: [{:neg_infinity, 0.0}, {:infinity, :infinity}, {:nan, :nan}],
      expm1: [{:neg_infinity, -1.0}, {:infinity, :infinity}, {:nan, :nan}],
      log: [{0.0, :neg_infinity}, {-1.0, :nan}, {:infinity, :infinity}, {:nan, :nan}],
      log1p: [{-1.0, :neg_infinity}, {-2.0, :nan}, {:infinity, :infinity}, {:nan, :nan}],
      sigmoid: [{:neg_infinity, 0.0}, {:infinity, 1.0}, {:nan, :nan}],
      # MLX's sine of -0.0 is 0.0 on processors with vector units.
      sin: [{:infinity, :nan}, {:neg_infinity, :nan}, {:nan, :nan}],
      cos: [{:infinity, :nan}, {:neg_infinity, :nan}, {:nan, :nan}],
      tan: [{:infinity, :nan}, {:neg_infinity, :nan}, {:nan, :nan}, {-0.0, -0.0}],
      asin: [{2.0, :nan}, {-2.0, :nan}, {:nan, :nan}],
      acos: [{2.0, :nan}, {-2.0, :nan}, {:nan, :nan}],
      sinh: [{:infinity, :infinity}, {:neg_infinity, :neg_infinity}, {:nan, :nan}],
      cosh: [{:infinity, :infinity}, {:neg_infinity, :infinity}, {:nan, :nan}],
      tanh: [{:infinity, 1.0}, {:neg_infinity, -1.0}, {:nan, :nan}, {-0.0, -0.0}],
      asinh: [{:infinity, :infinity}, {:neg_infinity, :neg_infinity}, {:nan, :nan}],
      acosh: [{0.5, :nan}, {:infinity, :infinity}, {:nan, :nan}],
      atanh: [{1.0, :infinity}, {-1.0, :neg_infinity}, {2.0, :nan}, {:nan, :nan}],
      sqrt: [{-1.0, :nan}, {-0.0, -0.0}, {:infinity, :infinity}, {:nan, :nan}],
      rsqrt: [{0.0, :infinity}, {-1.0, :nan}, {:infinity, 0.0}, {:nan, :nan}],
      cbrt: [{:infinity, :infinity}, {:neg_infinity, :neg_infinity}, {:nan, :nan}, {0.0, 0.0}],
      erf: [{:infinity, 1.0}, {:neg_infinity, -1.0}, {:nan, :nan}, {0.0, 0.0}],
      erfc: [{:infinity, 0.0}, {:neg_infinity, 2.0}, {:nan, :nan}],
      erf_inv: [{1.0, :infinity}, {-1.0, :neg_infinity}, {2.0, :nan}, {:nan, :nan}],
      floor: [{:infinity, :infinity}, {:neg_infinity, :neg_infinity}, {:nan, :nan}, {-0.0, -0.0}],
      ceil: [{:infinity, :infinity}, {:neg_infinity, :neg_infinity}, {:nan, :nan}, {-0.5, -0.0}],
      round: [{:infinity, :infinity}, {:neg_infinity, :neg_infinity}, {:nan, :nan}],
      sign: [{:infinity, 1.0}, {:neg_infinity, -1.0}]
    ]

    # Elixir's own functions raise here, so the numbers are those of IEEE 754.
    for {op, cases} <- edges, type <- floats() do
      test "#{op} of #{type}" do
        {numbers, expected} = Enum.unzip(unquote(cases))
        args = [tensor(numbers, unquote(type))]
        assert_gives(&apply(Nx, unquote(op), [&1]), args, tensor(expected, unquote(type)))
      end
    end

    for type <- floats() do
      test "divide by zero of #{type}" do
        numbers = tensor([1.0, -1.0, 0.0, 1.0], unquote(type))
        zeros = tensor([0.0, 0.0, 0.0, -0.0], unquote(type))
        expected = tensor([:infinity, :neg_infinity, :nan, :neg_infinity], unquote(type))
        assert_gives(&Nx.divide/2, [numbers, zeros], expected)
      end
    end
  end
end
