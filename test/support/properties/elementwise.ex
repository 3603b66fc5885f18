defmodule Mlx.Properties.Elementwise do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators
  import Mlx.Samples, only: [floats: 0, integers: 0, narrow_floats: 0, reals: 0]

  @infinities [:infinity, :neg_infinity]
  @all_types Mlx.Samples.types() ++ Mlx.Samples.narrow_floats()

  # Where Nx.BinaryBackend has an answer, and so that no result is too large.
  @ranges [
    exp: {-4, 4},
    expm1: {-4, 4},
    sigmoid: {-4, 4},
    cos: {-9, 9},
    sin: {-9, 9},
    tan: {-1, 1},
    cosh: {-4, 4},
    sinh: {-4, 4},
    tanh: {-4, 4},
    asinh: {-9, 9},
    atan: {-9, 9},
    cbrt: {-9, 9},
    log: {0.25, 9},
    log1p: {-0.75, 9},
    sqrt: {0, 9},
    rsqrt: {0.25, 9},
    acosh: {1, 9},
    acos: {-1, 1},
    asin: {-1, 1},
    atanh: {-0.75, 0.75},
    erf: {-3, 3},
    erfc: {-3, 3},
    erf_inv: {-0.75, 0.75}
  ]

  # The others raise with Nx.BinaryBackend for some number that is not finite.
  @everywhere [:exp, :expm1, :sigmoid, :cos, :sin, :tan, :cosh, :sinh, :atan, :asinh] ++
                [:cbrt, :erf, :erfc, :erf_inv, :asin, :acos, :sqrt, :rsqrt]

  # Those that Mlx has kernels of its own for, exact to the last place.
  @exact [:exp, :expm1, :log, :log1p, :sigmoid, :sqrt, :rsqrt, :sin, :cos, :tanh, :erf, :erfc]

  @unordered [:conjugate, :negate, :real, :imag, :is_nan, :is_infinity]
  @rounding [:ceil, :floor, :round]
  @bits [:bitwise_not, :count_leading_zeros, :population_count]

  @arithmetic [:add, :subtract, :multiply, :divide]
  @extremes [:min, :max]
  @comparisons [:equal, :not_equal]
  @ordered_comparisons [:greater, :less, :greater_equal, :less_equal]
  @logical [:logical_and, :logical_or, :logical_xor]
  @integer [:bitwise_and, :bitwise_or, :bitwise_xor, :left_shift, :right_shift, :quotient]

  def all do
    # Nx.BinaryBackend takes what is not finite for positive.
    for({op, range} <- @ranges, do: {op, function(op, range)}) ++
      for(op <- @unordered, do: {op, unary(op, types(op), specials: true)}) ++
      [abs: unary(:abs, @all_types, specials: @infinities), sign: unary(:sign, types(:sign), [])] ++
      for(op <- @rounding, do: {op, unary(op, floats() ++ narrow_floats(), [])}) ++
      for(op <- @bits, do: {op, unary(op, integers(), [])}) ++
      for(op <- @arithmetic, do: {op, binary(op, @all_types)}) ++
      for(op <- @extremes, do: {op, binary(op, reals() ++ narrow_floats())}) ++
      for(op <- @comparisons ++ @logical, do: {op, binary(op, @all_types)}) ++
      for(op <- @ordered_comparisons, do: {op, binary(op, reals() ++ narrow_floats())}) ++
      for(op <- @integer, do: {op, binary(op, integers())}) ++
      [
        remainder: finite(:remainder),
        atan2: finite(:atan2),
        pow: pow(),
        select: select(),
        clip: clip()
      ] ++
      [
        {Nx.Block.LogicalNot, logical_not()},
        {Nx.Block.Phase, unary(:phase, @all_types -- [:f64], specials: true)},
        {Nx.Block.AllClose, all_close()}
      ]
  end

  # Of an f64 it is a c128, which MLX lacks.
  defp types(:conjugate), do: @all_types -- [:f64]
  defp types(:sign), do: reals() ++ narrow_floats()
  defp types(_op), do: @all_types

  defp unary(op, types, options) do
    gen all type <- member_of(types),
            shape <- any_shape(),
            [x] <- some_vectorized(fixed_list([tensor(type, shape, options)])) do
      {&apply(Nx, op, [&1]), [x], close(type, signed_zero: op in [:negate])}
    end
  end

  defp logical_not do
    gen all type <- member_of(@all_types),
            rank <- integer(0..4),
            shape <- shape(rank, 1..4),
            x <- tensor(type, shape, specials: true) do
      {&Nx.logical_not/1, [x], []}
    end
  end

  defp function(op, range) do
    types = if op in [:erf, :erfc, :erf_inv], do: @all_types -- [:c64], else: @all_types

    gen all type <- member_of(types),
            shape <- any_shape(),
            # Away from the branch cuts of complex functions.
            range = if(type == :c64, do: {0.25, 3}, else: range),
            options = [between: range, specials: specials(op, type)],
            [x] <- some_vectorized(fixed_list([tensor(type, shape, options)])) do
      {&apply(Nx, op, [&1]), [x], exactness(op, type)}
    end
  end

  defp exactness(op, type) when op in @exact and type in [:f32, :f16, :bf16], do: [ulps: 1]
  defp exactness(_op, type), do: close(type, scale: 1.0, signed_zero: false)

  defp binary(op, types) do
    gen all {a, b} <- operands(types, second(op)) do
      {&apply(Nx, op, [&1, &2]), [a, b], close(type(a, b), loose(op))}
    end
  end

  # As f8_e4m3fn, an infinity is the largest number.
  defp specials(_op, :f8_e4m3fn), do: false
  defp specials(op, _type), do: op in @everywhere

  # Nx.BinaryBackend raises when it divides by zero and when it shifts by less.
  defp second(op) when op in [:divide, :quotient, :remainder], do: [nonzero: true]
  defp second(op) when op in [:left_shift, :right_shift], do: [between: {0, 100}]
  defp second(_op), do: []

  defp loose(op) when op in [:add, :subtract, :multiply, :divide],
    do: [scale: 8.0, signed_zero: false]

  defp loose(op) when op in [:min, :max], do: [signed_zero: false]
  defp loose(_op), do: []

  # What Nx.BinaryBackend gives for others is not that of IEEE 754.
  defp finite(op) do
    gen all {a, b} <- operands(reals() ++ narrow_floats(), second(op), []) do
      {&apply(Nx, op, [&1, &2]), [a, b], close(type(a, b), scale: 4.0, signed_zero: false)}
    end
  end

  # Powers that no type is too narrow for, as Nx.BinaryBackend computes wider ones.
  defp pow do
    gen all [a, b] <- list_of(member_of(reals() ++ narrow_floats()), length: 2),
            [left, right] <- broadcastable(2),
            x <- tensor(a, left, between: {0.5, 3}),
            y <- tensor(b, right, between: {0, 3}) do
      {&Nx.pow/2, [x, y], close(type(x, y), [])}
    end
  end

  defp select do
    gen all {a, b} <- types_of_two(@all_types),
            condition <- member_of(@all_types),
            shape <- any_shape(),
            p <- tensor(condition, shape, specials: true),
            x <- tensor(a, shape, small: true),
            y <- tensor(b, shape, small: true) do
      {&Nx.select/3, [p, x, y], []}
    end
  end

  defp clip do
    gen all type <- member_of(reals() ++ narrow_floats()),
            shape <- any_shape(),
            x <- tensor(type, shape, specials: @infinities),
            low <- tensor(type, {}, small: true),
            more <- integer(0..5) do
      {&Nx.clip(&1, &2, Nx.add(&2, more) |> Nx.as_type(type)), [x, low], signed_zero: false}
    end
  end

  defp all_close do
    gen all {a, b} <- operands(Mlx.Samples.types()),
            Nx.size(a) * Nx.size(b) > 0,
            rtol <- member_of([1.0e-5, 0.25, 2.0]),
            atol <- member_of([1.0e-8, 0.5, 3.0]),
            equal_nan <- boolean() do
      options = [rtol: rtol, atol: atol, equal_nan: equal_nan]
      {&Nx.all_close(&1, &2, options), [a, b], []}
    end
  end

  defp operands(types, second \\ [], options \\ [specials: true]) do
    gen all {a, b} <- types_of_two(types),
            [left, right] <- broadcastable(2),
            # Large integers and floats round differently in f32 and in f64.
            options = [small: not (a in integers() and b in integers())] ++ options,
            x = tensor(a, left, options),
            y = tensor(b, right, second ++ options),
            [x, y] <- some_vectorized(fixed_list([x, y])) do
      {x, y}
    end
  end

  # With complex numbers, f64 makes c128.
  defp types_of_two(types) do
    map(list_of(member_of(types), length: 2), fn
      [:c64, :f64] -> {:c64, :f32}
      [:f64, :c64] -> {:f32, :c64}
      [a, b] -> {a, b}
    end)
  end

  defp type(a, b), do: Nx.Type.merge(a.type, b.type)

  # Their last places are wide.
  defp close(type, options) when type in [:f8, :f8_e4m3fn], do: [ulps: 1] ++ options
  defp close({kind, 8}, options) when kind in [:f, :f8_e4m3fn], do: [ulps: 1] ++ options
  defp close(_type, options), do: options
end
